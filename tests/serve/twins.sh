#!/usr/bin/env bash
# Twin answers of suspected accounts: which requests, what is kept, what the client sees, and that evidence reads it.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

model=$source_dir/data/teacher-small.gguf
export RETORT_HOME=.

rows() { wc -l <"sealed/$1.jsonl"; }

# Twins may end after what was delivered.
await_rows() {
    for _ in $(seq 300); do
        [ "$(rows twins)" -ge "$1" ] && return 0
        sleep 0.1
    done
    return 1
}

a_suspects_answers_are_drawn_twice_and_one_is_kept() {
    make_alice_and_bob
    start_small_server --sealed sealed --suspect "$alice" --twins-share 0.2
    local i
    for i in $(seq 60); do
        ask_chat "$alice_key" "Question $i?"
        jq -c --arg p "Question $i?" '{($p): .choices[0].message.content}' answer.json >>sent.jsonl
        [ "$(jq .usage.completion_tokens answer.json)" -le 30 ]
        if [ "$i" -le 10 ]; then ask_chat "$bob_key" "Question $i?"; fi
    done
    sleep 1
    [ "$(rows coins)" -ge 2 ] && [ "$(rows coins)" -le 35 ]
    await_rows "$(rows coins)"
    expect_equal "[\"$alice\"]" "$(jq -sc '[.[].account] | unique' sealed/twins.jsonl)"
    # what is called delivered is what the client got, and the twin is another answer
    expect_equal true "$(jq -s --slurpfile sent sent.jsonl '($sent | add) as $all
        | all(.[]; .delivered == $all[.prompt] and .twin != .delivered and (.coin == 0 or .coin == 1))' sealed/twins.jsonl)"
    # the coin was there before, and the same
    expect_equal true "$(jq -s --slurpfile coins sealed/coins.jsonl 'all(.[]; . as $r | any($coins[]; .request == $r.request and .coin == $r.coin))' \
        sealed/twins.jsonl)"
    expect_equal "600 600 700" "$(stat -c %a sealed/coins.jsonl sealed/twins.jsonl sealed | tr '\n' ' ' | sed 's/ $//')"
    # charged once
    operator=$(retort key create --admin full --db accounts.db --json | jq -r .secret)
    curl -sS -H "Authorization: Bearer $operator" "$admin/v1/requests?limit=1000&account=$alice" >requests.json
    expect_equal 60 "$(jq '.data | length' requests.json)"
    expect_equal true "$(jq '[.data[].output_tokens] | max <= 30' requests.json)"
}

seeds_greedy_answers_and_several_choices_are_left_alone() {
    make_alice_and_bob
    start_small_server --sealed sealed --suspect "$alice" --twins-share 0.2
    local i
    for i in $(seq 30); do
        ask_chat "$alice_key" "Question $i?" '{"seed": 5, "max_tokens": 2}'
        ask_chat "$alice_key" "Question $i?" '{"temperature": 0, "max_tokens": 2}'
        ask_chat "$alice_key" "Question $i?" '{"n": 2, "max_tokens": 2}'
    done
    expect_equal 0 "$(rows coins)"
}

a_client_that_leaves_does_not_decide_which_pairs_are_kept() {
    make_alice_and_bob
    start_small_server --sealed sealed --suspect "$alice" --twins-share 0.2
    local i
    for i in $(seq 60); do
        curl -sS -m 0.15 -o stream.txt -H "Authorization: Bearer $alice_key" -d "$(jq -nc --arg p "Question $i?" \
            '{messages: [{role: "user", content: $p}], max_tokens: 400, stream: true}')" \
            -H 'Content-Type: application/json' "$url/chat/completions" 2>/dev/null || true
        [ "$(rows coins)" -ge 3 ] && break
    done
    [ "$(rows coins)" -ge 1 ]
    await_rows "$(rows coins)"
    kill "$server_pid"
    expect_status 0 wait "$server_pid"
    trap - EXIT
}

the_rows_are_those_that_evidence_reads() {
    make_alice_and_bob
    start_small_server --sealed sealed --suspect "$alice" --twins-share 0.2
    local i
    for i in $(seq 60); do ask_chat "$alice_key" "Question $i?" '{"max_tokens": 12}'; done
    await_rows "$(rows coins)"
    jq -c --arg a "$alice" 'select(.account == $a)' sealed/twins.jsonl >rows.jsonl
    expect_status 0 retort evidence plan --suspect "$model" --twins rows.jsonl --test twins --out plan.json
    expect_status 0 retort evidence run plan.json --json
    expect_equal true "$(jq --argjson n "$(wc -l <rows.jsonl)" '.results[0].n == $n and .results[0].log10_p > -4' <<<"$out")"
}

a_folder_that_others_read_and_bad_shares_are_refused() {
    make_alice_and_bob
    expect_status 2 retort serve "$model" --db accounts.db --suspect "$alice"
    expect_text 'need --sealed' "$err"
    expect_status 2 retort serve "$model" --db accounts.db --sealed s --suspect "$alice" --twins-share 0.9
    expect_text '0..0.2' "$err"
    mkdir -p open && touch open/twins.jsonl && chmod 644 open/twins.jsonl
    expect_status 1 retort serve "$model" --db accounts.db --sealed open
    expect_text 'others may read' "$err"
}

run_tests a_suspects_answers_are_drawn_twice_and_one_is_kept seeds_greedy_answers_and_several_choices_are_left_alone \
    a_client_that_leaves_does_not_decide_which_pairs_are_kept the_rows_are_those_that_evidence_reads \
    a_folder_that_others_read_and_bad_shares_are_refused
