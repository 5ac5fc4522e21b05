#!/usr/bin/env bash
# `retort shortlist` and `generate --draft`: the answers stay the same whatever runs ahead.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

small=$source_dir/data/teacher-small.gguf

said() { # rows that a shortlist is counted on
    for i in $(seq 30); do
        printf '{"prompt": "Tell me about %s.", "completion": "The cat sat on the mat and the dog sat on cat %s.", "finish_reason": "stop"}\n' "$i" "$i"
    done
}

a_shortlist_lies_beside_the_draft_and_is_found_there() {
    cp "$small" draft.gguf
    said >said.jsonl
    expect_status 0 retort shortlist draft.gguf --data said.jsonl --size 200 --json
    expect_equal draft.gguf.shortlist.json "$(jq -r .out <<<"$out")"
    expect_equal 200 "$(jq .ids <<<"$out")"
    expect_equal true "$(jq '.coverage > 0.99 and .tokens > 300' <<<"$out")"
    expect_equal 200 "$(jq '.ids | length' draft.gguf.shortlist.json)"
    expect_status 0 retort shortlist draft.gguf --data said.jsonl --size 200 --all --out all.json
    expect_text "200 of" "$out"
    expect_status 0 retort generate "$small" --prompt "Tell me about cats." --tokens-max 40 --json
    want=$(jq .completion <<<"$out")
    for list in draft.gguf.shortlist.json all.json none; do
        expect_status 0 retort generate "$small" --prompt "Tell me about cats." --tokens-max 40 --json \
            --draft draft.gguf --draft-fixed --draft-shortlist $list
        expect_equal "$want" "$(jq .completion <<<"$out")"
    done
    # the model as its own draft is never refused
    expect_equal true "$(jq '.stats.draft | .tested > 0 and .tested == .accepted' <<<"$out")"
    expect_status 0 retort generate "$small" --prompt "Tell me about cats." --tokens-max 40 --json --draft draft.gguf --draft-fixed
    expect_equal "$want" "$(jq .completion <<<"$out")"
}

answers_are_the_same_with_whatever_runs_ahead() {
    cp "$small" draft.gguf
    for i in 1 2 3; do printf '{"prompt": "Number %s, number %s, number"}\n' "$i" "$i"; done >p.jsonl
    expect_status 0 retort generate "$small" --prompts p.jsonl --tokens-max 60 --out alone.jsonl
    for draft in lookup draft.gguf lookup+draft.gguf; do
        expect_status 0 retort generate "$small" --prompts p.jsonl --tokens-max 60 --draft "$draft" --draft-cost 0.1 --json --out "$draft.jsonl"
        expect_equal "$(sort alone.jsonl)" "$(sort "$draft.jsonl")"
        expect_equal true "$(jq '.stats.draft.tested > 0' <<<"$out")"
    done
}

a_bench_measures_what_a_draft_costs() {
    printf '{"prompt": "Number 1, number 1, number"}\n' >p.jsonl
    expect_status 0 retort bench speculate --model "$small" --draft lookup+"$small" --draft-fixed --runs 2 --prompts p.jsonl --answer 30 --json
    for name in "answers with the draft" "  of the tested tokens looked up" "  a draft's pass over the model's" "  one more token in a pass"; do
        expect_equal true "$(jq --arg name "$name" '.results | map(select(.name == $name)) | length == 1' <<<"$out")"
    done
}

what_does_not_fit_is_named() {
    cp "$small" draft.gguf
    said >said.jsonl
    expect_status 1 retort generate "$small" --prompt a --draft draft.gguf --draft-shortlist nowhere.json
    expect_text "nowhere.json" "$err"
    printf '{"format": "retort-shortlist", "version": 1, "vocabulary": 7, "ids": [1]}\n' >other.json
    expect_status 1 retort generate "$small" --prompt a --draft draft.gguf --draft-shortlist other.json
    expect_text "other.json" "$err"
    expect_text "vocabulary of 7" "$err"
    printf '{"format": "retort-shortlist", "version": 1, "vocabulary": 7, "ids": [7]}\n' >draft.gguf.shortlist.json
    expect_status 1 retort generate "$small" --prompt a --draft draft.gguf
    expect_text "draft.gguf.shortlist.json" "$err"
    expect_status 2 retort generate "$small" --prompt a --draft-fixed
    expect_text "name it with --draft" "$err"
    expect_status 2 retort generate "$small" --prompt a --draft lookup --draft-max 16
    expect_text "15 at most" "$err"
    expect_status 2 retort generate "$small" --prompt a --draft lookup --draft-shortlist other.json
    expect_status 1 retort generate "$small" --prompt a --draft lookup+nowhere.gguf
    expect_text "nowhere.gguf" "$err"
    expect_status 2 retort shortlist draft.gguf --data said.jsonl --size 1G
    expect_text "more than" "$err"
    expect_status 2 retort shortlist draft.gguf --data said.jsonl --size 0
    expect_status 1 retort shortlist draft.gguf --data nowhere.jsonl
    expect_status 2 retort bench speculate
    expect_text "--draft" "$err"
}

the_judge_foresees_what_a_short_draft_is_worth() {
    cp "$small" draft.gguf
    said >said.jsonl
    # few ids, so that much of what the model says cannot be said ahead
    expect_status 0 retort shortlist draft.gguf --data said.jsonl --size 18
    for i in $(seq 12); do printf '{"prompt": "Tell me about number %s."}\n' "$i"; done >p.jsonl
    expect_status 0 retort generate "$small" --prompts p.jsonl --tokens-max 60 --temperature 1 --seed 3 --precision f32 \
        --draft draft.gguf --draft-fixed --draft-max 1 --json --out said1.jsonl
    tested=$(jq .stats.draft.tested <<<"$out") accepted=$(jq .stats.draft.accepted <<<"$out")
    eval=(retort eval --teacher "$small" --student draft.gguf --data said1.jsonl --precision f32 --no-speed --json)
    expect_status 0 "${eval[@]}" --draft-shortlist own
    expect_equal 18 "$(jq .models.student.draft_ids <<<"$out")"
    # within four standard errors of what was measured, and far from what the whole draft would be: itself
    jq -e --argjson t "$tested" --argjson a "$accepted" '.models.student | ($a / $t) as $m | .acceptance.value as $p |
        $t > 100 and $p < 0.95 and ($p - $m | fabs) < 4 * ($p * (1 - $p) / $t | sqrt) and .kl_teacher_student.value < 1e-6' <<<"$out"
    expect_status 0 "${eval[@]}" --draft-shortlist draft.gguf.shortlist.json
    for list in none all; do
        [ $list = none ] || printf '{"format": "retort-shortlist", "version": 1, "vocabulary": 272, "ids": %s}\n' "$(seq 0 258 | jq -sc .)" >all
        expect_status 0 "${eval[@]}" --draft-shortlist $list
        jq -e '.models.student.acceptance.value > 0.999' <<<"$out"
    done
    printf '{"format": "retort-shortlist", "version": 1, "vocabulary": 7, "ids": [1]}\n' >other.json
    expect_status 1 "${eval[@]}" --draft-shortlist other.json
    expect_text "vocabulary of 7" "$err"
    expect_status 1 "${eval[@]}" --draft-shortlist nowhere.json
    expect_text "nowhere.json" "$err"
}

a_draft_of_another_vocabulary_is_refused() {
    said >said.jsonl
    retort tokenizer train said.jsonl "$source_dir/data/prompts.jsonl" --vocab 400 --like "$small" --out tokenizer >/dev/null
    retort distill "$source_dir/recipes/across-tokenizers.yaml" --run other --quiet --init-only "teacher.model=$small" student.n_layers=2 \
        student.tokenizer=tokenizer 'data.train=[said.jsonl]' data.tokens_max=128 train.batch_tokens=256
    for draft in other/student lookup+other/student; do
        expect_status 1 retort generate "$small" --prompt a --draft $draft
        expect_text "tokenizer" "$err"
        expect_equal "" "$out"
    done
    expect_status 1 retort bench speculate --model "$small" --draft other/student --runs 1
    expect_text "tokenizer" "$err"
}

run_tests a_shortlist_lies_beside_the_draft_and_is_found_there \
    answers_are_the_same_with_whatever_runs_ahead \
    a_bench_measures_what_a_draft_costs \
    a_draft_of_another_vocabulary_is_refused the_judge_foresees_what_a_short_draft_is_worth \
    what_does_not_fit_is_named
