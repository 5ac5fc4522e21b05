#!/usr/bin/env bash
# Every way to a served model is limited: no route, form or batch gets past a budget, a rate or a permission.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

post() { # post PATH BODY: the status; the body is in answer.json
    curl -sS --max-time 60 -o answer.json -w '%{http_code}' -H "Authorization: Bearer $key" -H 'Content-Type: application/json' \
        -d "$2" "${url%/v1}$1"
}

make_account() {
    account=$(retort account create someone --db accounts.db --json "$@" | jq -r .id)
    key=$(retort key create "$account" --db accounts.db --json | jq -r .secret)
}

no_route_gets_past_a_budget() {
    make_account --budget-tokens 1
    retort account limit "$account" --permissions '{"score": true}' --db accounts.db >limit.txt
    start_small_server
    local body
    for body in '{"messages":[{"role":"user","content":"hi"}]}' '{"messages":[{"role":"user","content":"hi"}],"stream":true}' \
        '{"messages":[{"role":"user","content":"hi"}],"max_tokens":1,"n":4}'; do
        expect_equal 429 "$(post /v1/chat/completions "$body")"
        expect_text insufficient_quota "$(cat answer.json)"
    done
    for body in '{"prompt":"hi"}' '{"prompt":[1,2,3],"max_tokens":1}' '{"prompt":[[1,2],[3,4]],"max_tokens":0,"echo":true,"logprobs":1}' \
        '{"prompt":["a","b","c"],"max_tokens":1,"n":4}' '{"prompt":"hello","max_tokens":0,"prompt_logprobs":1}'; do
        expect_equal 429 "$(post /v1/completions "$body")"
    done
    expect_equal 429 "$(post /v1/retort/score '{"tokens":[[1,2,3]],"top_k":2}')"
    expect_equal 429 "$(post /v1/retort/score '{"tokens":[[1,2,3]],"top_k":2,"format":"binary"}')"
    expect_equal 0 "$(retort usage --account "$account" --db accounts.db --json | jq '[.data[] | .input_tokens + .output_tokens] | add')"
}

tokenizing_takes_a_request_of_the_rate_and_no_token() {
    make_account --rpm 3
    start_small_server
    local code=200 served=0
    while [ "$code" = 200 ] && [ "$served" -lt 20 ]; do
        code=$(post /tokenize '{"prompt":"hello"}')
        [ "$code" != 200 ] || served=$((served + 1))
    done
    expect_equal 429 "$code"
    [ "$served" -ge 3 ]
    code=$(post /v1/detokenize '{"tokens":[1]}')
    [ "$code" = 429 ] || [ "$code" = 200 ] # one may have come back meanwhile
    expect_equal 0 "$(retort usage --account "$account" --db accounts.db --json | jq '[.data[] | .input_tokens + .output_tokens] | add')"
}

scoring_needs_its_permission_and_is_charged_as_prompt_tokens() {
    make_account
    start_small_server
    expect_equal 403 "$(post /v1/retort/score '{"tokens":[[1,2,3]]}')"
    expect_text feature_not_allowed "$(cat answer.json)"
    retort account limit "$account" --permissions '{"score": true}' --db accounts.db >limit.txt
    expect_equal 200 "$(post /v1/retort/score '{"tokens":[[1,2,3],[4,5]],"top_k":3,"format":"binary"}')"
    expect_equal RTRLS "$(head -c 5 answer.json)"
    expect_equal 5 "$(retort usage --account "$account" --db accounts.db --json | jq '[.data[] | .input_tokens + .output_tokens] | add')"
}

run_tests no_route_gets_past_a_budget tokenizing_takes_a_request_of_the_rate_and_no_token \
    scoring_needs_its_permission_and_is_charged_as_prompt_tokens
