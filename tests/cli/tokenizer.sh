#!/usr/bin/env bash
# `retort tokenizer`: a vocabulary is learnt, shown, used; what it refuses; the same as the Hugging Face trainer's.
# shellcheck source=testlib.sh disable=SC2154
. "$(dirname "$0")/../testlib.sh"

teacher=$source_dir/data/teacher-small.gguf

# The shipped prompts hold words of their own; a little of everything else follows them.
make_text() {
    cp "$source_dir/data/prompts.jsonl" rows.jsonl
    for i in $(seq 300); do
        printf 'It'"'"'s row %d: caf\xc3\xa9 \xe4\xbd\xa0\xe5\xa5\xbd %d\n\n\t  x=%d;\r\n' "$i" $((i * i)) $((i % 7))
    done >plain.txt
}

a_vocabulary_is_learnt_shown_and_used() {
    make_text
    expect_status 0 retort tokenizer train rows.jsonl plain.txt --vocab 600 --out small --special '<|end|>' --special '<|begin|>' \
        --bos '<|begin|>' --json
    expect_text '"vocab": 600' "$out"
    expect_status 0 retort tokenizer show small --text plain.txt --json
    expect_text '"id": 0' "$out"
    expect_text '<|begin|>' "$out"
    expect_status 0 retort tokenizer encode --file plain.txt --model small
    # shellcheck disable=SC2086
    retort tokenizer decode $out --model small | cmp - plain.txt
    expect_status 0 retort tokenizer encode 'a<|end|>' --model small --special
    expect_text " 0" "$out"
    expect_status 0 retort tokenizer decode 0,0 --model small --skip-special
    expect_equal "" "$out"
}

the_same_text_gives_the_same_file() {
    make_text
    retort tokenizer train rows.jsonl plain.txt --vocab 500 --out a --threads 1 >/dev/null
    retort tokenizer train plain.txt rows.jsonl --vocab 500 --out b --threads 3 >/dev/null
    cmp a/tokenizer.json b/tokenizer.json
    zstd -q rows.jsonl -o packed.jsonl.zst
    retort tokenizer train packed.jsonl.zst plain.txt --vocab 500 --out c >/dev/null
    cmp a/tokenizer.json c/tokenizer.json
}

special_tokens_and_template_come_from_another_model() {
    make_text
    expect_status 0 retort tokenizer train plain.txt --vocab 400 --out small --like "$teacher"
    retort tokenizer show "$teacher" --json | python3 -c '
import json, sys
theirs = json.load(sys.stdin)
mine = json.loads(sys.argv[1])
texts = lambda facts: [token["text"] for token in facts["special"]]
assert texts(theirs) == texts(mine) and texts(mine), (theirs, mine)
assert theirs["eos"]["text"] == mine["eos"]["text"] and theirs["chat_template"] == mine["chat_template"]' \
        "$(retort tokenizer show small --json)"
}

what_cannot_be_is_said() {
    make_text
    expect_status 2 retort tokenizer train plain.txt --vocab 100 --out small
    expect_text "257 (256 bytes and 1 special tokens)" "$err"
    expect_status 2 retort tokenizer train plain.txt --out small --special a
    expect_text "at least 2 bytes" "$err"
    expect_status 2 retort tokenizer train plain.txt --out small --special '<a>' --eos '<b>'
    expect_text "--eos <b> is no --special token" "$err"
    expect_status 2 retort tokenizer train plain.txt --out small --special '<a>' --like "$teacher"
    expect_status 2 retort tokenizer train --out small
    expect_status 1 retort tokenizer train missing.txt --out small
    echo '{"a": "no such key"}' >odd.jsonl
    expect_status 2 retort tokenizer train odd.jsonl --out small
    expect_text "odd.jsonl: none of its rows has text under a usual key" "$err"
    expect_status 0 retort tokenizer train odd.jsonl --out small --field a
    echo '{"text": ' >odd.jsonl
    expect_status 1 retort tokenizer train odd.jsonl --out small
    expect_text "odd.jsonl: line 1: not JSON" "$err"
    : >empty.txt
    expect_status 2 retort tokenizer train empty.txt --out small
    expect_text "no text to learn" "$err"
    expect_status 1 retort tokenizer train plain.txt --memory 1K --out small
    expect_text "raise the bound" "$err"
    head -c 100000 /dev/urandom >noise.txt
    expect_status 0 retort tokenizer train noise.txt --vocab 300 --out small
    expect_status 2 retort tokenizer decode 300 --model small
    expect_status 2 retort tokenizer decode x --model small
    expect_status 2 retort tokenizer encode --model small
}

it_is_what_the_hugging_face_trainer_makes_of_the_text() {
    python=${RETORT_PEERS_PYTHON:-$build_dir/peers-venv/bin/python}
    "$python" -c 'import tokenizers' 2>/dev/null || skip "tokenizers (Python) is not installed"
    make_text
    for pattern in gpt2 smollm llama3 qwen2; do
        retort tokenizer train rows.jsonl plain.txt --vocab 700 --pattern $pattern --out small >/dev/null
        retort tokenizer encode --file plain.txt --model small >ids.txt
        "$python" - $pattern <<'PYTHON'
import json, sys
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
contractions, tail = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)", r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
gpt2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
words = contractions + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
steps = {"gpt2": [gpt2], "smollm": [r"\p{N}", gpt2], "llama3": [words + "{1,3}" + tail], "qwen2": [words + tail]}[sys.argv[1]]
theirs = Tokenizer(models.BPE())
theirs.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(step), "isolated") for step in steps] +
                                               [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
if sys.argv[1] == "qwen2":
    theirs.normalizer = normalizers.NFC()
plain = open("plain.txt", newline="").read()
texts = [plain]
for line in open("rows.jsonl"):
    row = json.loads(line)
    texts += [row["prompt"]] if "prompt" in row else [m["content"] for m in row["messages"]]
theirs.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=700, min_frequency=2, special_tokens=["<|endoftext|>"],
                           initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
mine, model = json.load(open("small/tokenizer.json"))["model"], json.loads(theirs.to_str())["model"]
assert mine["vocab"] == model["vocab"], sys.argv[1]
assert [tuple(m) for m in mine["merges"]] == [tuple(m) for m in model["merges"]], sys.argv[1]
assert Tokenizer.from_file("small/tokenizer.json").encode(plain, add_special_tokens=False).ids == \
    [int(word) for word in open("ids.txt").read().split()], sys.argv[1]
PYTHON
    done
}

run_tests a_vocabulary_is_learnt_shown_and_used the_same_text_gives_the_same_file \
    special_tokens_and_template_come_from_another_model what_cannot_be_is_said \
    it_is_what_the_hugging_face_trainer_makes_of_the_text
