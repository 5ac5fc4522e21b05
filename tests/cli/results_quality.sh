#!/usr/bin/env bash
# docs/results-quality.md in its smallest form: pairs of students, marked and unmarked; what is done is not done twice.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

measure() {
    RETORT=$build_dir/retort RUN_DIR=$PWD/run DOCS=$PWD/docs SCALE=smoke PAIRS=2 TOKENS=1500 ARMS="marked account" RETORT_HOME=. \
        expect_status 0 "$source_dir/scripts/results-quality"
}

pairs_of_students_are_measured_once() {
    measure
    expect_equal true "$(jq '(.arms | keys) == ["account", "marked"] and all(.arms[]; .kl.n == 2 and .kl.low < .kl.high)' docs/results-quality.json)"
    # Both learnt as much; the mark stands in the text, and one key differs from the other.
    expect_equal true "$(jq '.arms.marked.detection | .answers == 60 and .found >= 0.5' docs/results-quality.json)"
    expect_equal true "$(jq '[.arms.marked.pairs[] | .kl_plain] | .[0] != .[1] and all(. > 0.01)' docs/results-quality.json)"
    expect_equal true "$(jq '.arms.marked.evidence | length == 2 and all(.places > 100)' docs/results-quality.json)"
    page=$(cat docs/results-quality.md)
    expect_text 'students, wide (a context of four tokens) | not run' "$page"
    expect_text 'start from the same 3 of its layers' "$page"

    measure
    expect_equal '' "$(grep '^==' out.txt)"
    cp docs/results-quality.json before.json
    rm run/records/marked-2.json
    measure
    expect_equal 1 "$(grep -c '^==' out.txt)"
    expect_equal '' "$(cmp before.json docs/results-quality.json)"
}

a_wrong_word_scale_or_arm_is_refused() {
    RUN_DIR=$PWD/run expect_status 2 "$source_dir/scripts/results-quality" pages
    expect_text "'page'" "$err"
    SCALE=huge RUN_DIR=$PWD/run expect_status 2 "$source_dir/scripts/results-quality"
    expect_text "full or smoke" "$err"
    ARMS=narrow RUN_DIR=$PWD/run expect_status 2 "$source_dir/scripts/results-quality"
    expect_text "marked, account and wide" "$err"
    expect_equal no "$([ -e run ] && echo yes || echo no)"
}

run_tests pairs_of_students_are_measured_once a_wrong_word_scale_or_arm_is_refused
