#!/usr/bin/env python3
"""Does PEFT load the adapters that `retort distill` writes, onto the same base, and merge them into the same student?

Usage: check_adapter.py RETORT WORK_DIR MODEL.gguf
The model (tests use data/teacher-small.gguf) becomes a folder in float32; LoRA and DoRA are trained on it for some steps by
recipes/lora.yaml; PEFT puts RUN/adapter on that folder and merges. Every matrix must be the student's to the rounding of bf16, in
which the student is written, and nearer to the student than the base is.
"""
import json, os, subprocess, sys

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM


def run(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    retort, work, model = sys.argv[1:]
    recipe = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "recipes", "lora.yaml")
    os.makedirs(work, exist_ok=True)
    base, text = os.path.join(work, "base"), os.path.join(work, "text.jsonl")
    run(retort, "export", model, base, "--type", "F32")
    with open(text, "w") as f:
        for i in range(40):
            f.write(json.dumps({"prompt": f"question {i}", "completion": f"the answer is {i * 7 % 11}, and more to say",
                                "finish_reason": "stop"}) + "\n")
    failed = 0
    for kind in ("lora", "dora"):
        folder = os.path.join(work, kind)
        run(retort, "distill", recipe, "--run", folder, "--restart", "--quiet", f"teacher.model={base}", f"student.model={base}",
            f"data.train=[{text}]", "data.tokens_max=96", "train.batch_tokens=256", "train.steps=8", "train.lr=1e-2", "loss=[ce]",
            "adapters.rank=4", f"adapters.kind={kind}", "student.precision=f32", "output.types=[]")
        start = load_file(os.path.join(base, "model.safetensors"))
        student = load_file(os.path.join(folder, "student", "model.safetensors"))
        loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
                                           os.path.join(folder, "adapter"))
        merged = loaded.merge_and_unload().state_dict()
        worst, moved, n = 0.0, 0.0, 0
        for name, want in student.items():
            got, want = merged[name].double(), want.double()
            worst = max(worst, float(((got - want).abs() / (want.abs() + 1e-3)).max()))
            moved = max(moved, float((start[name].double() - want).abs().max()))
            n += 1
        ok = worst < 1.01 * 2 ** -8 and moved > 1e-3
        failed += not ok
        print(f"{'ok    ' if ok else 'FAILED'}  PEFT merges {kind}: {n} tensors within {worst:.1e} of the student's (bf16), "
              f"which moved by up to {moved:.1e}", flush=True)
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
