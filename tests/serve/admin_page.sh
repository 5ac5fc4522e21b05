#!/usr/bin/env bash
# The operator's page in a real browser, on a server with two accounts.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

an_operator_logs_in_lists_suspends_restores_and_leaves() {
    command -v chromium >/dev/null || skip "chromium is not installed"
    local account key operator
    account=$(retort account create "Honest Ltd" --db accounts.db --json | jq -r .id)
    retort account create '<b>Bold & Co</b>' --db accounts.db --json >/dev/null
    key=$(retort key create "$account" --db accounts.db --json | jq -r .secret)
    operator=$(retort key create --admin support --db accounts.db --json | jq -r .secret)
    start_small_server
    for _ in 1 2 3; do
        curl -sS -o answer.json -H "Authorization: Bearer $key" -H 'Content-Type: application/json' \
            -d '{"prompt": "Once upon a time", "max_tokens": 8}' "$url/completions"
        expect_text '"choices"' "$(cat answer.json)"
    done
    timeout 300 python3 -B "$source_dir/tests/serve/browser.py" "$admin" "$operator" "Honest Ltd" "$PWD" >steps.txt || {
        cat steps.txt
        return 1
    }
    expect_text "ok no console errors" "$(cat steps.txt)"
    [ -s admin-phone.png ]
    if [ -n "${RETORT_KEEP_PICTURES:-}" ]; then cp admin-*.png "$RETORT_KEEP_PICTURES"; fi
}

the_page_forbids_foreign_scripts_and_frames_and_needs_no_cookie() {
    retort key create --admin read --db accounts.db --json >/dev/null
    start_small_server
    curl -sS -D head.txt -o page.html "$admin"
    expect_text "default-src 'none'; script-src 'self'" "$(cat head.txt)"
    expect_text "frame-ancestors 'none'" "$(cat head.txt)"
    if grep -qi '^set-cookie' head.txt; then return 1; fi
    if grep -qE 'style="|onclick=|<script>' page.html; then return 1; fi
    expect_equal 401 "$(curl -sS -o /dev/null -w '%{http_code}' "$admin/v1/live")"
    expect_equal 404 "$(curl -sS -o /dev/null -w '%{http_code}' "$admin/../etc/passwd" --path-as-is)"
}

run_tests an_operator_logs_in_lists_suspends_restores_and_leaves \
    the_page_forbids_foreign_scripts_and_frames_and_needs_no_cookie
