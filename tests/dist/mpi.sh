#!/usr/bin/env bash
# Several processes train one student: the same curve as one, resumed by another number, a rank that dies, that was started
# otherwise; and across two network namespaces.
# shellcheck source=testlib.sh disable=SC2154
. "$(dirname "$0")/../testlib.sh"

teacher=$source_dir/data/teacher-small.gguf
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_btl_vader_single_copy_mechanism=none
export OMPI_MCA_mpi_yield_when_idle=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none

make_world() {
    command -v mpirun >/dev/null || skip "mpirun is not installed"
    [ -e "$build_dir/retort-mpi.so" ] || skip "built without MPI"
    for i in $(seq 60); do
        printf '{"prompt": "question %d", "completion": "the answer to it is %d, and there is more to say", "finish_reason": "stop"}\n' \
            "$i" $((i * 7 % 11))
    done >text.jsonl
    cat >recipe.yaml <<YAML
teacher: {model: $teacher, precision: f32}
student: {n_layers: 2, precision: f32}
data: {train: [text.jsonl], tokens_max: 96}
train: {batch_tokens: 128, micro_batches: 4, steps: 6, lr: 1e-3, threads: 1}
output: {types: []}
YAML
}

ranks() { # ranks N ARGUMENT...: distill with N processes
    local n=$1
    shift
    mpirun -np "$n" "$build_dir/retort" distill recipe.yaml --quiet "$@"
}

# near FILE FILE: each step's loss the same to 1e-5
near() {
    paste <(jq -r .loss "$1") <(jq -r .loss "$2") |
        awk -v n="$(wc -l <"$1")" '{ d = $1 - $2; if (d < 0) d = -d; if (d > 1e-5 * $1) { print "losses", $1, "and", $2; exit 1 } }
            END { if (NR != n || NR == 0) exit 1 }'
}

two_and_three_ranks_give_the_curve_of_one() {
    make_world
    expect_status 0 retort distill recipe.yaml --quiet --run one
    for n in 2 3; do
        expect_status 0 ranks "$n" --run "ranks-$n"
        near one/log.jsonl "ranks-$n/log.jsonl"
        expect_equal "$n" "$(find "ranks-$n" -name 'checkpoint.6.*' | wc -l)"
    done
    # features and own answers go over ranks as well
    own='on_policy.share=0.6 on_policy.tokens_max=24 on_policy.answers=5'
    # shellcheck disable=SC2086
    {
        expect_status 0 retort distill recipe.yaml --quiet --run own-one $own
        expect_status 0 ranks 2 --run own-two $own
        near own-one/log.jsonl own-two/log.jsonl
        expect_status 0 retort distill recipe.yaml --quiet --run feature-one features.hidden=mse 'features.relations=[q, v]'
        expect_status 0 ranks 2 --run feature-two features.hidden=mse 'features.relations=[q, v]'
        near feature-one/log.jsonl feature-two/log.jsonl
    }
}

adapters_go_over_ranks_and_on_own_answers() {
    make_world
    words=(adapters.rank=4 adapters.alpha=8 student.n_layers=3)
    for kind in lora dora; do
        expect_status 0 retort distill recipe.yaml --quiet --run $kind-one "${words[@]}" adapters.kind=$kind
        expect_status 0 ranks 2 --run $kind-two "${words[@]}" adapters.kind=$kind
        near $kind-one/log.jsonl $kind-two/log.jsonl
    done
    own=(on_policy.share=0.6 on_policy.tokens_max=24 on_policy.answers=5 train.steps=10)
    expect_status 0 retort distill recipe.yaml --quiet --run own-one "${words[@]}" "${own[@]}"
    expect_status 0 ranks 2 --run own-two "${words[@]}" "${own[@]}"
    near own-one/log.jsonl own-two/log.jsonl
    expect_text '"own":true' "$(cat own-one/log.jsonl)"
    # a cut that the teacher's activations decide is the same on every rank
    cut=(student.n_layers=3 student.choice=influence student.n_ff=352 student.survey_tokens=500)
    expect_status 0 retort distill recipe.yaml --quiet --run cut-one "${cut[@]}"
    expect_status 0 ranks 2 --run cut-two "${cut[@]}"
    near cut-one/log.jsonl cut-two/log.jsonl
}

# stop DIR STEPS ARGUMENT...: a run that is told to stop when its log has some lines; ranks in $n
stop_after() {
    local dir=$1 lines=$2
    shift 2
    if [ "$n" -eq 1 ]; then
        "$build_dir/retort" distill recipe.yaml --quiet --run "$dir" train.checkpoint_minutes=0.0001 "$@" &
    else
        mpirun --mca odls_base_sigkill_timeout 5 -np "$n" "$build_dir/retort" distill recipe.yaml --quiet --run "$dir" train.checkpoint_minutes=0.0001 "$@" 2>/dev/null &
    fi
    pid=$!
    for _ in $(seq 2000); do
        [ "$(cat "$dir/log.jsonl" 2>/dev/null | wc -l)" -ge "$lines" ] && break
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.02
    done
    kill -INT "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}

another_number_of_ranks_goes_on() {
    make_world
    expect_status 0 retort distill recipe.yaml --quiet --run whole train.steps=24
    n=2 stop_after cut 3 train.steps=24
    [ -s cut/checkpoint.safetensors ] || { echo "no checkpoint"; exit 1; }
    n=1 stop_after cut 9 train.steps=24
    n=3 stop_after cut 15 train.steps=24
    expect_status 0 ranks 2 --run cut train.steps=24
    near whole/log.jsonl cut/log.jsonl
    # one process again: the parts of others are gone
    expect_status 0 retort distill recipe.yaml --quiet --run cut train.steps=24
}

two_ranks_resume_bit_for_bit() {
    make_world
    expect_status 0 ranks 2 --run whole train.steps=16
    n=2 stop_after cut 4 train.steps=16
    expect_status 0 ranks 2 --run cut train.steps=16
    cmp whole/student/model.safetensors cut/student/model.safetensors
}

a_rank_that_dies_ends_the_run_at_the_last_checkpoint() {
    make_world
    expect_status 0 ranks 2 --run whole train.steps=16
    mpirun -np 2 "$build_dir/retort" distill recipe.yaml --quiet --run cut train.steps=16 train.checkpoint_minutes=0.0001 2>/dev/null &
    launcher=$!
    for _ in $(seq 2000); do
        [ -s cut/checkpoint.safetensors ] && break
        sleep 0.02
    done
    victim=$(pgrep -P "$launcher" -f 'distill recipe.yaml' | tail -1)
    kill -9 "$victim" 2>/dev/null || true
    status=0
    wait "$launcher" || status=$?
    # it may have been done already on a fast machine; else the others have ended too
    if [ "$(wc -l <cut/log.jsonl)" -lt 16 ]; then
        [ "$status" -ne 0 ]
    fi
    [ -z "$(pgrep -P "$launcher" || true)" ]
    expect_status 0 ranks 2 --run cut train.steps=16
    cmp whole/student/model.safetensors cut/student/model.safetensors
}

# The other waits for it, whatever it takes; nothing is lost and no bit differs.
a_rank_that_is_slow_is_waited_for() {
    make_world
    expect_status 0 ranks 2 --run whole train.steps=16
    mpirun -np 2 "$build_dir/retort" distill recipe.yaml --quiet --run late train.steps=16 2>/dev/null &
    launcher=$!
    for _ in $(seq 2000); do
        [ -s late/log.jsonl ] && break
        sleep 0.02
    done
    slow=$(pgrep -P "$launcher" -f 'distill recipe.yaml' | tail -1)
    if kill -STOP "$slow" 2>/dev/null; then
        for _ in $(seq 500); do
            grep -q '^State:[[:space:]]*[TZ]' "/proc/$slow/status" 2>/dev/null || [ ! -e "/proc/$slow" ] && break
            sleep 0.02
        done
        lines=$(wc -l <late/log.jsonl)
        sleep 0.5 # at most the step under way is finished without it
        [ "$(wc -l <late/log.jsonl)" -le $((lines + 2)) ]
        kill -CONT "$slow" 2>/dev/null || true
    fi
    wait "$launcher"
    expect_equal 16 "$(wc -l <late/log.jsonl)"
    cmp whole/student/model.safetensors late/student/model.safetensors
}

ranks_that_were_started_otherwise_are_named() {
    make_world
    expect_status 1 mpirun -np 1 "$build_dir/retort" distill recipe.yaml --quiet --run run : \
        -np 1 "$build_dir/retort" distill recipe.yaml --quiet --run run train.lr=2e-3
    expect_text "rank 1 has other settings, text, models or build than rank 0" "$err"
    expect_status 1 mpirun -np 1 "$build_dir/retort" distill recipe.yaml --quiet --run run : \
        -np 1 env RETORT_CPU=ref "$build_dir/retort" distill recipe.yaml --quiet --run run
    expect_text "rank 1 has other settings, text, models or build" "$err"
    status=0
    ranks 3 --run run train.micro_batches=2 2>err.txt || status=$?
    [ "$status" -ne 0 ]
    expect_text "fewer than the 3 ranks" "$(cat err.txt)"
}

a_damaged_part_is_named() {
    make_world
    n=2 stop_after run 2 train.steps=24
    part=$(find run -name 'checkpoint.*.1of2.safetensors')
    printf '\377\377\377\377' | dd of="$part" bs=1 seek=$(($(stat -c %s "$part") / 2)) conv=notrunc 2>/dev/null
    expect_status 1 retort distill recipe.yaml --quiet --run run train.steps=24
    expect_text "1of2.safetensors" "$err"
    expect_text "damaged" "$err"
    rm "$part"
    expect_status 1 retort distill recipe.yaml --quiet --run run train.steps=24
    expect_text "1of2.safetensors" "$err"
    expect_status 0 retort distill recipe.yaml --quiet --run run train.steps=6 --restart
}

without_the_module_it_says_so() {
    make_world
    mkdir alone
    cp "$build_dir/retort" alone/
    status=0
    OMPI_COMM_WORLD_SIZE=2 alone/retort distill recipe.yaml --run run 2>err.txt || status=$?
    [ "$status" -eq 1 ]
    expect_text "this build has no MPI" "$(cat err.txt)"
}

two_network_namespaces_train_together() {
    make_world
    [ "$(id -u)" -eq 0 ] || skip "network namespaces need root"
    command -v ip >/dev/null || skip "iproute2 is not installed"
    a=rt$$a b=rt$$b
    ip netns add "$a" 2>/dev/null || skip "network namespaces cannot be made here"
    trap 'ip netns del "$a" 2>/dev/null; ip netns del "$b" 2>/dev/null' EXIT
    ip netns add "$b" && ip link add "v$a" type veth peer name "v$b" 2>/dev/null || skip "no pair of network links can be made here"
    ip link set "v$a" netns "$a" && ip link set "v$b" netns "$b"
    ip -n "$a" addr add 10.213.7.1/24 dev "v$a" && ip -n "$b" addr add 10.213.7.2/24 dev "v$b"
    for ns in "$a" "$b"; do ip -n "$ns" link set lo up; done
    ip -n "$a" link set "v$a" up && ip -n "$b" link set "v$b" up
    # what mpirun calls instead of ssh: HOST COMMAND...
    cat >agent <<SH
#!/bin/sh
while [ "\${1#-}" != "\$1" ]; do shift; done
shift
exec ip netns exec $b sh -c "\$*"
SH
    chmod +x agent
    expect_status 0 retort distill recipe.yaml --quiet --run one
    expect_status 0 ip netns exec "$a" mpirun --mca plm_rsh_agent "$PWD/agent" --mca btl tcp,self --mca oob_tcp_if_include 10.213.7.0/24 \
        --mca btl_tcp_if_include 10.213.7.0/24 -H 10.213.7.1:1,10.213.7.2:1 -np 2 --wdir "$PWD" \
        "$build_dir/retort" distill recipe.yaml --quiet --run two
    near one/log.jsonl two/log.jsonl
    # the gradients went through the link: more bytes than the student has
    sent=$(ip -n "$a" -s -j link show "v$a" | jq '.[0].stats64.tx.bytes')
    [ "$sent" -gt 1000000 ]
}

run_tests two_and_three_ranks_give_the_curve_of_one adapters_go_over_ranks_and_on_own_answers another_number_of_ranks_goes_on two_ranks_resume_bit_for_bit \
    a_rank_that_dies_ends_the_run_at_the_last_checkpoint a_rank_that_is_slow_is_waited_for ranks_that_were_started_otherwise_are_named a_damaged_part_is_named \
    without_the_module_it_says_so two_network_namespaces_train_together
