#!/usr/bin/env bash
# `retort distill`: from a recipe to a student's files; stopped, killed, locked, on bad text and with the wrong tokenizer.
# The models are tiny, with random weights and a byte-level tokenizer that is written here.
# shellcheck source=testlib.sh disable=SC2154
. "$(dirname "$0")/../testlib.sh"

# A model folder without weights: shape NAME EXTRA_TOKEN
make_shape() {
    mkdir -p "$1"
    cat >"$1/config.json" <<'JSON'
{"model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
 "num_key_value_heads": 2, "vocab_size": 272, "max_position_embeddings": 256, "rope_theta": 10000.0, "rms_norm_eps": 1e-05,
 "hidden_act": "silu", "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": 2}
JSON
    python3 - "$1" "$2" <<'PYTHON'
import json, sys
printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
rest = [b for b in range(256) if b not in printable]
letter = {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(rest)}}
special = ["<|endoftext|>", "<|im_start|>", sys.argv[2]]
json.dump({"version": "1.0", "normalizer": None, "post_processor": None,
           "added_tokens": [{"id": i, "content": s, "single_word": False, "lstrip": False, "rstrip": False,
                             "normalized": False, "special": True} for i, s in enumerate(special)],
           "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
           "decoder": {"type": "ByteLevel"},
           "model": {"type": "BPE", "vocab": {**{s: i for i, s in enumerate(special)}, **{letter[b]: 3 + b for b in range(256)}},
                     "merges": []}}, open(sys.argv[1] + "/tokenizer.json", "w"))
json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": special[1], "eos_token": special[2]},
          open(sys.argv[1] + "/tokenizer_config.json", "w"))
PYTHON
}

# Waits until a run that goes on in the background has made its first step.
await_steps() {
    for _ in $(seq 600); do
        [ -s "$1/log.jsonl" ] && return 0
        sleep 0.05
    done
    return 1
}

# A teacher with random weights, text, and a recipe.
make_world() {
    command -v python3 >/dev/null || skip "python3 is not installed"
    make_shape shape '<|im_end|>'
    for i in $(seq 40); do
        printf '{"prompt": "question %d", "completion": "the answer to it is %d, and there is more to say", "finish_reason": "stop"}\n' \
            "$i" $((i * 7 % 11))
    done >text.jsonl
    cat >teacher.yaml <<'YAML'
student: {init: random, model: shape}
data: {train: text.jsonl, tokens_max: 128}
loss: [ce]
train: {batch_tokens: 256, steps: 2, lr: 1e-3}
output: {types: [Q8_0]}
YAML
    retort distill teacher.yaml --run teacher --init-only --quiet
    cat >recipe.yaml <<'YAML'
teacher: {model: teacher/student}
student: {n_layers: 2}
data: {train: text.jsonl, tokens_max: 128}
train: {batch_tokens: 256, steps: 6, lr: 1e-3}
output: {types: [BF16, Q8_0]}
YAML
}

a_recipe_becomes_a_student_that_can_be_a_teacher_again() {
    make_world
    expect_status 0 retort distill recipe.yaml --run run --json
    expect_text '"steps": 6' "$out"
    for file in student/model.safetensors student/config.json student/tokenizer.json student/retort.json student.BF16.gguf \
        student.Q8_0.gguf log.jsonl run.json recipe.yaml; do
        [ -s "run/$file" ] || { echo "run/$file is missing"; exit 1; }
    done
    expect_equal 6 "$(wc -l <run/log.jsonl)"
    expect_status 0 retort distill recipe.yaml --run second teacher.model=run/student.Q8_0.gguf teacher.precision=int8 \
        student.n_layers=1 train.steps=2
    # the resolved recipe that was kept gives the same recipe again
    retort distill run/recipe.yaml --print-recipe | sed 's/  #.*//' >again.yaml
    sed 's/  #.*//' run/recipe.yaml | cmp - again.yaml
}

a_run_that_is_killed_goes_on_and_gives_the_same_bytes() {
    make_world
    retort distill recipe.yaml --run whole --quiet
    "$build_dir/retort" distill recipe.yaml --run cut train.checkpoint_minutes=0.0001 train.steps=6 --quiet &
    pid=$!
    for _ in $(seq 200); do
        [ -s cut/checkpoint.safetensors ] && break
        sleep 0.02
    done
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    expect_status 0 retort distill recipe.yaml --run cut --quiet
    cmp whole/student/model.safetensors cut/student/model.safetensors
    expect_equal 6 "$(wc -l <cut/log.jsonl)"
    [ -z "$(find cut -name '*.tmp-*' -newer cut/run.json)" ]
}

own='on_policy.share=0.6 on_policy.tokens_max=24 on_policy.answers=5'

a_run_on_own_answers_is_killed_and_gives_the_same_bytes() {
    make_world
    # shellcheck disable=SC2086
    {
        expect_status 0 retort distill recipe.yaml --run whole train.steps=12 $own
        expect_text "of the time in sampling" "$err"
        "$build_dir/retort" distill recipe.yaml --run cut train.checkpoint_minutes=0.0001 train.steps=12 $own --quiet &
        pid=$!
        for _ in $(seq 200); do
            [ -s cut/checkpoint.safetensors ] && break
            sleep 0.02
        done
        kill -9 "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
        expect_status 0 retort distill recipe.yaml --run cut train.steps=12 $own train.threads=1 --quiet
    }
    cmp whole/student/model.safetensors cut/student/model.safetensors
    expect_text '"own":true' "$(cat cut/log.jsonl)"
    expect_text '"own":false' "$(cat cut/log.jsonl)"
    jq -e '.recipe | .loss == ["fkl"] and ."loss on own answers" == ["rkl"] and ."share of own answers" == 0.6' whole/run.json
}

the_facts_name_the_loss_that_is_used() {
    make_world
    # shellcheck disable=SC2086
    {
        expect_status 0 retort distill recipe.yaml --run all --quiet --no-export train.steps=2 $own on_policy.share=1 \
            'on_policy.loss=[0.5 rkl, 0.5 jsd beta=0.3]'
        jq -e '.recipe | .loss == ["0.5 rkl", "0.5 jsd beta=0.3"] and (has("loss on own answers") | not)' all/run.json
        expect_status 0 retort distill recipe.yaml --run part --quiet --no-export train.steps=2 $own on_policy.objective=clip loss=[jsd]
        jq -e '.recipe | .loss == ["jsd"] and ."loss on own answers" == ["rkl of the sampled tokens (clip)"]' part/run.json
    }
    expect_status 0 retort distill recipe.yaml --run plain --quiet --no-export train.steps=2 'loss=[0.8 fkl, 0.2 ce]'
    jq -e '.recipe | .loss == ["0.8 fkl", "0.2 ce"] and (has("share of own answers") | not)' plain/run.json
}

contradictions_about_own_answers_are_named() {
    make_world
    expect_status 2 retort distill recipe.yaml --run run on_policy.share=0.5 on_policy.tokens_max=128
    expect_text "leaves no room for a prompt" "$err"
    expect_status 2 retort distill recipe.yaml --run run on_policy.share=0.5 on_policy.tokens_max=20 on_policy.objective=clip \
        on_policy.temperature=0.7
    expect_text "only at temperature 1" "$err"
    expect_status 2 retort distill recipe.yaml --run run on_policy.share=0.5 on_policy.tokens_max=20 teacher.store=there 'data.train=[]'
    expect_text "no teacher.store" "$err"
    expect_status 2 retort distill recipe.yaml --run run on_policy.share=0.5 on_policy.tokens_max=20 'on_policy.loss=[kl]'
    expect_text "on_policy: " "$err"
    printf '{"text": "plain text has no prompt, so there is nothing to answer to"}\n' >plain.jsonl
    expect_status 2 retort distill recipe.yaml --run run on_policy.share=0.5 on_policy.tokens_max=20 data.train=plain.jsonl
    expect_text "none of the 1 documents begins with a prompt" "$err"
}

an_interrupt_saves_and_exits_with_status_4() {
    make_world
    "$build_dir/retort" distill recipe.yaml --run run train.steps=100000 2>err.txt &
    pid=$!
    await_steps run
    # one signal: a second one would end the program at once, as it should (`timeout` sends two)
    kill -INT "$pid"
    status=0
    wait "$pid" || status=$?
    expect_equal 4 "$status"
    expect_text "goes on from there" "$(cat err.txt)"
    [ -s run/checkpoint.safetensors ]
}

the_number_of_threads_changes_no_byte() {
    make_world
    retort distill recipe.yaml --run one train.threads=1 --quiet
    retort distill recipe.yaml --run two train.threads=2 --quiet
    cmp one/student/model.safetensors two/student/model.safetensors
}

other_settings_in_the_same_folder_are_refused() {
    make_world
    retort distill recipe.yaml --run run --quiet
    expect_status 1 retort distill recipe.yaml --run run train.lr=2e-3
    expect_text "other settings" "$err"
    expect_status 0 retort distill recipe.yaml --run run train.lr=2e-3 --restart --quiet
}

a_second_process_in_the_folder_is_told_who_holds_it() {
    make_world
    "$build_dir/retort" distill recipe.yaml --run run train.steps=100000 --quiet 2>/dev/null &
    pid=$!
    await_steps run
    expect_status 1 retort distill recipe.yaml --run run train.steps=100000
    expect_text "in use by process $pid" "$err"
    kill -9 "$pid"
    wait "$pid" 2>/dev/null || true
}

a_folder_that_cannot_be_written_is_one_sentence() {
    make_world
    touch blocked
    expect_status 1 retort distill recipe.yaml --run blocked/run
    expect_text "retort: blocked" "$err"
    expect_equal 1 "$(wc -l <err.txt)"
}

another_tokenizer_is_named_and_never_trained_on() {
    make_world
    make_shape other '<|end|>'
    cat >other.yaml <<'YAML'
student: {init: random, model: other}
data: {train: text.jsonl, tokens_max: 128}
loss: [ce]
train: {batch_tokens: 256}
output: {types: []}
YAML
    retort distill other.yaml --run other-run --init-only --quiet
    expect_status 1 retort distill recipe.yaml --run run student.init=checkpoint student.model=other-run/student student.n_layers=0
    expect_text "the student's tokenizer" "$err"
    expect_text "is not the teacher's" "$err"
    [ ! -e run/log.jsonl ]
}

bad_text_is_named_by_file_and_line() {
    make_world
    printf '{"prompt": "a", "completion": "b"}\nnot json\n' >bad.jsonl
    expect_status 1 retort distill recipe.yaml --run run data.train=bad.jsonl
    expect_text "bad.jsonl: line 2" "$err"
    printf '{"colour": "red"}\n' >bad.jsonl
    expect_status 2 retort distill recipe.yaml --run run data.train=bad.jsonl
    expect_text "line 1" "$err"
    : >empty.jsonl
    expect_status 2 retort distill recipe.yaml --run run data.train=empty.jsonl
    expect_text "no text in it to learn from" "$err"
    expect_status 1 retort distill recipe.yaml --run run data.train=missing.jsonl
    expect_text "missing.jsonl" "$err"
    printf '{"prompt": "a", "completion": "\xff\xfe"}\n' >bad.jsonl
    expect_status 1 retort distill recipe.yaml --run run data.train=bad.jsonl
    expect_text "bad.jsonl: line 1" "$err"
}

a_recipe_with_an_unknown_key_names_line_and_nearest_key() {
    make_world
    printf 'teacher: {model: teacher/student}\ndata: {train: text.jsonl}\ntrain:\n  learning: 3\n' >bad.yaml
    expect_status 2 retort distill bad.yaml --run run
    expect_text "bad.yaml:4" "$err"
    expect_status 2 retort distill recipe.yaml --run run train.stepz=3
    expect_text "train.steps" "$err"
    expect_status 2 retort distill recipe.yaml --run run data.tokens_max=512
    expect_text "tokens_max" "$err"
    expect_status 2 retort distill recipe.yaml --run run 'loss=[kl]'
    expect_text "'kl'" "$err"
}

a_document_longer_than_the_context_is_refused() {
    make_world
    expect_status 2 retort distill recipe.yaml --run run data.tokens_max=300 train.batch_tokens=512
    expect_text "context of 256" "$err"
}

a_nan_in_the_teacher_is_named() {
    make_world
    python3 - <<'PYTHON'
import json, struct
path = "teacher/student/model.safetensors"
data = bytearray(open(path, "rb").read())
size = struct.unpack("<Q", data[:8])[0]
head = json.loads(data[8:8 + size])
begin = head["model.norm.weight"]["data_offsets"][0] + 8 + size
data[begin:begin + 2] = b"\xc0\x7f"
open(path, "wb").write(data)
PYTHON
    expect_status 1 retort distill recipe.yaml --run run
    expect_text "model.norm.weight holds a NaN" "$err"
}

# Adapters on the teacher of make_world; more settings follow.
distill_adapters() {
    local run="$1"
    shift
    retort distill "$source_dir/recipes/lora.yaml" --run "$run" --quiet teacher.model=teacher/student \
        student.model=teacher/student data.train=text.jsonl data.tokens_max=128 train.batch_tokens=256 train.steps=4 \
        adapters.rank=4 'output.types=[Q8_0]' "$@"
}

adapters_start_as_their_base_and_are_merged_and_kept_for_peft() {
    make_world
    distill_adapters start --init-only
    cmp start/student/model.safetensors teacher/student/model.safetensors
    for kind in lora dora; do
        distill_adapters $kind adapters.kind=$kind 'loss=[ce]' train.lr=1e-2
        cmp -s $kind/student/model.safetensors teacher/student/model.safetensors && { echo "nothing was learnt"; exit 1; }
        python3 - $kind <<'PYTHON'
import json, struct, sys

def tensors(path):
    data = open(path, "rb").read()
    size = struct.unpack("<Q", data[:8])[0]
    for name, t in json.loads(data[8:8 + size]).items():
        if name == "__metadata__":
            continue
        raw = data[8 + size + t["data_offsets"][0]:8 + size + t["data_offsets"][1]]
        if t["dtype"] == "BF16":
            raw = b"".join(b"\0\0" + raw[i:i + 2] for i in range(0, len(raw), 2))
        yield name, (t["shape"], struct.unpack("<%df" % (len(raw) // 4), raw))

# The student's matrices are base and adapters put together, to bf16's rounding.
def check_merged(kind, scale, rank):
    base, student = dict(tensors("teacher/student/model.safetensors")), dict(tensors(kind + "/student/model.safetensors"))
    adapter = dict(tensors(kind + "/adapter/adapter_model.safetensors"))
    for key in [k for k in adapter if k.endswith("lora_A.weight")]:
        name = key[len("base_model.model."):-len("lora_A.weight")] + "weight"
        a, b = adapter[key][1], adapter[key.replace("lora_A", "lora_B")][1]
        rows, cols = base[name][0]
        m = adapter.get(key.replace("lora_A.weight", "lora_magnitude_vector"))
        for i in range(0, rows, 7):
            row = [base[name][1][i * cols + j] + scale * sum(b[i * rank + k] * a[k * cols + j] for k in range(rank))
                   for j in range(cols)]
            length = sum(x * x for x in row) ** 0.5
            row = [x * m[1][i] / length for x in row] if m else row
            for j, x in enumerate(row):
                assert abs(x - student[name][1][i * cols + j]) < 0.004 * abs(x) + 1e-5, (name, i, j)

kind = sys.argv[1]
check_merged(kind, 8, 4)
config = json.load(open(kind + "/adapter/adapter_config.json"))
assert config["peft_type"] == "LORA" and config["r"] == 4 and config["lora_alpha"] == 32, config
assert config["use_dora"] == (kind == "dora"), config
assert sorted(config["target_modules"]) == sorted(
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]), config
data = open(kind + "/adapter/adapter_model.safetensors", "rb").read()
head = json.loads(data[8:8 + struct.unpack("<Q", data[:8])[0]])
head.pop("__metadata__", None)
stem = "base_model.model.model.layers.3.mlp.down_proj."
assert head[stem + "lora_A.weight"]["shape"] == [4, 96] and head[stem + "lora_B.weight"]["shape"] == [64, 4]
assert (stem + "lora_magnitude_vector" in head) == (kind == "dora")
assert len(head) == 4 * 7 * (3 if kind == "dora" else 2), len(head)
PYTHON
    done
}

adapters_are_cut_short_and_go_on_to_the_same_bytes() {
    make_world
    distill_adapters whole adapters.base=file
    "$build_dir/retort" distill "$source_dir/recipes/lora.yaml" --run cut --quiet teacher.model=teacher/student \
        student.model=teacher/student data.train=text.jsonl data.tokens_max=128 train.batch_tokens=256 train.steps=4 \
        adapters.rank=4 'output.types=[Q8_0]' train.checkpoint_minutes=0.0001 &
    pid=$!
    for _ in $(seq 200); do
        [ -s cut/checkpoint.safetensors ] && break
        sleep 0.02
    done
    kill -9 $pid 2>/dev/null || true
    wait $pid 2>/dev/null || true
    distill_adapters cut
    cmp whole/student/model.safetensors cut/student/model.safetensors
    cmp whole/adapter/adapter_model.safetensors cut/adapter/adapter_model.safetensors
}

adapters_learn_on_own_answers_and_resume_to_the_same_bytes() {
    make_world
    own='on_policy.share=0.6 on_policy.tokens_max=24 on_policy.answers=5 train.steps=10'
    # shellcheck disable=SC2086
    distill_adapters whole $own
    expect_text '"own":true' "$(cat whole/log.jsonl)"
    # shellcheck disable=SC2086
    "$build_dir/retort" distill "$source_dir/recipes/lora.yaml" --run cut --quiet teacher.model=teacher/student \
        student.model=teacher/student data.train=text.jsonl data.tokens_max=128 train.batch_tokens=256 adapters.rank=4 \
        'output.types=[Q8_0]' train.checkpoint_minutes=0.0001 $own &
    pid=$!
    for _ in $(seq 400); do
        [ -s cut/checkpoint.safetensors ] && break
        sleep 0.02
    done
    kill -9 $pid 2>/dev/null || true
    wait $pid 2>/dev/null || true
    # shellcheck disable=SC2086
    distill_adapters cut $own
    cmp whole/adapter/adapter_model.safetensors cut/adapter/adapter_model.safetensors
}

settings_of_adapters_that_cannot_work_are_named() {
    make_world
    expect_status 2 retort distill recipe.yaml --run a adapters.rank=4 'adapters.targets=[q, head]'
    expect_text "'head' is none of q, k, v" "$err"
    expect_status 2 retort distill teacher.yaml --run a adapters.rank=4
    expect_text "random start" "$err"
    expect_status 2 retort distill recipe.yaml --run a adapters.rank=4 adapters.base=file on_policy.share=0.5 on_policy.tokens_max=32
    expect_text "adapters.base memory" "$err"
    expect_status 2 retort distill recipe.yaml --run a adapters.rank=60
    expect_text "adapters.rank 60 is more" "$err"
}

run_tests the_facts_name_the_loss_that_is_used adapters_start_as_their_base_and_are_merged_and_kept_for_peft \
    adapters_are_cut_short_and_go_on_to_the_same_bytes adapters_learn_on_own_answers_and_resume_to_the_same_bytes settings_of_adapters_that_cannot_work_are_named \
    a_recipe_becomes_a_student_that_can_be_a_teacher_again a_run_that_is_killed_goes_on_and_gives_the_same_bytes \
    a_run_on_own_answers_is_killed_and_gives_the_same_bytes contradictions_about_own_answers_are_named \
    an_interrupt_saves_and_exits_with_status_4 the_number_of_threads_changes_no_byte \
    other_settings_in_the_same_folder_are_refused a_second_process_in_the_folder_is_told_who_holds_it \
    a_folder_that_cannot_be_written_is_one_sentence another_tokenizer_is_named_and_never_trained_on \
    bad_text_is_named_by_file_and_line a_recipe_with_an_unknown_key_names_line_and_nearest_key \
    a_document_longer_than_the_context_is_refused a_nan_in_the_teacher_is_named
