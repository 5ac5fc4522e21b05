#!/usr/bin/env bash
# `retort watermark` and `retort evidence` from key to page, on the small model that ships with the project.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

model=$source_dir/data/teacher-small.gguf
export RETORT_HOME=.

say() { # FILE KEY-OPTIONS ...: six answers of 120 tokens
    local out=$1
    shift
    for i in 1 2 3 4 5 6; do printf '{"prompt":"Tell me about thing %s."}\n' "$i"; done >p.jsonl
    expect_status 0 retort generate "$model" --prompts p.jsonl --temperature 1 --tokens-max 120 --seed 2 --out "$out" "$@"
}

marked_text_is_found_by_its_key_and_by_no_other() {
    expect_status 0 retort watermark key new mine --secret 5b0c7e1d9a3f46828e11f04c6d7a9b53
    expect_status 0 retort watermark key new other --secret c41d90e7b2a35f6886f3127d0e9b4ac5
    say a.jsonl --watermark mine
    expect_text '"watermark"' "$(cat a.jsonl)"
    expect_status 0 retort watermark detect a.jsonl --key mine --key other --model "$model" --json
    expect_equal true "$(jq '.results[0].log10_p < -20 and .results[1].log10_p > -4' <<<"$out")"
    expect_equal true "$(jq '.results[0].key_check.calibrated' <<<"$out")"
    expect_status 0 retort watermark detect --key mine --model "$model" --json <a.jsonl
    expect_equal true "$(jq '.results[0].log10_p < -20' <<<"$out")"
}

texts_of_other_editors_read_alike() {
    expect_status 0 retort watermark key new mine --secret 5b0c7e1d9a3f46828e11f04c6d7a9b53
    say a.jsonl --watermark mine
    { printf '\xef\xbb\xbf' && sed 's/$/\r/' a.jsonl; } >b.jsonl # a byte order mark, and two bytes a line's end
    for form in a b; do
        expect_status 0 retort watermark detect "$form.jsonl" --key mine --model "$model" --json
        jq -c '.results[0] | [.n, .z]' <<<"$out" >"$form"
    done
    expect_equal "$(cat a)" "$(cat b)"
    expect_status 0 retort watermark detect --key mine --model "$model" --json <b.jsonl
    expect_equal "$(cat a)" "$(jq -c '.results[0] | [.n, .z]' <<<"$out")"
    expect_status 0 retort evidence plan --answers a.jsonl --prompts b.jsonl --tokenizer "$model" --key mine --test closed --out plan.json
    expect_status 0 retort evidence run plan.json
}

places_where_the_model_was_free_count_for_more() {
    expect_status 0 retort watermark key new mine --secret 5b0c7e1d9a3f46828e11f04c6d7a9b53
    expect_status 0 retort watermark key new other --secret c41d90e7b2a35f6886f3127d0e9b4ac5
    for scheme in tournament kgw gumbel; do
        for i in 1 2 3 4 5 6; do printf '{"prompt":"Tell me about thing %s."}\n' "$i"; done >p.jsonl
        expect_status 0 retort generate "$model" --prompts p.jsonl --temperature 0.6 --tokens-max 120 --seed 2 --out "$scheme.jsonl" \
            --watermark mine --watermark-scheme $scheme
        expect_status 0 retort watermark detect $scheme.jsonl --key mine --scheme $scheme --key other --model "$model" --weigh --each --json
        expect_equal true "$(jq '.results[0] | .weighed.log10_p < .log10_p and .weighed.log10_p < -4' <<<"$out")"
        expect_equal true "$(jq '.results[1].weighed.log10_p > -4' <<<"$out")"
        expect_equal true "$(jq '.results[0].weighed.key_check | (.mean | fabs) < 0.4 and .sd > 0.7 and .sd < 1.3' <<<"$out")"
        expect_equal true "$(jq '[.each[].weighed.log10_p] | length == 12 and all(. <= 0)' <<<"$out")"
    done
    expect_status 2 retort watermark detect gumbel.jsonl --key mine --weigh
    expect_text '--weigh reads the texts with --model' "$err"
    expect_status 0 retort watermark key new theirs --scheme hf-kgw --secret 987654321 --vocab-size 272
    expect_status 2 retort watermark detect gumbel.jsonl --key theirs --model "$model" --weigh
    expect_text 'native scheme' "$err"
}

the_key_of_an_account_names_it() {
    expect_status 0 retort watermark key new mine --secret 5b0c7e1d9a3f46828e11f04c6d7a9b53
    say a.jsonl --watermark mine --watermark-account alice --watermark-alpha 0.4
    expect_status 0 retort watermark detect a.jsonl --key mine --account alice --account bob --model "$model" --json
    expect_equal true "$(jq '.results[1].log10_p_corrected < -3 and .results[2].log10_p > -3' <<<"$out")"
}

one_account_among_thousands_is_named_and_none_where_there_is_none() {
    expect_status 0 retort watermark key new mine --secret 5b0c7e1d9a3f46828e11f04c6d7a9b53
    expect_status 0 retort watermark key new other --secret c41d90e7b2a35f6886f3127d0e9b4ac5
    { seq -f 'acc_%g' 4000 && printf 'alice\n'; } >accounts.txt
    say a.jsonl --watermark mine --watermark-account alice --watermark-alpha 0.6
    expect_status 0 retort watermark detect a.jsonl --key mine --all-accounts accounts.txt --model "$model" --json
    expect_equal '["alice"]' "$(jq -c .named <<<"$out")"
    expect_equal true "$(jq '.accounts == 4001 and .best[0].log10_p_corrected <= -5 and .best[1].log10_p_corrected > -2
        and .null.accounts == 4000 and .null.ks_p > 0.001 and .null.below_1e_2 < 0.02 and .null.below_1e_3 < 0.005' <<<"$out")"
    # text without a mark, and the accounts of another key
    say plain.jsonl
    expect_status 0 retort watermark detect plain.jsonl --key mine --all-accounts accounts.txt --model "$model" --json
    expect_equal true "$(jq '.named == [] and (.words | startswith("none")) and .best[0].log10_p_corrected > -3 and .null.ks_p > 0.001
        and ([.best[].log10_p] | all(. > -9 and . < 0))' <<<"$out")"
    expect_status 0 retort watermark detect a.jsonl --key other --all-accounts accounts.txt --model "$model"
    expect_text 'none' "$out"
    # one sentence many times names nobody
    for _ in $(seq 2000); do printf 'The quick brown fox. '; done >rep.txt
    expect_status 0 retort watermark detect rep.txt --key mine --all-accounts accounts.txt --model "$model" --json
    expect_equal true "$(jq '.named == [] and .n < 40' <<<"$out")"
}

a_folder_of_keys_is_looked_through_and_bad_lists_are_refused() {
    mkdir all && for i in 1 2 3 4 5; do expect_status 0 retort watermark key new "k$i" && cp "keys/k$i.json" all/; done
    say a.jsonl --watermark k4
    expect_status 0 retort watermark detect a.jsonl --all-accounts all --model "$model" --json
    expect_equal '["k4"]' "$(jq -c .named <<<"$out")"
    chmod 644 all/k2.json
    expect_status 1 retort watermark detect a.jsonl --all-accounts all --model "$model"
    expect_text 'others' "$err"
    chmod 600 all/k2.json
    expect_status 0 retort watermark key new green --scheme kgw && cp keys/green.json all/
    expect_status 1 retort watermark detect a.jsonl --all-accounts all --model "$model"
    expect_text 'another scheme' "$err"
    printf 'a\nb\na\n' >twice.txt
    expect_status 1 retort watermark detect a.jsonl --key k1 --all-accounts twice.txt --model "$model"
    expect_text 'twice' "$err"
    : >empty.txt
    expect_status 2 retort watermark detect a.jsonl --key k1 --all-accounts empty.txt --model "$model"
    expect_status 2 retort watermark detect a.jsonl --all-accounts twice.txt --model "$model"
    expect_text '--key is missing' "$err"
    expect_status 2 retort watermark detect a.jsonl --key k1 --account a --all-accounts twice.txt --model "$model"
}

a_sentence_said_ten_thousand_times_proves_nothing() {
    expect_status 0 retort watermark key new mine --secret 5b0c7e1d9a3f46828e11f04c6d7a9b53
    for _ in $(seq 10000); do printf 'The quick brown fox. '; done >rep.txt
    expect_status 0 retort watermark detect rep.txt --key mine --model "$model" --json
    expect_equal true "$(jq '.results[0].log10_p > -3 and .results[0].n < 40' <<<"$out")"
    printf 'a' >tiny.txt
    expect_status 0 retort watermark detect tiny.txt --key mine --model "$model" --json
    expect_equal 0 "$(jq '.results[0].log10_p' <<<"$out" | cut -d. -f1)"
}

keys_that_others_may_read_wrong_tokenizers_and_ids_are_refused() {
    expect_status 0 retort watermark key new mine --secret 5b0c7e1d9a3f46828e11f04c6d7a9b53 --model "$model"
    expect_status 1 retort watermark key new mine
    expect_text "never overwritten" "$err"
    printf '{"ids":[1,2,99999]}\n' >ids.jsonl
    expect_status 1 retort watermark detect ids.jsonl --key mine --model "$model"
    expect_text "wrong tokenizer" "$err"
    say a.jsonl --watermark mine
    sed 's/"tokenizer":"[0-9a-f]*"/"tokenizer":"abc"/' a.jsonl >b.jsonl
    expect_status 1 retort watermark detect b.jsonl --key mine --model "$model"
    expect_text "wrong tokenizer" "$err"
    chmod 640 keys/mine.json
    expect_status 1 retort watermark detect a.jsonl --key mine --model "$model"
    expect_text "others may read" "$err"
}

a_secret_that_is_used_twice_is_said() {
    expect_status 0 retort watermark key new mine --secret 5b0c7e1d9a3f46828e11f04c6d7a9b53
    expect_status 0 retort watermark key new again --scheme gumbel --secret 5b0c7e1d9a3f46828e11f04c6d7a9b53
    expect_status 0 retort watermark key new other --secret c41d90e7b2a35f6886f3127d0e9b4ac5
    say a.jsonl --watermark mine
    expect_status 0 retort watermark detect a.jsonl --key mine --key other --key again --account bob --model "$model" --json
    expect_equal '["again: key again has the secret of mine: two findings of theirs are one; make a key for each use"]' \
        "$(jq -c '[.results[] | .key as $k | .warnings[] | select(test("secret")) | "\($k): \(.)"] | unique' <<<"$out")"
}

public_demo_keys_are_warned_of_and_refused_for_evidence() {
    expect_status 0 retort watermark key new demo --scheme hf-kgw --secret 15485863 --vocab-size 272
    expect_text "public code" "$err"
    say a.jsonl --watermark demo
    expect_status 0 retort watermark detect a.jsonl --key demo --model "$model"
    expect_text "public code" "$out"
    expect_status 1 retort evidence plan --answers a.jsonl --suspect "$model" --key demo --out plan.json
    expect_text "no evidence can rest" "$err"
}

evidence_goes_from_a_plan_to_a_page() {
    expect_status 0 retort watermark key new mine --secret 5b0c7e1d9a3f46828e11f04c6d7a9b53
    say a.jsonl --watermark mine
    expect_status 0 retort evidence plan --answers a.jsonl --suspect "$model" --key mine --test closed --out plan.json
    expect_status 1 retort evidence plan --answers a.jsonl --suspect "$model" --key mine --test closed --out plan.json
    expect_status 0 retort evidence run plan.json --out record.json --json
    expect_equal true "$(jq '.plan_intact and .results[0].log10_p < -20' <<<"$out")"
    expect_equal indication "$(jq -r .verdict.words <<<"$out")" # one test alone is no strong evidence
    expect_status 0 retort evidence report record.json --out page.html
    expect_text "What else could explain it" "$(cat page.html)"
    expect_equal 0 "$(grep -ciw proof page.html)"
}

an_altered_plan_and_altered_inputs_show() {
    expect_status 0 retort watermark key new mine --secret 5b0c7e1d9a3f46828e11f04c6d7a9b53
    say a.jsonl --watermark mine
    expect_status 0 retort evidence plan --answers a.jsonl --suspect "$model" --key mine --test closed --out plan.json
    expect_status 0 retort evidence run plan.json --out record.json
    sed 's/"read_tokens": 30000/"read_tokens": 30/' plan.json >altered.json
    expect_status 0 retort evidence run altered.json
    expect_text "ALTERED" "$out"
    sed 's/"read_tokens": 30000/"read_tokens": 30/' record.json >altered-record.json
    expect_status 0 retort evidence report altered-record.json --out page.html
    expect_text 'color:#b00020;font-weight:600">The plan was altered' "$(cat page.html)" # in red
    expect_text "may not be relied on" "$(cat page.html)"
    echo '{"text":"more"}' >>a.jsonl
    expect_status 1 retort evidence run plan.json
    expect_text "is not the file that the plan was made with" "$err"
}

a_plan_that_cannot_be_carried_out_is_not_made() {
    expect_status 0 retort watermark key new mine --secret 5b0c7e1d9a3f46828e11f04c6d7a9b53
    say a.jsonl --watermark mine
    expect_status 1 retort evidence plan --suspect nowhere --key mine --read a.jsonl --out plan.json
    expect_text "suspect: there is no file or folder nowhere" "$err"
    expect_status 1 retort evidence plan --suspect "$model" --key mine --read none.jsonl --out plan.json
    expect_text "read: none.jsonl" "$err"
    expect_status 2 retort evidence plan --suspect "$model" --key mine --read a.jsonl --test pooled --out plan.json
    expect_text "the pooled test needs --reference" "$err"
    expect_status 2 retort evidence plan --suspect "$model" --key mine --read a.jsonl --test poled --out plan.json
    expect_text "there is no test 'poled'" "$err"
    expect_equal no "$([ -e plan.json ] && echo yes || echo no)"
}

a_suspect_that_was_exchanged_after_the_plan_shows() {
    expect_status 0 retort watermark key new mine --secret 5b0c7e1d9a3f46828e11f04c6d7a9b53
    say a.jsonl --watermark mine
    expect_status 0 retort export "$model" suspect --type BF16
    expect_status 0 retort evidence plan --suspect suspect --key mine --read a.jsonl --read-tokens 300 --test hard --out plan.json
    expect_equal 64 "$(jq -r '.inputs.suspect | length' plan.json)"
    expect_status 0 retort evidence run plan.json
    printf '\1' | dd of=suspect/model.safetensors bs=1 seek=100000 conv=notrunc 2>/dev/null
    expect_status 1 retort evidence run plan.json
    expect_text "suspect: is not the file that the plan was made with" "$err"
}

another_key_is_not_the_plans() {
    expect_status 0 retort watermark key new mine --secret 5b0c7e1d9a3f46828e11f04c6d7a9b53
    expect_status 0 retort watermark key new other --secret c41d90e7b2a35f6886f3127d0e9b4ac5
    say a.jsonl --watermark mine
    expect_status 0 retort evidence plan --answers a.jsonl --suspect "$model" --key mine --test closed --out plan.json
    expect_status 1 retort evidence run plan.json --key other
    expect_text "commitment" "$err"
}

an_innocent_model_is_calibrated_and_shows_nothing() {
    expect_status 0 retort watermark key new mine --secret 5b0c7e1d9a3f46828e11f04c6d7a9b53
    say a.jsonl
    expect_status 0 retort evidence plan --answers a.jsonl --suspect "$model" --reference "$model" --key mine --read a.jsonl \
        --test pooled --test hard --test closed --read-tokens 600 --out plan.json
    expect_status 0 retort evidence calibrate plan.json --keys 200 --out calibration.json
    expect_status 0 retort evidence run plan.json --calibration calibration.json --json
    # the suspect is its own reference: there is no difference to look at
    expect_text "no difference between suspect and reference" "$out"
    expect_equal true "$(jq '[.results[] | select(.log10_p != null) | .log10_p > -3] | all' <<<"$out")"
}

run_tests marked_text_is_found_by_its_key_and_by_no_other texts_of_other_editors_read_alike a_plan_that_cannot_be_carried_out_is_not_made \
    a_suspect_that_was_exchanged_after_the_plan_shows places_where_the_model_was_free_count_for_more the_key_of_an_account_names_it \
    one_account_among_thousands_is_named_and_none_where_there_is_none a_folder_of_keys_is_looked_through_and_bad_lists_are_refused \
    a_sentence_said_ten_thousand_times_proves_nothing keys_that_others_may_read_wrong_tokenizers_and_ids_are_refused \
    a_secret_that_is_used_twice_is_said public_demo_keys_are_warned_of_and_refused_for_evidence evidence_goes_from_a_plan_to_a_page \
    an_altered_plan_and_altered_inputs_show another_key_is_not_the_plans an_innocent_model_is_calibrated_and_shows_nothing
