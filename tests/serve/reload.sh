#!/usr/bin/env bash
# SIGHUP: settings, terms, prices, policy and keys of upstreams are read again while requests run; a bad file
# changes nothing and is told in one sentence.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

make_account() {
    account=$(retort account create someone --db accounts.db --json "$@" | jq -r .id)
    key=$(retort key create "$account" --db accounts.db --json | jq -r .secret)
}

# usage: ask MODEL [curl options]: the status; the body is in answer.json
ask() {
    curl -sS --max-time 60 -o answer.json -w '%{http_code}' -H "Authorization: Bearer $key" -H 'Content-Type: application/json' \
        -d "{\"model\":\"$1\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"max_tokens\":3}" "${@:2}" "$url/chat/completions"
}

# usage: hang_up WORDS: SIGHUP, and the log has the words once more
hang_up() {
    local before
    before=$(grep -c "$1" log.jsonl || true)
    kill -HUP "$server_pid"
    for _ in $(seq 100); do
        [ "$(grep -c "$1" log.jsonl || true)" -gt "$before" ] && return 0
        sleep 0.1
    done
    cat log.jsonl
    return 1
}

settings_are_read_again_while_requests_run() {
    make_account
    echo 'aliases: [old]' >settings.yaml
    start_small_server --log log.jsonl --settings settings.yaml
    expect_equal 200 "$(ask old)"
    expect_equal 404 "$(ask new)"
    curl -sSN --max-time 100 -H "Authorization: Bearer $key" -H 'Content-Type: application/json' \
        -d '{"model":"old","prompt":"Once","max_tokens":900,"n":4,"ignore_eos":true,"stream":true}' "$url/completions" >stream.txt &
    local client=$!
    for _ in $(seq 100); do
        grep -qs data: stream.txt && break
        sleep 0.05
    done
    printf 'version: "2"\nlink: https://example.org/terms\ndistillation: forbidden\n' >terms.yaml
    printf 'aliases: [new]\nterms: terms.yaml\nmetrics_open: yes\n' >settings.yaml
    hang_up 'settings were read again'
    expect_equal 403 "$(ask new)"
    expect_text terms_not_accepted "$(cat answer.json)"
    expect_equal 200 "$(curl -sS -o m.txt -w '%{http_code}' "${url%/v1}/metrics")"
    retort account limit "$account" --accept-terms 2 --db accounts.db >limit.txt
    expect_equal 200 "$(ask new)"
    expect_equal 404 "$(ask old)"
    wait "$client"
    expect_text 'data: [DONE]' "$(cat stream.txt)"
}

a_bad_file_changes_nothing_and_is_told_in_one_sentence() {
    make_account
    echo 'aliases: [good]' >settings.yaml
    start_small_server --log log.jsonl --settings settings.yaml
    local bad
    for bad in 'alases: [x]' 'aliases: [x=nowhere]' 'trusted_proxies: [somewhere]' 'request_timeout: -1' 'upstreams: ["http://127.0.0.1:1"]' \
        'policy: p.yaml' 'terms: nowhere.yaml' 'prices: settings.yaml' 'aliases: ["x' "$(printf 'aliases: [\xff]')"; do
        printf '%s\n' "$bad" >settings.yaml
        hang_up 'settings stay as they were'
        expect_equal 200 "$(ask good)"
        expect_equal 404 "$(ask x)"
    done
    expect_text 'alases' "$(grep -m 1 'settings stay' log.jsonl)"
    rm settings.yaml
    hang_up 'settings stay as they were'
    expect_equal 200 "$(ask good)"
}

prices_hold_from_the_next_request_on() {
    make_account --budget-usd 1 --budget-period total
    printf '{"default": {"input": 1000, "output": 1000}}' >prices.json
    start_small_server --log log.jsonl --prices prices.json
    expect_equal 200 "$(ask default)"
    local first second
    first=$(retort usage --account "$account" --db accounts.db --json | jq -r '[.data[].cost] | add')
    printf '{"default": {"input": 3000, "output": 3000}}' >prices.json
    hang_up 'settings were read again'
    expect_equal 200 "$(ask default)"
    second=$(retort usage --account "$account" --db accounts.db --json | jq -r '[.data[].cost] | add')
    expect_equal 4 "$(jq -n "($second / $first) | round")"
}

the_guards_ladder_is_read_again() {
    make_account
    printf 'exposure: {top_logprobs: 5}\n' >policy.yaml
    start_small_server --log log.jsonl --policy policy.yaml
    local logprobs='{"messages":[{"role":"user","content":"hi"}],"max_tokens":2,"logprobs":true,"top_logprobs":6}'
    ask_logprobs() {
        curl -sS -o answer.json -w '%{http_code}' -H "Authorization: Bearer $key" -H 'Content-Type: application/json' -d "$logprobs" "$url/chat/completions"
    }
    expect_equal 403 "$(ask_logprobs)"
    printf 'exposure: {top_logprobs: 7}\n' >policy.yaml
    hang_up 'settings were read again'
    for _ in $(seq 50); do
        [ "$(ask_logprobs)" = 200 ] && return 0
        sleep 0.1
    done
    cat answer.json
    return 1
}

keys_of_upstreams_are_read_again() {
    make_account
    start_small_server
    local upstream=$url upstream_pid=$server_pid other
    other=$(retort key create "$account" --db accounts.db --json | jq -r .secret)
    echo "$key" >key.txt
    start_small_gateway "$upstream key-file=key.txt" --secrets gateway.secrets --log log.jsonl
    local first=$key
    account=$(retort account create customer --db gateway.db --secrets gateway.secrets --json | jq -r .id)
    key=$(retort key create "$account" --db gateway.db --secrets gateway.secrets --json | jq -r .secret)
    expect_equal 200 "$(ask teacher-small)"
    retort key revoke "$(cut -c 7-14 <<<"$first")" --db accounts.db >revoke.txt
    expect_equal 502 "$(ask teacher-small)"
    expect_text upstream_auth "$(cat answer.json)"
    echo "$other" >key.txt
    hang_up 'settings were read again'
    expect_equal 200 "$(ask teacher-small)"
    echo 'two words' >key.txt
    hang_up 'settings stay as they were'
    expect_equal 200 "$(ask teacher-small)"
    case $(cat log.jsonl gateway.log) in *"${other: -20}"*)
        echo 'the key is in the log'
        return 1
        ;;
    esac
}

run_tests settings_are_read_again_while_requests_run a_bad_file_changes_nothing_and_is_told_in_one_sentence \
    prices_hold_from_the_next_request_on the_guards_ladder_is_read_again keys_of_upstreams_are_read_again
