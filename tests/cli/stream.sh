#!/usr/bin/env bash
# A model whose file is three times what the process may map runs from disk, and says what it says from memory.
# shellcheck source=testlib.sh disable=SC2154
. "$(dirname "$0")/../testlib.sh"

# model FOLDER HIDDEN FF LAYERS: a llama with random bf16 weights and a byte-level tokenizer
model() {
    command -v python3 >/dev/null || skip "python3 is not installed"
    python3 - "$@" <<'PYTHON'
import json, os, random, struct, sys
out, d, ff, layers, vocab = sys.argv[1], *map(int, sys.argv[2:5]), 259
os.makedirs(out)
heads, kv = d // 64, max(d // 256, 1)
json.dump({"model_type": "llama", "hidden_size": d, "intermediate_size": ff, "num_hidden_layers": layers,
           "num_attention_heads": heads, "num_key_value_heads": kv, "head_dim": 64, "vocab_size": vocab,
           "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
           "bos_token_id": 1, "eos_token_id": 2}, open(out + "/config.json", "w"))
tensors = [("model.embed_tokens.weight", (vocab, d))]
for l in range(layers):
    p = f"model.layers.{l}."
    tensors += [(p + "input_layernorm.weight", (d,)), (p + "self_attn.q_proj.weight", (heads * 64, d)),
                (p + "self_attn.k_proj.weight", (kv * 64, d)), (p + "self_attn.v_proj.weight", (kv * 64, d)),
                (p + "self_attn.o_proj.weight", (d, heads * 64)), (p + "post_attention_layernorm.weight", (d,)),
                (p + "mlp.gate_proj.weight", (ff, d)), (p + "mlp.up_proj.weight", (ff, d)), (p + "mlp.down_proj.weight", (d, ff))]
tensors.append(("model.norm.weight", (d,)))
header, at = {}, 0
for name, shape in tensors:
    size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
    header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
    at += size
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
r = random.Random(1)
block = b"".join(struct.pack("<f", r.gauss(0, 0.02))[2:] for _ in range(1 << 17))
with open(out + "/model.safetensors", "wb") as f:
    f.write(struct.pack("<Q", len(text)) + text)
    for name, shape in tensors:
        begin, end = header[name]["data_offsets"]
        one = b"\x80\x3f" * 4096 if len(shape) == 1 else block
        for left in range(end - begin, 0, -len(one)):
            f.write(one[:left])
printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
rest = [b for b in range(256) if b not in printable]
letter = {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(rest)}}
special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
json.dump({"version": "1.0", "normalizer": None, "post_processor": None,
           "added_tokens": [{"id": i, "content": s, "single_word": False, "lstrip": False, "rstrip": False,
                             "normalized": False, "special": True} for i, s in enumerate(special)],
           "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
           "decoder": {"type": "ByteLevel"},
           "model": {"type": "BPE", "vocab": {**{s: i for i, s in enumerate(special)}, **{letter[b]: 3 + b for b in range(256)}},
                     "merges": []}}, open(out + "/tokenizer.json", "w"))
PYTHON
}

answers_from_disk_are_those_from_memory() {
    model m 256 512 3
    for precision in f32 bf16; do
        expect_status 0 retort generate m --prompt hello --raw --tokens-max 12 --temperature 0 --precision "$precision" --threads 2
        local wanted=$out
        expect_status 0 retort generate m --prompt hello --raw --tokens-max 12 --temperature 0 --precision "$precision" --threads 2 --stream
        expect_equal "$wanted" "$out"
    done
}

a_third_of_the_file_is_memory_enough() {
    command -v prlimit >/dev/null || skip "prlimit is not installed"
    ! grep -q RETORT_SANITIZE:STRING=. "$build_dir/CMakeCache.txt" 2>/dev/null || skip "a sanitizer maps more than any limit"
    [ "$(df -Pk . | awk 'NR == 2 { print $4 }')" -gt 2000000 ] || skip "less than 2 GB of disk are free"
    model m 1024 4096 24
    local bytes
    bytes=$(stat -c %s m/model.safetensors)
    retort generate m --prompt hello --raw --tokens-max 3 --temperature 0 --precision bf16 --threads 1 --context 64 >wanted.txt
    if prlimit --as=$((bytes / 3)) "$build_dir/retort" generate m --prompt hello --raw --tokens-max 3 --temperature 0 \
        --precision bf16 --threads 1 --context 64 >whole.txt 2>err.txt; then
        echo "the model ran whole in a third of its size: the test proves nothing"
        exit 1
    fi
    prlimit --as=$((bytes / 3)) "$build_dir/retort" generate m --prompt hello --raw --tokens-max 3 --temperature 0 \
        --precision bf16 --threads 1 --context 64 --stream >got.txt
    cmp wanted.txt got.txt
}

too_little_memory_is_a_sentence() {
    command -v prlimit >/dev/null || skip "prlimit is not installed"
    ! grep -q RETORT_SANITIZE:STRING=. "$build_dir/CMakeCache.txt" 2>/dev/null || skip "a sanitizer maps more than any limit"
    model m 1024 4096 2
    expect_status 1 prlimit --as=110000000 "$build_dir/retort" generate m --prompt hello --raw --tokens-max 3 \
        --precision f32 --threads 1 --context 64 --stream
    expect_text "memory" "$err"
}

run_tests answers_from_disk_are_those_from_memory a_third_of_the_file_is_memory_enough too_little_memory_is_a_sentence
