#!/usr/bin/env bash
# `retort eval`: figures of small random models from end to end, and what is wrong with the input in one sentence.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

# A byte-level tokenizer with the 97 ids of the golden models: the printable characters of ASCII, the blank, the
# newline and one special token; the first argument is put in the place of '!'.
write_tokenizer() {
    local first=${1:-!} code char vocab="" id=0
    for code in $(seq 33 126); do
        # shellcheck disable=SC2059
        char=$(printf "\\$(printf %03o "$code")")
        [ "$char" = '!' ] && char=$first
        case $char in '"' | \\) char="\\$char" ;; esac
        vocab="$vocab\"$char\": $id, "
        id=$((id + 1))
    done
    cat <<END
{"version": "1.0", "truncation": null, "padding": null,
 "added_tokens": [{"id": 96, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true}],
 "normalizer": null,
 "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
 "post_processor": null,
 "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
 "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
           "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
           "vocab": {$vocab"Ġ": 94, "Ċ": 95, "<end>": 96}, "merges": []}}
END
}

# Model folders: teacher, student and ce, of the same tokenizer.
make_models() {
    local name
    for name in teacher:llama student:llama_untied_rope3 ce:gpt2; do
        mkdir "${name%:*}"
        cp "$source_dir/tests/golden/engine/${name#*:}"/{config.json,model.safetensors} "${name%:*}"
        write_tokenizer >"${name%:*}/tokenizer.json"
    done
}

make_data() {
    local i
    for i in 1 2 3 4 5 6; do
        echo "{\"text\": \"Document $i, of few words.\\nIt's number $((i * i)) (of 6).\"}"
    done >data.jsonl
    echo '{"prompt": "say it", "completion": "I say so"}' >>data.jsonl
}

students_are_judged_and_the_report_reads_the_figures() {
    make_models
    make_data
    expect_status 0 retort eval --teacher teacher --student student --student ce=ce --data data.jsonl --no-speed \
        --resamples 50 --out run/eval.json
    expect_text "of 7 documents; 95% intervals from 50 draws" "$out"
    expect_text "KL(teacher||model), nats" "$out"
    expect_text "ce - student" "$out"
    expect_text "white space" "$out"
    expect_status 0 retort eval --teacher teacher --student student --data data.jsonl --no-speed --json
    expect_text '"kl_teacher_student"' "$out"
    # what students say themselves: the one document with a prompt is enough
    expect_status 0 retort eval --teacher teacher --student student --student same=teacher --data data.jsonl --no-speed \
        --own-answers 12 --json
    expect_equal "1 12 true true" "$(jq -r '.own | "\(.prompts) \(.answer_max) \(.models.student.kl_student_teacher.value > 0) \(.models.same.kl_student_teacher.value < 1e-6)"' <<<"$out")"
    expect_status 0 retort eval --teacher teacher --student student --data data.jsonl --no-speed --own-answers 12
    expect_text "own answers to 1 prompts" "$out"
    expect_status 2 retort eval --teacher teacher --student student --data data.jsonl --no-speed --own-answers 500
    expect_text "leaves room for an answer of 500" "$err"
    expect_status 0 retort report run --json
    expect_text '"kinds": true' "$out"
}

the_same_command_gives_the_same_figures() {
    make_models
    make_data
    expect_status 0 retort eval --teacher teacher --student student --data data.jsonl --no-speed --json
    local first=$out
    expect_status 0 retort eval --teacher teacher --student student --data data.jsonl --no-speed --json
    expect_equal "$first" "$out"
}

a_model_judged_against_itself_is_the_teacher() {
    make_models
    make_data
    expect_status 0 retort eval --teacher teacher --student teacher --data data.jsonl --no-speed
    expect_text "0.000 [0.000, 0.000]    0.000 [0.000, 0.000]" "$out"
}

another_tokenizer_is_an_error_that_names_both() {
    make_models
    make_data
    write_tokenizer "é" >student/tokenizer.json
    expect_status 1 retort eval --teacher teacher --student student --data data.jsonl
    expect_text "do not have the same tokenizer: teacher has" "$err"
    expect_text "student has" "$err"
}

data_without_a_token_to_predict_is_an_error() {
    make_models
    : >data.jsonl
    expect_status 2 retort eval --teacher teacher --student student --data data.jsonl
    expect_text "data.jsonl" "$err"
    expect_status 1 retort eval --teacher teacher --student student --data absent.jsonl
    expect_text "absent.jsonl" "$err"
    echo 'no json' >data.jsonl
    expect_status 1 retort eval --teacher teacher --student student --data data.jsonl
    expect_text "line 1" "$err"
}

a_document_longer_than_the_context_is_an_error_that_says_what_to_do() {
    make_models
    printf '{"text": "%0200d"}\n' 7 >data.jsonl
    expect_status 2 retort eval --teacher teacher --student ce --data data.jsonl
    expect_text "cut documents with --tokens-max 64" "$err"
    expect_status 0 retort eval --teacher teacher --student ce --data data.jsonl --tokens-max 64 --no-speed
    expect_text "of 1 document; intervals need more than one" "$out"
}

what_is_missing_or_doubled_is_named() {
    make_models
    make_data
    expect_status 2 retort eval --teacher teacher --data data.jsonl
    expect_text "--student is missing" "$err"
    expect_status 2 retort eval --teacher teacher --student a=student --student a=ce --data data.jsonl
    expect_text "two models are called 'a'" "$err"
    expect_status 2 retort eval --teacher teacher --student teacher=student --data data.jsonl
    expect_text "two models are called 'teacher'" "$err"
    expect_status 1 retort eval --teacher teacher --student nowhere --data data.jsonl
    expect_text "nowhere" "$err"
    expect_status 2 retort eval --teacher teacher --student student --data data.jsonl --tokens-max 1
    expect_text "at least 2 tokens" "$err"
}

run_tests students_are_judged_and_the_report_reads_the_figures \
    the_same_command_gives_the_same_figures \
    a_model_judged_against_itself_is_the_teacher \
    another_tokenizer_is_an_error_that_names_both \
    data_without_a_token_to_predict_is_an_error \
    a_document_longer_than_the_context_is_an_error_that_says_what_to_do \
    what_is_missing_or_doubled_is_named
