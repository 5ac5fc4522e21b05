#!/usr/bin/env bash
# `retort bench`: what it prints; figures are not judged here.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

model=${RETORT_TEST_MODEL:-${RETORT_HOME:-$HOME/.cache/retort}/models/SmolLM2-135M-Instruct.Q4_1.gguf}
need_model() { [ -e "$model" ] || skip "the SmolLM2 model is not here: retort pull smollm2-135m-instruct"; }

the_limits_are_figures_of_their_own() {
    expect_status 0 retort bench gemm --json
    for key in f32_gflops bf16_gflops int8_gops read_gb_per_s; do
        expect_text "\"$key\": " "$out"
    done
    expect_status 0 retort bench gemm
    expect_text "products, bf16" "$out"
}

decoding_and_prefill_stand_beside_their_limits() {
    need_model
    expect_status 0 retort bench decode --model "$model" --runs 1 --tokens 64 --json
    for name in "decoding, short context" "decoding after the prefill's tokens" "batch 16 over batch 1"; do
        expect_text "\"name\": \"$name\"" "$out"
    done
    expect_text '"share": ' "$out"
    expect_status 0 retort bench prefill --model "$model" --runs 1 --tokens 64
    expect_text "tokens/s" "$out"
}

a_training_step_says_its_speed_and_memory() {
    need_model
    expect_status 0 retort bench train --model "$model" --layers 1 --runs 1 --json
    expect_text '"name": "training step, teacher in int8"' "$out"
    expect_text '"bar": "share at least"' "$out"
    expect_text '"unit": "GiB"' "$out"
}

a_step_of_adapters_stands_beside_the_whole_one() {
    local small=$source_dir/data/teacher-small.gguf
    expect_status 0 retort bench train --model "$small" --layers 2 --runs 1 --lora 4 --json
    expect_text '"name": "training step, teacher in int8"' "$out"
    expect_text '"name": "training step of LoRA adapters"' "$out"
    expect_text '"name": "memory of LoRA' "$out"
    # two layers' seven matrices: rank x (rows + columns) of each
    local trained=$((4 * 2 * (2 * (256 + 256) + 2 * (256 + 128) + 3 * (256 + 704))))
    printf '%s' "$out" | jq -e --argjson n "$trained" '[.. | objects | select(.name? == "values that LoRA trains")][0].value * 1e6 - $n | fabs < 1'
    expect_status 2 retort bench train --model "$small" --layers 1 --runs 1 --lora 100000
    expect_text "bench: --lora" "$err"
}

what_the_guard_costs_stands_beside_its_bars() {
    expect_status 0 retort bench guard --json
    for name in "guard: a request, p50" "guard: a request, p99" "guard: an account" "guard: a sweep over 100,000 accounts"; do
        expect_text "\"name\": \"$name\"" "$out"
    done
    expect_text '"bar": "at most"' "$out"
}

a_store_is_read_and_taken_away() {
    mkdir tmp
    TMPDIR=$PWD/tmp expect_status 0 retort bench outputs --runs 1 --json
    expect_text '"name": "reading a store, top 50"' "$out"
    expect_equal "" "$(ls tmp)"
}

the_start_is_that_of_generate() {
    need_model
    expect_status 0 retort bench start --model "$model" --runs 1
    expect_text "start to the first token" "$out"
}

wrong_use_is_told() {
    expect_status 2 retort bench prefil
    expect_text "did you mean 'prefill'" "$err"
    expect_status 2 retort bench gemm --runs 0
    expect_status 1 retort bench decode --model nowhere.gguf
    expect_text "nowhere.gguf" "$err"
    need_model
    expect_status 2 retort bench train --model "$model" --layers 31
    expect_status 2 retort bench decode --model "$model" --tokens 100000
}

run_tests the_limits_are_figures_of_their_own \
    decoding_and_prefill_stand_beside_their_limits \
    a_training_step_says_its_speed_and_memory a_step_of_adapters_stands_beside_the_whole_one \
    what_the_guard_costs_stands_beside_its_bars a_store_is_read_and_taken_away \
    the_start_is_that_of_generate \
    wrong_use_is_told
