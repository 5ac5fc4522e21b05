"""Watermarks in both directions between this program and transformers, on the CPU.

Text that `retort generate --watermark` marks with hf-kgw and hf-synthid is put before transformers' own
detectors, and text that transformers' processors mark is put before `retort watermark detect`.  A small
vocabulary of ids is enough: the schemes see ids alone.

usage: check_watermark.py RETORT MODEL.gguf      (MODEL: any model with a tokenizer, for retort's own texts)
"""
import json
import os
import subprocess
import sys
import tempfile

import torch
from transformers import WatermarkDetector, WatermarkingConfig
from transformers.generation.configuration_utils import SynthIDTextWatermarkingConfig
from transformers.generation.logits_process import (
    SynthIDTextWatermarkLogitsProcessor,
    WatermarkLogitsProcessor,
)

RETORT, MODEL = sys.argv[1], sys.argv[2]
HASHING_KEY = 712345679
SYNTHID_KEYS = [(7919 * i * i + 104729 * i + 15) % 2147483647 for i in range(30)]
SHOWN = []


def run(*args):
    done = subprocess.run([RETORT, *args], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(args[:3])}: {done.stderr.strip()}")
    return done.stdout


def note(what, mark, other, good):
    SHOWN.append(good)
    print(f"{'ok   ' if good else 'FAIL '} {what}: marked {mark}, other text {other}")


def model_vocabulary():
    return json.loads(run("inspect", MODEL, "--json"))["shape"]["n_vocab"]


class Config:  # what the detector reads of a model's config
    def __init__(self, n_vocab):
        self.vocab_size, self.bos_token_id, self.is_encoder_decoder = n_vocab, -1, False


def ids_of(text_rows):
    """The ids that retort's own tokenizer gives, through the detector's JSON rows."""
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        run("export", MODEL, folder + "/hf", "--type", "BF16")
        tokenizer = AutoTokenizer.from_pretrained(folder + "/hf")
    return [i for row in text_rows for i in tokenizer.encode(row, add_special_tokens=False)]


def generate(key, prompts):
    args = ["generate", MODEL, "--prompts", prompts, "--temperature", "1", "--tokens-max", "200", "--seed", "5",
            "--slots", "4"]
    if key:
        args += ["--watermark", key]
    return [json.loads(line)["completion"] for line in run(*args).splitlines()]


def ours_in_theirs(folder, n_vocab):
    prompts = os.path.join(folder, "prompts.jsonl")
    with open(prompts, "w") as out:
        for what in ("a story about a fox", "a letter about a holiday", "a list of birds", "how bread is made"):
            out.write(json.dumps({"prompt": f"Tell me {what}."}) + "\n")
    plain = ids_of(generate(None, prompts))
    for seeding, width in (("lefthash", "1"), ("selfhash", "3")):
        key = os.path.join(folder, f"kgw-{seeding}.json")
        run("watermark", "key", "new", "--scheme", "hf-kgw", "--secret", str(HASHING_KEY), "--seeding", seeding,
            "--context-width", width, "--vocab-size", str(n_vocab), "--delta", "3", "--out", key)
        detector = WatermarkDetector(
            Config(n_vocab), "cpu",
            WatermarkingConfig(greenlist_ratio=0.25, bias=3.0, hashing_key=HASHING_KEY, seeding_scheme=seeding,
                               context_width=int(width)),
            ignore_repeated_ngrams=True)
        z = [float(detector(torch.tensor([ids]), return_dict=True).z_score[0])
             for ids in (ids_of(generate(key, prompts)), plain)]
        note(f"ours in theirs, {seeding}", f"z {z[0]:.1f}", f"z {z[1]:.1f}", z[0] > 5 and abs(z[1]) < 4)
    key = os.path.join(folder, "synthid.json")
    run("watermark", "key", "new", "--scheme", "hf-synthid", "--ngram-len", "3", "--secret",
        ",".join(map(str, SYNTHID_KEYS)), "--out", key)
    processor = SynthIDTextWatermarkLogitsProcessor(ngram_len=3, keys=SYNTHID_KEYS, sampling_table_size=65536,
                                                    sampling_table_seed=0, context_history_size=1024, device="cpu")
    means = []
    for ids in (ids_of(generate(key, prompts)), plain):
        ids = torch.tensor([ids])
        g = processor.compute_g_values(ids).float()
        mask = processor.compute_context_repetition_mask(ids).float()
        means.append(float((g.mean(-1) * mask).sum() / mask.sum()))
    note("ours in theirs, synthid", f"mean g {means[0]:.3f}", f"mean g {means[1]:.3f}",
         means[0] > 0.52 and abs(means[1] - 0.5) < 0.015)


def speak(processor, n_vocab, length, seed):
    """Ids drawn by a processor from logits that depend on the last id."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(n_vocab, n_vocab, generator=generator) * 2
    ids = torch.tensor([[3]])
    for _ in range(length):
        scores = table[ids[:, -1]].clone()
        if processor is not None:
            scores = processor(ids, scores)
        p = torch.softmax(scores, -1)
        ids = torch.cat([ids, torch.multinomial(p, 1, generator=generator)], 1)
    return ids[0, 1:].tolist()


def log10_p(key, ids, folder):
    path = os.path.join(folder, "ids.jsonl")
    with open(path, "w") as out:
        out.write(json.dumps({"ids": ids}) + "\n")
    return json.loads(run("watermark", "detect", path, "--key", key, "--json", "--random-keys", "0")
                      )["results"][0]["log10_p"]


def theirs_in_ours(folder):
    n_vocab, length = 400, 300
    plain = speak(None, n_vocab, length, 1)
    for seeding, width in (("lefthash", 1), ("selfhash", 3)):
        key = os.path.join(folder, f"their-{seeding}.json")
        run("watermark", "key", "new", "--scheme", "hf-kgw", "--secret", str(HASHING_KEY), "--seeding", seeding,
            "--context-width", str(width), "--vocab-size", str(n_vocab), "--out", key)
        processor = WatermarkLogitsProcessor(vocab_size=n_vocab, device="cpu", greenlist_ratio=0.25, bias=2.0,
                                             hashing_key=HASHING_KEY, seeding_scheme=seeding, context_width=width)
        p = [log10_p(key, ids, folder) for ids in (speak(processor, n_vocab, length, 2), plain)]
        note(f"theirs in ours, {seeding}", f"log10 p {p[0]:.1f}", f"log10 p {p[1]:.1f}", p[0] < -8 and p[1] > -4)
    key = os.path.join(folder, "their-synthid.json")
    run("watermark", "key", "new", "--scheme", "hf-synthid", "--ngram-len", "3", "--secret",
        ",".join(map(str, SYNTHID_KEYS)), "--out", key)
    processor = SynthIDTextWatermarkLogitsProcessor(ngram_len=3, keys=SYNTHID_KEYS, sampling_table_size=65536,
                                                    sampling_table_seed=0, context_history_size=1024, device="cpu")
    p = [log10_p(key, ids, folder) for ids in (speak(processor, n_vocab, length, 2), plain)]
    note("theirs in ours, synthid", f"log10 p {p[0]:.1f}", f"log10 p {p[1]:.1f}", p[0] < -8 and p[1] > -4)


with tempfile.TemporaryDirectory() as work:
    theirs_in_ours(work)
    ours_in_theirs(work, model_vocabulary())
print(f"{sum(SHOWN)} of {len(SHOWN)} hold")
sys.exit(0 if all(SHOWN) else 1)
