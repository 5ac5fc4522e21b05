"""What other public tools say of the files that scripts/results-evidence made, beside `retort`.

- transformers' own detectors (WatermarkDetector, SynthID's mean score) on marked, unmarked and repeated text;
- the share of word trigrams that a suspect's answers have in common with the teacher's, as text-only tools count them;
- names that a suspect claims (`retort evidence`, identity).

usage: compare_evidence.py RETORT RUN_DIR MODEL OUT.json [--text-only]

MODEL is the lab's teacher.  --text-only leaves out transformers (python3 alone is enough) and says so.
"""
import glob
import json
import os
import subprocess
import sys
import tempfile

RETORT, RUN, MODEL, OUT = sys.argv[1:5]
TEXT_ONLY = "--text-only" in sys.argv
HASHING_KEY = 712345679
SYNTHID_KEYS = [(7919 * i * i + 104729 * i + 15) % 2147483647 for i in range(30)]
ROWS = []


def note(tool, file, says):
    ROWS.append({"tool": tool, "file": file, "says": says})


def run(*args):
    done = subprocess.run([RETORT, *args], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(args[:3])}: {done.stderr.strip()}")
    return done.stdout


def completions(path):
    with open(path, encoding="utf8") as file:
        return [json.loads(line)["completion"] for line in file if line.strip()]


def trigrams(texts):
    return {tuple(words[i:i + 3]) for text in texts for words in [text.lower().split()] for i in range(len(words) - 2)}


def share(said, served):
    return f"{100 * len(said & served) / max(1, len(said)):.1f}% (no null, no p)"


def overlap():
    served = trigrams(completions(f"{RUN}/text/tournament-1.jsonl"))
    note("word trigrams in common with the served answers", "the base, unmarked text",
         share(trigrams(completions(f"{RUN}/text/base.said.jsonl")), served))
    for dose, what in ((100, "student, all marked"), (0, "control student, unmarked text")):
        records = sorted(glob.glob(f"{RUN}/records/tournament-{dose}-*.json"))
        if not records:
            continue
        name = os.path.basename(records[0])[:-5]
        served = trigrams(completions(f"{RUN}/text/tournament-{name.rsplit('-', 1)[1]}.jsonl"))
        path = f"{RUN}/runs/{name}/said.jsonl"
        said = trigrams(completions(path))
        record = json.load(open(f"{RUN}/records/{name}.json", encoding="utf8"))
        note("word trigrams in common with the served answers", what, share(said, served))
        for r in record["results"]:
            if r["test"] in ("pooled", "difference"):
                note(f"retort evidence, {r['test']}", what, f"z {r['z']:.1f}, log10 p {r['log10_p']:.1f}")
        plan = os.path.join(RUN, f"identity-{name}.json")
        if os.path.exists(plan):
            os.remove(plan)
        run("evidence", "plan", "--suspect", f"{RUN}/runs/{name}/student", "--answers", path, "--name", "SmolLM", "--name", "retort",
            "--name", "ChatGPT", "--test", "identity", "--out", plan)
        claims = json.loads(run("evidence", "run", plan, "--json")).get("identity", [])
        note("identity claims", what, "; ".join(f"{c['name']}: {c['k']} of {c['n']} answers" for c in claims) or "none")


def speak(folder, prompts, key):
    args = ["generate", MODEL, "--prompts", prompts, "--temperature", "1", "--tokens-max", "200", "--seed", "11", "--threads", "1"]
    return [json.loads(line)["completion"] for line in run(*args, *(["--watermark", key] if key else [])).splitlines()]


def ours(folder, texts, key, *options):
    path = os.path.join(folder, "texts.jsonl")
    with open(path, "w", encoding="utf8") as out:
        for text in texts:
            out.write(json.dumps({"text": text}) + "\n")
    r = json.loads(run("watermark", "detect", path, "--key", key, "--model", MODEL, "--json", "--random-keys", "0", *options))["results"][0]
    return f"z {r['z']:.1f}, log10 p {r['log10_p']:.1f}, {r['n']} pairs"


def their_kgw(texts, n_vocab, tokenizer):
    import torch
    from transformers import WatermarkDetector, WatermarkingConfig

    class Config:  # what the detector reads of a model's config
        vocab_size, bos_token_id, is_encoder_decoder = n_vocab, -1, False

    config = WatermarkingConfig(greenlist_ratio=0.25, bias=2.0, hashing_key=HASHING_KEY, seeding_scheme="lefthash", context_width=1)
    ids = torch.tensor([[i for t in texts for i in tokenizer.encode(t, add_special_tokens=False)]])
    for repeats in (False, True):
        r = WatermarkDetector(Config(), "cpu", config, ignore_repeated_ngrams=repeats)(ids, return_dict=True)
        yield (f"transformers WatermarkDetector{', repeats left out' if repeats else ', default'}",
               f"z {float(r.z_score[0]):.1f}, p {float(r.p_value[0]):.1g}: {'marked' if r.prediction[0] else 'not marked'}")


def their_synthid(texts, tokenizer):
    import torch
    from transformers.generation.logits_process import SynthIDTextWatermarkLogitsProcessor

    processor = SynthIDTextWatermarkLogitsProcessor(ngram_len=3, keys=SYNTHID_KEYS, sampling_table_size=65536, sampling_table_seed=0,
                                                    context_history_size=1024, device="cpu")
    ids = torch.tensor([[i for t in texts for i in tokenizer.encode(t, add_special_tokens=False)]])
    g, mask = processor.compute_g_values(ids).float(), processor.compute_context_repetition_mask(ids).float()
    yield "transformers SynthID, mean score", f"{float((g.mean(-1) * mask).sum() / mask.sum()):.4f} (no null, no p)"


def detectors():
    """Marks that transformers can read, in its two schemes: its detectors, and retort's with and without repeated pairs."""
    n_vocab = json.loads(run("inspect", MODEL, "--json"))["shape"]["n_vocab"]
    tokenizer = None
    if not TEXT_ONLY:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(f"{RUN}/teacher")
    with tempfile.TemporaryDirectory() as folder:
        prompts = os.path.join(folder, "prompts.jsonl")
        with open(f"{RUN}/prompts.held.jsonl", encoding="utf8") as file, open(prompts, "w", encoding="utf8") as out:
            out.writelines(file.readlines()[:20])
        kgw, synthid = os.path.join(folder, "kgw.json"), os.path.join(folder, "synthid.json")
        run("watermark", "key", "new", "--scheme", "hf-kgw", "--secret", str(HASHING_KEY), "--vocab-size", str(n_vocab), "--out", kgw)
        run("watermark", "key", "new", "--scheme", "hf-synthid", "--ngram-len", "3", "--secret", ",".join(map(str, SYNTHID_KEYS)), "--out", synthid)
        plain = speak(folder, prompts, None)
        repeated = ["The kettle sang on the stove while the rain came down outside. "] * 1000
        for scheme, key in (("hf-kgw", kgw), ("hf-synthid", synthid)):
            for what, texts in ((f"20 answers marked with {scheme}", speak(folder, prompts, key)), ("20 unmarked answers", plain),
                                ("a sentence said 1,000 times", repeated)):
                if not TEXT_ONLY:
                    for tool, says in their_kgw(texts, n_vocab, tokenizer) if key == kgw else their_synthid(texts, tokenizer):
                        note(tool, what, says)
                if key == kgw:  # SynthID's own detector masks repeated contexts
                    note(f"{scheme}, every repeat counted (transformers' default rule), by retort", what,
                         ours(folder, texts, key, "--dedup", "none"))
                note(f"retort watermark detect, {scheme}", what, ours(folder, texts, key))


overlap()
detectors()
if TEXT_ONLY:
    note("transformers' own detectors", "-", "not run: `make peers` installs them; their rule was applied by retort")
with open(OUT, "w", encoding="utf8") as out:
    json.dump({"about": "Made by `peers/compare_evidence.py`, retort's figure beside each.", "rows": ROWS}, out, indent=1)
print(f"{len(ROWS)} rows in {OUT}")
