#!/usr/bin/env bash
# docs/results-headline.md in its smallest form, with the small teacher on both sides: every step works, is done once, goes on where it
# was stopped, and the page says what was measured and what was not; and the problems that the repository makes are right.
# shellcheck source=testlib.sh disable=SC2154
. "$(dirname "$0")/../testlib.sh"

# The command, with a program in front of retort: see `stopping`.
headline() {
    RETORT=${front:-$build_dir/retort} RUN_DIR=$PWD/run DOCS=$PWD/docs TEXTS=$PWD/texts SCALE=tiny KEEP=all ANSWER_TOKENS=24 RETORT_HOME=. \
        TEACHER=$source_dir/data/teacher-small.gguf STUDENT=$source_dir/data/teacher-small.gguf "$source_dir/scripts/results-headline" "$@"
}

# HumanEval and MBPP, with problems that the repository makes in their place.
make_texts() {
    mkdir -p texts
    "$source_dir/scripts/code-problems" 1000 24 >made.jsonl
    jq -c 'select(.prompt)' made.jsonl | zstd -q >texts/humaneval.jsonl.zst
    jq -c 'select(.text)' made.jsonl | jq -c --slurp 'to_entries[] | .value + {task_id: ([11, 12, 13, 511, 512, 600, 601, 602, 603, 604, 605, 606][.key])}' |
        zstd -q >texts/mbpp.jsonl.zst
}

every_step_works_once_and_goes_on_where_it_was_stopped() {
    make_texts
    # The first answers lose their last row and the program says that it was stopped; so does the first record.
    cat >stopping <<SH
#!/usr/bin/env bash
echo "\$1 \$2" >>"$PWD/calls"
if [ "\$1" = generate ] && [ ! -e "$PWD/stopped.generate" ]; then
    touch "$PWD/stopped.generate"
    "$build_dir/retort" "\$@"
    sed -i '\$d' "$PWD/run/train.answers.jsonl"
    exit 4
fi
if [ "\$1 \$2" = "outputs record" ] && [ ! -e "$PWD/stopped.record" ]; then
    touch "$PWD/stopped.record"
    exit 4
fi
exec "$build_dir/retort" "\$@"
SH
    chmod +x stopping
    front=$PWD/stopping
    expect_status 4 headline
    asked=$(wc -l <run/train.prompts.jsonl)
    expect_equal $((asked - 1)) "$(wc -l <run/train.answers.jsonl)"
    expect_status 4 headline
    expect_equal "1 $((asked - 1))" "$(jq -r '"\(.answered) \(.skipped)"' run/train.speed.json)"
    expect_equal no "$([ -e docs ] && echo yes || echo no)"
    expect_status 0 headline
    expect_equal 1 "$(grep -c '^distill' calls)"
    page=$(cat docs/results-headline.md)
    expect_text "its figures say nothing" "$page"
    expect_text "| HumanEval | 4 of 12 |" "$page"
    expect_text "| MBPP, test part | 3 of 3 |" "$page"
    expect_text "KL(teacher‖student)" "$page"
    expect_equal true "$(jq '.near.models.before.kl_teacher_student.value < 1e-3 and .run.steps > 0 and (.tasks | length) == 3 and
        ([.tasks[].models[].value] | length) == 9' docs/results-headline.json)"
    expect_equal "$asked" "$(jq '.answers' docs/results-headline.json)"

    # Again: nothing is left to do but the page.  More problems: those alone are answered.
    front=
    cp docs/results-headline.md before.md
    expect_status 0 headline
    expect_equal "" "$(grep '^==' out.txt)"
    cmp before.md docs/results-headline.md
    expect_status 0 headline status
    expect_text "teacher-humaneval: 4 answers of 4" "$out"
    JUDGED="2 4 6" expect_status 0 headline
    expect_equal "2 4" "$(jq -r '"\(.answered) \(.skipped)"' run/after-humaneval-6.speed.json)"
    expect_text "| HumanEval | 6 of 12 |" "$(cat docs/results-headline.md)"
}

without_the_data_sets_the_own_problems_do_it_alone() {
    expect_status 0 headline
    expect_text "Not run: HumanEval, MBPP, test part." "$(cat docs/results-headline.md)"
    expect_text "| made by code-problems | 3 of 3 |" "$(cat docs/results-headline.md)"
    expect_equal true "$(jq '.near.documents == 3 and .mbpp_train == 0 and .answers == 4' docs/results-headline.json)"
}

made_problems_are_right_and_their_parts_differ() {
    for from in 0 4000; do
        "$source_dir/scripts/code-problems" $from 60 --code >made.jsonl
        retort task prompts made.jsonl --out prompts.jsonl
        paste -d' ' prompts.jsonl made.jsonl | jq -c --slurp '[range(0; length; 2) as $i | {prompt: .[$i].prompt, completion: ("```python\n" + .[$i + 1].code + "```")}][]' >said.jsonl
        expect_status 0 retort task check made.jsonl said.jsonl --json
        expect_equal "60 60" "$(jq -r '"\(.answers) \(.right)"' <<<"$out")"
        # an answer that is not the asked one does not pass
        jq -c '.completion = "```python\ndef f(x):\n    return None\n```"' said.jsonl >wrong.jsonl
        expect_status 0 retort task check made.jsonl wrong.jsonl --json
        expect_equal 0 "$(jq .right <<<"$out")"
        jq -r .code made.jsonl | grep '^def' >>names
    done
    expect_equal 120 "$(sort -u names | wc -l)"
    expect_status 1 "$source_dir/scripts/code-problems" 9000 9000
    expect_text "beyond them" "$err"
}

models_are_compared_on_the_problems_that_both_answered() {
    mkdir run
    echo "scale=full teacher=t student=s keep=right lr=1e-4 topk=20 extra=" >run/setting
    seq 1 20 | jq -c '{}' >run/humaneval.all.jsonl
    # before solves 1..8 of 20, after 3..12 of 18: 8 of 18 against 10; four are won and two lost
    seq 1 20 | jq -c '{line: ., completion_tokens: 10, verdict: (if . <= 8 then "right" else "wrong" end)}' >run/before-humaneval.rows.jsonl
    seq 1 18 | jq -c '{line: ., completion_tokens: 20, verdict: (if . >= 3 and . <= 12 then "right" else "stopped" end)}' >run/after-humaneval.rows.jsonl
    expect_status 0 "$source_dir/scripts/results-headline-page" run docs
    pair=$(jq '.tasks.humaneval.after_less_before' docs/results-headline.json)
    expect_equal "18 4 2" "$(jq -r '"\(.problems) \(.better) \(.worse)"' <<<"$pair")"
    expect_equal true "$(jq '(.difference.value - 2 / 18 | fabs < 1e-9) and (.p - 0.6875 | fabs < 1e-9) and .difference.low < 0 and .difference.high > 0.2' <<<"$pair")"
    expect_text "not told apart" "$(cat docs/results-headline.md)"
    expect_text "KL and agreement: not run." "$(cat docs/results-headline.md)"
    expect_text "| not run | 40.0" "$(cat docs/results-headline.md)"
    expect_text "HumanEval 20 of its 164" "$(cat docs/results-headline.md)"
}

a_wrong_word_scale_or_setting_is_refused() {
    expect_status 2 headline pages
    expect_text "'page'" "$err"
    SCALE=huge expect_status 2 "$source_dir/scripts/results-headline"
    expect_text "full or tiny" "$err"
    mkdir run
    echo "scale=full lr=1" >run/setting
    expect_status 2 headline
    expect_text "other settings" "$err"
    expect_equal "setting" "$(ls run)"
    expect_status 1 "$source_dir/scripts/results-headline-page" docs docs
    expect_text "holds no run" "$err"
}

run_tests every_step_works_once_and_goes_on_where_it_was_stopped without_the_data_sets_the_own_problems_do_it_alone \
    made_problems_are_right_and_their_parts_differ models_are_compared_on_the_problems_that_both_answered a_wrong_word_scale_or_setting_is_refused
