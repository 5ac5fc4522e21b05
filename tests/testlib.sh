# shellcheck shell=bash
# tests/testlib.sh - for shell tests: the same marks as cmocka's, so that scripts/run-tests counts both.
#
#   . "$(dirname "$0")/../testlib.sh"
#   a_sentence_that_is_proved() { expect_status 2 retort doctr; expect_text "did you mean 'doctor'" "$err"; }
#   run_tests a_sentence_that_is_proved ...
#
# A test runs in a subshell in an empty folder of its own ($PWD); it fails at the first expectation that
# does not hold, or command that fails.  `skip REASON` ends it as skipped.
set -uo pipefail

source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build_dir=${RETORT_BUILD:-$source_dir/build}

retort() { "$build_dir/retort" "$@"; }

# Runs a command; leaves its output in $out and $err.  Fails unless it ends with the status.
expect_status() {
    local wanted=$1 status=0
    shift
    "$@" >out.txt 2>err.txt || status=$?
    out=$(cat out.txt) err=$(cat err.txt)
    if [ "$status" -ne "$wanted" ]; then
        printf '%s ended with status %s, not %s\n%s\n%s\n' "$*" "$status" "$wanted" "$out" "$err"
        exit 1
    fi
}

# Fails unless the text (second argument) holds the words (first).
expect_text() {
    case $2 in
    *"$1"*) ;;
    *)
        printf 'expected: %s\nin: %s\n' "$1" "$2"
        exit 1
        ;;
    esac
}

expect_equal() {
    if [ "$1" != "$2" ]; then
        printf 'expected: %s\ngot: %s\n' "$1" "$2"
        exit 1
    fi
}

skip() {
    printf '%s\n' "$*"
    exit 77
}

# Starts `retort serve` on the small teacher with the accounts of accounts.db, on free ports; sets $server_pid, $url (of
# /v1) and $admin (of the admin listener).  The test's shell stops it when it ends.
# usage: start_small_server OPTION ...
start_small_server() {
    rm -f server.log
    "$build_dir/retort" serve "$source_dir/data/teacher-small.gguf" --db accounts.db --port 0 --admin-port 0 --threads 1 \
        "$@" >server.log 2>&1 &
    server_pid=$!
    trap 'kill "$server_pid" 2>/dev/null; wait "$server_pid" 2>/dev/null' EXIT
    for _ in $(seq 300); do
        grep -qs admin server.log && break
        kill -0 "$server_pid" || { cat server.log && return 1; }
        sleep 0.1
    done
    # shellcheck disable=SC2034 # for the tests
    url=$(grep -oE 'http://127.0.0.1:[0-9]+/v1' server.log | head -n 1)
    # shellcheck disable=SC2034
    admin=$(grep -oE 'http://127.0.0.1:[0-9]+/admin' server.log | head -n 1)
}

# Starts a gateway to one upstream (its URL and words) with the accounts of gateway.db; sets $server_pid and $url.  The test's
# shell stops it when it ends, and the upstream if it is $upstream_pid.
# usage: start_small_gateway UPSTREAM OPTION ...
start_small_gateway() {
    rm -f gateway.log
    "$build_dir/retort" serve --upstream "$1" --db gateway.db --port 0 --admin-port 0 "${@:2}" >gateway.log 2>&1 &
    server_pid=$!
    # shellcheck disable=SC2064 # as they are
    trap "kill $server_pid ${upstream_pid:-} 2>/dev/null || true; wait" EXIT
    for _ in $(seq 300); do
        grep -qs admin gateway.log && break
        kill -0 "$server_pid" || { cat gateway.log && return 1; }
        sleep 0.1
    done
    # shellcheck disable=SC2034 # for the tests
    url=$(grep -oE 'http://127.0.0.1:[0-9]+/v1' gateway.log | head -n 1)
}

# Two accounts in accounts.db: $alice and $bob (ids), $alice_key and $bob_key (secrets).
make_alice_and_bob() {
    # shellcheck disable=SC2034 # for the tests
    alice=$(retort account create Alice --db accounts.db --json | jq -r .id)
    # shellcheck disable=SC2034
    bob=$(retort account create Bob --db accounts.db --json | jq -r .id)
    # shellcheck disable=SC2034
    alice_key=$(retort key create "$alice" --db accounts.db --json | jq -r .secret)
    # shellcheck disable=SC2034
    bob_key=$(retort key create "$bob" --db accounts.db --json | jq -r .secret)
}

# Asks $url for one chat answer, which goes to answer.json.
# usage: ask_chat KEY TEXT [JSON MEMBERS]
ask_chat() {
    curl -sS -o answer.json -H "Authorization: Bearer $1" -H 'Content-Type: application/json' \
        -d "$(jq -nc --arg p "$2" --argjson more "${3:-{\}}" \
            '{messages: [{role: "user", content: $p}], max_tokens: 30} + $more')" "$url/chat/completions"
}

run_tests() {
    local name folder status failed=0
    for name in "$@"; do
        printf '[ RUN      ] %s\n' "$name"
        folder=$(mktemp -d)
        # Not under `||` or `if`: that would switch errexit off inside.
        (
            set -e
            cd "$folder"
            "$name"
        ) 2>&1
        status=$?
        rm -rf "$folder"
        case $status in
        0) printf '[       OK ] %s\n' "$name" ;;
        77) printf '[  SKIPPED ] %s\n' "$name" ;;
        *)
            printf '[  FAILED  ] %s\n' "$name"
            failed=1
            ;;
        esac
    done
    exit "$failed"
}
