#!/usr/bin/env bash
# What words of the command line change in answers: whose prompts a prompt may begin like, which bound goes up.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

# usage: cached KEY TEXT: how many tokens of the prompt were there already
cached() {
    ask_chat "$1" "$2" >curl.txt
    jq '.usage.prompt_tokens_details.cached_tokens' answer.json
}

long_text() { printf 'Tell me about %s and its neighbours. ' "$@"; }

fresh_key() { retort key create "$(retort account create "$1" --db accounts.db --json | jq -r .id)" --db accounts.db --json | jq -r .secret; }

# Neither what was said, nor what is being said, nor what went from a slot to the store.
by_default_no_account_meets_what_another_asked() {
    make_alice_and_bob
    local carol_key dave_key second text others i
    carol_key=$(fresh_key Carol) dave_key=$(fresh_key Dave)
    second=$(retort key create "$alice" --db accounts.db --json | jq -r .secret)
    start_small_server --slots 2
    text=$(long_text bread rivers lamps)
    expect_equal 0 "$(cached "$alice_key" "$text")"
    expect_equal 0 "$(cached "$bob_key" "$text")"
    [ "$(cached "$alice_key" "$text")" -gt 20 ]
    [ "$(cached "$bob_key" "$text")" -gt 20 ]
    [ "$(cached "$second" "$text")" -gt 20 ] # two keys of one account are one
    others=$(long_text salt cranes)
    curl -sSN -o stream.txt -H "Authorization: Bearer $alice_key" -H 'Content-Type: application/json' \
        -d "$(jq -nc --arg p "$others" '{messages: [{role: "user", content: $p}], max_tokens: 900, ignore_eos: true, stream: true}')" \
        "$url/chat/completions" &
    local client=$!
    for _ in $(seq 200); do
        grep -qs content stream.txt && break
        sleep 0.05
    done
    expect_equal 0 "$(cached "$carol_key" "$others")"
    wait "$client"
    for i in 1 2 3 4; do # other prompts take the slots
        cached "$alice_key" "$(long_text "$i" "$i")" >ignored.txt
    done
    expect_equal 0 "$(cached "$dave_key" "$(long_text 3 3)")"
    [ "$(cached "$second" "$(long_text 3 3)")" -gt 20 ]
}

with_all_one_account_meets_what_another_asked() {
    make_alice_and_bob
    start_small_server --metrics-open --prefix-cache-share all
    local text first second
    text=$(long_text bread rivers lamps)
    expect_equal 0 "$(cached "$alice_key" "$text")"
    first=$(jq -r '.choices[0].message.content' answer.json)
    [ "$(cached "$bob_key" "$text")" -gt 0 ]
    second=$(jq -r '.usage.prompt_tokens - .usage.prompt_tokens_details.cached_tokens' answer.json)
    [ "$second" -ge 1 ]
    [ -n "$first" ]
    [ "$(curl -sS "${url%/v1}/metrics" | sed -n 's/^retort_cached_tokens_total //p')" -gt 0 ]
    expect_status 2 retort serve "$source_dir/data/teacher-small.gguf" --prefix-cache-share some
}

# An upstream that keeps the last body it was sent in upstream.json.
start_upstream() {
    python3 - <<'END' &
import http.server
import os

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(b'{"object": "list", "data": []}')

    def do_POST(self):
        with open("upstream.json", "wb") as file:
            file.write(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(b'{"choices": [{"message": {"content": "hi"}}], "usage": {"prompt_tokens": 2, "completion_tokens": 1}}')

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
with open("port.new", "w") as file:
    file.write(str(server.server_address[1]))
os.rename("port.new", "port.txt")
server.serve_forever()
END
    upstream_pid=$!
    trap 'kill "$upstream_pid" 2>/dev/null || true; wait' EXIT
    for _ in $(seq 300); do
        [ -s port.txt ] && return 0
        sleep 0.1
    done
    return 1
}

# usage: expect_bound JSON WORDS: what an upstream with these words is sent for a request that names no bound
expect_bound() {
    start_small_gateway "http://127.0.0.1:$(cat port.txt)/v1$2"
    rm -f upstream.json
    ask_chat "$key" hi '{"max_tokens": null}' >curl.txt
    expect_equal "$1" "$(jq -c '{max_tokens, max_completion_tokens} | with_entries(select(.value))' upstream.json)"
    kill "$server_pid"
    wait "$server_pid"
}

the_bound_that_goes_up_is_the_upstreams() {
    local account
    account=$(retort account create someone --max-tokens 33 --db gateway.db --json | jq -r .id)
    key=$(retort key create "$account" --db gateway.db --json | jq -r .secret)
    start_upstream
    expect_bound '{"max_tokens":33}' ''
    expect_bound '{"max_tokens":33}' ' limit=max_tokens'
    expect_bound '{"max_completion_tokens":33}' ' weight=2 limit=max_completion_tokens'
    expect_bound '{}' ' limit=none'
    expect_status 2 retort serve --upstream "http://127.0.0.1:$(cat port.txt)/v1 limit=words" --db gateway.db
    expect_text limit "$err"
}

run_tests by_default_no_account_meets_what_another_asked with_all_one_account_meets_what_another_asked the_bound_that_goes_up_is_the_upstreams
