#!/usr/bin/env bash
# `retort distill` with a store as teacher, with features and with numbers that move; the recipes of the repository run.
# The teacher is the small one that ships with the project.
# shellcheck source=testlib.sh disable=SC2154
. "$(dirname "$0")/../testlib.sh"

teacher=$source_dir/data/teacher-small.gguf

make_store() {
    for i in $(seq 24); do
        printf '{"prompt": "question %d", "completion": "the answer to it is %d, and more", "finish_reason": "stop"}\n' "$i" $((i * 7 % 11))
    done >text.jsonl
    retort outputs record --model "$teacher" --data text.jsonl --out store --topk 8 --draws 12 --tokens-max 128 --quiet
    cat >recipe.yaml <<YAML
teacher: {model: $teacher, store: store}
student: {n_layers: 2}
data: {tokens_max: 128}
loss: [rskd]
train: {batch_tokens: 256, steps: 6, lr: 1e-3}
output: {types: []}
YAML
    cat >online.yaml <<YAML
teacher: {model: $teacher}
student: {n_layers: 2}
data: {train: text.jsonl, tokens_max: 128}
train: {batch_tokens: 256, steps: 6, lr: 1e-3}
output: {types: []}
YAML
}

a_store_trains_every_form_of_loss() {
    make_store
    for loss in rskd 'rskd self=yes' fkl 'fkl tail=renorm temperature=2' 'rkl tail=floor' 'jsd beta=0.3' tvd ce; do
        expect_status 0 retort distill recipe.yaml --run run --restart --quiet --no-export "loss=[$loss]"
        expect_equal 6 "$(wc -l <run/log.jsonl)"
    done
    expect_status 0 retort distill recipe.yaml --run run --restart --quiet --no-export "loss=[0.8..0.2 rskd, 0.2..0.8 ce]"
    expect_status 0 retort distill recipe.yaml --run run --restart --no-export
    expect_text "said by teacher-small.gguf" "$err"
}

a_run_from_a_store_that_is_killed_gives_the_same_bytes() {
    make_store
    retort distill recipe.yaml --run whole --quiet
    "$build_dir/retort" distill recipe.yaml --run cut train.checkpoint_minutes=0.0001 --quiet &
    pid=$!
    for _ in $(seq 200); do
        [ -s cut/checkpoint.safetensors ] && break
        sleep 0.02
    done
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    expect_status 0 retort distill recipe.yaml --run cut --quiet train.threads=1
    cmp whole/student/model.safetensors cut/student/model.safetensors
}

features_and_moving_numbers_resume_with_the_same_bytes() {
    make_store
    set -- 'loss=[taid adaptive=yes, 0.5..0 ce]' features.hidden=cosine 'features.relations=[q, k, v]' --quiet
    retort distill online.yaml --run whole "$@"
    grep -q '"taid_t"' whole/log.jsonl && grep -q '"features"' whole/log.jsonl
    status=0
    "$build_dir/retort" distill online.yaml --run cut train.checkpoint_minutes=0.0001 "$@" &
    pid=$!
    for _ in $(seq 200); do
        [ -s cut/checkpoint.safetensors ] && break
        sleep 0.02
    done
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    expect_status 0 retort distill online.yaml --run cut "$@"
    cmp whole/student/model.safetensors cut/student/model.safetensors
}

what_a_store_cannot_serve_is_refused_with_the_reason() {
    make_store
    expect_status 2 retort distill recipe.yaml --run run 'loss=[fkl temperature=2]'
    expect_text "cannot be had from their mass" "$err"
    expect_status 2 retort distill recipe.yaml --run run 'loss=[taid]'
    expect_text "teacher's logits of all ids" "$err"
    expect_status 2 retort distill recipe.yaml --run run 'loss=[rkl tail=renorm]'
    expect_text "is a form of fkl" "$err"
    expect_status 2 retort distill recipe.yaml --run run 'data.train=[text.jsonl]'
    expect_text "leave one of them out" "$err"
    expect_status 2 retort distill recipe.yaml --run run features.hidden=mse
    expect_text "teacher's inside" "$err"
    expect_status 2 retort distill online.yaml --run run 'loss=[rskd]'
    expect_text "only a store holds" "$err"
    expect_status 2 retort distill online.yaml --run run features.hiden=mse
    expect_text "features.hidden" "$err"
    retort outputs record --model "$teacher" --data text.jsonl --out drawn --draws 4 --tokens-max 128 --quiet
    expect_status 2 retort distill recipe.yaml --run run teacher.store=drawn 'loss=[fkl]'
    expect_text "drawn ids only" "$err"
    expect_status 1 retort distill recipe.yaml --run run teacher.store=nowhere
    expect_text "nowhere" "$err"
    [ ! -e run/log.jsonl ]
}

another_template_or_vocabulary_is_named() {
    make_store
    command -v python3 >/dev/null || skip "python3 is not installed"
    retort distill online.yaml --run made --init-only --quiet
    # the same tokenizer in a folder, with another template
    python3 - <<'PYTHON'
import json
path = "made/student/tokenizer_config.json"
config = json.load(open(path))
config["chat_template"] = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
json.dump(config, open(path, "w"))
PYTHON
    rm -f made/student/chat_template.jinja
    cat >other.yaml <<'YAML'
teacher: {store: store}
student: {init: checkpoint, model: made/student}
data: {tokens_max: 128}
loss: [rskd]
train: {batch_tokens: 256, steps: 2}
output: {types: []}
YAML
    expect_status 1 retort distill other.yaml --run run
    expect_text "another chat template" "$err"
    expect_status 0 retort distill other.yaml --run run --quiet 'teacher.accept=[template]'
    expect_status 2 retort distill other.yaml --run run --quiet 'teacher.accept=[all]'
}

a_damaged_store_stops_the_run_before_it_learns_from_it() {
    make_store
    file=$(find store -name '*.rls' | head -n 1)
    size=$(stat -c %s "$file")
    printf '\377\377\377\377' | dd of="$file" bs=1 seek=$((size / 3)) conv=notrunc 2>/dev/null
    status=0
    retort distill recipe.yaml --run run --quiet 2>err.txt || status=$?
    [ "$status" -eq 1 ]
    expect_equal 1 "$(wc -l <err.txt)"
}

rows_as_collect_writes_them_train() {
    make_store
    printf '{"request": {"messages": [{"role": "user", "content": "say"}], "seed": 1}, "response": "a word", "finish_reason": "stop"}\n' >rows.jsonl
    printf '{"request": {"prompt": "say"}, "response": "another", "finish_reason": "length"}\n' >>rows.jsonl
    expect_status 0 retort distill online.yaml --run run 'data.train=[rows.jsonl]' 'loss=[ce]' train.steps=2 --no-export
    expect_text "2 documents" "$err"
    printf '{"request": {"temperature": 1}, "response": "a word"}\n' >rows.jsonl
    expect_status 2 retort distill online.yaml --run run2 'data.train=[rows.jsonl]' 'loss=[ce]'
    expect_text "rows.jsonl: line 1" "$err"
}

the_recipes_of_the_repository_run() {
    make_store
    for recipe in white-box offline on-policy reasoning; do
        retort distill "$source_dir/recipes/$recipe.yaml" --print-recipe >/dev/null
        extra=(data.train=text.jsonl student.n_layers=2)
        [ "$recipe" = offline ] && extra=(teacher.store=store student.n_layers=2)
        [ "$recipe" = on-policy ] && extra=(data.train=text.jsonl "student.model=$teacher" on_policy.tokens_max=16)
        [ "$recipe" = reasoning ] && extra=(data.train=text.jsonl "student.model=$teacher" "teacher.model=''")
        expect_status 0 retort distill "$source_dir/recipes/$recipe.yaml" --run "run-$recipe" --quiet "teacher.model=$teacher" \
            data.tokens_max=128 train.batch_tokens=256 train.steps=3 'output.types=[]' "${extra[@]}"
        [ -s "run-$recipe/student/model.safetensors" ]
    done
}

run_tests a_store_trains_every_form_of_loss a_run_from_a_store_that_is_killed_gives_the_same_bytes \
    features_and_moving_numbers_resume_with_the_same_bytes what_a_store_cannot_serve_is_refused_with_the_reason \
    another_template_or_vocabulary_is_named a_damaged_store_stops_the_run_before_it_learns_from_it \
    rows_as_collect_writes_them_train the_recipes_of_the_repository_run
