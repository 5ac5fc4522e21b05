#!/usr/bin/env python3
"""Do unmodified clients work with `retort serve`, and are the scores those of transformers?

Usage: check_serve.py RETORT MODEL.gguf WORK_DIR [--documents 60] [--only PART ...]
Parts, each run when what it imports is there and said to be skipped when not:
  openai   the SDK: models, chat, completions, streams with usage, seeds, log-probabilities, schemas, exceptions
  keys     the SDK with an account: a key that works, one that does not, a limit, a suspension
  lm_eval  lm-eval's local-completions against its own HuggingFace model, float32, the same documents: the
           log-likelihood of each document within 0.05 nats, the same greedy verdicts
  llm      the `llm` command, whole and streamed
  curl     a stream as a shell sees it
"""
import argparse, json, os, re, shutil, socket, subprocess, sys, time, urllib.request

failed = 0


def report(ok, what, detail=""):
    global failed
    failed += not ok
    print(f"{'ok    ' if ok else 'FAILED'}  {what}{': ' if detail else ''}{detail}", flush=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, retort, model, *options, env=None):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.process = subprocess.Popen([retort, "serve", model, "--port", str(self.port), "--alias", "peer", *options],
                                        stderr=subprocess.DEVNULL, env={**os.environ, **(env or {})})
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=5).read()
                return
            except OSError:
                if self.process.poll() is not None:
                    sys.exit(f"{retort} serve ended with {self.process.returncode}")
                time.sleep(0.1)
        sys.exit("the server does not get ready")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        report(self.process.wait(60) == 0, "the server ends with status 0 on SIGTERM")


def check_openai(args, server):
    import openai
    client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)
    models = client.models.list().data
    report(len(models) == 1 and client.models.retrieve("peer").id == models[0].id, f"openai {openai.__version__}: models", models[0].id)
    ask = dict(model="peer", messages=[{"role": "user", "content": "What is the capital of France?"}], max_tokens=24, temperature=0)
    whole = client.chat.completions.create(**ask, logprobs=True, top_logprobs=3)
    text = whole.choices[0].message.content
    report("Paris" in text, "chat", text)
    entries = whole.choices[0].logprobs.content
    joined = b"".join(bytes(e.bytes) for e in entries).decode()
    report(joined == text and all(len(e.top_logprobs) == 3 for e in entries), "log-probabilities join to the text")
    chunks = list(client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    report(streamed == text and chunks[-1].usage == whole.usage or chunks[-1].usage.completion_tokens == whole.usage.completion_tokens,
           "a stream is the whole answer, with usage", f"{len(chunks)} chunks")
    wild = dict(ask, temperature=1.3, seed=11, n=3, max_tokens=16)
    a, b = (client.chat.completions.create(**wild) for _ in range(2))
    report([c.message.content for c in a.choices] == [c.message.content for c in b.choices] and
           len({c.message.content for c in a.choices}) > 1, "a seed repeats itself, its choices differ")
    done = client.completions.create(model="peer", prompt=["One, two,", "The sky is"], max_tokens=8, temperature=0, logprobs=2, echo=True)
    report(len(done.choices) == 2 and done.choices[1].text.startswith("The sky is") and
           done.choices[0].logprobs.token_logprobs[0] is None, "completions with echo")
    stopped = client.completions.create(model="peer", prompt="1, 2, 3, 4,", max_tokens=20, temperature=0, stop=[" 7"])
    report(" 7" not in stopped.choices[0].text and stopped.choices[0].finish_reason == "stop", "stop strings", stopped.choices[0].text)
    schema = {"type": "object", "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
              "required": ["city", "people"], "additionalProperties": False}
    made = client.chat.completions.create(**dict(ask, max_tokens=200), response_format={
        "type": "json_schema", "json_schema": {"name": "place", "schema": schema, "strict": True}})
    if made.choices[0].finish_reason == "stop":
        found = json.loads(made.choices[0].message.content)
        report(isinstance(found["city"], str) and isinstance(found["people"], int), "json_schema", made.choices[0].message.content)
    else:
        report(made.choices[0].finish_reason == "length", "json_schema, cut off by its length")
    faults = [(openai.BadRequestError, dict(ask, temperature=9)), (openai.NotFoundError, dict(ask, model="nobody")),
              (openai.BadRequestError, dict(ask, max_tokens=10**6))]
    for kind, request in faults:
        try:
            client.chat.completions.create(**request)
            report(False, f"{kind.__name__} is raised")
        except kind as fault:
            report(fault.code is not None and fault.param is not None, f"{kind.__name__}: {fault.code}", fault.param)


def run_json(*command, env):
    return json.loads(subprocess.run(command, env={**os.environ, **env}, check=True, capture_output=True).stdout)


def check_keys(args):
    import openai
    db = os.path.join(args.work, "accounts.db")
    for name in os.listdir(args.work):
        if name.startswith("accounts.db"):
            os.remove(os.path.join(args.work, name))
    env = {"RETORT_DB": db}
    account = run_json(args.retort, "account", "create", "peer", "--json", env=env)["id"]
    secret = run_json(args.retort, "key", "create", account, "--json", env=env)["secret"]
    with Server(args.retort, args.model, "--admin-host", "none", env=env) as server:
        ask = dict(model="peer", messages=[{"role": "user", "content": "Hi"}], max_tokens=4)
        client = openai.OpenAI(base_url=server.url, api_key=secret, max_retries=0)
        report(client.chat.completions.create(**ask).usage.completion_tokens > 0, "an account's key works")
        try:
            openai.OpenAI(base_url=server.url, api_key=secret[:-1] + "?", max_retries=0).models.list()
            report(False, "another key is refused")
        except openai.AuthenticationError as fault:
            report(fault.code == "invalid_api_key" and secret not in str(fault), "another key is refused", fault.code)
        run_json(args.retort, "account", "limit", account, "--rpm", "1", "--json", env=env)
        limited = None
        for _ in range(3):
            try:
                client.chat.completions.create(**ask)
            except openai.RateLimitError as fault:
                limited = fault
        report(limited is not None and limited.response.headers.get("retry-after") is not None, "a limit raises RateLimitError",
               limited and limited.response.headers.get("retry-after"))
        run_json(args.retort, "account", "suspend", account, "--reason", "peer", "--json", env=env)
        try:
            client.chat.completions.create(**ask)
            report(False, "a suspension is told")
        except openai.PermissionDeniedError as fault:
            report(fault.code == "account_suspended", "a suspension is told", fault.code)
    usage = run_json(args.retort, "usage", "--account", account, "--json", env=env)
    report(sum(row["requests"] for row in usage["data"]) >= 2, "usage is in the ledger", json.dumps(usage["data"])[:120])


def documents(count):
    """Paragraphs of this repository's own documents, divided into a context and its continuation."""
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
    found = []
    for part in ("docs", "src", "peers", "tests/golden"):
        for folder, _, names in sorted(os.walk(os.path.join(root, part))):
            for name in sorted(names):
                if name.endswith(".md"):
                    text = open(os.path.join(folder, name), encoding="utf-8").read()
                    found += [" ".join(p.split()) for p in re.split(r"\n\s*\n", text) if 120 < len(p) < 1500]
    found = found[:count]
    return [(p[:p.index(" ", len(p) // 2)], p[p.index(" ", len(p) // 2):]) for p in found if " " in p[len(p) // 2:]]


def check_lm_eval(args, server):
    from importlib.metadata import version
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.openai_completions import LocalCompletionsAPI
    folder = os.path.join(args.work, "serve-f32")
    if not os.path.exists(os.path.join(folder, "config.json")):
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([args.retort, "export", args.model, folder, "--type", "F32"], check=True, stdout=subprocess.DEVNULL)
    pairs = documents(args.documents)
    asked = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    theirs = HFLM(pretrained=folder, dtype="float32", device="cpu", batch_size=4).loglikelihood(asked, disable_tqdm=True)
    ours = LocalCompletionsAPI(model="peer", base_url=server.url + "/completions", tokenizer=folder, tokenizer_backend="huggingface",
                               num_concurrent=1, max_length=2048, batch_size=4, seed=1234).loglikelihood(asked, disable_tqdm=True)
    worst = max(abs(a[0] - b[0]) for a, b in zip(ours, theirs))
    verdicts = sum(bool(a[1]) == bool(b[1]) for a, b in zip(ours, theirs))
    report(len(pairs) >= 50 and worst <= 0.05, f"lm-eval {version('lm_eval')} local-completions, {len(pairs)} documents",
           f"largest difference from transformers {worst:.2g} nats (at most 0.05), {verdicts} equal verdicts")
    greedy = [Instance("generate_until", {}, ("The capital of France is", {"until": ["\n"], "max_gen_toks": 8}), 0)]
    made = LocalCompletionsAPI(model="peer", base_url=server.url + "/completions", tokenizer=folder).generate_until(greedy, disable_tqdm=True)
    report("Paris" in made[0], "lm-eval generate_until", made[0])


def check_llm(args, server):
    home = os.path.join(args.work, "llm")
    os.makedirs(home, exist_ok=True)
    with open(os.path.join(home, "extra-openai-models.yaml"), "w") as f:
        f.write(f"- model_id: peer\n  model_name: peer\n  api_base: {server.url}\n")
    env = {**os.environ, "LLM_USER_PATH": home, "OPENAI_API_KEY": "none"}
    llm = os.path.join(os.path.dirname(sys.executable), "llm")
    for options in (["--no-stream"], []):
        done = subprocess.run([llm, "-m", "peer", "-o", "temperature", "0", "-o", "max_tokens", "24", *options, "What is the capital of France?"],
                              env=env, capture_output=True, text=True)
        report(done.returncode == 0 and "Paris" in done.stdout, f"llm {' '.join(options) or 'streamed'}", (done.stdout or done.stderr).strip()[:100])


def check_curl(args, server):
    body = json.dumps({"messages": [{"role": "user", "content": "Count to five."}], "max_tokens": 16, "temperature": 0, "stream": True})
    done = subprocess.run(["curl", "-sN", server.url + "/chat/completions", "-H", "Content-Type: application/json", "-d", body],
                          capture_output=True, text=True)
    report(done.stdout.endswith("data: [DONE]\n\n"), "curl reads a stream to [DONE]")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("retort"), parser.add_argument("model"), parser.add_argument("work")
    parser.add_argument("--documents", type=int, default=60)
    parser.add_argument("--only", nargs="*")
    args = parser.parse_args()
    os.makedirs(args.work, exist_ok=True)
    parts = {"openai": ("openai", check_openai), "lm_eval": ("lm_eval", check_lm_eval), "llm": ("llm", check_llm), "curl": (None, check_curl)}
    with Server(args.retort, args.model, "--precision", "f32", "--db", "none") as server:
        for name, (module, check) in parts.items():
            if args.only and name not in args.only:
                continue
            try:
                module and __import__(module)
            except ImportError:
                print(f"skipped {name}: {module} is not installed", flush=True)
                continue
            check(args, server)
    if not args.only or "keys" in args.only:
        check_keys(args)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
