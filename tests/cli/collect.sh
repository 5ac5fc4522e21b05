#!/usr/bin/env bash
# `retort collect`: options and recipes, what is refused before anything is sent, and both recipes of recipes/ against a server
# that is ours (build/tests/test_collect serve PORT).
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

prompts() {
    for i in 1 2 3 4 5; do echo "{\"prompt\": \"p$i what is it?\"}"; done >prompts.jsonl
}

# Starts the server of the tests on a free port; its address in $url.
serve() {
    [ -x "$build_dir/tests/test_collect" ] || skip "build/tests/test_collect is not built"
    "$build_dir/tests/test_collect" serve 0 >server.txt 2>&1 &
    server=$!
    trap 'kill $(ps -o pid= --ppid $server) $server 2>/dev/null' EXIT
    for _ in $(seq 100); do
        url=$(grep -o 'http://[0-9.:]*' server.txt) && return
        sleep 0.05
    done
    echo "the server did not start" && exit 1
}

what_is_missing_or_mistyped_is_named() {
    prompts
    expect_status 2 retort collect
    expect_text "which prompts? --in FILE" "$err"
    expect_status 2 retort collect --in prompts.jsonl --url http://127.0.0.1:9
    expect_text "where to? --out" "$err"
    expect_status 2 retort collect --in prompts.jsonl --out rows.jsonl
    expect_text "name one teacher" "$err"
    expect_status 2 retort collect --in prompts.jsonl --out rows.jsonl --url 127.0.0.1:9
    expect_text "is no address" "$err"
    expect_status 2 retort collect --in prompts.jsonl --out rows.jsonl --url http://127.0.0.1:9 ask.temprature=1
    expect_text "did you mean 'ask.temperature'" "$err"
    expect_status 2 retort collect --in prompts.jsonl --out rows.jsonl --url http://127.0.0.1:9 --key-env NOT_SET_AT_ALL
    expect_text "NOT_SET_AT_ALL is not set" "$err"
    expect_status 2 retort collect --in prompts.jsonl --out rows.jsonl --url http://127.0.0.1:9 --spend-max 5usd
    expect_text "needs prices" "$err"
    expect_status 1 retort collect --in nothing.jsonl --out rows.jsonl --url http://127.0.0.1:9
    expect_text "nothing.jsonl cannot be opened" "$err"
    [ ! -e rows.jsonl ]
}

a_bad_line_is_named_before_anything_is_sent() {
    prompts
    echo '{"prmpt": "x"}' >>prompts.jsonl
    expect_status 1 retort collect --in prompts.jsonl --out rows.jsonl --url http://127.0.0.1:9
    expect_text "prompts.jsonl:6: no prompt" "$err"
}

terms_that_forbid_it_stop_the_run_unless_permission_is_claimed() {
    prompts
    expect_status 1 retort collect --in prompts.jsonl --out rows.jsonl --url http://127.0.0.1:9 teacher.forbids_training=yes \
        --terms "no training"
    expect_text "do not allow training other models on its outputs (no training)" "$err"
    expect_status 1 retort collect --in prompts.jsonl --out rows.jsonl --url https://api.openai.com/v1
    expect_text "--i-have-permission" "$err"
    serve
    expect_status 0 retort collect --in prompts.jsonl --out rows.jsonl --url "$url" teacher.forbids_training=yes \
        --terms "no training" --i-have-permission
    expect_text '"permission_claimed": true' "$(cat rows.manifest.json)"
    expect_text '"terms":"no training"' "$(head -n 1 rows.jsonl)"
}

a_dry_run_counts_and_asks_nothing() {
    prompts
    expect_status 0 retort collect --in prompts.jsonl --url http://127.0.0.1:9 --max-tokens 100 --samples 2 --dry-run --json \
        price.input=1 price.output=2
    expect_text '"rows": 10' "$out"
    expect_text '"answer_tokens_max": 1000' "$out"
}

a_printed_recipe_reads_back() {
    expect_status 0 retort collect --print-recipe --temperature 0.5 --in a.jsonl --system 'say "yes": now'
    cp out.txt recipe.yaml
    expect_status 0 retort collect --recipe recipe.yaml --print-recipe
    expect_equal "$(sed 's/ *#.*//' recipe.yaml)" "$(sed 's/ *#.*//' out.txt)"
    expect_text 'temperature: 0.5' "$out"
}

rows_are_written_and_a_second_run_asks_nothing() {
    prompts
    serve
    expect_status 0 retort collect --in prompts.jsonl --out rows.jsonl --url "$url" --model m --max-tokens 20 --json
    expect_text '"rows": 5' "$out"
    expect_equal 5 "$(wc -l <rows.jsonl)"
    expect_status 0 retort collect --in prompts.jsonl --out rows.jsonl --url "$url" --model m --max-tokens 20 --json
    expect_text '"attempts": 0' "$out"
    expect_status 1 retort collect --in prompts.jsonl --out rows.jsonl --url "$url" --model other --max-tokens 20
    expect_text "begun with other settings" "$err"
}

the_recipes_work() {
    prompts
    serve
    expect_status 0 retort collect --recipe "$source_dir/recipes/collect-text.yaml" "prompts.in=[prompts.jsonl]" "teacher.url=$url" --json
    expect_text '"complete": true' "$out"
    expect_text '"response":"The answer to p1' "$(head -n 1 answers.jsonl)"
    expect_status 0 retort collect --recipe "$source_dir/recipes/collect-logprobs.yaml" "prompts.in=[prompts.jsonl]" "teacher.url=$url"
    expect_text '"top":[{"token"' "$(head -n 1 answers-logprobs.jsonl)"
}

into_a_store_the_rows_can_be_looked_at() {
    prompts
    serve
    expect_status 0 retort collect --in prompts.jsonl --out store --url "$url" --model m --max-tokens 20
    expect_status 0 retort outputs stat store --json
    expect_text '5' "$out"
    expect_status 0 retort outputs verify store
}

what_a_server_supports_is_shown_in_ten_requests() {
    serve
    expect_status 0 retort collect --check "$url" --json
    expect_text '"requests": 10' "$out"
    expect_status 1 retort collect --check http://127.0.0.1:9
}

run_tests what_is_missing_or_mistyped_is_named a_bad_line_is_named_before_anything_is_sent \
    terms_that_forbid_it_stop_the_run_unless_permission_is_claimed a_dry_run_counts_and_asks_nothing \
    a_printed_recipe_reads_back rows_are_written_and_a_second_run_asks_nothing the_recipes_work \
    into_a_store_the_rows_can_be_looked_at what_a_server_supports_is_shown_in_ten_requests
