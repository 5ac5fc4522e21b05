#!/usr/bin/env bash
# nginx in front: TLS ends there, streams pass unbuffered, and the client's address is the one that nginx saw.
# The configuration is the one of docs/serve.md with paths of this folder.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

nginx=$(PATH=$PATH:/usr/sbin command -v nginx || true)

stop_all() {
    [ -z "${nginx_pid:-}" ] || kill "$nginx_pid" 2>/dev/null
    [ -z "${server_pid:-}" ] || kill "$server_pid" 2>/dev/null
    wait
}

start_nginx() {
    [ -n "$nginx" ] || skip "nginx is not installed (package nginx-light)"
    command -v openssl >openssl.txt || skip "openssl is not installed"
    openssl req -x509 -newkey ed25519 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost 2>openssl.txt
    front=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    mkdir -p tmp
    cat >nginx.conf <<END
daemon off;
pid $PWD/nginx.pid;
error_log $PWD/error.log;
events {}
http {
    access_log off;
    client_body_temp_path $PWD/tmp; proxy_temp_path $PWD/tmp; fastcgi_temp_path $PWD/tmp;
    uwsgi_temp_path $PWD/tmp; scgi_temp_path $PWD/tmp;
    server {
        listen 127.0.0.1:$front ssl;
        ssl_certificate $PWD/cert.pem;
        ssl_certificate_key $PWD/key.pem;
        client_max_body_size 16m;
        location / {
            proxy_pass ${url%/v1};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header X-Forwarded-For \$proxy_add_x_forwarded_for;
            proxy_buffering off;
            proxy_read_timeout 660s;
        }
    }
}
END
    "$nginx" -e "$PWD/error.log" -c "$PWD/nginx.conf" &
    nginx_pid=$!
    trap stop_all EXIT
    for _ in $(seq 100); do
        [ "$(through /health -o health.txt -w '%{http_code}' 2>curl.txt)" = 200 ] && return 0
        sleep 0.1
    done
    cat error.log
    return 1
}

through() { curl -sS --max-time 60 --cacert cert.pem --resolve "localhost:$front:127.0.0.1" "https://localhost:$front$1" "${@:2}"; }

streams_and_addresses_come_through_nginx() {
    [ -n "$nginx" ] || skip "nginx is not installed (package nginx-light)"
    local account key
    account=$(retort account create someone --db accounts.db --json | jq -r .id)
    key=$(retort key create "$account" --db accounts.db --json | jq -r .secret)
    start_small_server --log log.jsonl --trusted-proxy 127.0.0.1
    start_nginx
    # a whole answer and a stream say the same
    local ask='"prompt":"Once upon a time","max_tokens":40,"ignore_eos":true,"temperature":0'
    local send=(-H "Authorization: Bearer $key" -H 'Content-Type: application/json' -H 'X-Forwarded-For: 203.0.113.9')
    through /v1/completions "${send[@]}" -d "{$ask}" >whole.json
    through /v1/completions "${send[@]}" -N -D head.txt -d "{$ask,\"stream\":true}" >stream.txt
    expect_text 'text/event-stream' "$(cat head.txt)"
    expect_text 'data: [DONE]' "$(cat stream.txt)"
    expect_equal "$(jq -r '.choices[0].text' whole.json)" \
        "$(sed -n 's/^data: \({.*\)/\1/p' stream.txt | jq -j '.choices[0].text // empty')"
    # nginx appended 127.0.0.1, which is trusted like nginx itself: the address before it counts
    expect_equal 203.0.113.9 "$(tail -n 1 log.jsonl | jq -r .ip)"
    # a failed key is told with the address of who tried it
    expect_equal 401 "$(through /v1/models -H 'Authorization: Bearer sk-rt-wrong' -H 'X-Forwarded-For: 203.0.113.9' -o x.txt -w '%{http_code}')"
    expect_text 'a key from 203.0.113.9 was refused' "$(cat log.jsonl)"
}

events_are_not_held_back_by_nginx() {
    [ -n "$nginx" ] || skip "nginx is not installed (package nginx-light)"
    local account key
    account=$(retort account create someone --db accounts.db --json | jq -r .id)
    key=$(retort key create "$account" --db accounts.db --json | jq -r .secret)
    start_small_server --log log.jsonl
    start_nginx
    # a client that has seen the first event leaves: the server notices before the end, so nothing was held back
    through /v1/completions -N -H "Authorization: Bearer $key" -H 'Content-Type: application/json' \
        -d '{"prompt":"Once","max_tokens":900,"n":8,"ignore_eos":true,"stream":true}' 2>curl.txt | head -n 1 >first.txt || true
    expect_text 'data: {' "$(cat first.txt)"
    for _ in $(seq 300); do
        grep -qs '"endpoint":"completions"' log.jsonl && break
        sleep 0.1
    done
    expect_equal 499 "$(grep '"endpoint":"completions"' log.jsonl | jq -r .status)"
}

run_tests streams_and_addresses_come_through_nginx events_are_not_held_back_by_nginx
