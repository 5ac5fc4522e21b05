#!/usr/bin/env bash
# `retort chat` with a pipe for a user.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

model=${RETORT_TEST_MODEL:-${RETORT_HOME:-$HOME/.cache/retort}/models/SmolLM2-135M-Instruct.Q4_1.gguf}
need_model() { [ -e "$model" ] || skip "the SmolLM2 model is not here: retort pull smollm2-135m-instruct"; }

a_line_is_a_turn_and_the_conversation_is_remembered() {
    need_model
    expect_status 0 retort chat "$model" --temperature 0 --tokens-max 12 \
        < <(printf 'My name is Ada. Say hello.\n/save one.jsonl\n\nWhat is my name?\n/save two.jsonl\n')
    [ "$(wc -l <<<"$out")" -ge 2 ]
    expect_text '{"messages":[{"role":"user","content":"My name is Ada. Say hello."},{"role":"assistant","content":"' "$(cat one.jsonl)"
    expect_text '"What is my name?"},{"role":"assistant"' "$(cat two.jsonl)"
}

a_reset_forgets_and_gives_the_first_answer_again() {
    need_model
    expect_status 0 retort chat "$model" --temperature 0 --tokens-max 8 \
        < <(printf 'Name a fruit.\n/save a.jsonl\n/reset\nName a fruit.\n/save b.jsonl\n/system Answer in French.\nName a fruit.\n/save c.jsonl\n/quit\nnever read\n')
    cmp a.jsonl b.jsonl
    expect_text '{"role":"system","content":"Answer in French."}' "$(cat c.jsonl)"
    expect_text "a new conversation" "$err"
}

the_answers_are_those_of_generate() {
    need_model
    expect_status 0 retort generate "$model" --prompt "Name a fruit." --tokens-max 10 --precision f32
    generated=$out
    expect_status 0 retort chat "$model" --temperature 0 --tokens-max 10 --precision f32 < <(printf 'Name a fruit.\n')
    expect_equal "$generated" "$out"
}

a_wrong_command_and_a_full_context_are_told() {
    need_model
    expect_status 2 retort chat "$model" < <(printf '/rset\n')
    expect_text "did you mean /reset" "$err"
    expect_status 2 retort chat "$model" --context 8 < <(printf 'Name a fruit.\n')
    expect_text "/reset starts a new one" "$err"
    expect_status 2 retort chat "$model" --temperature -1 < <(printf 'a\n')
    expect_status 1 retort chat nowhere.gguf < <(printf 'a\n')
}

run_tests a_line_is_a_turn_and_the_conversation_is_remembered \
    a_reset_forgets_and_gives_the_first_answer_again \
    the_answers_are_those_of_generate \
    a_wrong_command_and_a_full_context_are_told
