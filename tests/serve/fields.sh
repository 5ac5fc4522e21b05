#!/usr/bin/env bash
# The fields of a request that change an answer, as clients send them: each is seen to do what it says.
# shellcheck source=testlib.sh
. "$(dirname "$0")/../testlib.sh"

start() {
    key=$(retort key create "$(retort account create someone --db accounts.db --json | jq -r .id)" --db accounts.db --json | jq -r .secret)
    start_small_server "$@"
}

# usage: ask PATH JSON [curl options]: the status; the body is in answer.json
ask() {
    curl -sS --max-time 100 -o answer.json -w '%{http_code}' -H "Authorization: Bearer $key" -H 'Content-Type: application/json' -d "$2" "${@:3}" "$url/$1"
}

# usage: value_of PATH JSON FILTER: of an answer that must be one
value_of() {
    expect_equal 200 "$(ask "$1" "$2")"
    jq -c "$3" answer.json
}

# usage: complete MEMBERS FILTER, chat MEMBERS FILTER; greedy
complete() { value_of completions "{\"prompt\":\"Once upon\",\"max_tokens\":12,\"temperature\":0$1}" "$2"; }
chat() { value_of chat/completions "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"max_tokens\":8,\"temperature\":0$1}" "$2"; }

refused() {
    expect_equal 400 "$(ask "$1" "$2")"
    expect_equal "[\"code\",\"message\",\"param\",\"type\"]" "$(jq -c '.error | keys' answer.json)"
    expect_equal "$3" "$(jq -r .error.param answer.json)"
}

penalties_and_stops_change_what_is_said() {
    start
    local plain ids
    plain=$(complete '' .choices[0].text)
    expect_equal "$plain" "$(complete ',"frequency_penalty":0,"presence_penalty":0.0,"repetition_penalty":1,"top_k":0,"min_p":0,"top_p":1' .choices[0].text)"
    [ "$plain" != "$(complete ',"repetition_penalty":1.9' .choices[0].text)" ]
    [ "$plain" != "$(complete ',"frequency_penalty":2,"presence_penalty":2' .choices[0].text)" ]
    ids=$(complete ',"return_token_ids":true' .choices[0].token_ids)
    expect_equal 12 "$(jq length <<<"$ids")"
    local last
    last=$(jq '.[3]' <<<"$ids")
    expect_equal '"stop"' "$(complete ",\"stop_token_ids\":[$last]" .choices[0].finish_reason)"
    [ "$(jq .usage.completion_tokens answer.json)" -le 4 ]
    [ "$plain" != "$(complete ",\"logit_bias\":{\"$(jq '.[0]' <<<"$ids")\":-100}" .choices[0].text)" ]
    refused completions '{"prompt":"a","stop_token_ids":[-1]}' 'stop_token_ids[0]'
    refused completions '{"prompt":"a","best_of":3,"n":2}' best_of
    refused completions '{"prompt":"a","suffix":"b"}' suffix
    expect_equal 2 "$(complete ',"n":2,"best_of":2' '.choices | length')"
    expect_equal '[0,1,2,3]' "$(value_of completions '{"prompt":["a","b"],"n":2,"max_tokens":1}' '[.choices[].index] | sort')"
}

tokens_are_told_by_id_where_that_is_asked() {
    start
    complete ',"logprobs":2,"return_tokens_as_token_ids":true,"return_token_ids":true' . >all.json
    expect_equal true "$(jq '.choices[0] | (.token_ids | map("token_id:\(.)")) == .logprobs.tokens' all.json)"
    expect_equal true "$(jq '.choices[0].logprobs.top_logprobs | all(keys | all(startswith("token_id:")))' all.json)"
    chat ',"logprobs":true,"top_logprobs":2,"return_tokens_as_token_ids":true,"return_token_ids":true' . >all.json
    expect_equal true "$(jq '(.choices[0].token_ids | map("token_id:\(.)")) == [.choices[0].logprobs.content[].token]' all.json)"
    expect_equal true "$(jq '(.prompt_token_ids | length) == .usage.prompt_tokens' all.json)"
    # the prompt's own: first none, then the best and the actual one, with its rank
    complete ',"prompt_logprobs":2,"return_token_ids":true' '.choices[0]' >all.json
    expect_equal true "$(jq '(.prompt_logprobs | length) == (.prompt_token_ids | length) and .prompt_logprobs[0] == null' all.json)"
    expect_equal true "$(jq '. as $c | [range(1; .prompt_logprobs | length) | $c.prompt_logprobs[.] as $p | $p[$c.prompt_token_ids[.] | tostring] |
        .rank >= 1 and .logprob <= 0 and (.decoded_token | type) == "string" and ($p | length) >= 2 and ($p | length) <= 3] | all' all.json)"
    chat ',"prompt_logprobs":1' '.prompt_logprobs[1] | length >= 1' >flag.txt
    expect_equal true "$(cat flag.txt)"
    # id prompts are used as they are, mixed ones and ids outside are refused
    expect_equal '[5,6,7]' "$(value_of completions '{"prompt":[5,6,7],"max_tokens":1,"return_token_ids":true}' .choices[0].prompt_token_ids)"
    expect_equal 400 "$(ask completions '{"prompt":[5,"a"]}')"
    expect_equal 400 "$(ask completions '{"prompt":[272]}')"
}

what_a_template_reads_reaches_it() {
    retort export "$source_dir/data/teacher-small.gguf" thinker >export.txt 2>&1
    # shellcheck disable=SC2016 # Jinja
    jq '.chat_template = "{{ reasoning_effort or \"\" }}{{ colour or \"\" }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% if not loop.last or m.role != \"assistant\" %};{% endif %}{% endfor %}{% if add_generation_prompt %}>{% if open %}<think>\n{% endif %}{% endif %}"' \
        thinker/tokenizer_config.json >new.json
    mv new.json thinker/tokenizer_config.json
    start thinker
    local say='"model":"thinker","messages":[{"role":"developer","content":"be"},{"role":"user","content":[{"type":"text","text":"o"},{"type":"text","text":"k"}]}]'
    rendered() {
        value_of chat/completions "{$1,\"max_tokens\":1,\"return_token_ids\":true}" '{tokens: .prompt_token_ids, model: "thinker"}' >ids.json
        value_of detokenize "$(cat ids.json)" .prompt
    }
    expect_equal '"[system]be;[user]ok;>"' "$(rendered "$say")"
    expect_equal '"high[system]be;[user]ok;>"' "$(rendered "$say,\"reasoning_effort\":\"high\"")"
    expect_equal '"blue[system]be;[user]ok;>"' "$(rendered "$say,\"chat_template_kwargs\":{\"colour\":\"blue\"}")"
    expect_equal '"[system]be;[user]ok;"' "$(rendered "$say,\"add_generation_prompt\":false")"
    local more='"model":"thinker","messages":[{"role":"user","content":"a"},{"role":"assistant","content":"so"}]'
    expect_equal '"[user]a;[assistant]so"' "$(rendered "$more,\"continue_final_message\":true,\"add_generation_prompt\":false")"

    # a template that opens the thoughts: what is said before they close is told apart, or left where it is
    local think='"model":"thinker","messages":[{"role":"user","content":"a"}],"max_tokens":9,"temperature":0,"chat_template_kwargs":{"open":true}'
    value_of chat/completions "{$think}" . >thoughts.json
    expect_equal 9 "$(jq .usage.completion_tokens_details.reasoning_tokens thoughts.json)"
    expect_equal '""' "$(jq '.choices[0].message.content // ""' thoughts.json)"
    [ "$(jq '.choices[0].message.reasoning_content | length' thoughts.json)" -gt 0 ]
    expect_equal 200 "$(ask chat/completions "{$think,\"stream\":true}")"
    expect_equal "$(jq -r .choices[0].message.reasoning_content thoughts.json)" \
        "$(sed -n 's/^data: {/{/p' answer.json | jq -rj '.choices[0].delta.reasoning_content // empty')"
    kill "$server_pid"
    wait "$server_pid" || true
    start_small_server thinker --reasoning-format none
    expect_equal "$(jq .choices[0].message.reasoning_content thoughts.json)" "$(value_of chat/completions "{$think}" '.choices[0].message.content | ltrimstr(" ")')"
}

what_says_nothing_to_a_model_is_taken_and_what_it_cannot_do_is_refused() {
    start
    local plain
    plain=$(chat '' .choices[0].message.content)
    expect_equal "$plain" "$(chat ',"tools":[],"tool_choice":"none","functions":null,"user":"u","safety_identifier":"s","metadata":{"a":"b"},"store":true,
        "service_tier":"auto","prompt_cache_key":"k","parallel_tool_calls":true,"verbosity":"low","modalities":["text"],"response_format":{"type":"text"},
        "logprobs":null,"stop":null,"seed":null,"n":null,"logit_bias":null,"stream_options":null,"max_completion_tokens":null' .choices[0].message.content)"
    local print
    print=$(jq -r .system_fingerprint answer.json)
    expect_text fp_ "$print"
    expect_equal "\"$print\"" "$(complete '' .system_fingerprint)"
    local chat='"messages":[{"role":"user","content":"hi"}]'
    refused chat/completions "{$chat,\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"x\"}}]}" tools
    refused chat/completions "{$chat,\"modalities\":[\"text\",\"audio\"]}" modalities
    refused chat/completions "{$chat,\"top_logprobs\":2}" top_logprobs
    refused chat/completions "{$chat,\"n\":17}" n
    refused chat/completions "{$chat,\"n\":0}" n
    refused chat/completions "{$chat,\"max_tokens\":0}" max_tokens
    refused chat/completions "{$chat,\"seed\":1.5}" seed
    refused chat/completions "{$chat,\"min_p\":1.1}" min_p
    refused chat/completions "{$chat,\"repetition_penalty\":0}" repetition_penalty
    refused completions '{"prompt":"a","max_tokens":0}' max_tokens
    refused completions '{"prompt":"a","logprobs":21}' logprobs
    expect_equal 400 "$(ask completions '{"prompt":"a","max_tokens":5000}')"
    expect_equal context_length_exceeded "$(jq -r .error.code answer.json)"
    expect_text 1024 "$(cat answer.json)"
}

bodies_come_plain_and_whole() {
    start --open-tokenizer
    printf '{"prompt":"a","max_tokens":2}' >body.json
    gzip -k body.json
    post_as() { curl -sS --max-time 100 -o answer.json -D head.txt -w '%{http_code}' "$@" "$url/completions"; }
    local json='Content-Type: application/json'
    post() { post_as -H "Authorization: Bearer $key" -H "$json" "$@"; }
    expect_equal 200 "$(post -d @body.json)"
    expect_equal 200 "$(post -d @body.json -H 'Transfer-Encoding: chunked')"
    expect_equal 200 "$(post -d @body.json -H 'Expect: 100-continue')"
    expect_equal 200 "$(post -d @body.json -H 'Content-Encoding: identity')"
    expect_equal 415 "$(post --data-binary @body.json.gz -H 'Content-Encoding: gzip')"
    expect_text gzip "$(cat answer.json)"
    expect_equal 415 "$(post_as -H "Authorization: Bearer $key" -H 'Content-Type: text/plain' -d @body.json)"
    expect_equal 400 "$(post -d '')"
    expect_equal invalid_json "$(jq -r .error.code answer.json)"
    expect_equal 401 "$(post_as -H "$json" -d @body.json)"
    expect_equal missing_api_key "$(jq -r .error.code answer.json)"
    expect_text 'WWW-Authenticate: Bearer' "$(cat head.txt)"
    expect_equal 200 "$(post_as -H "$json" -d @body.json -H "X-API-Key: $key")"
    expect_equal 200 "$(post_as -H "authorization: bearer $key" -H "$json; charset=utf-8" -d @body.json)"
    # without a key, where the operator says so; nothing else
    expect_equal 200 "$(curl -sS -o answer.json -w '%{http_code}' "$url/tokenizer_info")"
    expect_equal true "$(jq '[.tokenizer_class, .eos_token, .bos_token, .pad_token, .chat_template] | all(type == "string")' answer.json)"
    expect_equal 200 "$(curl -sS -o answer.json -w '%{http_code}' -H 'Content-Type: application/json' -d '{"prompt":"hi"}' "$url/tokenize")"
    expect_equal 401 "$(curl -sS -o answer.json -w '%{http_code}' "$url/models")"
}

run_tests penalties_and_stops_change_what_is_said tokens_are_told_by_id_where_that_is_asked what_a_template_reads_reaches_it \
    what_says_nothing_to_a_model_is_taken_and_what_it_cannot_do_is_refused bodies_come_plain_and_whole
