#!/usr/bin/env bash
# `retort outputs`: a small model's log-probabilities recorded, killed, gone on with, looked at, damaged, repaired, merged.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

# A model folder: the 97 ids of the golden models are the printable characters, the blank, the newline and an end.
make_model() { # $1: name, $2: family of the golden models
    local code char vocab="" id=0 name=${1:-model}
    mkdir "$name"
    cp "$source_dir/tests/golden/engine/${2:-llama}"/{config.json,model.safetensors} "$name"
    for code in $(seq 33 126); do
        # shellcheck disable=SC2059
        char=$(printf "\\$(printf %03o "$code")")
        case $char in '"' | \\) char="\\$char" ;; esac
        vocab="$vocab\"$char\": $id, "
        id=$((id + 1))
    done
    cat >"$name"/tokenizer.json <<END
{"version": "1.0", "added_tokens": [{"id": 96, "content": "<end>", "single_word": false, "lstrip": false,
  "rstrip": false, "normalized": false, "special": true}], "normalizer": null,
 "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
 "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
 "model": {"type": "BPE", "vocab": {$vocab"Ġ": 94, "Ċ": 95, "<end>": 96}, "merges": []}}
END
}

make_data() { # $1: first, $2: last document
    local i
    for i in $(seq "$1" "$2"); do
        echo "{\"text\": \"Document $i, of few words.  It's number $((i * i)).\"}"
    done
}

record() { retort outputs record --model model --precision f32 --quiet "$@"; }

# The number behind a key of the JSON in $out.
number() { sed -n "s/^ *\"$1\": \([-0-9.e]*\),*$/\1/p" <<<"$out" | head -1; }

a_text_is_recorded_and_looked_at() {
    make_model
    make_data 1 20 >data.jsonl
    expect_status 0 record --data data.jsonl --out store --topk 5 --draws 12 --json
    expect_equal 20 "$(number recorded)"
    expect_status 0 retort outputs stat store
    expect_text "documents                   20" "$out"
    expect_text "draws                       12" "$out"
    expect_text "retort outputs record" "$out"
    expect_status 0 retort outputs head store --model model --count 1 --rows 1
    expect_text '"text":"Document 1, of few words.' "$out"
    expect_text '"top":true' "$out"
    expect_text '"tail_mass":' "$out"
    expect_status 0 retort outputs verify store
    expect_text "0 damaged places" "$out"
}

what_is_there_is_not_recorded_again() {
    make_model
    make_data 1 10 >data.jsonl
    make_data 1 15 >more.jsonl
    expect_status 0 record --data data.jsonl --out store --draws 8 --json
    expect_status 0 record --data more.jsonl --out store --draws 8 --json
    expect_equal 5 "$(number recorded)"
    expect_equal 10 "$(number known)"
    expect_status 0 retort outputs stat store --json
    expect_equal 15 "$(number documents)"
    expect_status 1 record --data data.jsonl --out store --draws 9
    expect_text "holds other outputs: its logits.draws is 8, here it is 9" "$err"
    expect_status 2 record --data data.jsonl --out other
    expect_text "give --topk, --draws, or both" "$err"
}

# Rows of one store, however it came about, in the order of their documents.
rows_of() { retort outputs head "$1" --count 100000 --rows 100000 --entries 100 | sort; }

a_killed_recording_goes_on_to_the_same_rows() {
    make_model
    make_data 1 400 >data.jsonl
    record --data data.jsonl --out whole --draws 8 --topk 3 --batch-tokens 512
    local round pid
    for round in 1 2 3 4 5 6; do
        "$build_dir/retort" outputs record --model model --precision f32 --quiet --data data.jsonl --out store \
            --draws 8 --topk 3 --batch-tokens 512 --flush 0 &
        pid=$!
        sleep "0.$((round * 3 % 10))"
        kill -9 "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    expect_status 0 record --data data.jsonl --out store --draws 8 --topk 3 --batch-tokens 512
    expect_equal 400 "$(rows_of store | wc -l)"
    expect_status 0 retort outputs verify store
    expect_equal "$(rows_of whole | cksum)" "$(rows_of store | cksum)"
}

a_streamed_model_gives_the_same_rows() {
    make_model
    make_data 1 60 >data.jsonl
    expect_status 0 record --data data.jsonl --out whole --draws 8 --topk 3
    expect_status 0 record --data data.jsonl --out store --draws 8 --topk 3 --stream --batch-tokens 512
    expect_equal "$(rows_of whole | cksum)" "$(rows_of store | cksum)"
    expect_status 0 record --data data.jsonl --out store --draws 8 --topk 3 --json # the teacher's hash is the same
    expect_equal 60 "$(number known)"
}

# Starts a server of the folder $1 under the name "served", on the port of $url where it is set; its address and pid are
# then in $url and $pid.
start_server() {
    local port=${url##*:}
    port=${port%%/*}
    : >serve.log
    "$build_dir/retort" serve "$1" --alias served --port "${port:-0}" --db none --admin-host none --precision f32 >serve.log 2>&1 &
    pid=$! url=
    # shellcheck disable=SC2064
    trap "kill $pid 2>/dev/null || true" EXIT
    for _ in $(seq 100); do
        url=$(sed -n 's|.* on \(http://[0-9.:]*\)/v1.*|\1|p' serve.log)
        [ -n "$url" ] && break
        sleep 0.1
    done
}

stop_server() {
    kill "$pid"
    wait "$pid" 2>/dev/null || true
}

a_server_scores_the_same_text() {
    local pid url=
    make_model
    make_data 1 12 >data.jsonl
    start_server model
    expect_status 0 retort outputs score --url "$url" --model served --tokenizer model --data data.jsonl --out far \
        --topk 5 --quiet --json
    expect_equal 12 "$(number recorded)"
    expect_status 0 retort outputs score --url "$url" --model served --tokenizer model --data data.jsonl --out far \
        --topk 5 --quiet --json
    expect_equal 12 "$(number known)"
    expect_status 0 record --data data.jsonl --out near --topk 5
    expect_status 0 retort outputs stat far --json
    local rows
    rows=$(number rows)
    expect_status 0 retort outputs stat near --json
    expect_equal "$rows" "$(number rows)"
    expect_status 0 retort outputs verify far
    stop_server
}

the_model_of_a_store_is_told_from_others() {
    make_model
    make_model other qwen2
    make_data 1 20 >data.jsonl
    local kept
    for kept in "--topk 5" "--draws 12" "--topk 3 --draws 8 --temperature 1.5"; do
        # shellcheck disable=SC2086
        expect_status 0 record --data data.jsonl --out "store$kept" $kept
        expect_status 0 retort outputs audit "store$kept" --model model --quiet --json
        expect_equal "true 20 f32" "$(jq -r '"\(.same) \(.documents) \(.precision)"' <<<"$out")"
        jq -e '.difference.value <= .bound and .difference.low <= .difference.value' <<<"$out" >/dev/null
        expect_status 3 retort outputs audit "store$kept" --model other --quiet --json
        expect_equal "false" "$(jq -r .same <<<"$out")"
    done
    retort outputs record --model model --precision bf16 --quiet --data data.jsonl --out bf16 --topk 5 --code 16
    expect_status 0 retort outputs audit bf16 --model model --quiet --documents 7 --json
    expect_equal "7 bf16 f32" "$(jq -r '"\(.documents) \(.precision) \(.noise_against)"' <<<"$out")"
    expect_status 3 retort outputs audit bf16 --model other --quiet
    expect_text "are not those of this model" "$out"
    expect_status 1 retort outputs audit nowhere --model model
}

a_teacher_that_was_changed_midway_is_told() {
    local pid url=
    make_model
    make_model other qwen2
    make_data 1 12 >data.jsonl
    for served in model other; do
        start_server $served
        head -n "$([ $served = model ] && echo 8 || echo 12)" data.jsonl >part.jsonl
        expect_status 0 retort outputs score --url "$url" --model served --tokenizer model --data part.jsonl --out far \
            --topk 5 --quiet
        stop_server
        [ $served = other ] || expect_status 0 retort outputs audit far --model model --quiet
    done
    expect_status 3 retort outputs audit far --model model --quiet --json
    expect_equal "[8,9,10,11]" "$(jq -c .documents_beyond <<<"$out")"
}

a_damaged_store_is_told_and_repaired() {
    make_model
    make_data 1 30 >data.jsonl
    expect_status 0 record --data data.jsonl --out store --topk 5
    local file=store/logits/000001.rls size
    size=$(stat -c %s "$file")
    printf 'X' | dd of="$file" bs=1 seek=2000 conv=notrunc 2>/dev/null
    expect_status 3 retort outputs verify store
    expect_text "a block's checksum is wrong; 29 whole rows are in there" "$out"
    expect_status 3 retort outputs verify store --json
    expect_equal 29 "$(number documents)"
    expect_status 0 retort outputs repair store
    expect_status 0 retort outputs verify store --json
    expect_equal 29 "$(number documents)"
    expect_equal 1 "$(find store/damaged -type f | wc -l)"
    head -c $((size / 2)) "$file" >half.rls && mv half.rls "$file"
    expect_status 3 retort outputs verify store
    expect_status 0 retort outputs repair store
    expect_status 0 retort outputs verify store
    expect_status 0 record --data data.jsonl --out store --topk 5 # fills up what was lost
    expect_status 0 retort outputs stat store --json
    expect_equal 30 "$(number documents)"
}

a_lost_manifest_is_made_again() {
    make_model
    make_data 1 5 >data.jsonl
    expect_status 0 record --data data.jsonl --out store --topk 5
    rm store/manifest.json
    expect_status 1 retort outputs stat store
    expect_status 3 retort outputs verify store
    expect_status 0 retort outputs repair store
    expect_status 0 retort outputs stat store --json
    expect_equal 5 "$(number documents)"
    expect_equal 97 "$(number vocabulary)"
}

stores_are_merged_without_doubles() {
    make_model
    make_data 1 10 >a.jsonl
    make_data 6 15 >b.jsonl
    expect_status 0 record --data a.jsonl --out a --topk 5
    expect_status 0 record --data b.jsonl --out b --topk 5
    expect_status 0 retort outputs merge all a b --json
    expect_equal 15 "$(number documents)"
    expect_equal 5 "$(number documents_known)"
    expect_status 0 retort outputs verify all
    expect_status 0 record --data a.jsonl --out c --topk 6
    expect_status 1 retort outputs merge all c
    expect_text "logits.topk" "$err"
}

wrong_use_is_said_in_one_sentence() {
    expect_status 2 retort outputs
    expect_status 2 retort outputs verfy store
    expect_text "verify" "$err"
    expect_status 1 retort outputs verify nowhere
    expect_text "nowhere" "$err"
    expect_status 2 retort outputs merge all
    mkdir empty
    expect_status 1 retort outputs stat empty
    expect_text "manifest.json" "$err"
}

a_full_disk_leaves_what_was_recorded() {
    make_model
    make_data 1 600 >data.jsonl
    local status=0
    (trap '' XFSZ && ulimit -f 40 && record --data data.jsonl --out store --topk 5 --batch-tokens 512) 2>err.txt || status=$?
    expect_equal 1 "$status"
    expect_text 'cannot write' "$(cat err.txt)"
    expect_status 0 record --data data.jsonl --out store --topk 5 --json
    expect_status 0 retort outputs verify store --json
    expect_equal 600 "$(number documents)"
}

run_tests a_text_is_recorded_and_looked_at what_is_there_is_not_recorded_again \
    a_killed_recording_goes_on_to_the_same_rows a_streamed_model_gives_the_same_rows \
    a_server_scores_the_same_text the_model_of_a_store_is_told_from_others \
    a_teacher_that_was_changed_midway_is_told a_damaged_store_is_told_and_repaired a_lost_manifest_is_made_again \
    stores_are_merged_without_doubles wrong_use_is_said_in_one_sentence a_full_disk_leaves_what_was_recorded
