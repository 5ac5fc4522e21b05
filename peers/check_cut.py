#!/usr/bin/env python3
"""Does llama.cpp read students that `retort distill` cut out of a teacher, and say the same with them?

Usage: check_cut.py RETORT WORK_DIR MODEL.gguf [--shapes NAME ...]
Students of a teacher (tests use data/teacher-small.gguf) lose layers, MLP units, query heads, kv heads, channels, all of it, and one
has its embedding trained as two factors; each is written as a GGUF in float32. `retort serve` and llama.cpp's server (xllamacpp)
answer the same prompts greedily. The tokens must be the same as long as the two likeliest are not within the tolerance of each other,
and the log-probability of each within 1e-4: the same float32 weights, keys and values, in another order of sums.
"""
import argparse, json, os, subprocess, sys, time, urllib.request

from check_serve import Server, free_port, report
import check_serve

PROMPTS = ["question 3", "The sky is", "once upon a time there was", "1, 2, 3, 4,"]
TOKENS, TOLERANCE = 16, 1e-4


def words_of(shape, config):
    """Each axis of a teacher (its config.json) made smaller."""
    layers, units, width = config["num_hidden_layers"], config["intermediate_size"], config["hidden_size"]
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    cut = {"layers": {"n_layers": max(2, layers - max(1, layers // 4))},
           "units": {"n_ff": units // 64 * 32},
           "heads": {"n_heads": heads - kv, "n_heads_kv": kv},
           "kv heads": {"n_heads_kv": kv - 1},
           "channels": {"n_embd": width * 3 // 4 // 32 * 32},
           "factors": {"embd_rank": 32}}
    cut["all of it"] = {**cut["channels"], **cut["kv heads"], **cut["units"], **cut["layers"]}
    return [f"student.{key}={value}" for key, value in {"n_layers": layers, "n_ff": 0, **cut[shape]}.items()]


def post(url, **body):
    request = urllib.request.Request(url + "/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)["choices"][0]["logprobs"]


def of_retort(url, prompt):
    """[(token, its log-probability, the second likeliest's)]"""
    said = post(url, model="peer", prompt=prompt, max_tokens=TOKENS, temperature=0, logprobs=2)
    return [(token, value, min(top.values()) if len(top) > 1 else value)
            for token, value, top in zip(said["tokens"], said["token_logprobs"], said["top_logprobs"])]


def of_llama(url, prompt):
    said = post(url, prompt=prompt, max_tokens=TOKENS, temperature=0, logprobs=2)
    return [(one["token"], one["logprob"]) for one in said["content"]]


class Llama:
    """llama.cpp's server in a process of its own."""

    def __init__(self, path):
        port = free_port()
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "llama_server.py")
        self.process = subprocess.Popen([sys.executable, script, path, str(port), "exact"],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.url = f"http://127.0.0.1:{port}/v1"

    def __enter__(self):
        for _ in range(600):
            try:
                urllib.request.urlopen(self.url + "/models", timeout=5).read()
                return self
            except OSError:
                if self.process.poll() is not None:
                    raise RuntimeError("llama.cpp does not load it")
                time.sleep(0.1)
        raise RuntimeError("llama.cpp's server does not answer")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def compare(shape, retort, path):
    worst, same, split = 0.0, 0, 0
    with Server(retort, path, "--precision", "f32", "--db", "none") as ours, Llama(path) as theirs:
        for prompt in PROMPTS:
            for (token, value, second), (other, logprob) in zip(of_retort(ours.url, prompt), of_llama(theirs.url, prompt)):
                if token != other:  # a choice between equals may fall either way, and ends what can be compared
                    split += value - second > TOLERANCE
                    break
                worst = max(worst, abs(value - logprob))
                same += 1
    report(split == 0 and same >= TOKENS and worst < TOLERANCE, f"llama.cpp, a student cut in {shape}",
           f"{same} greedy tokens the same, log-probabilities within {worst:.1e}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("retort")
    parser.add_argument("work")
    parser.add_argument("model")
    parser.add_argument("--shapes", nargs="*", default=["layers", "units", "heads", "kv heads", "channels", "factors", "all of it"])
    args = parser.parse_args()
    os.makedirs(args.work, exist_ok=True)
    base, text = os.path.join(args.work, "base"), os.path.join(args.work, "text.jsonl")
    quiet = dict(check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    subprocess.run([args.retort, "export", args.model, base, "--type", "BF16"], **quiet)
    config = json.load(open(os.path.join(base, "config.json")))
    recipe = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "recipes", "prune.yaml")
    with open(text, "w") as f:
        for i in range(60):
            f.write(json.dumps({"prompt": f"question {i}", "completion": f"the answer is {i * 7 % 11}, and more to say",
                                "finish_reason": "stop"}) + "\n")
    for shape in args.shapes:
        run = os.path.join(args.work, shape.replace(" ", "-"))
        subprocess.run([args.retort, "distill", recipe, "--run", run, "--restart", "--quiet", f"teacher.model={args.model}",
                        f"data.train=[{text}]", "data.tokens_max=96", "train.batch_tokens=256", "train.steps=2", "student.survey_tokens=1K",
                        "output.types=[F32]", *words_of(shape, config)], **quiet)
        try:
            compare(shape, args.retort, os.path.join(run, "student.F32.gguf"))
        except RuntimeError as error:
            report(False, f"llama.cpp, a student cut in {shape}", error)
    return check_serve.failed != 0


if __name__ == "__main__":
    sys.exit(main())
