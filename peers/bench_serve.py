#!/usr/bin/env python3
"""`retort serve` beside llama-server and llama-cpp-python's server: the same file, machine, requests, back to back.

Usage: bench_serve.py RETORT MODEL.gguf [--trace TRACE.csv[.zst]] [--clients 16] [--requests 64] [--threads 2]
                      [--servers retort llama-server llama-cpp-python] [--rounds 1] [--prompt-max 512] [--answer-max 128]

Each client sends one streamed completion after the other.  The lengths of prompts and answers come from TRACE (columns
ContextTokens, GeneratedTokens; without it from a fixed list with the medians of Azure's chat trace of 2023), cut to the
given bounds.  End tokens are banned by logit_bias, so every server makes the same number of tokens; prompts differ, so
none is cached.  llama-server comes from PyPI's xllamacpp (the same code as llama.cpp's program), with as many slots as
clients.  Prints JSON objects for each server: output tokens/s of all clients together, time to the first event with text (median,
p95; an event that only names the role does not count), the server's CPU seconds, which a busy machine disturbs less.  `prompts` says
whether they are "new", or "seen": asked a second time, after the others, where a server may have kept what it computed.
The figures depend on the machine being quiet: quote ratios of runs made back to back.
"""
import argparse, csv, http.client, io, json, os, random, socket, subprocess, sys, threading, time

WORDS = "the of and to in is that for it as was with be by on not he his but at are this have from or had an they which one you were all her she there would their we him been has when who will no more if out so up said what its about than into them can only other time new some could these two may first then do any like my now over such our man me even most made after also did many off before must well back through years much where your way down should because long each just state those people too mr how little good world make very year still see own work men day get here between both life being under three never know same last another while us might great old go come since against right came take used himself few house use place during without again home around small however found mrs part school thought went say general once upon".split()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def lengths(args):
    if not args.trace:
        rng = random.Random(1)
        return [(min(args.prompt_max, int(rng.lognormvariate(6.0, 0.9)) + 4), min(args.answer_max, int(rng.lognormvariate(4.6, 0.8)) + 2))
                for _ in range(args.requests)]
    data = open(args.trace, "rb").read()
    if args.trace.endswith(".zst"):
        data = subprocess.run(["zstd", "-dc"], input=data, stdout=subprocess.PIPE, check=True).stdout
    rows = list(csv.DictReader(io.StringIO(data.decode())))
    step = max(1, len(rows) // args.requests)
    return [(max(4, min(args.prompt_max, int(r["ContextTokens"]))), max(2, min(args.answer_max, int(r["GeneratedTokens"]))))
            for r in rows[::step][:args.requests]]


def requests_of(args, seed):
    rng = random.Random(seed)
    return [dict(model="m", prompt=" ".join(rng.choice(WORDS) for _ in range(n)), max_tokens=m, temperature=0, stream=True,
                 logit_bias={"0": -100, "2": -100}) for n, m in lengths(args)]


def ask(port, body):
    """(seconds to the first token, events with text)"""
    begun = time.perf_counter()
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=900)
    c.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    r = c.getresponse()
    if r.status != 200:
        raise RuntimeError(r.read()[:300])
    first, count = None, 0
    for line in r:
        if line.startswith(b"data: {") and any(c.get("text") for c in json.loads(line[6:])["choices"]):
            first = first or time.perf_counter() - begun
            count += 1
    c.close()
    return first, count


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(port, bodies, clients, pid):
    results, waiting, lock = [], list(reversed(bodies)), threading.Lock()

    def client():
        while True:
            with lock:
                if not waiting:
                    return
                body = waiting.pop()
            try:
                got = ask(port, body)
            except Exception as fault:
                print(f"a request failed: {fault}", file=sys.stderr)
                continue
            with lock:
                results.append((got[0], body["max_tokens"], got[1]))

    begun, cpu = time.perf_counter(), cpu_seconds(pid)
    threads = [threading.Thread(target=client) for _ in range(clients)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    seconds = time.perf_counter() - begun
    cpu = cpu_seconds(pid) - cpu
    first = sorted(r[0] for r in results if r[0] is not None)
    return dict(clients=clients, answered=len(results), of=len(bodies), seconds=round(seconds, 2), cpu_s=round(cpu, 2),
                output_tokens_per_s=round(sum(r[1] for r in results) / seconds, 1),
                ttft_median_s=round(first[len(first) // 2], 3), ttft_p95_s=round(first[int(len(first) * 0.95)], 3),
                events=sum(r[2] for r in results))


LLAMA_SERVER = """
import sys, time, xllamacpp as x
p = x.CommonParams()
p.model.path, p.hostnames, p.port = sys.argv[1], ["127.0.0.1"], int(sys.argv[2])
p.n_parallel, p.n_ctx = int(sys.argv[3]), int(sys.argv[3]) * 2048
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = int(sys.argv[4])
server = x.Server(p)
time.sleep(1e9)
"""


def command(name, args, port):
    if name == "retort":
        return [args.retort, "serve", args.model, "--port", str(port), "--alias", "m", "--db", "none", "--slots", str(args.clients),
                "--context", "2048", "--threads", str(args.threads)]
    if name == "llama-server":
        return [sys.executable, "-c", LLAMA_SERVER, args.model, str(port), str(args.clients), str(args.threads)]
    return [sys.executable, "-m", "llama_cpp.server", "--model", args.model, "--port", str(port), "--n_ctx", "2048", "--n_threads",
            str(args.threads), "--n_threads_batch", str(args.threads), "--verbose", "false",
            "--interrupt_requests", "false"]  # else a new request ends the stream under way


def wait_for(port, process):
    for _ in range(1200):
        try:
            ask(port, dict(model="m", prompt="hello", max_tokens=2, temperature=0, stream=True))
            return
        except Exception:
            if process.poll() is not None:
                sys.exit(f"a server ended with {process.returncode}")
            time.sleep(0.25)
    sys.exit("a server does not get ready")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("retort"), parser.add_argument("model"), parser.add_argument("--trace")
    parser.add_argument("--clients", type=int, default=16), parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2), parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--prompt-max", type=int, default=512), parser.add_argument("--answer-max", type=int, default=128)
    parser.add_argument("--servers", nargs="*", default=["retort", "llama-server", "llama-cpp-python"])
    args = parser.parse_args()
    bodies, others = requests_of(args, 7), requests_of(args, 8)[:6]
    for _ in range(args.rounds):
        for name in args.servers:
            port = free_port()
            process = subprocess.Popen(command(name, args, port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                wait_for(port, process)
                rows = [("new", bodies, args.clients)]
                if args.clients > 1:
                    rows += [("new", others, 1), ("seen", bodies[:6], 1)]
                for prompts, some, clients in rows:
                    print(json.dumps(dict(server=name, prompts=prompts, **load(port, some, clients, process.pid))), flush=True)
            finally:
                process.kill()
                process.wait()


main()
