#!/usr/bin/env python3
"""Writes fuzz/corpus/tokenizer_json: small tokenizers, one for each step that the reader knows."""
import json
import pathlib
import struct

FOLDER = pathlib.Path(__file__).parent / "corpus" / "tokenizer_json"
META = "\u2581"
ADDED = [{"id": 5, "content": "<s>", "special": True, "lstrip": True, "rstrip": True},
         {"id": 6, "content": "b", "single_word": True, "normalized": True}]


def bpe(**rest):
    vocab = {"?": 0, "a": 1, "b": 2, "ab": 3, META: 4}
    return {"model": {"type": "BPE", "unk_token": "?", "vocab": vocab, "merges": ["a b"], **rest}}


def with_pre(*steps):
    return {**bpe(), "added_tokens": ADDED, "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(steps)}}


def with_normalizers(*steps):
    return {**bpe(), "added_tokens": ADDED, "normalizer": {"type": "Sequence", "normalizers": list(steps)}}


def split(behavior, invert=False):
    return {"type": "Split", "pattern": {"Regex": "\\s+|[b-z]"}, "behavior": behavior, "invert": invert}


def gguf(model, pre):
    def name(s):
        return struct.pack("<Q", len(s.encode())) + s.encode()

    def strings(key, items):
        return name(key) + struct.pack("<IIQ", 9, 8, len(items)) + b"".join(map(name, items))

    def words(key, kind, fmt, items):
        return name(key) + struct.pack("<IIQ", 9, kind, len(items)) + struct.pack(f"<{len(items)}{fmt}", *items)

    tokens = ["<unk>", "a", "b", "ab", "<s>", META, META + "a", "<0x0A>"]
    parts = [name("tokenizer.ggml.model") + struct.pack("<I", 8) + name(model),
             name("tokenizer.ggml.pre") + struct.pack("<I", 8) + name(pre),
             strings("tokenizer.ggml.tokens", tokens), strings("tokenizer.ggml.merges", ["a b"]),
             words("tokenizer.ggml.token_type", 5, "i", [2, 1, 1, 1, 3, 1, 1, 6]),
             words("tokenizer.ggml.scores", 6, "f", [0, -1, -2, -3, 0, -1, -2, 0])]
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(parts)) + b"".join(parts)


SEEDS = {
    "byte_level": {**bpe(), "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}},
    "digits_punctuation": with_pre({"type": "Digits", "individual_digits": True},
                                   {"type": "Punctuation", "behavior": "Contiguous"}),
    "metaspace": with_pre({"type": "Metaspace", "replacement": META, "prepend_scheme": "first", "split": True}),
    "words": with_pre({"type": "Whitespace"}),
    "bert": with_pre({"type": "BertPreTokenizer"}),
    "previous": with_pre(split("MergedWithPrevious"), {"type": "WhitespaceSplit"}),
    "next": with_pre(split("MergedWithNext", True)),
    "forms": with_normalizers({"type": "NFKC"}, {"type": "NFD"}, {"type": "StripAccents"}, {"type": "Lowercase"}),
    "replace": with_normalizers({"type": "Replace", "pattern": {"Regex": "b*"}, "content": "bb"},
                                {"type": "Replace", "pattern": {"String": " "}, "content": META},
                                {"type": "Prepend", "prepend": META}, {"type": "Strip", "strip_right": True}),
    "charsmap": with_normalizers({"type": "Precompiled", "precompiled_charsmap": "BAAAAAAAAABhAGIA"}),
    "fallback": {**bpe(byte_fallback=True, fuse_unk=True, ignore_merges=True),
                 "decoder": {"type": "Sequence", "decoders": [{"type": "Strip", "start": 1}]}},
    "unigram": {"model": {"type": "Unigram", "unk_id": 0, "byte_fallback": True,
                          "vocab": [["?", 0], ["a", -1.5], ["ab", -2], [META, -3], ["<0xFF>", 0]]}},
}

FOLDER.mkdir(parents=True, exist_ok=True)
for key, seed in SEEDS.items():
    (FOLDER / f"{key}.json").write_text(json.dumps(seed), encoding="utf-8")
for model, pre in (("gpt2", "smollm"), ("gpt2", "falcon"), ("llama", "default"), ("t5", "default")):
    (FOLDER / f"{model}_{pre}.gguf").write_bytes(gguf(model, pre))
