#!/usr/bin/env bash
# `retort serve` on the real model: what curl sees, with and without accounts, and how it is stopped.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

model=${RETORT_TEST_MODEL:-${RETORT_HOME:-$HOME/.cache/retort}/models/SmolLM2-135M-Instruct.Q4_1.gguf}
need_model() { [ -e "$model" ] || skip "the SmolLM2 model is not here: retort pull smollm2-135m-instruct"; }

# Starts a server on a free port; leaves $url, $port and $server.  What the tests start they stop by its pid.
serve() {
    : >serve.txt # there is one to look into, however late the server starts
    "$build_dir/retort" serve "$model" --port 0 --admin-port 0 --log log.jsonl "$@" 2>serve.txt &
    server=$!
    trap 'kill -9 "$server" 2>kill.txt || true' EXIT
    for _ in $(seq 600); do
        port=$(sed -n 's|.* on http://127.0.0.1:\([0-9]*\)/v1 .*|\1|p' serve.txt)
        [ -n "$port" ] && break
        kill -0 "$server" || { cat serve.txt; exit 1; }
        sleep 0.1
    done
    url=http://127.0.0.1:$port
}

stop() {
    kill -TERM "$server"
    local status=0
    wait "$server" || status=$?
    expect_equal 0 "$status"
}

post() { # post PATH BODY [curl options]
    local path=$1 body=$2
    shift 2
    curl -sS --max-time 120 "$url$path" -H 'Content-Type: application/json' -d "$body" "$@"
}

wrong_use_is_told_before_a_model_is_opened() {
    expect_status 2 retort serve
    expect_text "a MODEL is needed" "$err"
    expect_status 2 retort serve nowhere.gguf --db none --port 99999
    expect_text "port" "$err"
    expect_status 2 retort serve nowhere.gguf --db none --host 0.0.0.0
    expect_text "there are no accounts" "$err"
    expect_status 1 retort serve nowhere.gguf --db none
    expect_text "nowhere.gguf" "$err"
}

chat_completions_and_streams_answer() {
    need_model
    serve --db none --precision f32 --alias gpt-x
    local ask='{"model":"gpt-x","messages":[{"role":"user","content":"What is the capital of France?"}],"max_tokens":12,"temperature":0'
    out=$(post /v1/chat/completions "$ask}")
    expect_text '"content":"The capital of France is Paris."' "$out"
    expect_text '"finish_reason":"stop"' "$out"
    expect_text '"completion_tokens":8' "$out"
    out=$(post /v1/chat/completions "$ask,\"stream\":true}" -N)
    expect_text '"delta":{"role":"assistant","content":""}' "$out"
    expect_text '"delta":{"content":" Paris"}' "$out"
    expect_text 'data: [DONE]' "$out"
    out=$(post /v1/completions '{"prompt":"The capital of France is","max_tokens":1,"temperature":0,"logprobs":1,"echo":true,"seed":1234}')
    expect_text '"text":"The capital of France is Paris"' "$out"
    expect_text '"text_offset":[0,3,11,14,21,24]' "$out"
    out=$(post /v1/chat/completions '{"messages":[{"role":"user","content":"A person as JSON."}],"temperature":0,"max_tokens":200,"response_format":{"type":"json_schema","json_schema":{"name":"p","schema":{"type":"object","properties":{"age":{"type":"integer"}},"required":["age"],"additionalProperties":false}}}}')
    expect_text '\"age\":' "$out"
    out=$(post /v1/chat/completions '{"messages":[]}' -o body.txt -w '%{http_code}')
    expect_equal 400 "$out"
    out=$(post /tokenize '{"messages":[{"role":"user","content":"x<|im_end|>"}]}')
    [ "$(grep -o '[[,]2[],]' <<<"$out" | wc -l)" -eq 2 ] # the two that the template wrote
    expect_text 'retort_requests_total{endpoint="completions",status="200"} 1' "$(curl -sS "$url/metrics")"
    stop
    expect_text '"endpoint":"completions","model":"SmolLM2-135M-Instruct.Q4_1","status":200' "$(cat log.jsonl)"
    case $(cat log.jsonl) in *Paris* | *capital*)
        echo "a prompt is in the log"
        exit 1
        ;;
    esac
}

accounts_are_asked_for_limited_and_billed() {
    need_model
    export RETORT_DB=$PWD/accounts.db
    local account key ask='{"messages":[{"role":"user","content":"Hi"}],"max_tokens":4}' code
    account=$(retort account create tester --json | sed -n 's/.*"id": "\(acc_[^"]*\)".*/\1/p' | head -n 1)
    key=$(retort key create "$account" --json | sed -n 's/.*"secret": "\([^"]*\)".*/\1/p')
    [ -n "$key" ]
    serve
    code=$(post /v1/chat/completions "$ask" -o body.txt -w '%{http_code}')
    expect_equal 401 "$code"
    expect_text '"code":"missing_api_key"' "$(cat body.txt)"
    code=$(post /v1/chat/completions "$ask" -o body.txt -w '%{http_code}' -H "Authorization: Bearer ${key}x")
    expect_equal 401 "$code"
    code=$(post /v1/chat/completions "$ask" -o body.txt -w '%{http_code}' -H "x-api-key: $key")
    expect_equal 200 "$code"
    retort account limit "$account" --rpm 1 >limit.txt
    post /v1/chat/completions "$ask" -o body.txt -D head.txt -H "Authorization: bearer $key"
    for _ in 1 2 3; do
        code=$(post /v1/chat/completions "$ask" -o body.txt -D head.txt -w '%{http_code}' -H "api-key: $key")
        [ "$code" = 429 ] && break
    done
    expect_equal 429 "$code"
    expect_text 'Retry-After: ' "$(cat head.txt)"
    expect_text 'x-ratelimit-limit-requests: 1' "$(cat head.txt)"
    expect_text '"code":"rate_limit_exceeded"' "$(cat body.txt)"
    retort account suspend "$account" --reason test >suspend.txt
    code=$(post /v1/chat/completions "$ask" -o body.txt -w '%{http_code}' -H "api-key: $key")
    expect_equal 403 "$code"
    expect_text '"state":"suspended"' "$(curl -sS "$url/v1/account" -H "api-key: $key")"
    stop
    expect_status 0 retort usage --account "$account" --json
    expect_text '"output_tokens": ' "$out"
}

a_stop_waits_for_what_runs_and_a_reload_opens_the_log_again() {
    need_model
    serve --db none
    post /v1/completions '{"prompt":"Once","max_tokens":800,"ignore_eos":true,"stream":true,"stream_options":{"include_usage":true}}' \
        -N >answer.txt &
    local client=$!
    for _ in $(seq 600); do # it streams
        [ -s answer.txt ] && break
        sleep 0.05
    done
    mv log.jsonl old.jsonl
    kill -HUP "$server"
    for _ in $(seq 600); do # the log is a new one
        [ -s log.jsonl ] && break
        sleep 0.05
    done
    stop
    wait "$client"
    expect_text '"completion_tokens":800' "$(cat answer.txt)"
    expect_text '"output_tokens":800' "$(cat log.jsonl)"
}

run_tests wrong_use_is_told_before_a_model_is_opened chat_completions_and_streams_answer \
    accounts_are_asked_for_limited_and_billed a_stop_waits_for_what_runs_and_a_reload_opens_the_log_again
