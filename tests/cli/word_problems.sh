#!/usr/bin/env bash
# scripts/word-problems: what is judged shares nothing with what is learnt, and the answers are right.
# shellcheck source=testlib.sh disable=SC2154
. "$(dirname "$0")/../testlib.sh"

have_python() { command -v python3 >/dev/null || skip "no python3"; }

the_parts_share_nothing() {
    have_python
    "$source_dir/scripts/word-problems" fit 300 >fit.jsonl
    "$source_dir/scripts/word-problems" test 300 >test.jsonl
    expect_equal 300 "$(jq -r .question fit.jsonl | sort -u | wc -l)"
    for part in fit test; do
        jq -r .story $part.jsonl | sort -u >$part.stories
        # every calculation as its three numbers, whichever was asked for
        jq -r .answer $part.jsonl | grep '=' | awk '{
            if ($2 == "-" || $2 == "/") { a = $3; b = $5 } else { a = $1; b = $3 }
            print ($2 == "+" || $2 == "-" ? "sum" : "product"), (a < b ? a " " b : b " " a)}' | sort -u >$part.calculations
        # names and things: capitals inside sentences, and the plurals
        jq -r .question $part.jsonl | grep -oE '\b(Ada|Boris|Clara|Dmitri|Elif|Farid|Maren|Nikos|Oona|Piet|Rosa|Sven|apples|stamps|marbles|walnuts|postcards|candles)\b' |
            sort -u >$part.words
    done
    for what in stories calculations words; do
        [ "$(wc -l <fit.$what)" -gt 5 ] && [ "$(wc -l <test.$what)" -gt 5 ]
        expect_equal "" "$(comm -12 fit.$what test.$what)"
    done
}

the_answers_are_right_and_come_again() {
    have_python
    for part in fit test; do
        "$source_dir/scripts/word-problems" $part 200 7 >rows.jsonl
        "$source_dir/scripts/word-problems" $part 200 7 | cmp - rows.jsonl
        "$source_dir/scripts/word-problems" $part 200 8 >others.jsonl
        ! cmp -s others.jsonl rows.jsonl
        # each line holds, and the last one's result is the answer
        jq -r .answer rows.jsonl | awk '
            /####/ { if ($2 != last) { print "not the last result: " $0; exit 1 } next }
            { r = $2 == "+" ? $1 + $3 : $2 == "-" ? $1 - $3 : $2 == "*" ? $1 * $3 : $1 / $3; last = $5
              if (r != $5) { print "wrong: " $0; exit 1 } }'
        # every number of a calculation is in the question, or a result before it, or the 2 of a half
        jq -es 'all(.[]; [.question | scan("[0-9]+")] as $said | reduce (.answer | split("\n")[] | select(startswith("#") | not) | [scan("[0-9]+")]) as $n
            ($said + ["2"]; if . and ([$n[0], $n[1]] - . == []) then . + [$n[2]] else false end) | . != false)' rows.jsonl >/dev/null
        jq -r '{question, answer, prompt: .question, completion: .answer, finish_reason: "stop"}' -c rows.jsonl >said.jsonl
    done
    # the verifier agrees with the maker
    expect_status 0 retort task check rows.jsonl said.jsonl --json
    expect_equal 200 "$(jq .right <<<"$out")"
    ! "$source_dir/scripts/word-problems" neither 3 2>/dev/null
}

run_tests the_parts_share_nothing the_answers_are_right_and_come_again
