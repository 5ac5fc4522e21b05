#!/usr/bin/env bash
# What a restart must not forget: answers under an Idempotency-Key, whole and streamed, and what they cost.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

ask() { # ask KEY BODY FILE: the head goes to FILE.head
    curl -sSN --max-time 60 -D "$3.head" -o "$3" -w '%{http_code}' -H "Authorization: Bearer $key" -H 'Content-Type: application/json' \
        -H "Idempotency-Key: $1" -d "$2" "$url/completions"
}

stop_server() {
    kill "$server_pid"
    wait "$server_pid" || true
    trap - EXIT
}

rows() { retort usage --account "$account" --db accounts.db --json | jq '[.data[] | .output_tokens] | add'; }

stored_answers_are_given_again_after_a_restart() {
    account=$(retort account create someone --db accounts.db --json | jq -r .id)
    key=$(retort key create "$account" --db accounts.db --json | jq -r .secret)
    start_small_server
    local whole='{"prompt":"Once","max_tokens":20,"ignore_eos":true}' stream
    stream='{"prompt":"Twice","max_tokens":20,"ignore_eos":true,"stream":true}'
    expect_equal 200 "$(ask k1 "$whole" whole.1)"
    expect_equal 200 "$(ask k2 "$stream" stream.1)"
    expect_equal 400 "$(ask k3 '{"prompt":5}' bad.1)"
    local before
    before=$(rows)
    expect_equal 40 "$before"
    stop_server
    start_small_server
    expect_equal 200 "$(ask k1 "$whole" whole.2)"
    expect_equal 200 "$(ask k2 "$stream" stream.2)"
    cmp whole.1 whole.2
    cmp stream.1 stream.2
    expect_text 'Idempotent-Replayed: true' "$(cat whole.2.head)"
    expect_text 'text/event-stream' "$(cat stream.2.head)"
    expect_equal 409 "$(ask k1 "$stream" other)"
    expect_text idempotency_conflict "$(cat other)"
    expect_text 'x-should-retry: false' "$(cat other.head)"
    expect_equal 200 "$(ask k3 "$whole" bad.2)"
    expect_equal 60 "$(rows)"
}

run_tests stored_answers_are_given_again_after_a_restart
