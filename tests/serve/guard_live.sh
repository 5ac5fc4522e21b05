#!/usr/bin/env bash
# The guard beside a live server: rungs are taken, answers change, a person's word holds, a replay says the same.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

stop_server() {
    kill "$server_pid"
    wait "$server_pid" || true
    trap - EXIT
}

make_accounts() {
    account=$(retort account create "Some Account" --db accounts.db --json | jq -r .id)
    key=$(retort key create "$account" --db accounts.db --json | jq -r .secret)
    operator=$(retort key create --admin support --db accounts.db --json | jq -r .secret)
}

# usage: ask NUMBER [JSON MEMBERS]: the status of an honest chat request
ask() {
    local prompt="Where is my parcel number $1? It should have come on Monday."
    curl -sS -o answer.json -w '%{http_code}' -H "Authorization: Bearer $key" -H 'Content-Type: application/json' \
        -d "$(jq -nc --arg p "$prompt" --argjson more "${2:-{\}}" \
            '{messages: [{role: "user", content: $p}], max_tokens: 2} + $more')" "$url/chat/completions"
}

admin() {
    curl -sS -H "Authorization: Bearer $operator" "$admin/v1/$1"
}

# Waits until the account has the rung.
await_rung() {
    for _ in $(seq 100); do
        [ "$(admin guard | jq -r '.data[0].rung')" = "$1" ] && return 0
        sleep 0.1
    done
    admin guard
    return 1
}

# Any account has these p-values: what is tested is what follows from them.
write_policy() {
    cat >policy.yaml <<END
observe: {p: 1}
slow: {p: 1}
logprobs: {p: 1, top: 0}
reasoning: {p: 0}
challenge: {p: ${1:-0}}
suspend: {p: 0}
ladder: {requests_min: 26, accuse_by: p}
END
}

rungs_change_what_is_answered_and_a_persons_word_holds() {
    make_accounts
    write_policy
    start_small_server --policy policy.yaml
    expect_equal 200 "$(ask 1 '{"logprobs": true, "top_logprobs": 5}')"
    expect_equal 403 "$(ask 1 '{"logprobs": true, "logit_bias": {"5": 1}}')"
    expect_text 'not given together' "$(cat answer.json)"
    local i
    for i in $(seq 2 27); do expect_equal 200 "$(ask "$i")"; done
    await_rung logprobs
    curl -sS -H "Authorization: Bearer $key" "${url%/v1}/metrics" >metrics.txt
    expect_text 'retort_suspicion{rung="logprobs"} 1' "$(cat metrics.txt)"
    expect_text 'retort_suspicion{rung="observe"} 0' "$(cat metrics.txt)"
    expect_equal 403 "$(ask 1 '{"logprobs": true}')"
    expect_text 'feature_not_allowed' "$(cat answer.json)"
    expect_equal 200 "$(ask 1)"
    curl -sS -H "Authorization: Bearer $key" "$url/account" >account.json
    expect_equal throttled "$(jq -r .state account.json)"
    expect_text 'case_' "$(jq -r .case account.json)"
    expect_text 'logprobs after' "$(retort audit show --db accounts.db)"
    curl -sS -o back.json -X POST -H "Authorization: Bearer $operator" -H 'Content-Type: application/json' -d '{"note": "an honest customer"}' \
        "$admin/v1/accounts/$account/reinstate"
    for i in $(seq 28 45); do expect_equal 200 "$(ask "$i")"; done
    for _ in $(seq 50); do
        [ "$(admin guard | jq '.data | length')" = 0 ] && break
        sleep 0.1
    done
    expect_equal 0 "$(admin guard | jq '.data | length')"
    expect_equal 200 "$(ask 1 '{"logprobs": true}')"
    expect_status 0 retort audit verify --db accounts.db
}

a_challenged_account_is_answered_again_once_it_has_spoken() {
    make_accounts
    write_policy 1
    start_small_server --policy policy.yaml --guard-state guard.state
    local i
    for i in $(seq 1 30); do
        [ "$(ask "$i")" = 200 ] || break
        sleep 0.05
    done
    await_rung challenge
    expect_equal 403 "$(ask 1)"
    expect_text account_challenged "$(cat answer.json)"
    stop_server
    start_small_server --policy policy.yaml --guard-state guard.state
    expect_equal 403 "$(ask 1)"
    kill -9 "$server_pid" # what was decided outlives it
    wait "$server_pid" || true
    start_small_server --policy policy.yaml --guard-state guard.state
    expect_equal 403 "$(ask 1)"
    expect_text 'Case case_' "$(cat answer.json)"
    expect_equal 201 "$(curl -sS -o appeal.json -w '%{http_code}' -X POST -H "Authorization: Bearer $key" -H 'Content-Type: application/json' \
        -d '{"statement": "We test a page."}' "$url/account/appeals")"
    expect_equal 200 "$(ask 1)"
    expect_equal open "$(admin appeals | jq -r '.data[0].state')"
}

a_replay_of_the_recorded_rows_gives_the_live_scores() {
    make_accounts
    write_policy
    start_small_server --policy policy.yaml --guard-log rows.jsonl
    local i
    for i in $(seq 1 30); do expect_equal 200 "$(ask "$i")"; done
    await_rung logprobs
    for _ in $(seq 100); do
        [ "$(admin guard | jq -r .judged)" -ge 30 ] && break
        sleep 0.1
    done
    admin guard | jq -c '.data[0] | {account, requests, score, p, reasons}' >live.json
    retort guard replay rows.jsonl | jq -c '{account, requests, score, p, reasons}' >replayed.json
    expect_equal "$(cat live.json)" "$(cat replayed.json)"
}

a_dry_run_changes_nothing() {
    make_accounts
    write_policy
    echo 'ladder: {dry_run: yes, requests_min: 6, accuse_by: p}' >dry.yaml
    grep -v ladder policy.yaml >>dry.yaml
    start_small_server --policy dry.yaml
    local i
    for i in $(seq 1 30); do expect_equal 200 "$(ask "$i")"; done
    await_rung logprobs
    expect_equal 200 "$(ask 1 '{"logprobs": true}')"
    expect_equal active "$(curl -sS -H "Authorization: Bearer $key" "$url/account" | jq -r .state)"
}

a_guard_without_accounts_and_a_bad_policy_are_refused() {
    expect_status 2 retort serve "$source_dir/data/teacher-small.gguf" --guard --db none
    expect_text 'retort account create' "$err"
    make_accounts
    echo 'slow: {p: 2}' >policy.yaml
    expect_status 2 retort serve "$source_dir/data/teacher-small.gguf" --db accounts.db --policy policy.yaml
    expect_text 'slow.p' "$err"
}

run_tests rungs_change_what_is_answered_and_a_persons_word_holds a_challenged_account_is_answered_again_once_it_has_spoken \
    a_replay_of_the_recorded_rows_gives_the_live_scores a_dry_run_changes_nothing \
    a_guard_without_accounts_and_a_bad_policy_are_refused
