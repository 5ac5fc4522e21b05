#!/usr/bin/env bash
# The guard's pages in a real browser, on a server that goes on from the state of a replay.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

# Sixty-nine accounts, of which the first nine collect; the state of their replayed traffic.
make_state() {
    local i
    for i in $(seq 69); do retort account create "Account $i" --db accounts.db --json | jq -r .id; done >ids.txt
    operator=$(retort key create --admin support --db accounts.db --json | jq -r .secret)
    python3 -B "$source_dir/tests/serve/made_traffic.py" ids.txt traffic.jsonl
    echo '{"AS1": "residential"}' >asn.json
    retort guard replay traffic.jsonl --asn asn.json --state guard.state >found.jsonl
}

a_reviewer_finds_the_cluster_sees_why_and_decides() {
    command -v chromium >/dev/null || skip "chromium is not installed"
    make_state
    start_small_server --guard --guard-state guard.state
    timeout 300 python3 -B "$source_dir/tests/serve/browser_guard.py" "$admin" "$operator" "$(head -n 1 ids.txt)" \
        "$(sed -n 9p ids.txt)" "$PWD" >steps.txt || {
        cat steps.txt
        return 1
    }
    expect_text "ok no console errors" "$(cat steps.txt)"
    if [ -n "${RETORT_KEEP_PICTURES:-}" ]; then cp guard-*.png "$RETORT_KEEP_PICTURES"; fi
    # every decision is in the trail, with what it rests on, and the trail is whole
    expect_equal 8 "$(retort audit show --db accounts.db --json | jq '[.data[] | select(.action == "account.suspend")] | length')"
    expect_status 0 retort audit verify --db accounts.db
    curl -sS -H "Authorization: Bearer $operator" "$admin/v1/cases?account=$(head -n 1 ids.txt)" >cases.json
    expect_text 'req_' "$(jq -c '.data[-1].evidence' cases.json)"
}

what_a_page_asks_for_is_checked() {
    make_state
    start_small_server --guard --guard-state guard.state
    ask() { curl -sS -o answer.json -w '%{http_code}' -H "Authorization: Bearer $operator" "$@"; }
    expect_equal 401 "$(curl -sS -o /dev/null -w '%{http_code}' "$admin/v1/guard/review")"
    expect_equal 200 "$(ask "$admin/v1/guard/review?q=0.2")"
    expect_equal 400 "$(ask "$admin/v1/guard/review?q=7")"
    expect_equal 404 "$(ask "$admin/v1/guard/accounts/acc_nobody")"
    expect_equal 404 "$(ask "$admin/v1/guard/clusters/99999999")"
    expect_equal 404 "$(ask "$admin/v1/guard/clusters/0")"
    expect_equal 404 "$(ask "$admin/v1/guard/else")"
    expect_equal 405 "$(ask -X DELETE "$admin/v1/guard/clusters")"
    expect_equal 400 "$(ask -d '{}' "$admin/v1/guard/what-if")"
    expect_equal 400 "$(ask -d '{"policy": "slow: {p: 2}"}' "$admin/v1/guard/what-if")"
    expect_text 'slow.p' "$(cat answer.json)"
    expect_equal 200 "$(ask -d '{"policy": "slow: {p: 0.02}"}' "$admin/v1/guard/what-if")"
    expect_text '"rung":"suspension proposed"' "$(jq -c .rungs answer.json)"
}

run_tests a_reviewer_finds_the_cluster_sees_why_and_decides what_a_page_asks_for_is_checked
