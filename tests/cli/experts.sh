#!/usr/bin/env bash
# Models with experts and latent attention go through every command: distilled, judged, exported, asked.
# usage: experts.sh BUILD_DIR
# shellcheck source=tests/testlib.sh
. "$(dirname "$0")/../testlib.sh"
engine=$source_dir/tests/golden/engine

# A folder of the reference vectors with a tokenizer of single letters.
talking() {
    cp -r "$engine/$1" "$1"
    chmod -R u+w "$1"
    id=3 vocab='"<pad>": 0, "<s>": 1, "</s>": 2'
    for piece in a b c d e f g h i j k l m n o p q r s t u v w x y z Ġ Ċ; do
        vocab="$vocab, \"$piece\": $id"
        id=$((id + 1))
    done
    byte_level='"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true'
    cat >"$1/tokenizer.json" <<END
{"version": "1.0", "normalizer": null, "pre_tokenizer": {$byte_level}, "decoder": {$byte_level},
 "added_tokens": [{"id": 2, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true}],
 "model": {"type": "BPE", "vocab": {$vocab}, "merges": []}}
END
    echo '{"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}' >"$1/tokenizer_config.json"
}

# Without the ids that have no piece, which a folder leaves out and GGUF calls [PADn].
letters() { echo "$1" | sed 's/\[PAD[0-9]*\]//g'; }

texts() {
    for i in 1 2 3 4 5 6 7 8; do
        echo "{\"text\": \"the cat sat on the mat and the dog ran to row $(echo "$i" | tr 1-8 a-h) of the house\"}"
    done >texts.jsonl
}

a_model_with_experts_is_distilled_judged_and_exported() {
    texts
    for family in qwen3_moe deepseek_v3; do
        talking "$family"
        cat >recipe.yaml <<END
teacher: {model: $family}
student: {layers: [1]}
data: {train: [texts.jsonl], tokens_max: 64}
loss: ["fkl"]
train: {tokens: 2K}
END
        rm -rf run
        expect_status 0 retort distill recipe.yaml
        expect_status 0 retort inspect run/student
        expect_text "2 of 8 experts" "$out"
        expect_status 0 retort eval --student run/student --teacher "$family" --data texts.jsonl
        expect_status 0 retort generate run/student --prompt "the cat" --tokens-max 8 --temperature 0
        folder=$(letters "$out")
        expect_status 0 retort export run/student student.gguf --type F32
        expect_status 0 retort generate student.gguf --prompt "the cat" --tokens-max 8 --temperature 0
        expect_equal "$folder" "$(letters "$out")"
    done
}

experts_are_not_read_from_disk() {
    talking qwen3_moe
    texts
    expect_status 1 retort outputs record --model qwen3_moe --data texts.jsonl --out store --draws 4 --stream
    expect_text "must fit in memory" "$err"
}

run_tests a_model_with_experts_is_distilled_judged_and_exported experts_are_not_read_from_disk
