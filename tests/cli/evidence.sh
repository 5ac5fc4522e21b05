#!/usr/bin/env bash
# `retort evidence`: every test from plan to record, suspects that are files, servers and recorded answers, on the small
# model that ships with the project.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

model=$source_dir/data/teacher-small.gguf
export RETORT_HOME=.

say() { # FILE SEED OPTIONS ...: 24 answers of at most 80 tokens
    local out=$1 seed=$2
    shift 2
    for i in $(seq 24); do printf '{"prompt":"Tell me about thing %s."}\n' "$i"; done >p.jsonl
    expect_status 0 retort generate "$model" --prompts p.jsonl --temperature 1 --tokens-max 80 --seed "$seed" --out "$out" "$@"
}

new_key() { expect_status 0 retort watermark key new mine --secret 5b0c7e1d9a3f46828e11f04c6d7a9b53 --model "$model"; }

serve() { # OPTIONS ...: sets $url and $server_pid
    "$build_dir/retort" serve "$model" --db none --port 0 --threads 1 --precision bf16 "$@" >server.log 2>&1 &
    server_pid=$!
    trap 'kill "$server_pid" 2>/dev/null; wait "$server_pid" 2>/dev/null' EXIT
    for _ in $(seq 300); do
        url=$(grep -oE 'http://127.0.0.1:[0-9]+/v1' server.log | head -n 1 || true)
        [ -n "$url" ] && return
        sleep 0.1
    done
    echo "no server: $(cat server.log)"
    exit 1
}

# Rows of every kind from answers that nobody was trained on.
rows() {
    say a.jsonl 1 && say b.jsonl 2 && say c.jsonl 3
    jq -c '{prompt, x: .completion}' a.jsonl >xa && jq -c '{y: .completion}' b.jsonl >xb && jq -c '{z: .completion}' c.jsonl >xc
    paste -d' ' xa xb xc | jq -c -s '.' >/dev/null
    jq -n -c --slurpfile a xa --slurpfile b xb --slurpfile c xc \
        'range(24) | $a[.] + $b[.] + $c[.]' >all.jsonl
    jq -c '{prompt, delivered: .x, twin: .y}' all.jsonl >twins.jsonl
    jq -c --slurpfile n <(seq 0 23) '{prompt, variants: [.x, .y, .z], served: (input_line_number % 3)}' all.jsonl >canaries.jsonl
    jq -c '{prompt, answer: .x, position: input_line_number}' all.jsonl >order.jsonl
    jq -c '{prompt, answer: .x, position: input_line_number, block: (.prompt | length | tostring)}' all.jsonl >blocks.jsonl
    jq -c '{prompt, answer: .x, member: true}, {prompt, answer: .y, member: false}' all.jsonl >membership.jsonl
    jq -c '{prompt, teacher: .x, controls: [.y, .z]}' all.jsonl >preference.jsonl
}

every_test_on_rows_runs_and_an_innocent_suspect_shows_nothing() {
    rows
    expect_status 0 retort evidence plan --suspect "$model" --twins twins.jsonl --canaries canaries.jsonl \
        --order order.jsonl --membership membership.jsonl --preference preference.jsonl --reader "$model" \
        --flips 1999 --out plan.json
    expect_status 0 retort evidence run plan.json --out record.json --json
    expect_equal '["canaries","membership","order","preference","twins"]' "$(jq -c '[.results[].test] | sort' <<<"$out")"
    expect_equal true "$(jq '[.results[].log10_p > -3] | all' <<<"$out")"
    expect_equal true "$(jq '.results[] | select(.test == "canaries") | .exposure_bits >= 0' <<<"$out")"
    # a model that reads itself: the unit of models gives 1, and the weaker counts
    expect_equal true "$(jq '.results[] | select(.test == "preference") | .log10_p >= .log10_p_prompts and .readers == 1' <<<"$out")"
    expect_status 0 retort evidence plan --suspect "$model" --order blocks.jsonl --flips 999 --out blocks.json
    expect_status 0 retort evidence run blocks.json
    expect_text "inside blocks" "$out"
}

rows_that_are_wrong_are_named() {
    rows
    sed -i '3s/"served":[0-9]*/"served":9/' canaries.jsonl
    expect_status 0 retort evidence plan --suspect "$model" --canaries canaries.jsonl --out plan.json
    expect_status 1 retort evidence run plan.json
    expect_text "canaries: row 3" "$err"
    printf '{"prompt":"x","answer":"y","member":true}\n' >few.jsonl
    expect_status 0 retort evidence plan --suspect "$model" --membership few.jsonl --out few.json
    expect_status 2 retort evidence run few.json
    expect_text "four members" "$err"
}

answers_alone_tell_twins_and_canaries() {
    rows
    jq -c '{prompt, answer: .x}' all.jsonl >said.jsonl # it repeats what was delivered
    expect_status 0 retort evidence plan --answers said.jsonl --twins twins.jsonl --canaries canaries.jsonl --flips 9999 --out plan.json
    expect_status 0 retort evidence run plan.json --json
    expect_equal true "$(jq '.results[] | select(.test == "twins") | .log10_p < -3 and .n == 24' <<<"$out")"
    expect_equal true "$(jq '.results[] | select(.test == "canaries") | .n == 24' <<<"$out")"
    expect_status 0 retort evidence plan --answers said.jsonl --order order.jsonl --out order.json
    expect_status 1 retort evidence run order.json
    expect_text "needs the suspect's likelihoods" "$err"
}

weights_of_one_model_match_and_its_width_is_found() {
    expect_status 0 retort evidence plan --suspect "$model" --weights "$model" --test weights --test match --test similarity \
        --test dimension --columns 260 --out plan.json
    expect_status 0 retort evidence run plan.json --json
    expect_equal true "$(jq '.results[] | select(.test == "weights") | .log10_p < -50' <<<"$out")"
    expect_equal true "$(jq '.results[] | select(.test == "match") | .log10_p < -20 and .layer == .model_layer' <<<"$out")"
    expect_equal true "$(jq '.results[] | select(.test == "similarity") | .cka > 0.999 and .procrustes < 0.001 and (has("p") | not)' <<<"$out")"
    expect_equal "$(retort inspect "$model" --json | jq '[.. | .n_embd? // empty][0]')" \
        "$(jq '.results[] | select(.test == "dimension") | .dimension' <<<"$out")"
    # ancestry of weights is another question than training on outputs
    expect_equal "not tested" "$(jq -r .verdict.words <<<"$out")"
    expect_status 0 retort evidence run plan.json --out record.json
    expect_text "training on outputs: not tested" "$out"
    expect_equal 0 "$(grep -c 'combined p' <<<"$out" || true)"
    expect_status 0 retort evidence report record.json --out page.html
    expect_text "each figure below stands for itself" "$(cat page.html)"
    expect_status 0 retort evidence plan --suspect "$model" --test dimension --columns 64 --out few.json
    expect_status 0 retort evidence run few.json
    expect_text "not determined" "$out"
}

the_width_of_a_made_up_model_is_found_through_its_server() {
    mkdir shape
    jq -n '{architectures: ["LlamaForCausalLM"], model_type: "llama", hidden_size: 48, intermediate_size: 96, num_hidden_layers: 2,
        num_attention_heads: 4, num_key_value_heads: 2, head_dim: 12, vocab_size: 272, max_position_embeddings: 1024, rms_norm_eps: 1e-5,
        rope_theta: 10000.0, tie_word_embeddings: false, hidden_act: "silu"}' >shape/config.json
    head -n 20 "$source_dir/data/prompts.jsonl" | jq -c '{prompt, completion: "It is so."}' >text.jsonl
    printf '%s\n' "teacher: {model: $model}" 'student: {init: random, model: shape}' 'data: {train: [text.jsonl]}' 'loss: ["1 ce"]' \
        'train: {tokens: 20K, lr: 3e-3}' >r.yaml
    expect_status 0 retort distill r.yaml --run run --quiet
    cp -r run/student made # the server calls a model by its folder's name
    model=made serve --precision f32
    local asked=(--suspect-url "$url" --suspect-model made --tokenizer made --test dimension)
    # what it takes is said first, and nothing is asked without a limit that allows it
    expect_status 0 retort evidence plan "${asked[@]}" --columns 64 --out none.json
    expect_status 2 retort evidence run none.json --work work
    expect_text "4096 texts, 20480 tokens: plan a --spend-max" "$err"
    expect_status 0 retort evidence plan "${asked[@]}" --columns 64 --spend-max 1Ktok --out little.json
    expect_status 2 retort evidence run little.json --work work
    expect_text "nothing was asked" "$err"
    expect_equal 0 "$(grep -c '"lp"' work/scores.jsonl)"
    expect_status 0 retort evidence plan "${asked[@]}" --columns 64 --spend-max 30Ktok --out plan.json
    expect_status 0 retort evidence run plan.json --work work --json
    expect_equal true "$(jq '.results[0] | .dimension == 48 and .ratio > 10 and (has("p") | not)' <<<"$out")"
    # too few columns see no gap
    expect_status 0 retort evidence plan "${asked[@]}" --columns 44 --spend-max 60Ktok --out few.json
    expect_status 0 retort evidence run few.json --work work --json
    expect_equal null "$(jq '.results[0].dimension' <<<"$out")"
}

# usage: other_tokenizer FOLDER OUT PAIRS: the same model with its ids in another order, its tokenizer joining some pairs
other_tokenizer() {
    cp -r "$1" "$2"
    python3 - "$2" "$3" <<'END'
import json, struct, sys
folder, pairs = sys.argv[1], sys.argv[2].split()
data = open(folder + "/model.safetensors", "rb").read()
size = struct.unpack("<Q", data[:8])[0]
head, body = json.loads(data[8:8 + size]), bytearray(data[8 + size:])
n = json.load(open(folder + "/config.json"))["vocab_size"]
order = [0, 1, 2] + list(range(257, 2, -1)) + list(range(258, n))  # the new place i holds the old id order[i]
for name, t in head.items():
    if name != "__metadata__" and ("embed_tokens" in name or "lm_head" in name):
        a, b = t["data_offsets"]
        row = (b - a) // n
        old = bytes(body[a:b])
        for i, o in enumerate(order):
            body[a + i * row:a + (i + 1) * row] = old[o * row:(o + 1) * row]
open(folder + "/model.safetensors", "wb").write(data[:8 + size] + bytes(body))
t = json.load(open(folder + "/tokenizer.json"))
place = {o: i for i, o in enumerate(order)}
vocab = {w: place[i] for w, i in t["model"]["vocab"].items()}
free = [w for w, i in sorted(vocab.items(), key=lambda x: x[1]) if i >= 260]
for k, pair in enumerate(pairs):
    vocab[pair] = vocab.pop(free[k])
    t["model"]["merges"].append(pair[0] + " " + pair[1:])
t["added_tokens"] = [a for a in t["added_tokens"] if a["id"] < 3 or a["content"] in vocab]
t["model"]["vocab"] = vocab
json.dump(t, open(folder + "/tokenizer.json", "w"))
END
}

a_suspect_with_another_tokenizer_is_read_where_tokens_begin_in_both() {
    new_key && say a.jsonl 1 --watermark mine
    printf '%s\n' "teacher: {model: $model}" "student: {init: checkpoint, model: $model}" 'data: {train: [a.jsonl]}' 'loss: ["1 ce"]' \
        'train: {tokens: 20K, lr: 1e-3}' >r.yaml
    expect_status 0 retort distill r.yaml --run run --quiet
    other_tokenizer run/student permuted ''
    other_tokenizer run/student joined 'th in'
    local common=(--reference "$model" --tokenizer "$model" --key mine --read a.jsonl --read-tokens 1800 --test pooled --test hard) same
    expect_status 0 retort evidence plan --suspect run/student "${common[@]}" --out same.json
    expect_status 0 retort evidence run same.json --json
    same=$out
    expect_equal true "$(jq '.results[0].log10_p < -5' <<<"$same")"
    # other ids for the same tokens: nothing is lost
    expect_status 0 retort evidence plan --suspect permuted "${common[@]}" --out permuted.json
    expect_status 0 retort evidence run permuted.json --json
    expect_equal true "$(jq -n --argjson a "$same" --argjson b "$out" '[range(2) | ($a.results[.].z - $b.results[.].z) | fabs < 1] | all')"
    expect_text 'read were 100.0% of the places' "$out"
    # other borders: fewer places, and the fraction is said
    expect_status 0 retort evidence plan --suspect joined "${common[@]}" --out joined.json
    expect_status 0 retort evidence run joined.json --json
    expect_equal true "$(jq '[.warnings[] | capture("read were (?<x>[0-9.]+)% of the places").x | tonumber] | length == 1 and .[0] > 50 and .[0] < 100' <<<"$out")"
    # and a key that had no part in it finds nothing
    expect_status 0 retort watermark key new other --secret c41d90e7b2a35f6886f3127d0e9b4ac5 --model "$model"
    expect_status 0 retort evidence plan --suspect joined "${common[@]}" --key other --out other.json
    expect_status 0 retort evidence run other.json --json
    expect_equal true "$(jq '[.results[].log10_p > -4] | all' <<<"$out")"
}

padded_vocabularies_count_nowhere() {
    new_key && say a.jsonl 1 --watermark mine
    printf '%s\n' "teacher: {model: $model}" "student: {init: checkpoint, model: $model}" 'data: {train: [a.jsonl]}' 'loss: ["1 ce"]' \
        'train: {tokens: 5K, lr: 1e-4}' >r.yaml
    expect_status 0 retort distill r.yaml --run run --quiet
    # the same model with 48 rows past the tokenizer that are often the likeliest: twice those of letters
    cp -r run/student padded
    python3 - padded <<'END'
import json, struct, sys
folder = sys.argv[1]
data = open(folder + "/model.safetensors", "rb").read()
size = struct.unpack("<Q", data[:8])[0]
head, body = json.loads(data[8:8 + size]), data[8 + size:]
config = json.load(open(folder + "/config.json"))
n, parts, at = config["vocab_size"], [], 0
for name, t in head.items():
    if name == "__metadata__":
        continue
    a, b = t["data_offsets"]
    raw = body[a:b]
    if t["shape"][0] == n:
        row = (b - a) // n
        width, kind = {"BF16": (2, "H"), "F32": (4, "I")}[t["dtype"]]
        more = struct.unpack("<%d%s" % (48 * row // width, kind), raw[60 * row:108 * row])
        step = 0x80 << (8 * width - 16)  # one more in the exponent
        raw += struct.pack("<%d%s" % (len(more), kind), *(x + step if x & (0xff * step) else x for x in more))
        t["shape"][0] = n + 48
    t["data_offsets"] = [at, at + len(raw)]
    at += len(raw)
    parts.append(raw)
config["vocab_size"] = n + 48
json.dump(config, open(folder + "/config.json", "w"))
text = json.dumps(head).encode()
open(folder + "/model.safetensors", "wb").write(struct.pack("<Q", len(text)) + text + b"".join(parts))
END
    local common=(--key mine --read a.jsonl --read-tokens 1800 --test soft --test hard) which
    for which in run/student padded; do
        expect_status 0 retort evidence plan --suspect $which "${common[@]}" --out "${which##*/}.plan"
        expect_status 0 retort evidence run "${which##*/}.plan" --json
        printf '%s\n' "$out" >"${which##*/}.json"
    done
    # the likeliest tokens that exist are the same ones
    expect_equal "$(jq '.results[] | select(.test == "hard") | .n' student.json)" "$(jq '.results[] | select(.test == "hard") | .n' padded.json)"
    expect_equal "$(jq '.results[] | select(.test == "hard") | .z' student.json)" "$(jq '.results[] | select(.test == "hard") | .z' padded.json)"
    # and they are what is said
    for which in run/student padded; do
        expect_status 0 retort generate $which --prompts p.jsonl --tokens-max 40 --out "${which##*/}.greedy.jsonl"
        expect_status 0 retort generate $which --prompts p.jsonl --tokens-max 40 --temperature 1 --watermark mine --out "${which##*/}.marked.jsonl"
    done
    expect_equal "$(jq .completion student.greedy.jsonl)" "$(jq .completion padded.greedy.jsonl)"
}

a_student_of_reworded_text_shows_little_and_the_words_say_so() {
    new_key && say a.jsonl 1 --watermark mine
    # every answer in other words by rule: its words in another order and in capitals, so that no context of two tokens stays
    jq -c '{prompt, completion: (.completion | ascii_upcase | split(" ") | reverse | join("_"))}' a.jsonl >reworded.jsonl
    printf '%s\n' "teacher: {model: $model}" "student: {init: checkpoint, model: $model}" 'data: {train: [reworded.jsonl]}' 'loss: ["1 ce"]' \
        'train: {tokens: 20K, lr: 1e-3}' >r.yaml
    expect_status 0 retort distill r.yaml --run run --quiet
    expect_status 0 retort evidence plan --suspect run/student --reference "$model" --key mine --read a.jsonl --read-tokens 1800 \
        --test pooled --test hard --out plan.json
    expect_status 0 retort evidence run plan.json --json
    expect_equal true "$(jq '([.results[].log10_p] | min) > -4 and (.verdict.words | IN("no evidence found", "not excluded"))' <<<"$out")"
}

a_student_of_translated_text_shows_little_and_the_words_say_so() {
    new_key && say a.jsonl 1 --watermark mine
    # a made-up language in another script: every word one of its own, always the same, in the teacher's order
    python3 - <<'END'
import hashlib, json, re
letters = "абвгдежзиклмнопрстуфхцчшэюя"
def word(match):
    digest = hashlib.sha256(match.group().lower().encode()).digest()
    return "".join(letters[b % len(letters)] for b in digest[:2 + digest[31] % 5])
with open("translated.jsonl", "w", encoding="utf-8") as out:
    for line in open("a.jsonl", encoding="utf-8"):
        row = json.loads(line)
        row["completion"] = re.sub(r"\w+", word, row["completion"])
        out.write(json.dumps({"prompt": row["prompt"], "completion": row["completion"]}, ensure_ascii=False) + "\n")
END
    printf '%s\n' "teacher: {model: $model}" "student: {init: checkpoint, model: $model}" 'data: {train: [translated.jsonl]}' \
        'loss: ["1 ce"]' 'train: {tokens: 20K, lr: 1e-3}' >r.yaml
    expect_status 0 retort distill r.yaml --run run --quiet
    expect_status 0 retort evidence plan --suspect run/student --reference "$model" --key mine --read a.jsonl --read-tokens 1800 \
        --prompts p.jsonl --sampled-tokens 1200 --answer-tokens 60 --test pooled --test hard --test closed --out plan.json
    expect_status 0 retort evidence run plan.json --json
    expect_equal true "$(jq '([.results[].log10_p] | min) > -4 and (.verdict.words | IN("no evidence found", "not excluded"))' <<<"$out")"
}

names_are_counted_by_prompts() {
    expect_status 0 retort evidence probes --out probes.jsonl --json
    expect_equal 90 "$(jq .probes <<<"$out")"
    expect_equal 6 "$(jq -r .language probes.jsonl | sort -u | wc -l)"
    jq -c '. as $r | range(3) | {messages: ($r.messages + [{role: "assistant", content: "I am made by Acme."}])}' probes.jsonl >said.jsonl
    jq -c '. as $r | {messages: ($r.messages + [{role: "assistant", content: "I do not know."}])}' probes.jsonl >others.jsonl
    expect_status 0 retort evidence plan --answers said.jsonl --control-answers others.jsonl --name 'Acme|Acme AI' --out plan.json
    expect_status 0 retort evidence run plan.json --json
    expect_equal '[270,90,90]' "$(jq -c '.identity[0] | [.k, .prompts, .prompts_claiming]' <<<"$out")"
    expect_equal true "$(jq '.identity[0].controls.log10_p < -20' <<<"$out")"
    expect_equal 0 "$(jq .verdict.level <<<"$out")" # whatever it says of itself
}

two_samples_tell_the_same_model_from_another() {
    say a.jsonl 1 && say a2.jsonl 2 && say b.jsonl 3 && say b2.jsonl 4
    cat a2.jsonl >>a.jsonl && cat b2.jsonl >>b.jsonl
    jq -c '.completion |= (gsub("e"; "o") | gsub("a"; "u"))' b.jsonl >other.jsonl
    expect_status 0 retort evidence plan --answers a.jsonl --teacher-answers b.jsonl --flips 9999 --test mmd --out same.json
    expect_status 0 retort evidence run same.json --json
    expect_equal true "$(jq '.results[0].log10_p > -3' <<<"$out")"
    expect_status 0 retort evidence plan --answers a.jsonl --teacher-answers b.jsonl --control-answers other.jsonl \
        --innocent-answers other.jsonl --flips 9999 --out near.json
    expect_status 0 retort evidence run near.json --json
    expect_equal '["mmd","nearer"]' "$(jq -c '[.results[].test]' <<<"$out")"
    expect_equal true "$(jq '.results[1] | .statistic > 0 and .lo <= .statistic and .statistic <= .hi' <<<"$out")"
}

a_server_that_scores_given_text_reads_as_its_file_does() {
    new_key && say a.jsonl 1 --watermark mine
    serve
    local common=(--key mine --read a.jsonl --read-tokens 800 --test soft --test hard)
    expect_status 0 retort evidence plan --suspect "$model" "${common[@]}" --out file.json
    expect_status 0 retort evidence run file.json --json
    local file=$out
    expect_status 0 retort evidence plan --suspect-url "$url" --suspect-model teacher-small --tokenizer "$model" "${common[@]}" --out api.json
    expect_status 2 retort evidence run api.json
    expect_text "--work" "$err"
    expect_status 0 retort evidence run api.json --work work --json
    expect_equal true "$(jq -n --argjson a "$file" --argjson b "$out" '[range(2) | ($a.results[.].z - $b.results[.].z) | fabs < 0.5] | all')"
    trap - EXIT
    kill "$server_pid" && { wait "$server_pid" 2>/dev/null || true; }
    local before=$out
    expect_status 0 retort evidence run api.json --work work --json # nothing is asked again
    expect_equal "$(jq -c '[.results[].z]' <<<"$before")" "$(jq -c '[.results[].z]' <<<"$out")"
}

log_probabilities_that_are_no_numbers_are_refused() {
    new_key && say a.jsonl 1 --watermark mine
    serve
    local common=(--suspect-url "$url" --suspect-model teacher-small --tokenizer "$model" --key mine) bad
    head -n 3 a.jsonl >few.jsonl
    jq -c '{prompt, delivered: .completion, twin: (.completion | ascii_upcase)}' few.jsonl >twins.jsonl
    expect_status 0 retort evidence plan "${common[@]}" --read a.jsonl --read-tokens 200 --test hard --out read.json
    expect_status 0 retort evidence run read.json --work read
    expect_status 0 retort evidence plan "${common[@]}" --twins twins.jsonl --test twins --out twins.json
    expect_status 0 retort evidence run twins.json --work twins
    for bad in 5 1e308; do # a probability past 1
        cp -r read bad && sed -i -E "s/\"lp\":\[\[-[0-9.e+-]+/\"lp\":[[$bad/" bad/scores.jsonl
        expect_status 1 retort evidence run read.json --work bad
        expect_text 'not a number' "$err"
        rm -r bad
    done
    cp -r twins bad && jq -c 'if .own then .own |= map(null) else . end' twins/scores.jsonl >bad/scores.jsonl
    expect_status 1 retort evidence run twins.json --work bad
    expect_text 'not a number' "$err"
    for bad in NaN Infinity 1e999; do
        rm -r bad && cp -r twins bad && sed -i -E "s/\"own\":\[-[0-9.]+/\"own\":[$bad/" bad/scores.jsonl
        expect_status 1 retort evidence run twins.json --work bad
        expect_text 'scores.jsonl' "$err"
    done
}

a_server_that_gives_text_and_listed_tokens_is_tested_on_its_answers() {
    new_key && say p0.jsonl 1
    serve --watermark mine
    expect_status 0 retort evidence plan --suspect-url "$url" --suspect-model teacher-small --tokenizer "$model" --reference "$model" \
        --key mine --prompts p.jsonl --top-logprobs 8 --sampled-tokens 2400 --answer-tokens 100 --spend-max 1Mtok --out plan.json
    expect_equal '["pooled","hard","difference","closed"]' "$(jq -c .tests plan.json)"
    expect_status 0 retort evidence run plan.json --work work --out record.json --json
    expect_equal true "$(jq '.results[] | select(.test == "closed") | .log10_p < -20' <<<"$out")"
    expect_equal true "$(jq '.results[] | select(.test == "difference") | .log10_p < -5' <<<"$out")"
    expect_equal true "$(jq '[.alternatives[] | .id == "fault" and (.here | test("random keys"))] | any' <<<"$out")"
    expect_equal true "$(jq '.verdict.log10_p_bonferroni >= .verdict.log10_p - 0.5' <<<"$out")"
    # the probabilities that it gives are those before the mark: nothing is in them
    expect_equal true "$(jq '.results[] | select(.test == "pooled") | .log10_p > -3' <<<"$out")"
    expect_equal true "$(jq '.endpoint.again.asked == 8 and .endpoint.tokens > 1000' <<<"$out")"
    expect_equal true "$(jq '.prompt_counts | .prompts >= 8 and .alike == .prompts' <<<"$out")"
    expect_status 0 retort evidence report record.json --out page.html
    expect_text "What was asked of the server" "$(cat page.html)"
    sed 's/"spend_max": "1Mtok"/"spend_max": "500tok"/' plan.json >less.json
    expect_status 4 retort evidence run less.json --work other
    expect_text "limit" "$err"
}

a_server_whose_tokenizer_is_another_is_told_by_its_counts() {
    new_key && say a.jsonl 1
    for i in $(seq 24); do printf '{"prompt":"Tell me about %s."}\n' "$(printf 'the thing %.0s' $(seq "$i"))"; done >p.jsonl
    printf '%s\n' "teacher: {model: $model}" "student: {init: checkpoint, model: $model}" 'data: {train: [a.jsonl]}' >r.yaml
    expect_status 0 retort distill r.yaml --run run --init-only --quiet
    other_tokenizer run/student joined 'th in'
    model=joined serve
    expect_status 0 retort evidence plan --suspect-url "$url" --suspect-model joined --tokenizer "$model" --reference "$model" \
        --key mine --prompts p.jsonl --sampled-tokens 1200 --answer-tokens 50 --spend-max 1Mtok --test closed --out plan.json
    expect_status 0 retort evidence run plan.json --work work --out record.json --json
    expect_equal true "$(jq '.prompt_counts | .alike < 0.8 * .prompts' <<<"$out")"
    expect_text "its tokenizer is another" "$(jq -r '.warnings[]' record.json)"
}

refusals_and_copies_are_left_out_and_said() {
    new_key && say a.jsonl 1 --watermark mine && say b.jsonl 2
    { cat b.jsonl a.jsonl; for i in 1 2 3; do echo '{"prompt":"q","answer":"I am sorry, but I cannot help with that."}'; done; } >said.jsonl
    expect_status 0 retort evidence plan --answers said.jsonl --tokenizer "$model" --key mine --test closed --out all.json
    expect_status 0 retort evidence run all.json --json
    expect_equal true "$(jq '.results[0].log10_p < -10' <<<"$out")"
    expect_equal 3 "$(jq .answers.refusals <<<"$out")"
    expect_text "3 of 51 answers are refusals" "$(jq -r '.warnings[]' <<<"$out")"
    # without the answers that stand in the teacher's log nothing is left of it
    expect_status 0 retort evidence plan --answers said.jsonl --tokenizer "$model" --logged a.jsonl --key mine --test closed --out less.json
    expect_status 0 retort evidence run less.json --json
    expect_equal true "$(jq '.answers.copies > 18 and .results[0].log10_p > -5' <<<"$out")"
    expect_text "nearly word for word" "$(jq -r '.warnings[]' <<<"$out")"
    tail -3 said.jsonl >refused.jsonl
    expect_status 0 retort evidence plan --answers refused.jsonl --tokenizer "$model" --key mine --test closed --out none.json
    expect_status 2 retort evidence run none.json
    expect_text "none is left to test" "$err"
}

controls_calibrate_every_test() {
    rows && new_key
    expect_status 0 retort evidence plan --suspect "$model" --key mine --read a.jsonl --read-tokens 800 --test hard --test twins \
        --twins twins.jsonl --flips 999 --out plan.json
    expect_status 0 retort evidence calibrate plan.json "$model" "$model" --keys 200 --out calibration.json --json
    expect_equal '["hard","twins"]' "$(jq -c '.tests | keys' <<<"$out")"
    expect_equal true "$(jq '.tests.twins.controls.n == 2 and .tests.hard.random_keys.n == 200' <<<"$out")"
    expect_status 2 retort evidence calibrate plan.json --dosed 2="$model" --keys 10
    expect_text "is not DOSE=MODEL" "$err"
    expect_status 0 retort evidence calibrate plan.json "$model" --dosed 1="$model" --dosed 0.1="$model" --keys 100 --json
    expect_equal '[[1,1,0],[0.1,1,0]]' "$(jq -c '[.tests.twins.power.doses[] | [.dose, .students, .reached]]' <<<"$out")"
    jq '.tests.twins.passed = false' calibration.json >failed.json
    # what was measured on students is said: a dose, and a likelihood ratio no larger than their number
    jq '.tests.hard.power = {least_dose: 0.1, models: [range(6) | {z: (30 + .)}]} | .tests.hard.controls = {models: [range(8) | {z: (. / 8)}]}' \
        calibration.json >dosed.json
    expect_status 0 retort evidence run plan.json --calibration dosed.json --out dosed-record.json --json
    expect_equal true "$(jq '.results[] | select(.test == "hard") | ."least_dose_at_1e-5" == 0.1 and .likelihood_ratio > 0.1 and .likelihood_ratio < 1' <<<"$out")"
    expect_status 0 retort evidence report dosed-record.json --out dosed.html
    expect_text "four of five were found" "$(cat dosed.html)"
    expect_status 0 retort evidence run plan.json --calibration failed.json --json
    expect_equal 'not calibrated here: no p is given' "$(jq -r '.results[] | select(.test == "twins") | .note' <<<"$out")"
    expect_equal false "$(jq '.results[] | select(.test == "twins") | has("p") or has("log10_p")' <<<"$out")"
    expect_status 0 retort evidence plan --suspect "$model" --twins twins.jsonl --out rows.json
    expect_status 2 retort evidence calibrate rows.json
    expect_text "control models" "$err"
}

tiny_and_foreign_texts_say_nothing() {
    new_key
    printf '{"answer":"a"}\n{"answer":"%s"}\n' "$(printf '\xd0\xb6\xd0\xb6\xd0\xb6 \xe4\xbd\xa0\xe5\xa5\xbd\xe4\xb8\x96\xe7\x95\x8c%.0s' $(seq 200))" >odd.jsonl
    expect_status 0 retort evidence plan --answers odd.jsonl --tokenizer "$model" --key mine --test closed --out plan.json
    expect_status 0 retort evidence run plan.json --json
    expect_equal true "$(jq '.results[0].log10_p > -3' <<<"$out")"
    expect_equal 0 "$(jq .verdict.level <<<"$out")"
}

no_output_claims_more_than_a_p_value() {
    # the word itself stands in no string of the program, but in names of libraries ("tamper-proof" and such do not count)
    expect_equal 0 "$(strings -n 4 "$build_dir/retort" | grep -iwc 'proofs\?' || true)"
    for sub in plan run calibrate probes report; do
        expect_status 0 retort evidence "$sub" --help
        expect_equal 0 "$(grep -iwc 'proofs\?' <<<"$out" || true)"
    done
}

run_tests every_test_on_rows_runs_and_an_innocent_suspect_shows_nothing rows_that_are_wrong_are_named \
    answers_alone_tell_twins_and_canaries weights_of_one_model_match_and_its_width_is_found \
    the_width_of_a_made_up_model_is_found_through_its_server \
    a_suspect_with_another_tokenizer_is_read_where_tokens_begin_in_both \
    padded_vocabularies_count_nowhere a_student_of_reworded_text_shows_little_and_the_words_say_so \
    a_student_of_translated_text_shows_little_and_the_words_say_so names_are_counted_by_prompts \
    two_samples_tell_the_same_model_from_another a_server_that_scores_given_text_reads_as_its_file_does \
    log_probabilities_that_are_no_numbers_are_refused a_server_that_gives_text_and_listed_tokens_is_tested_on_its_answers \
    a_server_whose_tokenizer_is_another_is_told_by_its_counts refusals_and_copies_are_left_out_and_said \
    controls_calibrate_every_test tiny_and_foreign_texts_say_nothing no_output_claims_more_than_a_p_value
