#!/usr/bin/env bash
# Students whose tokenizer is not their teacher's: the recipe, every way, runs that go on, what is refused.
# shellcheck source=testlib.sh disable=SC2154
. "$(dirname "$0")/../testlib.sh"

teacher=$source_dir/data/teacher-small.gguf

make_text() {
    for i in $(seq 24); do
        printf '{"prompt": "question %d", "completion": "the answer to it is %d, and there is more to say", "finish_reason": "stop"}\n' \
            "$i" $((i * 7 % 11))
    done >text.jsonl
    retort tokenizer train text.jsonl "$source_dir/data/prompts.jsonl" --vocab 400 --like "$teacher" --out tokenizer >/dev/null
}

# The recipe of recipes/ on the small teacher.
across() {
    local run=$1
    shift
    retort distill "$source_dir/recipes/across-tokenizers.yaml" --run "$run" --quiet "teacher.model=$teacher" student.n_layers=2 \
        student.tokenizer=tokenizer 'data.train=[text.jsonl]' data.tokens_max=128 train.tokens=2560 train.batch_tokens=256 "$@"
}

first_loss() { head -n 1 "$1/log.jsonl" | jq .loss; }
last_loss() { tail -n 1 "$1/log.jsonl" | jq .loss; }

every_way_lowers_its_loss_and_writes_a_student() {
    make_text
    for way in map chunks uld text; do
        expect_status 0 across "$way" across.way=$way train.lr=3e-3
        awk -v a="$(first_loss "$way")" -v b="$(last_loss "$way")" 'BEGIN { exit !(b < a) }'
        expect_text "$([ "$way" = map ] && echo fkl || ([ "$way" = text ] && echo ce || echo "1 $way"))" "$(jq -c .recipe.loss "$way/run.json")"
    done
}

the_student_is_a_model_of_its_own() {
    make_text
    across run
    cmp <(retort tokenizer show run/student --json) <(retort tokenizer show tokenizer --json)
    expect_equal "$(retort tokenizer show tokenizer --json | jq -r .hash)" \
        "$(retort tokenizer show run/student.BF16.gguf --json | jq -r .hash)"
    jq -e '.vocab_size == 400' run/student/config.json
    expect_status 0 retort generate run/student --prompt 'question 3' --tokens-max 8 --temperature 0
    local folder=$out
    expect_status 0 retort generate run/student.BF16.gguf --prompt 'question 3' --tokens-max 8 --temperature 0
    expect_equal "$folder" "$out"
    # it goes on from there, and has its own tokens for a teacher of others
    expect_status 0 across again student.init=checkpoint student.model=run/student student.n_layers=0 student.tokenizer=own train.steps=2
    expect_status 1 across wrong student.init=checkpoint student.model=run/student student.n_layers=0 "student.tokenizer=''" train.steps=2
    expect_text "student.tokenizer: own teaches across tokenizers" "$err"
}

stopped_or_shared_out_it_gives_the_same_bytes() {
    make_text
    for way in map chunks; do
        rm -rf whole cut
        across whole across.way=$way train.threads=1
        "$build_dir/retort" distill "$source_dir/recipes/across-tokenizers.yaml" --run cut --quiet "teacher.model=$teacher" \
            student.n_layers=2 student.tokenizer=tokenizer 'data.train=[text.jsonl]' data.tokens_max=128 train.tokens=2560 \
            train.batch_tokens=256 across.way=$way train.threads=2 &
        pid=$!
        for _ in $(seq 1200); do
            [ -s cut/log.jsonl ] && break
            sleep 0.05
        done
        kill -INT "$pid" 2>/dev/null || true
        wait "$pid" || [ $? -eq 4 ]
        across cut across.way=$way train.threads=2
        cmp whole/student/model.safetensors cut/student/model.safetensors
    done
}

random_weights_and_text_alone_need_no_layers_of_the_teacher() {
    make_text
    across first
    jq '.num_hidden_layers = 1' first/student/config.json >config.json
    expect_status 0 across random student.init=random student.model=config.json student.n_layers=0 train.steps=2
    expect_status 0 across alone student.init=random student.model=config.json student.n_layers=0 train.steps=2 across.way=text \
        "teacher.model=''"
}

what_cannot_be_is_one_sentence() {
    make_text
    expect_status 2 across a student.tokenizer=own
    expect_text "student.tokenizer own is that of student.model" "$err"
    expect_status 2 across a student.init=checkpoint student.model="$teacher" student.n_layers=0
    expect_text "a checkpoint keeps its own" "$err"
    expect_status 2 across a teacher.store=store 'data.train=[]'
    expect_text "it teaches its text (across.way text)" "$err"
    expect_status 2 across a on_policy.share=0.5 on_policy.tokens_max=16
    expect_text "cannot be had with student.tokenizer" "$err"
    expect_status 2 across a across.way=chunks 'loss=[rkl]'
    expect_text "loss is only used with across.way map" "$err"
    expect_status 2 across a student.n_ff=64
    expect_text "in a run of its own" "$err"
    expect_status 2 across a adapters.rank=4
    expect_status 2 across a across.way=maps
    expect_text "map|chunks|uld|text" "$err$out"
    expect_status 1 across a student.tokenizer=nowhere
}

# Of one tokenizer bits a byte follow from the perplexity; a model of other tokens is judged on the same bytes.
models_of_any_tokens_are_judged_in_bits_a_byte() {
    make_text
    across run train.steps=2
    expect_status 0 retort eval --teacher "$teacher" --student same="$teacher" --student own=run/student --data text.jsonl --bits --json \
        --out bits.json
    jq -e '.documents == 24 and .left_out == 0 and .models.same.above_teacher.value == 0 and .models.own.above_teacher.value > 0 and
        .models.own.above_teacher.low > 0 and .models.own.bytes_per_token > .models.same.bytes_per_token' bits.json
    expect_status 0 retort eval --teacher "$teacher" --student "$teacher" --data text.jsonl --no-speed --json
    jq -e --slurpfile bits bits.json '((.models.teacher.perplexity.value | log2) / $bits[0].models.same.bytes_per_token) as $expected |
        ($bits[0].models.same.bits_per_byte.value - $expected | fabs) < 1e-3 * $expected' <<<"$out"
    expect_status 1 retort eval --teacher "$teacher" --student run/student --data text.jsonl --no-speed
    expect_text "do not have the same tokenizer" "$err"
    expect_text "--bits" "$err"
    expect_status 2 retort eval --teacher "$teacher" --student run/student --data text.jsonl --bits --tokens-max 4
    expect_text "no document is at most 4 tokens long" "$err"
}

run_tests every_way_lowers_its_loss_and_writes_a_student the_student_is_a_model_of_its_own \
    stopped_or_shared_out_it_gives_the_same_bytes random_weights_and_text_alone_need_no_layers_of_the_teacher \
    what_cannot_be_is_one_sentence models_of_any_tokens_are_judged_in_bits_a_byte
