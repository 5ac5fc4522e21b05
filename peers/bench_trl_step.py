"""The same distillation in TRL's GKD trainer and in retort: the same teacher, student, tokens and optimiser.

Teacher: a Hugging Face folder (SmolLM2-135M-Instruct as `retort export --type BF16` writes it), in bfloat16.  Student: ten of
its layers, float32 master weights under bfloat16.  Every step sees the same batch of 4 x 512 tokens: full-vocabulary forward KL at every
position, clipping at 1, AdamW at a constant rate.  retort runs it with the teacher at hand, then from a store of what the teacher said
(50 drawn ids a token).  Prints one JSON object with tokens a second (medians), losses step by step and peak memory of each.
"""

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time

LAYERS = [0, 3, 6, 10, 13, 16, 19, 23, 26, 29]
ROWS, LENGTH, RATE = 4, 512, 1e-4


def batch_of(tokenizer, prompts):
    """Text of the repository's prompts, as exactly 4 x 512 ids."""
    text = "\n".join(json.loads(line)["prompt"] for line in open(prompts, encoding="utf-8"))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) < ROWS * LENGTH:
        sys.exit(f"{prompts}: {len(ids)} tokens are too few")
    return [ids[i * LENGTH:(i + 1) * LENGTH] for i in range(ROWS)]


def write_text(options, path):
    """The batch as a text file for retort."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(options.teacher)
    with open(path, "w", encoding="utf-8") as out:
        for row in batch_of(tokenizer, options.prompts):
            piece = tokenizer.decode(row, clean_up_tokenization_spaces=False)
            if tokenizer(piece, add_special_tokens=False)["input_ids"] != row:
                sys.exit("a piece of the text does not give its tokens back")
            out.write(json.dumps({"text": piece}) + "\n")


def run_trl(options, layers):
    import datasets
    import torch
    import transformers
    import trl
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    from bench_torch_step import make_student

    torch.manual_seed(1)
    if options.threads:
        torch.set_num_threads(options.threads)
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.teacher)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    rows = batch_of(tokenizer, options.prompts)
    teacher = transformers.AutoModelForCausalLM.from_pretrained(options.teacher, dtype=torch.bfloat16)
    student = make_student(teacher, layers)

    def collate(items):
        ids = torch.tensor([item["ids"] for item in items])
        mask = torch.ones_like(ids)
        return {"input_ids": ids, "attention_mask": mask, "labels": ids.clone(), "prompts": ids[:, :1],
                "prompt_attention_mask": mask[:, :1]}

    losses, seconds = [], []

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *args, **kwargs):
            self.start = time.perf_counter()

        def on_step_end(self, *args, **kwargs):
            seconds.append(time.perf_counter() - self.start)

        def on_log(self, args, state, control, logs=None, **kwargs):
            if logs and "loss" in logs:
                losses.append(float(logs["loss"]))

    steps = options.steps + 1
    config = GKDConfig(
        output_dir=os.path.join(options.work, "trl"), max_steps=steps, per_device_train_batch_size=ROWS,
        gradient_accumulation_steps=1, learning_rate=RATE, lr_scheduler_type="constant", warmup_steps=0, max_grad_norm=1.0,
        adam_beta1=0.9, adam_beta2=0.95, adam_epsilon=1e-8, weight_decay=0.0, bf16=not options.f32, use_cpu=True,
        gradient_checkpointing=False, lmbda=0.0, beta=0.0, temperature=1.0, seq_kd=False, max_length=LENGTH, logging_steps=1,
        logging_first_step=True, save_strategy="no", report_to=[], disable_tqdm=True, dataloader_drop_last=True,
        optim="adamw_torch_fused", seed=1)
    data = datasets.Dataset.from_list([{"ids": rows[i % ROWS]} for i in range(ROWS * steps)])
    trainer = GKDTrainer(model=student, teacher_model=teacher, args=config, data_collator=collate, train_dataset=data,
                         processing_class=tokenizer, callbacks=[Clock()])
    # the trainer's own sampler shuffles rows; the loss over these four does not depend on their order
    trainer._get_train_sampler = lambda *args, **kwargs: torch.utils.data.SequentialSampler(data)
    trainer.train()
    print(json.dumps({
        "peer": f"trl {trl.__version__}, torch {torch.__version__}, transformers {transformers.__version__}",
        "threads": torch.get_num_threads(), "tokens_per_s": ROWS * LENGTH / statistics.median(seconds[1:]),
        "losses": losses[:steps], "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


RECIPE = """
teacher: {{model: {teacher}, precision: bf16{store}}}
student: {{init: layers, layers: {layers}, precision: {precision}}}
data: {{tokens_max: {length}, loss_on: all{data}}}
loss: [{loss}]
train: {{steps: {steps}, batch_tokens: {batch}, lr: {rate}, schedule: constant, warmup: 0, weight_decay: 0, clip: 1, threads: {threads}}}
output: {{types: []}}
"""


def run_retort(options, layers, name, loss, store="", data=""):
    run = os.path.join(options.work, name)
    shutil.rmtree(run, ignore_errors=True)
    recipe = run + ".yaml"
    with open(recipe, "w", encoding="utf-8") as out:
        out.write(RECIPE.format(teacher=options.teacher, store=store, layers=layers, length=LENGTH, data=data, loss=loss,
                                steps=options.steps + 1, batch=ROWS * LENGTH, rate=RATE, threads=options.threads,
                                precision="f32" if options.f32 else "bf16"))
    subprocess.run([options.retort, "distill", recipe, "--run", run, "--quiet", "--no-export"], check=True)
    log = [json.loads(line) for line in open(os.path.join(run, "log.jsonl"), encoding="utf-8")]
    facts = json.load(open(os.path.join(run, "run.json"), encoding="utf-8"))
    return {"tokens_per_s": statistics.median(line["tokens_per_s"] for line in log[1:]),
            "losses": [line["loss"] for line in log], "peak_bytes": facts["peak_bytes"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", nargs="?", default="build/peers/teacher", help="Hugging Face folder of the teacher")
    parser.add_argument("--retort", default="build/retort")
    parser.add_argument("--prompts", default="data/prompts.jsonl", help="where the text comes from")
    parser.add_argument("--work", default="build/peers/trl", help="folder for runs and the store")
    parser.add_argument("--steps", type=int, default=5, help="timed steps, after one that is not (default 5)")
    parser.add_argument("--threads", type=int, default=0, help="default: each program's choice")
    parser.add_argument("--f32", action="store_true", help="the student in float32")
    # What imports PyTorch runs in processes of its own: a child's peak memory begins at its parent's.
    parser.add_argument("--part", choices=["all", "text", "trl"], default="all", help="which part to run (default all)")
    options = parser.parse_args()
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    config = json.load(open(os.path.join(options.teacher, "config.json"), encoding="utf-8"))
    deep = config["num_hidden_layers"]
    layers = LAYERS if deep == 30 else sorted({round(i * (deep - 1) / max(deep // 3 - 1, 1)) for i in range(max(deep // 3, 1))})
    os.makedirs(options.work, exist_ok=True)
    text = os.path.join(options.work, "text.jsonl")
    if options.part == "text":
        write_text(options, text)
        return
    if options.part == "trl":
        run_trl(options, layers)
        return
    again = [sys.executable, "-W", "ignore", *sys.argv, "--part"]
    subprocess.run([*again, "text"], check=True)
    store = os.path.join(options.work, "store")
    shutil.rmtree(store, ignore_errors=True)
    subprocess.run([options.retort, "outputs", "record", "--model", options.teacher, "--precision", "bf16", "--data", text, "--out",
                    store, "--draws", "50", "--loss-on-all", "--quiet"], check=True)
    output = subprocess.run([*again, "trl"], check=True, stdout=subprocess.PIPE, text=True).stdout
    peer = json.loads(re.findall(r"^\{.*\"peer\".*\}$", output, re.M)[-1])
    online = run_retort(options, layers, "online", "fkl", data=f", train: [{text}]")
    offline = run_retort(options, layers, "offline", "rskd", store=f", store: {store}")
    differences = [abs(a - b) / abs(a) for a, b in zip(peer["losses"], online["losses"])]
    print(json.dumps({
        "what": "trl", "tokens_a_step": ROWS * LENGTH, "trl": peer, "retort online": online, "retort from the store": offline,
        "online over trl": online["tokens_per_s"] / peer["tokens_per_s"],
        "store over trl": offline["tokens_per_s"] / peer["tokens_per_s"],
        "memory over trl": max(online["peak_bytes"], offline["peak_bytes"]) / peer["peak_bytes"],
        "largest difference of the losses": max(differences)}))


if __name__ == "__main__":
    main()
