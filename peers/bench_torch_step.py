"""The distillation step of `retort bench train`, as PyTorch and transformers do it.

Teacher: a Hugging Face folder of SmolLM2-135M (or any llama-like model of 30 layers), in bfloat16.  Student: ten of its
layers, float32 master weights under bfloat16 autocast.  One step: 4 x 512 tokens, forward KL over the full vocabulary at every
position, backward, clipping at 1, AdamW.  Prints one JSON object: tokens a second (median of the timed steps), peak memory.
"""

import argparse
import copy
import json
import resource
import statistics
import time

import torch
import torch.nn.functional as functional
import transformers

LAYERS = [0, 3, 6, 10, 13, 16, 19, 23, 26, 29]


def make_student(teacher, layers=LAYERS):
    """The chosen layers of the teacher with its embedding and final norm, in float32."""
    config = copy.deepcopy(teacher.config)
    config.num_hidden_layers = len(layers)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[i] for i in layers]
    student = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    weights = teacher.state_dict()
    chosen = {}
    for name in student.state_dict():
        parts = name.split(".")
        if "layers" in parts:
            at = parts.index("layers") + 1
            parts[at] = str(layers[int(parts[at])])
        chosen[name] = weights[".".join(parts)].float()
    student.load_state_dict(chosen)
    return student


def step(teacher, student, optimizer, ids, autocast):
    with torch.no_grad():
        target = teacher(input_ids=ids, use_cache=False).logits
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        logits = student(input_ids=ids, use_cache=False).logits
    vocabulary = logits.shape[-1]
    loss = functional.kl_div(
        functional.log_softmax(logits.float().view(-1, vocabulary), dim=-1),
        functional.log_softmax(target.float().view(-1, vocabulary), dim=-1),
        log_target=True,
        reduction="batchmean",
    )
    loss.backward()
    torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="Hugging Face folder of the teacher")
    parser.add_argument("--steps", type=int, default=5, help="timed steps, after one that is not (default 5)")
    parser.add_argument("--threads", type=int, default=0, help="default: PyTorch's choice")
    parser.add_argument("--f32", action="store_true", help="everything in float32")
    parser.add_argument("--compile", action="store_true", help="torch.compile both models")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    dtype = torch.float32 if options.f32 else torch.bfloat16
    teacher = transformers.AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype)
    teacher.eval()
    student = make_student(teacher)
    student.train()
    parameters = sum(p.numel() for p in student.parameters())
    optimizer = torch.optim.AdamW(student.parameters(), lr=6e-4, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    if options.compile:
        teacher, student = torch.compile(teacher), torch.compile(student)
    ids = torch.randint(0, teacher.config.vocab_size, (4, 512))
    seconds, losses = [], []
    for i in range(options.steps + 1):
        start = time.perf_counter()
        losses.append(step(teacher, student, optimizer, ids, not options.f32))
        if i:
            seconds.append(time.perf_counter() - start)
    print(json.dumps({
        "what": "train",
        "peer": f"torch {torch.__version__}, transformers {transformers.__version__}",
        "precision": "f32" if options.f32 else "bf16 autocast, teacher bf16",
        "compiled": options.compile,
        "threads": torch.get_num_threads(),
        "student_parameters": parameters,
        "tokens_a_step": ids.numel(),
        "tokens_per_s": ids.numel() / statistics.median(seconds),
        "seconds": seconds,
        "losses": losses,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }))


if __name__ == "__main__":
    main()
