#!/usr/bin/env bash
# `retort distill` with a student that is cut out of its teacher: layers by what they do, and narrower ones.
# shellcheck source=testlib.sh disable=SC2154
. "$(dirname "$0")/../testlib.sh"

teacher=$source_dir/data/teacher-small.gguf
small=(teacher.model="$teacher" teacher.precision=f32 'data.train=[text.jsonl]' data.tokens_max=96 train.batch_tokens=256 train.steps=6
    student.survey_tokens=1K)

make_text() {
    for i in $(seq 60); do
        printf '{"prompt": "question %d", "completion": "the answer to it is %d, and there is more to say", "finish_reason": "stop"}\n' \
            "$i" $((i * 7 % 11))
    done >text.jsonl
}

# prune RUN WORD...: the repository's recipe on the small teacher
prune() {
    local run=$1
    shift
    retort distill "$source_dir/recipes/prune.yaml" --run "$run" --quiet "${small[@]}" "$@"
}

narrow=(student.n_layers=3 student.n_ff=352 student.n_heads_kv=1 student.n_embd=192)

the_recipe_cuts_trains_and_writes_what_others_read() {
    make_text
    prune run "${narrow[@]}" student.choice=influence
    expect_equal '[3,192,352,2,1,64]' "$(jq -c '[.num_hidden_layers, .hidden_size, .intermediate_size, .num_attention_heads,
        .num_key_value_heads, .head_dim]' run/student/config.json)"
    jq -e '.survey | .tokens >= 1024 and .seed == 1 and .text == ["text.jsonl"] and .n_ff == 352 and (.influence | length) == 4' \
        run/run.json
    # the layers are those of the largest influence, with the first and the last
    jq -e '.survey.influence as $i | .recipe.layers == ([0, 3] + [if $i[1] > $i[2] then 1 else 2 end] | sort)' run/run.json
    expect_equal 6 "$(wc -l <run/log.jsonl)"
    # what is trained predicts its teacher better than the first step found it
    jq -se 'last.kl < first.kl' run/log.jsonl
    for model in run/student run/student.Q8_0.gguf run/student.BF16.gguf; do
        expect_status 0 retort inspect $model
        expect_text "3 layers, width 192, MLP 352, 2 heads (1 kv) of 64" "$out"
        expect_status 0 retort generate $model --prompt "question 3" --tokens-max 4
    done
}

a_cut_is_a_better_start_than_random_weights() {
    make_text
    prune cut student.n_layers=4 student.n_ff=480 --init-only
    cat >random.yaml <<YAML
teacher: {model: $teacher}
student: {init: random, model: cut/student}
data: {train: [text.jsonl], tokens_max: 96}
train: {batch_tokens: 256}
output: {types: []}
YAML
    retort distill random.yaml --run random --init-only --quiet
    retort eval --teacher "$teacher" --student cut=cut/student --student random=random/student --data text.jsonl --no-speed --json \
        >eval.json
    jq -e '.models | .cut.kl_teacher_student.high < .random.kl_teacher_student.low / 2' eval.json
}

stopped_or_shared_out_it_gives_the_same_bytes() {
    make_text
    prune one "${narrow[@]}" train.threads=1
    prune two "${narrow[@]}" train.threads=2
    cmp one/student/model.safetensors two/student/model.safetensors
    "$build_dir/retort" distill "$source_dir/recipes/prune.yaml" --run cut --quiet "${small[@]}" "${narrow[@]}" \
        train.checkpoint_minutes=0.0001 &
    pid=$!
    for _ in $(seq 400); do
        [ -s cut/checkpoint.safetensors ] && break
        sleep 0.02
    done
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    prune cut "${narrow[@]}"
    cmp one/student/model.safetensors cut/student/model.safetensors
    # a packed teacher is opened once more for the look inside
    prune packed "${narrow[@]}" teacher.precision=int8 train.steps=1
}

a_store_and_a_streamed_teacher_give_text_to_look_at() {
    make_text
    expect_status 0 retort outputs record --model "$teacher" --data text.jsonl --out store --draws 8 --precision f32
    prune stored "${narrow[@]}" teacher.store=store 'data.train=[]' 'loss=[rskd]' train.steps=2
    jq -e '.survey.text == ["store"]' stored/run.json
    prune streamed student.n_layers=2 student.choice=influence student.n_ff=0 teacher.stream=yes train.steps=1
    prune plain student.n_layers=2 student.choice=influence student.n_ff=0 train.steps=1
    cmp streamed/student/model.safetensors plain/student/model.safetensors
}

adapters_stand_on_layers_that_were_chosen() {
    make_text
    prune run student.n_layers=2 student.choice=influence student.n_ff=0 adapters.rank=4 train.steps=2
    expect_status 2 prune run2 adapters.rank=4
    expect_text "with --init-only first" "$err"
}

cuts_that_cannot_be_made_are_one_sentence() {
    make_text
    expect_status 2 prune a student.n_layers=4 student.n_ff=705
    expect_text "student.n_ff: 705 is more than the teacher's 704" "$err"
    expect_status 2 prune a student.n_layers=4 student.n_ff=352 student.n_heads=3
    expect_text "3 heads on 2 kv heads" "$err"
    expect_status 2 prune a student.n_layers=1 student.choice=influence student.n_ff=0
    expect_text "the first and the last" "$err"
    expect_status 2 prune a student.n_layers=0 'student.layers=[0, 1]' student.choice=influence student.n_ff=0
    expect_text "leave one of them out" "$err"
    expect_status 2 prune a student.init=checkpoint student.model="$teacher" student.n_layers=0
    expect_text "only used with student.init layers" "$err"
    expect_status 2 prune a student.n_fff=3
    expect_text "student.n_ff" "$err"
}

an_embedding_in_two_factors_is_whole_in_the_students_files() {
    make_text
    prune run student.n_layers=4 student.n_ff=480 student.embd_rank=24 train.checkpoint_minutes=0.0001
    # 272 x 256 give way to 24 x (272 + 256)
    local all trained
    all=$(jq .student.parameters run/run.json) trained=$(jq .student.trained run/run.json)
    awk -v d=$((all - trained)) 'BEGIN { w = 272 * 256 - 24 * 528; exit !(d > w - 64 && d < w + 64) }'
    jq -se 'last.kl < first.kl' run/log.jsonl
    retort inspect run/student --json | jq -e '.shape | .n_vocab == 272 and .n_embd == 256 and .tied'
    for model in run/student run/student.Q8_0.gguf; do expect_status 0 retort generate $model --prompt "question 3" --tokens-max 4; done
    # folder and GGUF hold the same product
    retort generate run/student --prompt "question 3" --temperature 0 --tokens-max 12 >folder.txt
    retort generate run/student.BF16.gguf --prompt "question 3" --temperature 0 --tokens-max 12 >gguf.txt
    cmp folder.txt gguf.txt
    # stopped after a checkpoint, with other threads: the same bytes
    "$build_dir/retort" distill "$source_dir/recipes/prune.yaml" --run stopped --quiet "${small[@]}" student.n_layers=4 \
        student.n_ff=480 student.embd_rank=24 train.checkpoint_minutes=0.0001 train.threads=1 &
    pid=$!
    for _ in $(seq 400); do
        [ -s stopped/checkpoint.safetensors ] && break
        sleep 0.02
    done
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    prune stopped student.n_layers=4 student.n_ff=480 student.embd_rank=24 train.checkpoint_minutes=0.0001
    cmp run/student/model.safetensors stopped/student/model.safetensors
    # with a narrower student, and with drawn weights
    prune narrow "${narrow[@]}" student.embd_rank=24
    printf '%s\n' "teacher: {model: $teacher}" "student: {init: random, model: run/student, embd_rank: 24}" \
        'data: {train: [text.jsonl], tokens_max: 96}' 'train: {batch_tokens: 256, steps: 2}' 'output: {types: []}' >random.yaml
    expect_status 0 retort distill random.yaml --run random --quiet
    expect_status 2 prune no student.n_layers=4 student.n_ff=480 student.embd_rank=132
    expect_text "only below rank 132" "$err"
    expect_status 2 prune no student.n_layers=4 student.n_ff=0 student.embd_rank=24 adapters.rank=4
    expect_text "adapters leave the embedding as it is" "$err"
}

run_tests the_recipe_cuts_trains_and_writes_what_others_read a_cut_is_a_better_start_than_random_weights \
    stopped_or_shared_out_it_gives_the_same_bytes a_store_and_a_streamed_teacher_give_text_to_look_at \
    adapters_stand_on_layers_that_were_chosen cuts_that_cannot_be_made_are_one_sentence \
    an_embedding_in_two_factors_is_whole_in_the_students_files
