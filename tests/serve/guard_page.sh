#!/usr/bin/env bash
# The guard's pages in a real browser, on a server that goes on from the state of a replay.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

# Seventy-seven accounts, of which the first seventeen collect; the state of their replayed traffic.
make_state() {
    local i
    for i in $(seq 77); do retort account create "Account $i" --db accounts.db --json | jq -r .id; done >ids.txt
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
        "$(sed -n 17p ids.txt)" "$PWD" >steps.txt || {
        cat steps.txt
        return 1
    }
    expect_text "ok no console errors" "$(cat steps.txt)"
    if [ -n "${RETORT_KEEP_PICTURES:-}" ]; then cp guard-*.png "$RETORT_KEEP_PICTURES"; fi
    # every decision is in the trail, with what it rests on, and the trail is whole
    expect_equal 16 "$(retort audit show --limit 1000 --db accounts.db --json | jq '[.data[] | select(.action == "account.suspend")] | length')"
    expect_status 0 retort audit verify --db accounts.db
    curl -sS -H "Authorization: Bearer $operator" "$admin/v1/cases?account=$(head -n 1 ids.txt)" >cases.json
    expect_text 'req_' "$(jq -c '.data[-1].evidence' cases.json)"
}

what_a_page_asks_for_is_checked() {
    make_state
    start_small_server --guard --guard-state guard.state
    ask() { curl -sS -o answer.json -w '%{http_code}' -H "Authorization: Bearer $operator" -H 'Content-Type: application/json' "$@"; }
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

two_reviewers_of_one_cluster_do_not_decide_twice() {
    make_state
    start_small_server --guard --guard-state guard.state
    get() { curl -sS -H "Authorization: Bearer $operator" "$admin/v1/guard/$1"; }
    local number id said
    get review >first.json
    number=$(jq '.items[0].id' first.json)
    get "clusters/$number" >second.json
    expect_equal '[null]' "$(jq -c '[.items[0].accounts[].case] | unique' first.json)"
    expect_equal '[null]' "$(jq -c '[.members[].case] | unique' second.json)"
    decide() { jq -c --arg id "$3" '[.. | objects | select(.account? == $id)][0] | {reason: "bulk", note: "a mistake", seen: (.case // "")}' "$2" >body.json; post "$admin/v1/accounts/$3/$1" @body.json; }
    for id in $(jq -r '.items[0].accounts[].account' first.json); do
        expect_equal 200 "$(decide suspend first.json "$id")"
        expect_equal 409 "$(decide suspend second.json "$id")"
        expect_text "was decided about since you looked: it is suspended" "$(cat answer.json)"
    done
    # who looks again sees the cases, and may decide on
    get "clusters/$number" >again.json
    said=$(jq -r '.members[0].case' again.json)
    expect_text 'case_' "$said"
    expect_equal 200 "$(decide reinstate again.json "$(jq -r '.members[0].account' again.json)")"
}

# usage: post PATH JSON [KEY]: the status; the answer is in answer.json
post() {
    curl -sS -o answer.json -w '%{http_code}' -X POST -H "Authorization: Bearer ${3:-$operator}" -H 'Content-Type: application/json' \
        -d "$2" "$1"
}

from_suspicion_to_suspension_to_appeal_to_reinstatement() {
    make_state
    local member key chat='{"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}'
    member=$(head -n 1 ids.txt)
    key=$(retort key create "$member" --db accounts.db --json | jq -r .secret)
    honest=$(retort key create "$(sed -n 40p ids.txt)" --db accounts.db --json | jq -r .secret)
    start_small_server --guard --guard-state guard.state
    # the rule alone challenges and proposes; suspending is for a person
    expect_equal 403 "$(post "$url/chat/completions" "$chat" "$key")"
    expect_text account_challenged "$(cat answer.json)"
    expect_equal 200 "$(post "$url/chat/completions" "$chat" "$honest")"
    curl -sS -H "Authorization: Bearer $operator" "$admin/v1/guard/accounts/$member" >account.json
    expect_equal true "$(jq .proposed account.json)"
    expect_equal 16 "$(jq .linked.size account.json)"
    # a person decides, with the ids of requests as evidence
    expect_equal 200 "$(post "$admin/v1/accounts/$member/suspend" "$(jq '{reason: "one operator, sixteen accounts", public_reason: "bulk collection of answers",
        evidence: [.history.exemplars[].request]}' account.json)")"
    expect_equal 403 "$(post "$url/chat/completions" "$chat" "$key")"
    expect_text account_suspended "$(cat answer.json)"
    case_id=$(grep -oE 'case_[A-Za-z0-9]+' answer.json | head -n 1)
    expect_text "bulk collection of answers" "$(cat answer.json)"
    # the account appeals, once at a time; a reviewer decides, once
    expect_equal 201 "$(post "$url/account/appeals" '{"statement": "A research project of our university."}' "$key")"
    expect_equal "$case_id" "$(jq -r .case answer.json)"
    expect_equal 409 "$(post "$url/account/appeals" '{"statement": "Again."}' "$key")"
    expect_equal 200 "$(post "$admin/v1/cases/$case_id/decide" '{"outcome": "uphold", "note": "No project was named."}')"
    expect_equal 409 "$(post "$admin/v1/cases/$case_id/decide" '{"outcome": "reinstate", "note": "Second thoughts."}')"
    expect_text "decided already (uphold" "$(cat answer.json)"
    expect_equal 201 "$(post "$url/account/appeals" '{"statement": "The project is X."}' "$key")"
    expect_equal 200 "$(post "$admin/v1/cases/$case_id/decide" '{"outcome": "reinstate", "note": "The university confirms it."}')"
    expect_equal active "$(curl -sS -H "Authorization: Bearer $key" "$url/account" | jq -r .state)"
    # all of it is in the trail, and in the record
    for action in account.suspend appeal.open case.decide; do
        expect_text "$action" "$(retort audit show --limit 1000 --db accounts.db)"
    done
    expect_status 0 retort audit verify --db accounts.db
    kill "$server_pid" && wait "$server_pid" || true
    trap - EXIT
    expect_status 0 retort guard report guard.state --db accounts.db --out guard.html
    expect_text "The university confirms it." "$(cat guard.html)"
    expect_text "The audit trail is whole" "$(cat guard.html)"
}

run_tests from_suspicion_to_suspension_to_appeal_to_reinstatement a_reviewer_finds_the_cluster_sees_why_and_decides two_reviewers_of_one_cluster_do_not_decide_twice what_a_page_asks_for_is_checked
