#!/usr/bin/env bash
# A folder with story.json is told as a story: what a file says is text, and what is missing is left out.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

what_is_missing_is_left_out() {
    mkdir dir && echo '{}' >dir/story.json
    expect_status 0 retort report dir --json
    expect_equal dir/report.html "$(jq -r .out <<<"$out")"
    expect_text 'What this cannot say' "$(cat dir/report.html)"
    expect_equal 0 "$(grep -ciw proof dir/report.html)"
}

names_and_numbers_of_a_hostile_file_stay_text() {
    mkdir dir
    jq -n '{teacher: "<script>alert(1)</script>", taken: {answers: 3, start: "<b>"}, accounts: [{name: "<img src=x>", p: 1e-300, honest: 7}, 5],
        curves: [{name: "<svg>", x: [0, 1, 2], y: [0, 5, "a"], marks: [{x: 1, y: 2, what: "\"><script>"}]}, {x: [1], y: []}, null],
        events: [{minute: "x", why: ("<script>" * 200)}], suspects: [{name: "<i>", tests: [{test: "<u>", log10_p: -1e300}, {log10_p: -3}]}],
        identity: {a: 1}, by_account: [[]], losses: 3}' >dir/story.json
    expect_status 0 retort report dir
    expect_equal 0 "$(grep -cE '<(img|b|i|u)>|<img|<script>alert|"><script>' dir/report.html)"
    expect_text '&lt;img src=x&gt;' "$(cat dir/report.html)"
    echo '{"teacher": ' >dir/story.json
    expect_status 1 retort report dir
    expect_text story.json "$err"
}

run_tests what_is_missing_is_left_out names_and_numbers_of_a_hostile_file_stay_text
