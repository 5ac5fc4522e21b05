#!/usr/bin/env python3
"""Writes made-up traffic as JSON lines: people who chat for some weeks, sixteen linked accounts that collect with one
wrapper from three exits, and one that collects alone.

usage: made_traffic.py IDS OUT    IDS: a file with one account id a line; the first seventeen collect
"""
import json
import random
import sys
import time

random.seed(7)
ids = [line.strip() for line in open(sys.argv[1])]
weeks = 5
begin = time.time() // 86400 * 86400 - weeks * 604800  # the last week ends today
topics = ["bread", "a shelf", "my visa", "the garden", "an old bike", "a birthday", "the tax form", "a headache", "two cats", "the piano"]
asks = ["how do i {} with {}", "what is the best way to {} for {}", "my friend says {} and {}, is that true", "can you {} about {}", "why does {} need {}"]
verbs = ["start", "repair", "cook", "explain", "write", "paint", "plan", "clean"]
rows = []


def row(account, ts, ip, agent, prompt, tokens, created, pay, **params):
    rows.append({"ts": ts, "account": account, "ip": ip, "asn": "AS1", "user_agent": agent, "pay_hash": pay, "created": created,
                 "params": {"temperature": 1, **params}, "prompt": prompt, "prompt_tokens": len(prompt) // 4, "completion_tokens": tokens,
                 "request": f"req_{len(rows):08d}"})


for number, account in enumerate(ids[17:]):
    for week in range(weeks):
        for i in range(random.randint(8, 30)):
            words = random.choice(asks).format(random.choice(verbs), random.choice(topics)) + " " + " ".join(random.choices(topics, k=random.randint(0, 6)))
            row(account, begin + week * 604800 + random.random() * 500000, f"10.1.{number}.1", "Mozilla/5.0 ChatUI/1", words,
                random.randint(20, 400), begin - random.random() * 3e7, f"p{number}")
tasks = ["What is {0} plus 4 apples times 3, how many apples does Tom have left?", "Which is a fish?\nA. cod {0}\nB. oak\nC. iron",
         "Write a python function to sort list {0} by its second column.", "Who wrote the book number {0} about rivers?",
         "Translate sentence {0} into French.", "Summarise document {0} in two lines."]
last = begin + (weeks - 1) * 604800
for i in range(16 * 100):
    account = i % 16
    row(ids[account], last + i * 260 + random.random() * 60, f"10.9.0.{random.choice([account % 5, (account + 1) % 5])}", "python-requests/2.31",
        "### Instruction:\n" + tasks[i * 7 % 6].format(i) + "\n\nThink step by step and write out your whole reasoning.\n\n### Response:",
        300 + i % 200, last - 5000 + account * 300, "h1" if account < 6 else f"h{account}", top_logprobs=5, logprobs=True)
for i in range(220):
    row(ids[16], last + i * 2000, "10.8.0.1", "python-requests/2.31", f"Rewrite the following into a harder task: {tasks[i % 6].format(i)}", 250,
        last - 9e6, "lone")
rows.sort(key=lambda r: r["ts"])
with open(sys.argv[2], "w") as out:
    for r in rows:
        out.write(json.dumps(r) + "\n")
