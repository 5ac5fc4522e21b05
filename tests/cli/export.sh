#!/usr/bin/env bash
# `retort inspect` and `retort export`: what they say, what they write, what they refuse.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

engine=$source_dir/tests/golden/engine

inspect_names_family_sizes_and_types() {
    expect_status 0 retort inspect "$engine/gemma3"
    expect_text "gemma3" "$out"
    expect_text "2 layers, width 32, MLP 56, 4 heads (2 kv) of 16" "$out"
    expect_text "a window of 8 in 1 layers" "$out"
    expect_text "28 F32" "$out"
    expect_text "not stated" "$out"
    expect_status 0 retort inspect "$engine/gemma3" --json
    expect_text '"parameters": 26496' "$out"
}

inspect_describes_a_family_that_cannot_be_run() {
    cp -r "$engine/llama" other
    chmod u+w other other/*
    sed -i 's/"model_type": "llama"/"model_type": "mamba"/' other/config.json
    expect_status 0 retort inspect other
    expect_text "not by this build" "$out"
    expect_text "20 F32" "$out"
    rm -rf other
}

inspect_counts_experts() {
    expect_status 0 retort inspect "$engine/qwen3_moe"
    expect_text "2 of 8 experts of 24 in 2 layers" "$out"
    expect_text "69 F32" "$out"
    expect_status 0 retort inspect "$engine/deepseek_v3"
    expect_text "2 of 8 experts of 20 in 1 layers, 20 shared" "$out"
    expect_text "latents of 24 and 16" "$out"
    expect_status 0 retort inspect "$engine/deepseek_v3" --json
    expect_text '"active_parameters": 27064' "$out"
}

inspect_of_no_model_says_why() {
    expect_status 1 retort inspect nosuch
    expect_text "no file or folder nosuch" "$err"
    expect_status 1 retort inspect qwen2.5-coder
    expect_text "did you mean qwen2.5-coder-0.5b-instruct" "$err"
    echo "GGUF but short" >short.gguf
    expect_status 1 retort inspect short.gguf
    expect_text "short.gguf" "$err"
}

a_folder_goes_to_gguf_and_back_with_the_same_logits() {
    for family in llama qwen2 gemma3 gpt2 qwen3_moe deepseek_v3; do
        expect_status 0 retort export "$engine/$family" model.gguf
        expect_status 0 retort export model.gguf back
        cp "$engine/$family/vectors.safetensors" back
        expect_status 0 retort verify model back
        rm -rf back model.gguf
    done
}

the_lineage_grows_with_every_step() {
    retort export "$engine/llama" one.gguf --type Q8_0 >/dev/null 2>&1
    retort export one.gguf two >/dev/null 2>&1
    expect_text '"name": "llama"' "$(cat two/retort.json)"
    expect_text '"name": "one.gguf"' "$(cat two/retort.json)"
    expect_text '"sha256"' "$(cat two/retort.json)"
}

what_differs_from_what_was_asked_is_said() {
    expect_status 0 retort export "$engine/llama" model.gguf --type Q6_K
    expect_text "instead of Q6_K" "$err"
    expect_status 0 retort export "$engine/llama" model.gguf --type Q6_K --json
    expect_text "instead of Q6_K" "$out"
    expect_text "has no tokenizer" "$out"
    expect_equal "" "$err"
}

wrong_types_and_places_are_refused() {
    expect_status 2 retort export "$engine/llama" model.gguf --type Q9
    expect_status 2 retort export "$engine/llama" folder --type Q4_K
    expect_text "ends in .gguf" "$err"
    expect_status 1 retort export "$engine/llama" missing/model.gguf
    [ ! -e model.gguf ]
}

the_real_model_is_described_and_keeps_its_bytes() {
    model=${RETORT_TEST_MODEL:-${RETORT_HOME:-$HOME/.cache/retort}/models/SmolLM2-135M-Instruct.Q4_1.gguf}
    [ -e "$model" ] || skip "the model SmolLM2 is not in the cache"
    expect_status 0 retort inspect "$model"
    expect_text "134.5 M parameters" "$out"
    expect_text "210 Q4_1" "$out"
    expect_text "smollm, 49152 tokens" "$out"
    expect_text "apache-2.0" "$out"
    expect_status 0 retort export "$model" copy.gguf
    retort inspect "$model" --json | grep -v '"path"' >before
    retort inspect copy.gguf --json | grep -v '"path"' >after
    cmp before after
}

run_tests inspect_names_family_sizes_and_types \
    inspect_describes_a_family_that_cannot_be_run inspect_counts_experts \
    inspect_of_no_model_says_why \
    a_folder_goes_to_gguf_and_back_with_the_same_logits \
    the_lineage_grows_with_every_step \
    what_differs_from_what_was_asked_is_said \
    wrong_types_and_places_are_refused \
    the_real_model_is_described_and_keeps_its_bytes
