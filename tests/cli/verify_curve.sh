#!/usr/bin/env bash
# `retort verify curve`: the first steps of the reference distillation run on the real teacher.
# shellcheck source=testlib.sh disable=SC2154
. "$(dirname "$0")/../testlib.sh"

teacher=smollm2-135m-instruct
record=$source_dir/tests/golden/smollm2/kd_curve.json

have_teacher() { retort inspect "$teacher" >/dev/null 2>&1 || skip "the model $teacher was not pulled"; }

the_first_steps_follow_the_reference_run() {
    have_teacher
    expect_status 0 retort verify curve "$record" --model "$teacher" --steps 3
    expect_text "6 passed, 0 failed" "$out"
}

a_run_that_differs_fails_with_status_3() {
    have_teacher
    jq -c '.steps[0].loss *= 1.01' "$record" >other.json
    expect_status 3 retort verify curve other.json --model "$teacher" --steps 1
    expect_text "loss of step 0" "$out"
    expect_text "1 passed, 1 failed" "$out"
}

a_record_that_does_not_fit_is_one_sentence() {
    have_teacher
    jq -c '.layers = [0, 99]' "$record" >other.json
    expect_status 2 retort verify curve other.json --model "$teacher" --steps 1
    expect_text "layer 99" "$err"
    echo '{"ids": []}' >other.json
    expect_status 2 retort verify curve other.json --model "$teacher"
}

run_tests the_first_steps_follow_the_reference_run a_run_that_differs_fails_with_status_3 \
    a_record_that_does_not_fit_is_one_sentence
