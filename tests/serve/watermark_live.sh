#!/usr/bin/env bash
# Watermarks of a live server: the common key and each account's own, what log and ledger say, what clients see.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

model=$source_dir/data/teacher-small.gguf
export RETORT_HOME=.

stop_server() {
    kill "$server_pid"
    wait "$server_pid" || true
    trap - EXIT
}

make_accounts() {
    expect_status 0 retort watermark key new mine --secret 5b0c7e1d9a3f46828e11f04c6d7a9b53
    make_alice_and_bob
    operator=$(retort key create --admin full --db accounts.db --json | jq -r .secret)
}

# usage: ask KEY NUMBER [JSON MEMBERS]: the answer's text to the NUMBER-th prompt; the answer is in answer.json
ask() {
    local prompt
    prompt=$(sed -n "$2p" "$source_dir/data/prompts.jsonl" | jq -r .prompt)
    curl -sS -D headers.txt -o answer.json -H "Authorization: Bearer $1" -H 'Content-Type: application/json' \
        -d "$(jq -nc --arg p "$prompt" --argjson more "${3:-{\}}" \
            '{messages: [{role: "user", content: $p}], max_tokens: 120} + $more')" "$url/chat/completions"
    jq -r '.choices[0].message.content' answer.json
}

# usage: collect KEY FILE: twelve answers as rows
collect() {
    local i
    : >"$2"
    for i in $(seq 12); do ask "$1" "$i" | jq -Rsc '{text: .}' >>"$2"; done
}

requests() {
    curl -sS -H "Authorization: Bearer $operator" "$admin/v1/requests?limit=100"
}

p_of() { # FILE ACCOUNT
    retort watermark detect "$1" --key mine --account "$2" --model "$model" --json | jq '.results[1].log10_p'
}

p_common() {
    retort watermark detect "$1" --key mine --model "$model" --json | jq '.results[0].log10_p'
}

every_accounts_answers_carry_the_common_key_and_its_own() {
    make_accounts
    start_small_server --watermark mine --watermark-alpha 0.4 --log log.jsonl
    collect "$alice_key" alice.jsonl
    collect "$bob_key" bob.jsonl
    for file in alice bob; do
        expect_equal true "$(jq -n "$(p_common $file.jsonl) < -10")"
    done
    expect_equal true "$(jq -n "$(p_of alice.jsonl "$alice") < -4")"
    expect_equal true "$(jq -n "$(p_of bob.jsonl "$bob") < -4")"
    expect_equal true "$(jq -n "$(p_of alice.jsonl "$bob") > -4 and $(p_of bob.jsonl "$alice") > -4")"
}

log_and_ledger_say_what_stood_at_an_answer_and_the_client_is_told_nothing() {
    make_accounts
    start_small_server --watermark mine --log log.jsonl
    ask "$alice_key" 1 >/dev/null
    expect_equal 0 "$(cat answer.json headers.txt | grep -ciE 'watermark|mine|tournament')"
    ask "$alice_key" 1 '{"temperature": 0}' >/dev/null
    ask "$alice_key" 1 '{"max_tokens": 2}' >/dev/null
    curl -sS -H "Authorization: Bearer $alice_key" "$url/account" >own.json
    expect_equal 0 "$(grep -ciE 'watermark|tournament' own.json)"
    requests >requests.json
    expect_equal '[false,false,true]' "$(jq -c '[.data[].watermark.marked]' requests.json)"
    expect_equal '{"scheme":"tournament","key":"mine","h":2,"own_share":0.3,"marked":true}' \
        "$(jq -c '.data[2].watermark' requests.json)"
    stop_server
    expect_equal 3 "$(jq -c 'select(.request_id and .watermark.key == "mine")' log.jsonl | wc -l)"
    expect_equal 0 "$(cat log.jsonl requests.json server.log | grep -ci 5b0c7e1d9a3f4682)"
}

the_same_seed_gives_the_same_bytes_and_the_filters_come_before_the_mark() {
    make_accounts
    start_small_server --watermark mine
    expect_equal "$(ask "$alice_key" 3 '{"seed": 7}')" "$(ask "$alice_key" 3 '{"seed": 7}')"
    local free
    free=$(ask "$alice_key" 3 '{"temperature": 0, "max_tokens": 40}')
    expect_equal "$free" "$(ask "$alice_key" 3 '{"seed": 7, "top_k": 1, "max_tokens": 40}')"
    expect_equal "$free" "$(ask "$alice_key" 3 '{"seed": 8, "top_p": 0.000001, "max_tokens": 40}')"
    expect_equal "$free" "$(ask "$alice_key" 3 '{"seed": 9, "min_p": 1, "max_tokens": 40}')"
    local e
    e=$(curl -sS -H "Authorization: Bearer $alice_key" -d '{"prompt": "e", "add_special_tokens": false}' "${url%/v1}/tokenize" \
        | jq '.tokens[-1]')
    expect_text e "$(ask "$alice_key" 3 '{"seed": 9}')"
    case $(ask "$alice_key" 3 "{\"seed\": 9, \"logit_bias\": {\"$e\": -100}}") in
    *e*) echo "the mark chose a token that a bias forbids" && return 1 ;;
    esac
}

from_the_guards_rung_on_an_account_has_a_key_of_its_own() {
    make_accounts
    cat >policy.yaml <<'END'
observe: {p: 0.999}
watermark: {p: 0.999}
slow: {p: 0}
logprobs: {p: 0}
reasoning: {p: 0}
challenge: {p: 0}
suspend: {p: 0}
ladder: {requests_min: 6}
END
    start_small_server --watermark mine --watermark-own guard --watermark-alpha 0.4 --policy policy.yaml
    ask "$alice_key" 1 >/dev/null
    requests >before.json
    expect_equal 0 "$(jq '.data[0].watermark.own_share' before.json)"
    local i
    for i in $(seq 2 20); do ask "$alice_key" "$i" '{"max_tokens": 2}' >/dev/null; done
    for _ in $(seq 100); do
        [ "$(curl -sS -H "Authorization: Bearer $operator" "$admin/v1/guard" | jq -r '.data[0].rung')" = watermark ] && break
        sleep 0.1
    done
    collect "$alice_key" alice.jsonl
    requests >after.json
    expect_equal 0.4 "$(jq '.data[0].watermark.own_share' after.json)"
    expect_equal true "$(jq -n "$(p_of alice.jsonl "$alice") < -4")"
    expect_equal watched "$(curl -sS -H "Authorization: Bearer $operator" "$admin/v1/accounts/$alice" | jq -r .state)"
    ask "$bob_key" 1 >/dev/null
    expect_equal 0 "$(requests | jq '.data[0].watermark.own_share')"
}

bad_settings_are_refused_in_a_sentence() {
    make_accounts
    expect_status 2 retort serve "$model" --db accounts.db --watermark mine --watermark-alpha 1.5
    expect_text 'share in 0..1' "$err"
    expect_status 2 retort serve --upstream http://127.0.0.1:9/v1 --db accounts.db --watermark mine
    expect_text 'cannot mark' "$err"
    expect_status 2 retort serve "$model" --db accounts.db --watermark mine --watermark-own bob
    expect_text 'all|guard|nobody' "$err"
}

run_tests every_accounts_answers_carry_the_common_key_and_its_own \
    log_and_ledger_say_what_stood_at_an_answer_and_the_client_is_told_nothing \
    the_same_seed_gives_the_same_bytes_and_the_filters_come_before_the_mark \
    from_the_guards_rung_on_an_account_has_a_key_of_its_own bad_settings_are_refused_in_a_sentence
