#!/usr/bin/env bash
# `retort generate`: one prompt, a file of prompts, stopping and going on.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

model=${RETORT_TEST_MODEL:-${RETORT_HOME:-$HOME/.cache/retort}/models/SmolLM2-135M-Instruct.Q4_1.gguf}
need_model() { [ -e "$model" ] || skip "the SmolLM2 model is not here: retort pull smollm2-135m-instruct"; }

rows() { # rows N: prompts of different lengths
    for i in $(seq "$1"); do
        printf '{"prompt": "Say something about the number %s."}\n' "$i"
    done
}

wrong_use_is_told_before_a_model_is_opened() {
    printf '{"prompt": "a"}\n{"prompt": 3}\n' >bad.jsonl
    expect_status 2 retort generate
    expect_status 2 retort generate nowhere.gguf --prompt a --prompts b
    expect_text "not both" "$err"
    expect_status 2 retort generate nowhere.gguf --prompts bad.jsonl
    expect_text "bad.jsonl:2: a row needs" "$err"
    expect_status 2 retort generate nowhere.gguf --prompt a --out b
    expect_status 2 retort generate nowhere.gguf --prompt a --top-p 2
    expect_text "top_p" "$err"
    : >empty.jsonl
    expect_status 2 retort generate nowhere.gguf --prompts empty.jsonl
    expect_text "holds no prompt" "$err"
    expect_status 1 retort generate nowhere.gguf --prompt a
    expect_text "nowhere.gguf" "$err"
}

greedy_answers_are_the_reference_ones() {
    need_model
    expect_status 0 retort generate "$model" --prompt "What is the capital of France?" --precision f32 --tokens-max 8
    expect_text "Paris" "$out"
    expect_text "tokens/s" "$err"
    answer=$out
    expect_status 0 retort generate "$model" --precision f32 --tokens-max 8 < <(printf 'What is the capital of France?')
    expect_equal "$answer" "$out"
    expect_status 0 retort generate "$model" --prompt "What is the capital of France?" --precision f32 --tokens-max 8 --json
    expect_text '"finish_reason": ' "$out"
    expect_text '"prompt_tokens": ' "$out"
}

many_prompts_get_the_answers_that_each_gets_alone() {
    need_model
    rows 5 >p.jsonl
    expect_status 0 retort generate "$model" --prompts p.jsonl --tokens-max 12 --out a.jsonl --slots 3 --temperature 0.8 --precision f32
    [ "$(wc -l <a.jsonl)" -eq 5 ]
    expect_status 0 retort generate "$model" --prompts p.jsonl --tokens-max 12 --out b.jsonl --slots 1 --temperature 0.8 --precision f32
    expect_equal "$(sort a.jsonl)" "$(sort b.jsonl)"
}

a_stopped_run_goes_on_and_a_half_written_row_is_dropped() {
    need_model
    rows 6 >p.jsonl
    expect_status 0 retort generate "$model" --prompts p.jsonl --tokens-max 8 --out whole.jsonl
    head -n 3 whole.jsonl >part.jsonl
    sed -n 4p whole.jsonl | head -c 25 >>part.jsonl
    expect_status 2 retort generate "$model" --prompts p.jsonl --tokens-max 8 --out part.jsonl
    expect_text "--resume goes on" "$err"
    expect_status 0 retort generate "$model" --prompts p.jsonl --tokens-max 8 --out part.jsonl --resume --json
    expect_text '"skipped": 3' "$out"
    expect_text '"answered": 3' "$out"
    expect_equal "$(sort whole.jsonl)" "$(sort part.jsonl)"
    rows 7 | tail -n 6 >other.jsonl
    expect_status 1 retort generate "$model" --prompts other.jsonl --tokens-max 8 --out part.jsonl --resume
    expect_text "is not an answer to these prompts" "$err"
}

an_interrupted_run_ends_with_status_4_and_loses_only_answers_in_flight() {
    need_model
    rows 200 >p.jsonl
    "$build_dir/retort" generate "$model" --prompts p.jsonl --tokens-max 60 --slots 2 --out a.jsonl 2>err.txt &
    pid=$!
    for _ in $(seq 300); do
        [ -s a.jsonl ] && break
        sleep 0.1
    done
    kill -TERM "$pid"
    status=0
    wait "$pid" || status=$?
    expect_equal 4 "$status"
    expect_text "--resume goes on" "$(cat err.txt)"
    kept=$(wc -l <a.jsonl)
    [ "$kept" -ge 1 ] && [ "$kept" -lt 200 ]
    head -n "$((kept + 2))" p.jsonl >fewer.jsonl
    expect_status 0 retort generate "$model" --prompts fewer.jsonl --tokens-max 4 --out a.jsonl --resume --json
    expect_text "\"skipped\": $kept" "$out"
}

a_prompt_longer_than_the_context_is_an_error_with_its_line() {
    need_model
    rows 3 >p.jsonl
    expect_status 2 retort generate "$model" --prompts p.jsonl --context 10
    expect_text "line 1 has" "$err"
}

a_full_disk_is_an_error() {
    need_model
    [ -w /dev/full ] || skip "there is no /dev/full here"
    rows 2 >p.jsonl
    status=0
    "$build_dir/retort" generate "$model" --prompts p.jsonl --tokens-max 4 >/dev/full 2>err.txt || status=$?
    expect_equal 1 "$status"
    expect_text "cannot be written" "$(cat err.txt)"
}

run_tests wrong_use_is_told_before_a_model_is_opened \
    greedy_answers_are_the_reference_ones \
    many_prompts_get_the_answers_that_each_gets_alone \
    a_stopped_run_goes_on_and_a_half_written_row_is_dropped \
    an_interrupted_run_ends_with_status_4_and_loses_only_answers_in_flight \
    a_prompt_longer_than_the_context_is_an_error_with_its_line \
    a_full_disk_is_an_error
