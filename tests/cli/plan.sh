#!/usr/bin/env bash
# `retort plan`: from configurations alone; a published run comes out as published; recipes and machines that make no sense.
# shellcheck source=testlib.sh disable=SC2154
. "$(dirname "$0")/../testlib.sh"

# figure NAME: the first number of that name in $out
figure() { printf '%s\n' "$out" | sed -n "s/.*\"$1\": \\([-0-9.e+]*\\).*/\\1/p" | head -1; }
# near NAME WANTED SHARE
near() {
    awk -v x="$(figure "$1")" -v w="$2" -v s="$3" -v n="$1" \
        'BEGIN { if (x == "" || x < w * (1 - s) || x > w * (1 + s)) { print n " is " x ", not near " w; exit 1 } }'
}

deepseek_v3_costs_what_was_published() {
    cd "$source_dir"
    expect_status 0 retort plan tests/golden/plan/deepseek_v3.yaml --machine H800 --nodes 2048 --utilisation 0.374 --json
    near parameters 671e9 0.001
    near active 37e9 0.02
    near device_hours 2.788e6 0.02
    near usd 5.576e6 0.02
    near rule_6nd 3.29e24 0.02
}

write_recipe() {
    mkdir -p shape
    cat >shape/config.json <<'JSON'
{"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
 "num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 8192, "tie_word_embeddings": true}
JSON
    printf 'teacher: {model: shape}\ndata: {train: [none.jsonl], tokens_max: 512}\ntrain: {batch_tokens: 2048, steps: 10}\n' >r.yaml
}

a_folder_with_a_config_alone_is_enough() {
    write_recipe
    expect_status 0 retort plan r.yaml student.n_layers=10 --machine H100 --json
    near parameters 63.7e6 0.01
    near steps 10 0
    near tokens_per_s 5e5 1
    expect_status 0 retort plan r.yaml --machine A100 --prompts 1K --prompt-tokens 100 --answer-tokens 1000 --usd-in 1 --usd-out 4
    expect_text "1 k requests, 100 k tokens in, 1 M out: 4.10 US\$" "$(printf '%s' "$out" | sed 's/1\.00 /1 /g')"
    expect_text "full batches are assumed" "$out"
    expect_text "Busbridge" "$out"
    expect_text "extrapolated" "$out"
}

a_network_between_nodes_costs_time() {
    write_recipe
    expect_status 0 retort plan r.yaml student.n_layers=10 --machine H100 --nodes 4 --json
    alone=$(figure step_s)
    # a ring over four: 2 x 3/4 of 63.7 M gradients of 4 bytes at 1 GB/s, then 3/4 of the parameters
    expect_status 0 retort plan r.yaml student.n_layers=10 --machine H100 --nodes 4 --network 1 --latency 0 --json
    near bytes_sent 573e6 0.01
    near reduce_s 0.382 0.01
    near gather_s 0.191 0.01
    awk -v a="$alone" -v s="$(figure step_s)" -v w="$(figure waiting_s)" 'BEGIN { d = s - a - w; exit d > 1e-6 || d < -1e-6 || w < 0.19 }'
    expect_status 0 retort plan r.yaml student.n_layers=10 --machine H100 --nodes 4 --network 400
    expect_text "of 4 times one" "$out"
}

answers_cost_what_the_price_table_says() {
    write_recipe
    printf 'currency: usd\nmodels:\n  big: {input: 1, output: 4}\n' >prices.yaml
    expect_status 0 retort plan r.yaml --machine A100 --prompts 1K --prompt-tokens 100 --answer-tokens 1000 --prices prices.yaml --api-model big --json
    expect_equal 4.1 "$(jq .api.usd <<<"$out")"
    expect_status 1 retort plan r.yaml --machine A100 --prices prices.yaml --api-model bug
    expect_text "big" "$err"
    expect_status 2 retort plan r.yaml --machine A100 --prices prices.yaml
    expect_text "belong together" "$err"
}

a_machine_may_be_described_in_a_file() {
    write_recipe
    printf '{"name": "shed", "bf16_flops": 1e12, "utilisation": 0.5, "memory_bytes": 1e9, "usd_per_hour": 3}' >m.json
    expect_status 0 retort plan r.yaml --machine m.json
    expect_text "shed" "$out"
    expect_text "MORE THAN THE MACHINE HAS" "$out"
    printf '{"bf16_flops": 1e12, "utilisation": 0.5, "colour": 1}' >m.json
    expect_status 2 retort plan r.yaml --machine m.json
    expect_text "'colour' is no key" "$err"
    printf '{"bf16_flops": -1, "utilisation": 0.5}' >m.json
    expect_status 2 retort plan r.yaml --machine m.json
    expect_status 2 retort plan r.yaml --machine B17
    expect_text "neither 'this'" "$err"
}

a_streamed_teacher_is_planned_from_the_disks_rate() {
    write_recipe
    printf '{"bf16_flops": 1e14, "utilisation": 0.5, "read_bytes_per_s": 1e11}' >m.json
    expect_status 2 retort plan r.yaml --machine m.json --stream
    expect_text "--disk-rate" "$err"
    # 106 M weights of layers in bf16 at 1 GB/s
    expect_status 0 retort plan r.yaml --machine m.json --stream --disk-rate 1e9 --stream-tokens 1000 --json
    near layer_bytes 2.123e8 0.01
    near pass_s 0.2125 0.02
    expect_text '"disk_bound": true' "$out"
}

what_cannot_be_planned_is_said() {
    write_recipe
    expect_status 2 retort plan r.yaml train.lrr=1
    expect_text "train.lr" "$err"
    expect_status 2 retort plan r.yaml --machine H100 --nodes 0
    expect_status 2 retort plan r.yaml --machine H100 --utilisation 2
    expect_status 1 retort plan r.yaml --machine H100 teacher.model=nowhere
    echo '{"model_type": "deepseek_v3", "hidden_size": 3}' >shape/config.json
    expect_status 1 retort plan r.yaml --machine H100
    expect_text "missing" "$err"
}

this_machine_is_measured_once() {
    write_recipe
    export RETORT_HOME=$PWD/home
    expect_status 0 retort plan r.yaml student.n_layers=2 --threads 1 --json
    expect_text '"forward"' "$(cat home/machine.json)"
    local first
    first=$(cat home/machine.json)
    expect_status 0 retort plan r.yaml student.n_layers=2 --threads 1
    expect_equal "$first" "$(cat home/machine.json)"
    expect_text "as measured" "$out"
}

small=$source_dir/data/teacher-small.gguf

a_target_becomes_lines_that_distill_takes() {
    printf '{"prompt": "a", "completion": "b, and so on for a while", "finish_reason": "stop"}\n' >text.jsonl
    expect_status 0 retort plan --target 2M --from "$small" --machine H100 --shapes 4 --json
    printf '%s' "$out" >shapes.json
    jq -e '(.shapes | length) == 4 and ([.shapes[].harm] | . == sort) and all(.shapes[]; .tokens_per_s > 0 and .peak_bytes > 0)' shapes.json
    for i in 0 1 2 3; do
        { jq -r ".shapes[$i].recipe" shapes.json && printf 'teacher: {model: %s}\ndata: {train: [text.jsonl], tokens_max: 64}\n' "$small" &&
            printf 'train: {batch_tokens: 64}\noutput: {types: []}\n'; } >r.yaml
        retort distill r.yaml --run "run-$i" --init-only --quiet
        jq -e --argjson want "$(jq ".shapes[$i].parameters" shapes.json)" '.student.parameters == $want and $want > 1.92e6 and $want < 2.08e6' \
            "run-$i/run.json"
    done
}

a_target_may_be_the_size_of_a_file() {
    printf '{"prompt": "a", "completion": "b, and so on for a while", "finish_reason": "stop"}\n' >text.jsonl
    printf 'teacher: {model: %s}\ndata: {train: [text.jsonl], tokens_max: 64}\ntrain: {batch_tokens: 64}\noutput: {types: [Q8_0]}\n' "$small" >r.yaml
    expect_status 0 retort plan r.yaml --target 2.2MB --machine H100
    line=$(grep -m 1 -o 'student: .*}' <<<"$out")
    { cat r.yaml && printf '%s\n' "$line"; } >cut.yaml
    retort distill cut.yaml --run run --init-only --quiet
    awk -v b="$(stat -c %s run/student.Q8_0.gguf)" 'BEGIN { if (b < 2.05e6 || b > 2.35e6) { print b; exit 1 } }'
    # without a recipe, a word of one
    expect_status 0 retort plan --target 2.2MB --from "$small" --machine H100 'output.types=[Q8_0]'
    expect_text "$line" "$out"
}

targets_that_cannot_be_are_one_sentence() {
    expect_status 2 retort plan --target 4M --from "$small" --machine H100
    expect_text "nothing of 4 M can be cut out of it" "$err"
    expect_status 2 retort plan --target 100K --from "$small" --machine H100
    expect_text "the smallest that are proposed" "$err"
    expect_status 2 retort plan --target big --from "$small" --machine H100
    expect_text "'big' is no size" "$err"
    expect_status 2 retort plan --from "$small"
    expect_text "--target" "$err"
    expect_status 2 retort plan
    expect_text "RECIPE.yaml is missing" "$err"
    # experts have no width to cut: layers alone are proposed
    expect_status 0 retort plan --target 20K --from "$source_dir/tests/golden/engine/qwen3_moe" --machine H100
    expect_text "{n_layers: 1}" "$out"
}

adapters_take_what_a_run_with_them_takes() {
    for i in $(seq 20); do printf '{"prompt": "a %d", "completion": "b, and so on for a while", "finish_reason": "stop"}\n' "$i"; done >text.jsonl
    for kind in lora dora; do
        words=("teacher.model=$small" "student.model=$small" 'data.train=[text.jsonl]' data.tokens_max=64 train.batch_tokens=64 train.steps=1
            adapters.rank=4 "adapters.kind=$kind" 'output.types=[]')
        expect_status 0 retort plan "$source_dir/recipes/lora.yaml" --machine H100 "${words[@]}" --json
        printf '%s' "$out" >$kind.json
        retort distill "$source_dir/recipes/lora.yaml" --run $kind "${words[@]}" --quiet
        awk -v p="$(jq .disk.checkpoint $kind.json)" -v r="$(stat -c %s $kind/checkpoint.safetensors)" \
            'BEGIN { if (r < p || r > p * 1.03 + 4096) { print p, r; exit 1 } }'
        awk -v p="$(jq .adapters.bytes $kind.json)" -v r="$(stat -c %s $kind/adapter/adapter_model.safetensors)" \
            'BEGIN { if (r < p || r > p + 16384) { print p, r; exit 1 } }'
    done
    retort plan "$source_dir/recipes/lora.yaml" --machine H100 "${words[@]}" adapters.rank=0 --json >full.json
    # LoRA spares the weights' gradient and the optimiser's state; DoRA the state
    jq -en --slurpfile f full.json --slurpfile l lora.json --slurpfile d dora.json \
        '$l[0].flops.student_token < 0.8 * $f[0].flops.student_token and $d[0].flops.student_token > 0.9 * $f[0].flops.student_token and
         $l[0].memory.arenas < $f[0].memory.arenas - 20e6 and $l[0].disk.checkpoint < $f[0].disk.checkpoint / 10'
}

a_student_with_a_vocabulary_of_its_own_is_counted_so() {
    local teacher=$source_dir/data/teacher-small.gguf
    for i in $(seq 40); do printf '{"text": "question %d, and the answer to it is %d, and there is more to say"}\n' "$i" $((i * 7 % 11)); done >t.jsonl
    retort tokenizer train t.jsonl "$source_dir/data/prompts.jsonl" --vocab 600 --like "$teacher" --out tok >/dev/null
    plan=(retort plan "$source_dir/recipes/across-tokenizers.yaml" "teacher.model=$teacher" student.tokenizer=tok student.n_layers=2
        'data.train=[t.jsonl]' data.tokens_max=128 train.batch_tokens=256 train.tokens=2560 data.loss_on=all --machine H100 --json)
    expect_status 0 "${plan[@]}"
    printf '%s' "$out" >other.json
    # the student that a run makes has as many parameters, and the teacher's bytes are more tokens than its own
    retort distill "$source_dir/recipes/across-tokenizers.yaml" --run run --quiet "teacher.model=$teacher" student.tokenizer=tok \
        student.n_layers=2 'data.train=[t.jsonl]' data.tokens_max=128 train.batch_tokens=256 train.steps=1 data.loss_on=all --json >run.json
    expect_equal "$(jq .student.parameters run.json)" "$(jq '.student.parameters | floor' other.json)"
    jq -e '.teacher.parameters > 0 and .flops.teacher_token > 0 and .text.teacher_tokens > 1.5' other.json
    expect_equal "$(retort tokenizer show tok --json | jq .tokens)" "$(jq '.student.head / 256' other.json | sed 's/\.0$//')"
    # sorted distributions need room of each thread; the text alone needs no teacher
    expect_status 0 "${plan[@]}" across.way=uld
    awk -v a="$(jq .memory.arenas other.json)" -v b="$(figure arenas)" 'BEGIN { exit !(b > a) }'
    expect_status 0 "${plan[@]}" across.way=text
    near teacher_token 0 0
    expect_status 0 "${plan[@]}" --no-text
    expect_text "as many tokens of the text" "$out"
    expect_status 1 retort plan "$source_dir/recipes/across-tokenizers.yaml" "teacher.model=$teacher" student.tokenizer=none.json --machine H100
    expect_text "none.json" "$err"
}

a_factored_embedding_is_counted_in_what_is_trained() {
    write_recipe
    expect_status 0 retort plan r.yaml student.n_layers=10 --machine H100 --json
    whole=$(figure checkpoint)
    expect_status 0 retort plan r.yaml student.n_layers=10 student.embd_rank=128 --machine H100 --json
    # 49152 x 576 give way to 128 x (49152 + 576)
    awk -v a="$whole" -v b="$(figure checkpoint)" 'BEGIN { d = (a - b) / 12 - (49152 * 576 - 128 * (49152 + 576)); exit d > 200 || d < -200 }'
    near parameters 63.7e6 0.01
    near trained 41.8e6 0.01
    expect_status 0 retort plan r.yaml student.n_layers=10 student.embd_rank=128 --machine H100
    expect_text "values are trained" "$out"
    expect_status 2 retort plan r.yaml student.n_layers=10 student.embd_rank=576 --machine H100
    expect_text "only below rank" "$err"
}

run_tests a_target_becomes_lines_that_distill_takes a_target_may_be_the_size_of_a_file targets_that_cannot_be_are_one_sentence \
    adapters_take_what_a_run_with_them_takes deepseek_v3_costs_what_was_published a_folder_with_a_config_alone_is_enough a_network_between_nodes_costs_time answers_cost_what_the_price_table_says \
    a_machine_may_be_described_in_a_file a_streamed_teacher_is_planned_from_the_disks_rate \
    what_cannot_be_planned_is_said this_machine_is_measured_once \
    a_student_with_a_vocabulary_of_its_own_is_counted_so a_factored_embedding_is_counted_in_what_is_trained
