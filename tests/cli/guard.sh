#!/usr/bin/env bash
# `retort guard`: results on a small made-up traffic, and what is wrong with the input in one sentence.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

# Forty people who chat, and one account that collects: wrappers round tasks of many types.
write_traffic() {
    awk 'BEGIN {
        split("What is the capital of land|Tom has 4 apples and buys 3 more, how many apples does he have|Which is a fish?\\nA. cod\\nB. oak\\nC. iron\\nanswer|Write a python function to sort the list|Who painted the picture number", task, "|")
        for (i = 0; i < 120; i++)
            for (a = 0; a <= 40; a++) {
                if (a && i >= 12) continue
                prompt = a ? "how do I bake bread number " a : "### Instruction:\\n" task[i * 7 % 5 + 1] " " i "\\n\\n### Response:"
                printf "{\"ts\":%d,\"account\":\"a%d\",\"ip\":\"10.0.0.%d\",\"asn\":\"AS1\",\"user_agent\":\"%s\",\"pay_hash\":\"p%d\",\"created\":%d,\"params\":{\"temperature\":1},\"prompt\":\"%s\",\"prompt_tokens\":20,\"completion_tokens\":300}\n", \
                    1700000000 + i * 900 + a, a, a, a ? "Mozilla/5.0 ChatUI/1" : "python-requests/2", a, 1600000000 + a * 1000000, prompt
            }
    }' >traffic.jsonl
    echo '{"AS1": "residential"}' >asn.json
}

replay_gives_a_line_an_account() {
    write_traffic
    expect_status 0 retort guard replay traffic.jsonl --asn asn.json
    expect_equal 41 "$(printf '%s\n' "$out" | wc -l)"
    expect_text '{"account":"a0","requests":120,"score":' "$out"
    expect_text '"flagged_at":' "$out"
    expect_text '"cluster":null,"cluster_p":null,"reasons":[{"signal":"' "$out"
}

the_collector_scores_highest() {
    write_traffic
    expect_status 0 retort guard review traffic.jsonl --rate 1
    expect_equal a0 "$(printf '%s\n' "$out" | sed -n 2p | cut -f1)"
}

packed_traffic_and_a_saved_state_give_the_same_result() {
    write_traffic
    zstd -q --long=25 traffic.jsonl
    retort guard replay traffic.jsonl >plain.out
    retort guard replay traffic.jsonl.zst >packed.out
    head -n 300 traffic.jsonl >first.jsonl
    tail -n +301 traffic.jsonl >second.jsonl
    retort guard replay first.jsonl --state state >/dev/null
    retort guard replay second.jsonl --state state >split.out
    cmp plain.out packed.out
    # the sweep at the end of the first part may link accounts earlier, but scores and p-values are the same
    expect_equal "$(cut -d, -f1-4 plain.out)" "$(cut -d, -f1-4 split.out)"
}

explanations_clusters_and_policies_are_told() {
    write_traffic
    expect_status 0 retort guard explain a0 traffic.jsonl
    expect_text "percentile among benign" "$out"
    expect_status 0 retort guard clusters traffic.jsonl --json
    printf 'observe:\n  p: 0.9\n' >policy.yaml
    expect_status 0 retort guard what-if traffic.jsonl --policy policy.yaml
    expect_text "observe" "$out"
    expect_status 0 retort guard replay traffic.jsonl --policy policy.yaml
    expect_text '"rung":"' "$out"
    expect_status 2 retort guard explain nobody traffic.jsonl
    expect_text 'no account "nobody"' "$err"
}

a_bad_row_is_named_and_may_be_passed_over() {
    write_traffic
    echo '{"ts":5}' >>traffic.jsonl
    expect_status 1 retort guard replay traffic.jsonl
    expect_text 'traffic.jsonl:601: a row needs "ts" and "account"' "$err"
    expect_status 0 retort guard replay traffic.jsonl --skip-bad-rows
    expect_text "1 malformed rows were passed over" "$err"
}

bad_policies_references_and_networks_are_refused() {
    write_traffic
    printf 'suspend:\n  p: 0.5\n' >policy.yaml
    expect_status 2 retort guard replay traffic.jsonl --policy policy.yaml
    expect_text "a stronger rung must not need weaker evidence" "$err"
    echo '{"format": "x"}' >reference.json
    expect_status 1 retort guard replay traffic.jsonl --reference reference.json
    echo '[]' >asn.json
    expect_status 1 retort guard replay traffic.jsonl --asn asn.json
    expect_text "must be an object" "$err"
    expect_status 1 retort guard replay absent.jsonl
}

calibration_refuses_a_rate_that_the_sample_cannot_support() {
    write_traffic
    grep -v '"a0"' traffic.jsonl >benign.jsonl
    expect_status 2 retort guard calibrate benign.jsonl --out reference.json
    expect_text "40 benign accounts cannot support a false-alarm rate of 0.01; that takes 99 or more" "$err"
    expect_status 0 retort guard calibrate benign.jsonl --alpha 0.05 --out reference.json
    expect_status 0 retort guard replay traffic.jsonl --reference reference.json
}

collectors_among_the_reviewed_are_set_aside_until_a_person_decides() {
    write_traffic
    expect_status 0 retort guard calibrate traffic.jsonl --alpha 0.05 --set-aside look.jsonl --out reference.json
    expect_equal a0 "$(jq -r 'select(.p < 0.05) | .account' look.jsonl)"
    expect_status 0 retort guard replay traffic.jsonl --reference reference.json
    expect_equal true "$(jq 'select(.account == "a0") | .p < 0.05' <<<"$out")"
    echo '{"account": "a0", "label": "benign"}' >decided.jsonl
    expect_status 0 retort guard calibrate traffic.jsonl --alpha 0.05 --set-aside look.jsonl --reviewed decided.jsonl --out reference.json
    expect_equal "" "$(cat look.jsonl)"
    echo '{"account": "a0", "label": "maybe"}' >decided.jsonl
    expect_status 1 retort guard calibrate traffic.jsonl --alpha 0.05 --reviewed decided.jsonl --out reference.json
}

a_report_is_one_page_that_fetches_nothing_and_escapes_what_it_shows() {
    write_traffic
    sed 's/"a0"/"<b>evil<\\\/b>"/' traffic.jsonl >marked.jsonl
    retort account create "One Ltd" --db accounts.db >/dev/null
    account=$(retort account list --db accounts.db --json | jq -r '.data[0].id')
    retort account suspend "$account" --reason "wrapped <i>tasks</i>" --public-reason "bulk" --db accounts.db >/dev/null
    retort guard replay marked.jsonl --state guard.state >/dev/null
    expect_status 0 retort guard report guard.state --db accounts.db --out state.html
    expect_status 0 retort guard report marked.jsonl --out traffic.html --json
    expect_text '"out":"traffic.html"' "$(printf '%s' "$out" | tr -d ' \n')"
    local page
    for page in state.html traffic.html; do
        expect_text '&lt;b&gt;evil' "$(cat $page)"
        if grep -qE '<b>evil|<i>tasks|src=|href="http' $page; then return 1; fi
        expect_text 'sum up to the score' "$(cat $page)"
    done
    expect_text 'account.suspend' "$(cat state.html)"
    expect_text 'wrapped &lt;i&gt;tasks' "$(cat state.html)"
    expect_text 'The audit trail is whole' "$(cat state.html)"
    expect_text 'No account database was given' "$(cat traffic.html)"
    expect_status 1 retort guard report absent.state
}

run_tests a_report_is_one_page_that_fetches_nothing_and_escapes_what_it_shows replay_gives_a_line_an_account the_collector_scores_highest \
    packed_traffic_and_a_saved_state_give_the_same_result explanations_clusters_and_policies_are_told \
    a_bad_row_is_named_and_may_be_passed_over bad_policies_references_and_networks_are_refused \
    calibration_refuses_a_rate_that_the_sample_cannot_support \
    collectors_among_the_reviewed_are_set_aside_until_a_person_decides
