"""`retort collect` against llama.cpp's server, killed and restarted in mid-run.

usage: check_collect.py RETORT GGUF WORK [--kills 20] [--rows 120]

Between the two stands a proxy that counts, by prompt, what was asked and what was answered whole.  Every second kill also
kills the collector.  Prints one JSON object; fails unless every prompt has its row once, with log-probabilities, and
nothing was answered twice but what was in flight at a kill.
"""
import argparse
import collections
import http.client
import http.server
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time

AT_ONCE = 4


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Proxy(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream = 0
    asked = collections.Counter()
    answered = collections.Counter()
    lock = threading.Lock()

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        prompt = json.loads(body)["messages"][-1]["content"]
        with self.lock:
            self.asked[prompt] += 1
        try:
            up = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=60)
            up.request("POST", self.path, body, {"Content-Type": "application/json"})
            answer = up.getresponse()
            data = answer.read()
            status = answer.status
        except (OSError, http.client.HTTPException):
            self.close_connection = True  # as the server's own end would look
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            self.close_connection = True
            return
        if status == 200:
            with self.lock:
                self.answered[prompt] += 1


def start_server(model, port):
    here = os.path.dirname(os.path.abspath(__file__))
    server = subprocess.Popen([sys.executable, os.path.join(here, "llama_server.py"), model, str(port)],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return server


def wait_ready(port, seconds=60):
    end = time.time() + seconds
    while time.time() < end:
        try:
            c = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            c.request("GET", "/health")
            if c.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit("the server did not start")


def count_rows(path):
    return sum(1 for _ in open(path)) if os.path.exists(path) else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("retort")
    parser.add_argument("model")
    parser.add_argument("work")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rows", type=int, default=120)
    args = parser.parse_args()
    shutil.rmtree(args.work, ignore_errors=True)
    os.makedirs(args.work)
    prompts = [f"Question {i}: which number comes after {i}? Answer in one line." for i in range(args.rows)]
    source, out = os.path.join(args.work, "prompts.jsonl"), os.path.join(args.work, "rows.jsonl")
    with open(source, "w") as f:
        for p in prompts:
            f.write(json.dumps({"prompt": p}) + "\n")

    random.seed(1)
    Proxy.upstream = free_port()
    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    server = start_server(args.model, Proxy.upstream)
    wait_ready(Proxy.upstream)
    command = [args.retort, "collect", "--in", source, "--out", out, "--url", f"http://127.0.0.1:{proxy.server_port}",
               "--model", "m", "--max-tokens", "8", "--temperature", "0", "--logprobs", "5", "--concurrency", str(AT_ONCE),
               "--attempts", "60", "--json"]
    log = open(os.path.join(args.work, "collect.log"), "w")
    run = subprocess.Popen(command, stdout=log, stderr=log)
    kills = collector_kills = 0
    rows_at_kill = 0
    while kills < args.kills and run.poll() is None:
        end = time.time() + 60
        while count_rows(out) < rows_at_kill + 3 and time.time() < end and run.poll() is None:
            time.sleep(0.05)  # some progress, however slow the machine
        time.sleep(random.uniform(0.0, 0.5))
        rows_at_kill = count_rows(out)
        server.kill()
        server.wait()
        kills += 1
        if kills % 2 == 0:
            run.kill()
            run.wait()
            collector_kills += 1
            run = subprocess.Popen(command, stdout=log, stderr=log)
        time.sleep(random.uniform(0.0, 0.3))
        server = start_server(args.model, Proxy.upstream)
        wait_ready(Proxy.upstream)
    status = run.wait(timeout=1200)
    server.kill()
    server.wait()

    rows = [json.loads(line) for line in open(out)]
    seen = collections.Counter(r["request"]["messages"][-1]["content"] for r in rows)
    lost = sum(seen[p] == 0 for p in prompts)
    doubled = sum(n > 1 for n in seen.values())
    bare = sum(not r["logprobs"] or not r["logprobs"][0]["top"] for r in rows)
    again = sum(n - 1 for n in Proxy.answered.values() if n > 1)
    result = {"status": status, "rows": len(rows), "prompts": len(prompts), "kills": kills, "collector_kills": collector_kills,
              "lost": lost, "doubled": doubled, "without_logprobs": bare, "requests": sum(Proxy.asked.values()),
              "answered_again": again, "answered_again_allowed": collector_kills * AT_ONCE}
    print(json.dumps(result, indent=2))
    good = status == 0 and not lost and not doubled and not bare and kills == args.kills and again <= collector_kills * AT_ONCE
    sys.exit(0 if good else 1)


main()
