#!/usr/bin/env bash
# The laboratory of docs/results-evidence.md in its smallest form: every step works, what is done is not done twice, and the page says
# what was measured and what was not.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

lab() {
    RETORT=$build_dir/retort RUN_DIR=$PWD/lab DOCS=$PWD/docs SCALE=smoke JOBS=1 RETORT_HOME=. expect_status 0 "$source_dir/scripts/results-evidence"
}

every_step_works_once_and_makes_the_page() {
    lab
    page=$(cat docs/results-evidence.md)
    expect_text 'all marked, open' "$page"
    expect_text '10% marked, open: log10 p <= -5, 5 of 5 | not run' "$page"
    expect_text '<polyline' "$(cat docs/results-evidence.svg)"
    # The mark is found where it was put, and nowhere else.
    expect_equal true "$(jq '[.detection[] | select(.scheme == "tournament")] | length == 2 and all(.found_all >= 0.5 and .false_alarms == 0)' docs/results-evidence.json)"
    expect_equal true "$(jq '[.repeated[]] | length == 3 and all(. > -3)' docs/results-evidence.json)"
    expect_equal true "$(jq '[.nulls[][].ks_p] | length == 15 and all(. > 1e-4)' docs/results-evidence.json)"
    expect_equal true "$(jq '(.students | length) == 2 and (.controls.pooled.students == 2) and (.twins | length) == 1' docs/results-evidence.json)"
    expect_equal true "$(jq '.speed.tokens > 1000 and .big_reading.places > 100 and .quality.text_ln_perplexity.n == 1' docs/results-evidence.json)"

    # Again: nothing is left to do but the page; with one record lost, that one is made again, with the same figures.
    lab
    expect_equal '' "$(grep '^==' out.txt)"
    jq -c '[.results[] | [.test, .z]]' lab/records/tournament-100-1.json >before
    rm lab/records/tournament-100-1.json
    lab
    expect_equal 1 "$(grep -c '^==' out.txt)"
    expect_equal "$(cat before)" "$(jq -c '[.results[] | [.test, .z]]' lab/records/tournament-100-1.json)"
}

a_wrong_word_or_scale_is_refused() {
    RUN_DIR=$PWD/lab expect_status 2 "$source_dir/scripts/results-evidence" pages
    expect_text "'page'" "$err"
    SCALE=huge RUN_DIR=$PWD/lab expect_status 2 "$source_dir/scripts/results-evidence"
    expect_text "full, quick or smoke" "$err"
    expect_equal no "$([ -e lab ] && echo yes || echo no)"
}

run_tests every_step_works_once_and_makes_the_page a_wrong_word_or_scale_is_refused
