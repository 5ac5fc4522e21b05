#!/usr/bin/env python3
"""Do other programs read what `retort export` writes, and compute the same with it?

Usage: check_export.py RETORT WORK_DIR [--engine DIR] [--smollm2 DIR --model SmolLM2.gguf] [--only PART ...]
  --engine   tests/golden/engine: every family goes folder -> GGUF (F32) -> folder
  --smollm2  tests/golden/smollm2, with the real GGUF: GGUF -> folder (F32) -> GGUF (F32, F16, Q8_0)
Parts, each run when what it imports is there and said to be skipped when not:
  gguf          the gguf package reads our files: every tensor has the values that went in
  transformers  loads the folders; logits, token ids and the chat template as in the reference vectors
  llama         llama-cpp-python loads our GGUFs; next-token log-probabilities as in the reference vectors

Tolerances, and why
  engine, transformers  1e-5 of the largest logit: the same float32 weights in float64 arithmetic (gemma3's norms
                        go w -> 1 + w -> w, one float32 rounding each way)
  engine, llama.cpp     1e-4 in log-probability: float32 weights and cache, other order of sums; gpt2 and gemma3
                        1e-2, because llama.cpp looks gelu up in a table of float16
  smollm2, transformers 2e-3 in logits, as the vectors' README says
  smollm2, llama.cpp    mean over positions of KL(reference || llama.cpp) on the reference's top 20: F32 1e-5; F16 1e-3
                        (it rounds activations to float16); Q8_0 0.02 (it rounds activations to 8 bits: the original
                        Q4_1 file, whose weights the reference has exactly, shows up to 0.008 there)
"""
import argparse, json, math, os, struct, subprocess, sys

FAMILIES = ["llama", "llama_untied_rope3", "llama_head_dim", "llama_yarn", "mistral_window", "qwen2", "qwen3", "gemma3", "gpt2"]
EXPERTS = ["qwen3_moe", "deepseek_v3"]  # folder -> GGUF -> folder too, but loaded by transformers alone
failed = 0


def report(ok, what, detail):
    global failed
    failed += not ok
    print(f"{'ok    ' if ok else 'FAILED'}  {what}: {detail}", flush=True)


def have(*modules):
    for name in modules:
        try:
            __import__(name)
        except ImportError:
            return False
    return True


def load(path):
    """A safetensors file as numpy arrays (bfloat16 is not needed here)."""
    import numpy as np
    kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4"}
    with open(path, "rb") as f:
        size, = struct.unpack("<Q", f.read(8))
        head = json.loads(f.read(size))
        data = f.read()
    return {n: np.frombuffer(data[t["data_offsets"][0]:t["data_offsets"][1]], kinds[t["dtype"]]).reshape(t["shape"])
            for n, t in head.items() if n != "__metadata__"}


def export(args, source, target, kind):
    path = os.path.join(args.work, target)
    subprocess.run([args.retort, "export", source, path, "--type", kind], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return path


# --- gguf ---

def check_gguf(what, path, folder):
    """Every tensor of the GGUF, dequantised by the gguf package, against a folder made from it by retort."""
    import numpy as np
    from gguf import GGUFReader, dequantize
    reader = GGUFReader(path)
    ours = load(os.path.join(folder, "model.safetensors"))
    sums = sorted(float(np.abs(t.astype(np.float64)).sum()) for t in ours.values())
    theirs = {t.name: dequantize(t.data, t.tensor_type) for t in reader.tensors if t.name != "rope_freqs.weight"}
    other = sorted(float(np.abs(t.astype(np.float64)).sum()) for t in theirs.values())
    # Names and row orders differ between the formats; sums of magnitudes do not (gemma3's norms apart).
    worst = max(abs(a - b) / max(a, 1) for a, b in zip(sums, other))
    same = len(sums) == len(other) and worst < (1e-5 if "gemma3" not in what else math.inf)
    report(same, f"gguf reads {what}", f"{len(other)} tensors, {len(reader.fields)} keys, worst {worst:.1e}")


# --- transformers ---

def logits_of(folder, ids, dtype, **more):
    import torch
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager", **more).eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor(ids), use_cache=False).logits.double().numpy()


def check_transformers_engine(family, folder, vectors):
    import numpy as np
    import torch
    more = {"experts_implementation": "eager"} if family in EXPERTS else {}  # the others know no float64
    got = logits_of(folder, vectors["ids"], torch.float64, **more)
    worst = float(np.abs(got - vectors["logits"]).max() / np.abs(vectors["logits"]).max())
    report(worst < 1e-5, f"transformers, {family} through GGUF", f"logits within {worst:.1e} of the largest")


def check_transformers_smollm2(folder, golden):
    import numpy as np
    import torch
    from transformers import AutoTokenizer
    vectors = load(os.path.join(golden, "forward.safetensors"))
    texts = json.load(open(os.path.join(golden, "texts.json")))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for i, text in enumerate(texts):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        report(ids == vectors[f"ids.{i}"].tolist(), f"transformers, SmolLM2 tokenizer, text {i}", f"{len(ids)} ids")
        got = logits_of(folder, [vectors[f"ids.{i}"].tolist()], torch.float32)[0]
        top = np.take_along_axis(got, vectors[f"top_id.{i}"], -1)
        worst = float(np.abs(top - vectors[f"top_logit.{i}"]).max())
        report(worst < 2e-3, f"transformers, SmolLM2 from GGUF, text {i}", f"top 20 logits within {worst:.1e}")
    rows = json.load(open(os.path.join(golden, "greedy.json")))
    chats = sum(tokenizer.apply_chat_template([{"role": "user", "content": r["prompt"]}], tokenize=False,
                                              add_generation_prompt=True) == r["rendered"] for r in rows)
    report(chats == len(rows), "transformers, SmolLM2 chat template", f"{chats} of {len(rows)} prompts the same")


# --- llama.cpp ---

class Llama:
    def __init__(self, path):
        import llama_cpp as C
        self.C = C
        C.llama_backend_init()
        if not getattr(Llama, "quiet", None):
            Llama.quiet = C.llama_log_callback(lambda level, text, data: None)
            C.llama_log_set(Llama.quiet, None)
        params = C.llama_model_default_params()
        self.model = C.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            raise RuntimeError("llama.cpp does not load it")
        self.n_vocab = C.llama_vocab_n_tokens(C.llama_model_get_vocab(self.model))

    def logits(self, ids):
        """Of every position, with float32 keys and values and without flash attention."""
        import numpy as np
        C = self.C
        params = C.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = max(64, len(ids))
        params.type_k = params.type_v = 0
        if hasattr(params, "flash_attn_type"):
            params.flash_attn_type = 0
        params.n_threads = params.n_threads_batch = 2
        context = C.llama_init_from_model(self.model, params)
        batch = C.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = int(token), i, 1, 1
            batch.seq_id[i][0] = 0
        status = C.llama_decode(context, batch)
        if status:
            raise RuntimeError(f"llama_decode gives {status}")
        out = np.stack([np.ctypeslib.as_array(C.llama_get_logits_ith(context, i), (self.n_vocab,)).copy()
                        for i in range(len(ids))]).astype(np.float64)
        C.llama_batch_free(batch)
        C.llama_free(context)
        return out

    def tokens(self, text):
        C = self.C
        data = text.encode()
        out = (C.llama_token * (len(data) + 8))()
        n = C.llama_tokenize(C.llama_model_get_vocab(self.model), data, len(data), out, len(out), False, True)
        return list(out[:n])

    def close(self):
        self.C.llama_model_free(self.model)


def log_softmax(x):
    import numpy as np
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def check_llama_engine(family, path, vectors):
    import numpy as np
    what = f"llama.cpp, {family} as GGUF"
    try:
        llama = Llama(path)
    except RuntimeError as error:
        return report(False, what, error)
    length = 7 if family == "mistral_window" else vectors["ids"].shape[1]  # llama.cpp has no window there
    if family == "gemma3":
        length = 8  # it has windows in all but each sixth layer; within one all layers agree
    ids, want = vectors["ids"][0][:length], log_softmax(vectors["logits"][0][:length])
    worst = float(np.abs(log_softmax(llama.logits(ids)) - want).max())
    llama.close()
    limit = 1e-2 if family in ("gpt2", "gemma3") else 1e-4
    report(worst < limit, what, f"log-probabilities within {worst:.1e} over {length} positions")


def check_llama_smollm2(path, kind, golden):
    import numpy as np
    vectors = load(os.path.join(golden, "forward.safetensors"))
    texts = json.load(open(os.path.join(golden, "texts.json")))
    llama = Llama(path)
    worst, same_ids = 0.0, True
    for i, text in enumerate(texts):
        ids = vectors[f"ids.{i}"]
        same_ids &= llama.tokens(text) == ids.tolist()
        got = np.take_along_axis(log_softmax(llama.logits(ids)), vectors[f"top_id.{i}"], -1)
        want = vectors[f"top_logit.{i}"].astype(np.float64) - vectors[f"lse.{i}"][:, None]
        rest = [np.log(np.maximum(1 - np.exp(x).sum(-1), 1e-7)) for x in (got, want)]  # what is not in the top 20
        divergence = (np.exp(want) * (want - got)).sum(-1) + np.exp(rest[1]) * (rest[1] - rest[0])
        worst = max(worst, float(divergence.mean()))
    llama.close()
    report(same_ids, f"llama.cpp, SmolLM2 as {kind} GGUF", "token ids as in the reference")
    limit = {"F32": 1e-5, "F16": 1e-3, "Q8_0": 0.02}[kind]
    report(worst < limit, f"llama.cpp, SmolLM2 as {kind} GGUF", f"KL at most {worst:.1e} nats a token")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("retort")
    parser.add_argument("work")
    parser.add_argument("--engine")
    parser.add_argument("--smollm2")
    parser.add_argument("--model")
    parser.add_argument("--only", nargs="*", choices=["gguf", "transformers", "llama"])
    args = parser.parse_args()
    os.makedirs(args.work, exist_ok=True)
    needs = {"gguf": ["numpy", "gguf"], "transformers": ["numpy", "torch", "transformers"], "llama": ["numpy", "llama_cpp"]}
    parts = [p for p in needs if (not args.only or p in args.only) and have(*needs[p])]
    for name in needs:
        if name not in parts:
            print(f"skipped {name}: not asked for, or {', '.join(needs[name])} not all installed")
    for family in FAMILIES if args.engine else []:
        vectors = load(os.path.join(args.engine, family, "vectors.safetensors"))
        path = export(args, os.path.join(args.engine, family), f"{family}.gguf", "F32")
        folder = export(args, path, family, "F32")
        if "gguf" in parts:
            check_gguf(family, path, folder)
        if "transformers" in parts:
            check_transformers_engine(family, folder, vectors)
        if "llama" in parts:
            check_llama_engine(family, path, vectors)
    for family in EXPERTS if args.engine and "transformers" in parts else []:
        vectors = load(os.path.join(args.engine, family, "vectors.safetensors"))
        path = export(args, os.path.join(args.engine, family), f"{family}.gguf", "F32")
        check_transformers_engine(family, export(args, path, family, "F32"), vectors)
    if args.smollm2 and args.model:
        folder = export(args, args.model, "smollm2", "F32")
        if "transformers" in parts:
            check_transformers_smollm2(folder, args.smollm2)
        for kind in ["F32", "F16", "Q8_0"]:
            path = export(args, folder, f"smollm2-{kind}.gguf", kind)
            if "gguf" in parts:
                check_gguf(f"SmolLM2 {kind}", path, export(args, path, f"smollm2-{kind}", "F32"))
            if "llama" in parts:
                check_llama_smollm2(path, kind, args.smollm2)
    print("all as it should be" if not failed else f"{failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
