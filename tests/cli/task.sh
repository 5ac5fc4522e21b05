#!/usr/bin/env bash
# `retort task`: problems answered by a model, as prompts, and checked; right answers become training text.
# shellcheck source=testlib.sh disable=SC2154
. "$(dirname "$0")/../testlib.sh"

teacher=$source_dir/data/teacher-small.gguf

make_problems() {
    for i in 1 2 3 4; do
        printf '{"question": "What is %d and %d?", "answer": "They are\\n#### %d"}\n' "$i" "$i" $((2 * i))
    done >sums.jsonl
}

# row QUESTION COMPLETION [FINISH]
row() { jq -nc --arg q "$1" --arg a "$2" --arg f "${3:-stop}" '{prompt: $q, completion: $a, finish_reason: $f, completion_tokens: ($a | length)}'; }

a_model_answers_in_words_and_by_likelihood() {
    make_problems
    expect_status 0 retort task run sums.jsonl --model "$teacher" --tokens-max 12 --samples 3 --temperature 1 --out said.jsonl --json
    expect_equal 12 "$(jq -s length said.jsonl)"
    expect_equal 12 "$(jq '.answers' <<<"$out")"
    expect_equal "number" "$(jq -r .kind <<<"$out")"
    # the figures are those of the rows that were written, and a check of these says the same
    expect_equal "$(jq -s '[.[] | select(.verdict == "right")] | length' said.jsonl)" "$(jq .right <<<"$out")"
    first=$out
    expect_status 0 retort task check sums.jsonl said.jsonl --json
    expect_equal "$(jq -S 'del(.kind, .seconds, .tokens)' <<<"$first")" "$(jq -S 'del(.harvest)' <<<"$out")"
    printf '{"query": "The sky is", "choices": ["blue", "a table", "seven"], "gold": 0}\n{"ctx": "He", "endings": ["ran.", "sat."], "label": 1}\n' >choices.jsonl
    expect_status 0 retort task run choices.jsonl --model "$teacher" --json --out chosen.jsonl
    expect_equal 2 "$(jq .answers <<<"$out")"
    expect_equal 3 "$(jq -s '.[0].log_p | length' chosen.jsonl)"
    # likelihoods are the same with any number of threads, and finite
    expect_status 0 retort task run choices.jsonl --model "$teacher" --out again.jsonl --threads 1
    cmp chosen.jsonl again.jsonl
}

right_answers_become_training_text() {
    make_problems
    {
        row "What is 1 and 1?" "They are 2 in all. #### 2"
        row "What is 1 and 1?" "#### 2"
        row "What is 1 and 1?" "#### 2"
        row "What is 2 and 2?" "<think>2 + 2</think>It is 4."
        row "What is 3 and 3?" "#### 7"
        row "What is 4 and 4?" "#### 8" length
        row "What is love?" "#### 2"
    } >said.jsonl
    expect_status 0 retort task check sums.jsonl said.jsonl --keep shortest --out train.jsonl --rows rows.jsonl --json
    expect_equal "1 right 1 right 1 right 2 right 3 wrong 4 right" "$(jq -r '"\(.line) \(.verdict)"' rows.jsonl | paste -sd' ')"
    expect_equal false "$(tail -1 rows.jsonl | jq .stopped)" # the one that was cut
    expect_equal "5 2 1 1 1" "$(jq -r '"\(.right) \(.harvest.kept) \(.harvest.cut) \(.harvest.twice) \(.harvest["beyond the number a problem"])"' <<<"$out")"
    expect_equal '#### 2' "$(jq -rs '.[0].completion' train.jsonl)"
    expect_equal '<think>2 + 2</think>It is 4.' "$(jq -rs '.[1].completion' train.jsonl)"
    # what was kept trains a student
    cat >recipe.yaml <<YAML
teacher: {model: $teacher}
student: {n_layers: 1}
data: {train: [train.jsonl], tokens_max: 64}
loss: [ce]
train: {batch_tokens: 64, steps: 2}
output: {types: []}
YAML
    expect_status 0 retort distill recipe.yaml --run run --quiet
    # rows as collect writes them, the thought apart
    jq -nc '{request: {messages: [{role: "user", content: "What is 3 and 3?"}]}, text: "So 6.", reasoning: "3 + 3", finish_reason: "stop",
        usage: {completion_tokens: 9}}' >said.jsonl
    expect_status 0 retort task check sums.jsonl said.jsonl --out train.jsonl
    expect_equal "$(printf '<think>\n3 + 3\n</think>\n\nSo 6.')" "$(jq -r .completion train.jsonl)"
}

answers_are_compared_with_those_before() {
    make_problems
    for i in 1 2 3 4; do
        row "What is $i and $i?" "#### $((i < 2 ? 2 : 0))" >>start.jsonl
        row "What is $i and $i?" "#### $((2 * i))" >>student.jsonl
    done
    expect_status 0 retort task check sums.jsonl student.jsonl --before start.jsonl --json
    expect_equal "4 0.75" "$(jq -r '.less_before | "\(.problems) \(.accuracy.value)"' <<<"$out")"
    expect_status 0 retort task check sums.jsonl student.jsonl --before student.jsonl
    expect_text "+0.00 points  [+0.00, +0.00]" "$out"
    row "What is 9 and 9?" "#### 18" >none.jsonl
    expect_status 2 retort task check sums.jsonl student.jsonl --before none.jsonl
    expect_text "none.jsonl" "$err"
}

a_thought_that_was_cut_is_no_answer() {
    make_problems
    {
        row "What is 1 and 1?" "<think>1 + 1 = 2, so #### 2"
        row "What is 2 and 2?" "<think>2 + 2 = 4" length
        row "What is 3 and 3?" "<think>first 7, no</think>#### 6"
    } >said.jsonl
    expect_status 0 retort task check sums.jsonl said.jsonl --out train.jsonl --json
    expect_equal "1 2 1" "$(jq -r '"\(.right) \(.none) \(.harvest.kept)"' <<<"$out")"
    expect_equal '<think>first 7, no</think>#### 6' "$(jq -r .completion train.jsonl)"
    # a template that opens the thought itself: what generate writes begins with it, so a cut one is told as such
    retort export "$teacher" thinker >/dev/null
    jq '.chat_template = "{{ messages[0].content }}{{ \"<think>\\n\" }}"' thinker/tokenizer_config.json >with && mv with thinker/tokenizer_config.json
    expect_status 0 retort task prompts sums.jsonl --out prompts.jsonl
    expect_status 0 retort generate thinker --prompts prompts.jsonl --out thought.jsonl --tokens-max 8 --temperature 1
    expect_equal 4 "$(jq -s '[.[] | select(.completion | startswith("<think>\n"))] | length' thought.jsonl)"
    expect_status 0 retort task check sums.jsonl thought.jsonl --json
    expect_equal 4 "$(jq .none <<<"$out")"
    expect_status 0 retort task run sums.jsonl --model thinker --tokens-max 8 --json
    expect_equal 4 "$(jq .none <<<"$out")"
}

problems_of_a_test_set_are_left_out() {
    words="one two three four five six seven eight nine ten eleven twelve thirteen"
    jq -nc --arg q "Say $words now." '{question: $q, answer: "#### 1"}' >train-set.jsonl
    jq -nc '{question: "Something else entirely?", answer: "#### 1"}' >>train-set.jsonl
    jq -nc --arg q "$words, then?" '{question: $q, answer: "#### 2"}' >test-set.jsonl
    {
        row "Say $words now." "#### 1"
        row "Something else entirely?" "#### 1"
    } >said.jsonl
    expect_status 0 retort task check train-set.jsonl said.jsonl --against test-set.jsonl --out kept.jsonl --json
    expect_equal 1 "$(jq '.harvest["problems like those of --against"]' <<<"$out")"
    expect_equal "Something else entirely?" "$(jq -r .prompt kept.jsonl)"
    # of tasks for a program their own text counts, not the words that all their prompts share
    jq -nc '{text: "Write the half of x.", test_list: ["assert half(4) == 2"]}, {text: $q, test_list: ["assert half(4) == 2"]}' \
        --arg q "Say $words now." >train-set.jsonl
    jq -nc '{text: $q, test_list: ["assert 1"]}' --arg q "$words, then?" >test-set.jsonl
    retort task prompts train-set.jsonl | jq -c '. + {completion: "def half(x):\n    return x / 2", finish_reason: "stop"}' >said.jsonl
    expect_status 0 retort task check train-set.jsonl said.jsonl --against test-set.jsonl --out kept.jsonl --json
    expect_equal "2 1" "$(jq -r '"\(.right) \(.harvest["problems like those of --against"])"' <<<"$out")"
    expect_text "half of x" "$(jq -r .prompt kept.jsonl)"
}

prompts_go_out_and_answers_find_back() {
    make_problems
    expect_status 0 retort task prompts sums.jsonl --samples 2 --instruction 'End with #### N.' --out prompts.jsonl
    expect_equal 8 "$(wc -l <prompts.jsonl)"
    expect_status 0 retort generate "$teacher" --prompts prompts.jsonl --out said.jsonl --tokens-max 8 --temperature 1
    expect_status 0 retort task check sums.jsonl said.jsonl --instruction 'End with #### N.' --json
    expect_equal 8 "$(jq .answers <<<"$out")"
}

what_cannot_be_is_one_sentence() {
    make_problems
    printf '{"question": "q"}\n' >bad.jsonl
    expect_status 2 retort task run bad.jsonl --model "$teacher"
    expect_text "bad.jsonl:1" "$err"
    expect_status 2 retort task run sums.jsonl --model "$teacher" --samples 4
    expect_text "give --temperature" "$err"
    row "What is love?" "x" >said.jsonl
    expect_status 2 retort task check sums.jsonl said.jsonl
    expect_text "another --instruction" "$err"
    printf '{"completion": "x"}\n' >said.jsonl
    expect_status 2 retort task check sums.jsonl said.jsonl
    expect_text "said.jsonl:1" "$err"
    printf '{"query": "q", "choices": ["a", "b"], "gold": 0}\n' >choices.jsonl
    expect_status 2 retort task prompts choices.jsonl
    expect_text "task run" "$err"
    cat sums.jsonl choices.jsonl >mixed.jsonl
    expect_status 2 retort task run mixed.jsonl --model "$teacher"
    expect_text "mixed.jsonl:5" "$err"
    expect_status 2 retort task chek
    expect_text "check" "$err"
}

two_models_answers_are_judged_both_ways_round() {
    for i in 1 2 3 4 5 6; do
        row "Say $i." "It is $i, and no other." >>first.jsonl
        row "Say $i." "$i" >>second.jsonl
    done
    row "Alone?" "Yes." >>first.jsonl
    expect_status 0 retort task duel first.jsonl second.jsonl --judge "$teacher" --out rounds.jsonl --json
    expect_equal "6 1" "$(jq -r '"\(.requests) \(.unpaired)"' <<<"$out")"
    local rate=$out
    # the figure is the mean of the rounds, and the other way round it is what is left to 1
    jq -es --argjson f "$rate" '(map((.as_second + .as_first) / 2) | add / length) - $f.win_rate.value | fabs < 1e-5' rounds.jsonl >/dev/null
    expect_status 0 retort task duel second.jsonl first.jsonl --judge "$teacher" --json
    jq -e --argjson f "$rate" '.win_rate.value + $f.win_rate.value - 1 | fabs < 1e-5' <<<"$out" >/dev/null
    expect_status 0 retort task duel first.jsonl first.jsonl --judge "$teacher" --json # of equals: one half, to the bit
    expect_equal "0.5" "$(jq .win_rate.value <<<"$out")"
    row "Nobody asked." "Well." >third.jsonl
    expect_status 2 retort task duel first.jsonl third.jsonl --judge "$teacher"
    expect_text "no request in common" "$err"
    echo '{"text": "no answer"}' >third.jsonl
    expect_status 2 retort task duel first.jsonl third.jsonl --judge "$teacher"
    expect_text "third.jsonl:1" "$err"
}

run_tests a_model_answers_in_words_and_by_likelihood right_answers_become_training_text \
    problems_of_a_test_set_are_left_out prompts_go_out_and_answers_find_back what_cannot_be_is_one_sentence \
    two_models_answers_are_judged_both_ways_round answers_are_compared_with_those_before a_thought_that_was_cut_is_no_answer
