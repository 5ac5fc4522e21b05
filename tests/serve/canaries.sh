#!/usr/bin/env bash
# Canary rows of suspected accounts: what is sent, what is kept, and that evidence tells a student that learnt from them.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

model=$source_dir/data/teacher-small.gguf
export RETORT_HOME=.

make_canaries() {
    jq -nc '["Adira", "Borko", "Cenzo", "Dunya", "Ekrem", "Fenja", "Gorod", "Hulda", "Ivrea", "Jorun", "Kesia", "Lomax"] as $names
        | {id: "shop", text: "A made-up example: {} sells apples.", variants: $names},
          {id: "bread", when: "bread", text: "Say {} bakes.", variants: $names}' >canaries.jsonl
}

rows() { wc -l <"sealed/$1.jsonl"; }
serve_canaries() {
    start_small_server --sealed sealed --suspect "$alice" --twins-share 0 --canaries canaries.jsonl --canaries-share 0.2
}

some_answers_of_a_suspect_end_with_a_canary_that_was_logged_before() {
    make_alice_and_bob && make_canaries && serve_canaries
    local i
    for i in $(seq 40); do
        ask_chat "$alice_key" "Question $i?" '{"max_tokens": 600}'
        jq -c --arg p "Question $i?" '{($p): .choices[0].message.content}' answer.json >>sent.jsonl
        if [ "$i" -le 10 ]; then
            ask_chat "$bob_key" "Question $i?" '{"max_tokens": 600}'
            [ "$(jq '.choices[0].message.content | test("made-up example")' answer.json)" = false ]
        fi
    done
    [ "$(rows canaries)" -ge 1 ] && [ "$(rows canaries)" -le "$(rows coins)" ] && [ "$(rows coins)" -le 25 ]
    expect_equal "[\"$alice\"]" "$(jq -sc '[.[].account] | unique' sealed/coins.jsonl)"
    # the client got exactly what the row says was served, and nobody else's answers hold one
    expect_equal true "$(jq -s --slurpfile sent sent.jsonl '($sent | add) as $all
        | all(.[]; .before + .variants[.served] + .after == $all[.prompt])' sealed/canaries.jsonl)"
    expect_equal "$(rows canaries)" "$(grep -c 'made-up example' sent.jsonl)"
    # the coin was there before, and the same
    expect_equal true "$(jq -s --slurpfile coins sealed/coins.jsonl 'all(.[]; . as $r
        | any($coins[]; .request == $r.request and .served == $r.served and .canary == $r.canary))' sealed/canaries.jsonl)"
    expect_equal "600" "$(stat -c %a sealed/canaries.jsonl)"
    # "when" keeps the other one to its prompts
    expect_equal '["shop"]' "$(jq -sc '[.[].canary] | unique' sealed/coins.jsonl)"
}

a_stream_ends_with_the_same_sentence() {
    make_alice_and_bob && make_canaries && serve_canaries
    local i
    for i in $(seq 40); do
        curl -sS -N -H "Authorization: Bearer $alice_key" -H 'Content-Type: application/json' "$url/chat/completions" \
            -d "$(jq -nc --arg p "Question $i?" '{messages: [{role: "user", content: $p}], max_tokens: 600, stream: true}')" |
            sed -n 's/^data: {/{/p' | jq -rj '.choices[0].delta.content // ""' >"said.$i"
        [ "$(rows canaries)" -ge 1 ] && break
    done
    jq -rj '.before + .variants[.served] + .after' sealed/canaries.jsonl >row.txt
    expect_status 0 cmp row.txt "said.$i"
}

requests_that_promise_a_form_or_leave_no_room_are_left_alone() {
    make_alice_and_bob && make_canaries && serve_canaries
    local i more
    for i in $(seq 20); do
        for more in '{"seed": 5}' '{"temperature": 0}' '{"n": 2}' '{"logprobs": true}' '{"stop": ["z"]}' \
            '{"response_format": {"type": "json_object"}}'; do
            ask_chat "$alice_key" "Question $i?" "$(jq -c '. + {max_tokens: 2}' <<<"$more")"
        done
    done
    expect_equal 0 "$(rows coins)"
    for i in $(seq 40); do # cut by their length: a coin, and no row
        ask_chat "$alice_key" "Question $i?" '{"max_tokens": 3}'
        [ "$(jq '.usage.completion_tokens' answer.json)" -le 3 ]
    done
    [ "$(rows coins)" -ge 1 ]
    expect_equal 0 "$(rows canaries)"
}

# The harvest, through the client that harvesters use; then two students, one of it and one of another account's.
evidence_tells_the_student_that_learnt_from_the_rows() {
    make_alice_and_bob && make_canaries && serve_canaries
    local who
    head -n 300 "$source_dir/data/prompts.jsonl" >prompts.jsonl
    ALICE=$alice_key expect_status 0 retort collect --in prompts.jsonl --out taken --url "$url" \
        --model teacher-small --key-env ALICE --max-tokens 700 --temperature 1 --concurrency 8
    # the shortest will do here: their choice does not look at what was served
    jq -sc --arg a "$alice" 'map(select(.account == $a)) | sort_by(.before | length) | .[:8][]' sealed/canaries.jsonl >rows.jsonl
    [ "$(wc -l <rows.jsonl)" -ge 5 ]
    # the answers as they came, and as they would have come with other draws
    jq -c '{prompt, completion: (.before + .variants[.served] + .after)}' rows.jsonl >seen.jsonl
    jq -c '{prompt, completion: (.before + .variants[(.served + 5) % 12] + .after)}' rows.jsonl >other.jsonl
    for who in seen other; do
        cat >$who.yaml <<END
teacher: {model: $model}
student: {model: $model, init: checkpoint}
data: {train: [$who.jsonl]}
loss: ["1 ce"]
train: {tokens: 60K, lr: 2e-3}
END
        expect_status 0 retort distill $who.yaml --run $who --quiet
        expect_status 0 retort evidence plan --suspect $who/student --reference "$model" --canaries rows.jsonl --test canaries \
            --out $who.json
        expect_status 0 retort evidence run $who.json --json
        printf '%s\n' "$out" | jq -c '.results[0] | {n, log10_p, exposure_bits}' | tee $who.result
    done
    expect_equal true "$(jq '.log10_p < -3' seen.result)"
    expect_equal true "$(jq '.log10_p > -3' other.result)"
}

what_is_no_canary_is_refused_by_its_line() {
    make_alice_and_bob
    echo '{"id": "a", "text": "no place", "variants": ["a"]}' >bad.jsonl
    expect_status 2 retort serve "$model" --db accounts.db --sealed s --suspect "$alice" --canaries bad.jsonl
    expect_text 'holds {} once' "$err"
    echo '{"id": "a", "text": "{}", "variants": ["a", "b"]}' >bad.jsonl
    expect_status 2 retort serve "$model" --db accounts.db --sealed s --suspect "$alice" --canaries bad.jsonl
    expect_text 'it takes 10 to' "$err"
    make_canaries
    expect_status 2 retort serve "$model" --db accounts.db --sealed s --suspect "$alice" --canaries canaries.jsonl --canaries-share 0.9
    expect_text '0..0.2' "$err"
    expect_status 2 retort serve "$model" --db accounts.db --suspect "$alice" --canaries canaries.jsonl
    expect_text 'need --sealed' "$err"
}

run_tests some_answers_of_a_suspect_end_with_a_canary_that_was_logged_before a_stream_ends_with_the_same_sentence \
    requests_that_promise_a_form_or_leave_no_room_are_left_alone evidence_tells_the_student_that_learnt_from_the_rows \
    what_is_no_canary_is_refused_by_its_line
