#!/usr/bin/env bash
# `retort verify`: kinds, exit statuses, JSON.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

golden=$source_dir/tests/golden

a_family_passes_in_both_precisions_with_json_that_names_the_worst() {
    expect_status 0 retort verify model "$golden/engine/llama" --json
    expect_text '"passed": 50' "$out"
    expect_text '"failed": 0' "$out"
    expect_text '"name": "' "$out"
    expect_text '"tolerance": ' "$out"
    expect_status 0 retort verify model "$golden/engine/gpt2" --precision f32
    expect_text "33 passed, 0 failed" "$out"
}

a_changed_vector_fails_with_exit_status_3() {
    cp -r "$golden/engine/llama" changed
    # the last byte of a float64 holds its sign: the last tensor's last value is turned round
    size=$(stat -c %s changed/vectors.safetensors)
    byte=$(od -An -tu1 -j $((size - 1)) -N 1 changed/vectors.safetensors)
    # shellcheck disable=SC2059
    printf "\\x$(printf %x $((byte ^ 128)))" | dd of=changed/vectors.safetensors bs=1 seek=$((size - 1)) conv=notrunc status=none
    expect_status 3 retort verify model changed --json
    expect_text '"failed": ' "$out"
    expect_status 3 retort verify model changed
    expect_text "failed" "$out"
}

experts_and_latents_agree_with_their_vectors() {
    for family in qwen3_moe deepseek_v3; do
        expect_status 0 retort verify model "$golden/engine/$family" --json
        expect_text '"failed": 0' "$out"
    done
}

losses_are_a_kind_too() {
    expect_status 0 retort verify losses "$golden/losses" --json
    expect_text '"failed": 0' "$out"
}

wrong_kinds_and_folders_are_told_apart() {
    expect_status 2 retort verify
    expect_status 2 retort verify modl "$golden/engine/llama"
    expect_text "did you mean 'model'" "$err"
    expect_status 2 retort verify smollm2 "$golden/smollm2"
    expect_text "--model is missing" "$err"
    expect_status 1 retort verify model ./nowhere
    expect_text "nowhere" "$err"
}

the_real_model_agrees_in_float32() {
    model=${RETORT_TEST_MODEL:-${RETORT_HOME:-$HOME/.cache/retort}/models/SmolLM2-135M-Instruct.Q4_1.gguf}
    [ -e "$model" ] || skip "the SmolLM2 model is not here: retort pull smollm2-135m-instruct"
    expect_status 0 retort verify smollm2 "$golden/smollm2" --model "$model" --json
    expect_text '"passed": 32' "$out"
    expect_text '"failed": 0' "$out"
}

run_tests a_family_passes_in_both_precisions_with_json_that_names_the_worst \
    a_changed_vector_fails_with_exit_status_3 \
    experts_and_latents_agree_with_their_vectors \
    losses_are_a_kind_too \
    wrong_kinds_and_folders_are_told_apart \
    the_real_model_agrees_in_float32
