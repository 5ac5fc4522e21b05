#!/usr/bin/env bash
# `retort serve --capture`: answers become rows that are trained on, of the accounts that allow it alone; a kill
# leaves whole rows, and the next server goes on in the same folder.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

# usage: ask KEY BODY [PATH]: the status; the answer is in answer.txt
ask() {
    curl -sSN --max-time 60 -o answer.txt -w '%{http_code}' -H "Authorization: Bearer $1" -H 'Content-Type: application/json' \
        -d "$2" "$url/${3:-chat/completions}"
}

chat() { # chat TEXT MEMBERS
    printf '{"messages":[{"role":"user","content":"%s"}],"max_tokens":8,"ignore_eos":true%s}' "$1" "${2:-}"
}

rows() { zstdcat store/rows/*.jsonl.zst; }

# usage: wait_rows N: the store has so many on the disk
wait_rows() {
    for _ in $(seq 200); do
        [ "$(rows 2>/dev/null | grep -c '^{' || true)" -ge "$1" ] && return 0
        sleep 0.1
    done
    rows
    return 1
}

stop_server() {
    kill "-${1:-TERM}" "$server_pid"
    wait "$server_pid" 2>killed.txt || true
    trap - EXIT
}

make_accounts() {
    account=$(retort account create open --permissions '{"capture":true,"prompt_log":true}' --prompts '{"keep":"full"}' --db accounts.db --json | jq -r .id)
    key=$(retort key create "$account" --db accounts.db --json | jq -r .secret)
    hashed=$(retort account create hashed --permissions '{"capture":true}' --prompts '{"keep":"hash"}' --db accounts.db --json | jq -r .id)
    hashed_key=$(retort key create "$hashed" --db accounts.db --json | jq -r .secret)
    closed=$(retort account create closed --permissions '{"prompt_log":true}' --prompts '{"keep":"full"}' --db accounts.db --json | jq -r .id)
    closed_key=$(retort key create "$closed" --db accounts.db --json | jq -r .secret)
}

rows_hold_what_was_asked_and_answered_of_accounts_that_allow_it() {
    make_accounts
    start_small_server --capture store --metrics-open
    expect_equal 200 "$(ask "$key" "$(chat one)")"
    jq -r '.choices[0].message.content' answer.txt >whole.txt
    expect_equal 200 "$(ask "$key" "$(chat two ',"stream":true,"logprobs":true,"top_logprobs":3')")"
    expect_equal 200 "$(ask "$key" "$(chat three ',"n":2,"seed":5')")"
    jq -r '.choices[1].message.content' answer.txt >second.txt
    expect_equal 200 "$(ask "$key" "$(chat four ',"n":2,"stream":true')")"
    expect_equal 200 "$(ask "$key" '{"prompt":"Once","max_tokens":6,"ignore_eos":true}' completions)"
    expect_equal 400 "$(ask "$key" '{"messages":[]}')"
    expect_equal 200 "$(ask "$hashed_key" "$(chat secret)")"
    expect_equal 200 "$(ask "$closed_key" "$(chat secret)")"
    wait_rows 7
    stop_server
    expect_equal 7 "$(rows | wc -l)"
    expect_equal 0 "$(rows | grep -c secret || true)"
    expect_text "$hashed is not captured: that needs" "$(cat server.log)"
    expect_text "$closed is not captured: that needs" "$(cat server.log)"
    expect_equal "$(cat whole.txt)" "$(rows | jq -r 'select(.messages[0].content == "one") | .completion')"
    expect_equal "$(cat second.txt)" "$(rows | jq -r 'select(.messages[0].content == "three" and .index == 1) | .completion')"
    expect_equal 8 "$(rows | jq 'select(.messages[0].content == "two") | .logprobs | length')"
    expect_equal 3 "$(rows | jq 'select(.messages[0].content == "two") | .logprobs[0].top | length')"
    expect_equal 2 "$(rows | jq -c 'select(.messages[0].content == "four") | .index' | sort -u | wc -l)"
    expect_equal length "$(rows | jq -r 'select(.prompt == "Once") | .finish_reason')"
    expect_equal 6 "$(rows | jq 'select(.prompt == "Once") | .usage.completion_tokens')"
    expect_equal "$account" "$(rows | jq -r .source.account | sort -u)"
    expect_status 0 retort outputs stat store
    expect_status 0 retort outputs verify store
}

a_kill_leaves_whole_rows_and_the_next_server_goes_on() {
    make_accounts
    local round
    for round in 1 2 3; do
        start_small_server --capture store
        for client in 1 2 3; do
            (for i in $(seq 200); do ask_quietly "$round-$client-$i" || break; done) &
        done
        wait_rows $((4 * round))
        stop_server KILL
        wait
    done
    start_small_server --capture store
    expect_equal 200 "$(ask "$key" "$(chat last)")"
    stop_server
    expect_status 0 retort outputs verify store
    expect_equal 0 "$(rows | grep -vc '^{.*}$' || true)"
    expect_equal "$(rows | wc -l)" "$(rows | jq -r .id | sort -u | wc -l)"
    expect_equal 1 "$(rows | jq -c 'select(.messages[0].content == "last")' | wc -l)"
}

ask_quietly() {
    curl -sS --max-time 60 -o /dev/null -H "Authorization: Bearer $key" -H 'Content-Type: application/json' -d "$(chat "$1")" \
        "$url/chat/completions" 2>/dev/null
}

what_a_gateway_has_passed_on_is_trained_on() {
    make_accounts
    start_small_server
    upstream_pid=$server_pid # for the trap
    local upstream=$url
    export UPSTREAM_KEY=$key
    retort account create behind --permissions '{"capture":true,"prompt_log":true}' --prompts '{"keep":"full"}' --db gateway.db --json >behind.json
    key=$(retort key create "$(jq -r .id behind.json)" --db gateway.db --json | jq -r .secret)
    start_small_gateway "$upstream" --upstream-key-env UPSTREAM_KEY --capture store
    local i
    for i in 1 2 3 4 5 6; do
        expect_equal 200 "$(ask "$key" "$(chat "tell me about $i" ',"model":"default"')")"
        expect_equal 200 "$(ask "$key" "$(chat "and about $i" ',"model":"default","stream":true')")"
    done
    wait_rows 12
    kill "$server_pid" "$upstream_pid"
    trap - EXIT
    wait "$server_pid" 2>killed.txt || true
    expect_equal 12 "$(rows | jq -c 'select(.usage.completion_tokens == 8 and .finish_reason == "length")' | wc -l)"
    cat >recipe.yaml <<Y
teacher: {model: $source_dir/data/teacher-small.gguf, store: store}
student: {n_layers: 1}
data: {tokens_max: 128}
loss: [ce]
train: {steps: 3, batch_tokens: 128, lr: 1e-3}
output: {types: []}
Y
    expect_status 0 retort distill recipe.yaml --run run --quiet --no-export
    expect_equal 3 "$(wc -l <run/log.jsonl)"
}

run_tests rows_hold_what_was_asked_and_answered_of_accounts_that_allow_it a_kill_leaves_whole_rows_and_the_next_server_goes_on \
    what_a_gateway_has_passed_on_is_trained_on
