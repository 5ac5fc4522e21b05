#!/usr/bin/env bash
# `retort verify tokenizer`: rows are compared one by one; the shared vectors where they are there.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

model=${RETORT_TEST_MODEL:-${RETORT_HOME:-$HOME/.cache/retort}/models/SmolLM2-135M-Instruct.Q4_1.gguf}

rows_of_a_tokenizer_file_are_compared_one_by_one() {
    [ -f "$model" ] || skip "the model $(basename "$model") is not in the cache"
    printf '%s\n' '{"text": "Hello world 12", "parse_special": false, "ids": [19556, 905, 216, 33, 34]}' \
        '{"text": "Hello", "parse_special": false, "ids": [1]}' \
        '{"hex": "4180", "replaced_text": "A\ufffd", "replaced_ids": [49, 24211]}' >rows.jsonl
    expect_status 3 retort verify tokenizer rows.jsonl --model "$model" --json
    expect_text '"passed": 2' "$out"
    expect_text '"failed": 1' "$out"
    expect_text 'line 2: the ids differ' "$out"
    echo '{"text": 1}' >rows.jsonl
    expect_status 1 retort verify tokenizer rows.jsonl --model "$model"
    expect_text "rows.jsonl:1: needs a text and its ids" "$err"
    : >rows.jsonl
    expect_status 2 retort verify tokenizer rows.jsonl --model "$model"
}

the_tokenizer_agrees_with_the_shared_vectors() {
    shared=${RETORT_SHARED:-$source_dir/../shared}/golden/tokenizer
    [ -d "$shared" ] || skip "the shared folder golden/tokenizer is not there"
    [ -f "$model" ] || skip "the model $(basename "$model") is not in the cache"
    for what in strings chat malformed_utf8; do
        expect_status 0 retort verify tokenizer "$shared/smollm2_$what.jsonl.zst" --model "$model" --json
        expect_text '"failed": 0' "$out"
    done
    tar -xf "$shared/vocab/vocab.tar.xz"
    for vocabulary in *.gguf; do
        expect_status 0 retort verify tokenizer "$shared/vocab/$vocabulary.inp" --model "$vocabulary"
    done
}

run_tests rows_of_a_tokenizer_file_are_compared_one_by_one \
    the_tokenizer_agrees_with_the_shared_vectors
