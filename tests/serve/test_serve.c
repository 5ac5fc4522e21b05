/* tests/serve/test_serve.c - levels 1 and 2 of the API; clients that lie, dawdle and vanish. */
#include "serve_help.h"

/* ---- level 1 ---- */

#define CHAT "/v1/chat/completions"
#define TEXT "/v1/completions"

static void faults_have_their_status_code_and_path(void **state)
{
    (void)state;
    static const struct {
        const char *path, *body;
        int status;
        const char *code, *param;
    } cases[] = {
        {CHAT, "{}", 400, "missing_required_parameter", "messages"},
        {CHAT, "{\"messages\":[]}", 400, "invalid_value", "messages"},
        {CHAT, "{\"messages\":[{\"role\":\"root\",\"content\":\"a\"}]}", 400, "invalid_value",
         "messages[0].role"},
        {CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":7}]}", 400, "invalid_value",
         "messages[0].content"},
        {CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}", 400,
         "unsupported_parameter", "messages[0].content[0]"},
        {TEXT, "{}", 400, "missing_required_parameter", "prompt"},
        {TEXT, "{\"prompt\":\"a\",\"n\":1000000}", 400, "invalid_value", "n"},
        {TEXT, "{\"prompt\":\"a\",\"temperature\":-1}", 400, "invalid_value", "temperature"},
        {TEXT, "{\"prompt\":\"a\",\"temperature\":\"hot\"}", 400, "invalid_value", "temperature"},
        {TEXT, "{\"prompt\":\"a\",\"max_tokens\":-1}", 400, "invalid_value", "max_tokens"},
        {TEXT, "{\"prompt\":\"a\",\"max_tokens\":0}", 400, "invalid_value", "max_tokens"},
        {TEXT, "{\"prompt\":\"a\",\"max_tokens\":1000}", 400, "context_length_exceeded", "prompt"},
        {TEXT, "{\"prompt\":[1,97]}", 400, "invalid_value", "prompt[1]"},
        {TEXT, "{\"prompt\":[[1],[-1]]}", 400, "invalid_value", "prompt[1][0]"},
        {TEXT, "{\"prompt\":[1,\"a\"]}", 400, "invalid_value", "prompt[1]"},
        {TEXT, "{\"prompt\":\"a\",\"logprobs\":21}", 400, "invalid_value", "logprobs"},
        {TEXT, "{\"prompt\":\"a\",\"logit_bias\":{\"97\":1}}", 400, "invalid_value", "logit_bias.97"},
        {TEXT, "{\"prompt\":\"a\",\"stop\":[\"\"]}", 400, "invalid_value", "stop[0]"},
        {TEXT, "{\"prompt\":\"a\",\"suffix\":\"b\"}", 400, "unsupported_parameter", "suffix"},
        {TEXT, "{\"prompt\":\"a\",\"model\":\"other\"}", 404, "model_not_found", "model"},
        {TEXT, "{\"prompt\":\"a\",\"temperature\":NaN}", 400, "invalid_json", NULL},
        {TEXT, "{\"prompt\":\"\xFF\"}", 400, "invalid_json", NULL},
        {TEXT, "{\"prompt\":\"\\ud800\"}", 400, "invalid_json", NULL},
        {TEXT, "{\"prompt\":\"a\",\"prompt\":\"b\"}", 400, "invalid_json", NULL},
        {TEXT, "{\"prompt\":\"a\"} x", 400, "invalid_json", NULL},
        {TEXT, "[]", 400, "invalid_json", NULL},
        {TEXT,
         "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"
         "]]]]]]]]]]]]]"
         "]]]]]]]]]]]]]]]]]]",
         400, "invalid_json", NULL},
        {"/v1/nothing", "{}", 404, "unknown_url", NULL},
        {"/v1/models", "{}", 405, "method_not_allowed", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_fault(cases[i].path, cases[i].body, cases[i].status, cases[i].code, cases[i].param);
}

static void every_answer_has_its_headers_and_other_methods_work(void **state)
{
    (void)state;
    char *a = request(&shared, "GET", "/v1/models", "Origin: https://page.example\r\n", NULL);
    assert_int_equal(status_in(a), 200);
    assert_non_null(strstr(a, "x-request-id: req_"));
    assert_non_null(strstr(a, "openai-processing-ms: "));
    assert_non_null(strstr(a, "Access-Control-Allow-Origin: https://page.example"));
    assert_non_null(strstr(a, "\"created\":1,"));
    free(a);
    a = request(&shared, "HEAD", "/v1/models", "Origin: https://other.example\r\n", NULL);
    assert_int_equal(status_in(a), 200);
    assert_null(strstr(a, "Access-Control-Allow-Origin"));
    assert_string_equal(strstr(a, "\r\n\r\n"), "\r\n\r\n");
    free(a);
    const char *paths[] = {"/v1/models/tiny/model",
                           "/v1/models/tiny%2Fmodel",
                           "/v1/models/small",
                           "/health",
                           "/v1/health",
                           "/ready",
                           "/metrics",
                           "/tokenizer_info"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        a = request(&shared, "GET", paths[i], NULL, NULL);
        assert_int_equal(status_in(a), 200);
        free(a);
    }
    a = request(&shared, "OPTIONS", CHAT, NULL, NULL);
    assert_int_equal(status_in(a), 204);
    assert_non_null(strstr(a, "Allow: POST, OPTIONS"));
    free(a);
    const char *tricks[] = {"/v1/models/..%2f..%2fetc%2fpasswd",
                            "/../etc/passwd",
                            "//v1/models",
                            "/v1/./models",
                            "/V1/MODELS",
                            "/v1/models/"};
    for (size_t i = 0; i < sizeof tricks / sizeof *tricks; i++) {
        a = request(&shared, "GET", tricks[i], NULL, NULL);
        assert_int_equal(status_in(a), 404);
        free(a);
    }
}

static void text_goes_to_ids_and_back_and_markup_of_users_stays_text(void **state)
{
    (void)state;
    int status;
    json_t *j = post(&shared, "/tokenize", "{\"prompt\":\"a <s>b\",\"return_token_strs\":true}", &status);
    assert_int_equal(status, 200);
    assert_int_equal(json_integer_value(json_object_get(j, "count")), 4);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(j, "tokens"), 2)), 1);
    json_decref(j);
    /* the template writes <s> before each message and </s> after it; the user writes them too */
    j = post(&shared, "/v1/tokenize", "{\"messages\":[{\"role\":\"user\",\"content\":\"x</s><s>y\"}]}",
             &status);
    assert_int_equal(status, 200);
    const json_t *ids = json_object_get(j, "tokens");
    size_t begins = 0, ends = 0;
    for (size_t i = 0; i < json_array_size(ids); i++) {
        begins += json_integer_value(json_array_get(ids, i)) == 1;
        ends += json_integer_value(json_array_get(ids, i)) == 2;
    }
    assert_int_equal(begins, 2); /* the message's, and that of the answer to come */
    assert_int_equal(ends, 1);
    char *list = json_dumps(ids, JSON_COMPACT);
    rt_text ask = {0};
    rt_text_printf(&ask, "{\"tokens\":%s}", list);
    json_t *back = post(&shared, "/detokenize", ask.data, &status);
    assert_string_equal(json_string_value(json_object_get(back, "prompt")),
                        "<s>user:x</s><s>y</s><s>assistant:");
    free(list);
    rt_text_deinit(&ask);
    json_decref(back);
    json_decref(j);
}

/* The text and the ids of a stream's choice, joined; *events counts. */
static char *join_stream(const char *answer, size_t index, size_t *events, rt_text *ids)
{
    rt_text text = {0};
    rt_text_append(&text, "", 0);
    bool done = false;
    *events = 0;
    for (const char *at = answer; (at = strstr(at, "data: ")); at += 6) {
        const char *end = strstr(at, "\n\n");
        assert_non_null(end);
        if (strncmp(at + 6, "[DONE]", 6) == 0) {
            done = true;
            continue;
        }
        assert_false(done);
        rt_error err = {0};
        json_t *j = NULL;
        assert_int_equal(rt_json_parse(&j, at + 6, (size_t)(end - at - 6), "event", &err), RT_OK);
        const json_t *choice = json_array_get(json_object_get(j, "choices"), 0);
        (*events)++;
        if (json_integer_value(json_object_get(choice, "index")) == (json_int_t)index) {
            const json_t *delta = json_object_get(choice, "delta");
            const json_t *piece = json_object_get(delta ? delta : choice, delta ? "content" : "text");
            rt_text_append(&text, json_string_value(piece) ? json_string_value(piece) : "",
                           json_string_length(piece));
            const json_t *tokens = json_object_get(choice, "token_ids");
            for (size_t i = 0; i < json_array_size(tokens); i++)
                rt_text_printf(ids, "%d ", (int)json_integer_value(json_array_get(tokens, i)));
        }
        json_decref(j);
    }
    assert_true(done);
    return text.data ? text.data : strdup("");
}

static void a_stream_tells_what_a_whole_answer_tells(void **state)
{
    (void)state;
    static const char *const bodies[][2] = {
        {TEXT, "\"prompt\":\"abc\",\"max_tokens\":40,\"temperature\":1.5,\"seed\":5,\"n\":2,\"stop\":[\"A\","
               "\"zz\"],"
               "\"return_token_ids\":true"},
        {TEXT, "\"prompt\":[[5,6,7],[8,9]],\"max_tokens\":20,\"seed\":1,\"echo\":true,\"logprobs\":2,"
               "\"return_token_ids\":true"},
        {CHAT,
         "\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}],\"max_tokens\":30,\"seed\":9,\"n\":3,"
         "\"logprobs\":true,\"top_logprobs\":3,\"return_token_ids\":true"},
    };
    for (size_t i = 0; i < 3; i++) {
        int status;
        rt_text body = {0};
        rt_text_printf(&body, "{%s}", bodies[i][1]);
        json_t *whole = post(&shared, bodies[i][0], body.data, &status);
        assert_int_equal(status, 200);
        rt_text_clear(&body);
        rt_text_printf(&body, "{%s,\"stream\":true,\"stream_options\":{\"include_usage\":true}}",
                       bodies[i][1]);
        char *answer = request(&shared, "POST", bodies[i][0], NULL, body.data);
        /* undo the chunks: sizes stand on lines of their own between CR LF */
        rt_text plain = {0};
        const char *at = strstr(answer, "\r\n\r\n") + 4;
        for (size_t n; (n = strtoul(at, NULL, 16)) > 0; at += n + 2) {
            at = strstr(at, "\r\n") + 2;
            rt_text_append(&plain, at, n);
        }
        assert_non_null(strstr(answer, "text/event-stream"));
        for (size_t c = 0; c < json_array_size(json_object_get(whole, "choices")); c++) {
            size_t events;
            rt_text ids = {0}, want = {0};
            char *text = join_stream(plain.data, c, &events, &ids);
            assert_string_equal(
                text, string_at(whole, "choices", c, i == 2 ? "message" : "text", i == 2 ? "content" : NULL));
            const json_t *list =
                json_object_get(json_array_get(json_object_get(whole, "choices"), c), "token_ids");
            for (size_t k = 0; k < json_array_size(list); k++)
                rt_text_printf(&want, "%d ", (int)json_integer_value(json_array_get(list, k)));
            assert_string_equal(ids.data ? ids.data : "", want.data ? want.data : "");
            free(text);
            rt_text_deinit(&ids);
            rt_text_deinit(&want);
        }
        assert_non_null(strstr(plain.data, "\"choices\":[],\"usage\":{\"prompt_tokens\""));
        rt_text_deinit(&plain);
        rt_text_deinit(&body);
        free(answer);
        json_decref(whole);
    }
}

/* ---- level 2: scores ---- */

static void echo_scores_a_prompt_and_the_scores_do_not_depend_on_the_batch(void **state)
{
    (void)state;
    int status;
    json_t *one =
        post(&shared, TEXT,
             "{\"prompt\":[5,6,7,8,9,10],\"max_tokens\":1,\"temperature\":0,\"logprobs\":1,\"echo\":true}",
             &status);
    assert_int_equal(status, 200);
    json_t *many = post(&shared, TEXT,
                        "{\"prompt\":[[5,6,7,8,9,10],[20,21],[5,6,7,8,9,10]],\"max_tokens\":0,\"logprobs\":1,"
                        "\"echo\":true}",
                        &status);
    assert_int_equal(status, 200);
    const json_t *a = json_object_get(json_array_get(json_object_get(one, "choices"), 0), "logprobs");
    const json_t *b = json_object_get(json_array_get(json_object_get(many, "choices"), 2), "logprobs");
    assert_int_equal(json_array_size(json_object_get(a, "tokens")), 7);
    assert_int_equal(json_array_size(json_object_get(b, "tokens")), 6);
    assert_true(json_is_null(json_array_get(json_object_get(a, "token_logprobs"), 0)));
    for (size_t i = 1; i < 6; i++) {
        const json_t *x = json_array_get(json_object_get(a, "token_logprobs"), i);
        assert_true(json_equal(x, json_array_get(json_object_get(b, "token_logprobs"), i)));
        assert_true(json_real_value(x) < 0);
        assert_true(json_object_size(json_array_get(json_object_get(a, "top_logprobs"), i)) >= 1);
    }
    assert_int_equal(json_integer_value(json_object_get(json_object_get(many, "usage"), "completion_tokens")),
                     0);
    json_decref(one);
    json_decref(many);
}

/* ---- many at a time ---- */

typedef struct asker {
    pthread_t thread;
    char body[256];
    char *answer;
} asker;

static void *ask(void *context)
{
    asker *a = context;
    int status;
    json_t *j = post(&shared, TEXT, a->body, &status);
    const char *text = string_at(j, "choices", 0, "text", NULL);
    a->answer = strdup(text ? text : "(none)");
    json_decref(j);
    return NULL;
}

static void an_answer_does_not_depend_on_its_neighbours(void **state)
{
    (void)state;
    enum { ASKERS = 12 };
    asker alone[ASKERS], together[ASKERS];
    for (int i = 0; i < ASKERS; i++) {
        (void)snprintf(
            alone[i].body, sizeof alone[i].body,
            "{\"prompt\":\"%.*s\",\"max_tokens\":%d,\"seed\":%d,\"ignore_eos\":true,\"min_p\":0.01,"
            "\"repetition_penalty\":1.1}",
            3 + 5 * (i % 6), "the quick brown fox jumps over the lazy dog", 10 + 3 * i, i / 2);
        together[i] = alone[i];
        (void)ask(&alone[i]);
    }
    for (int i = 0; i < ASKERS; i++)
        assert_int_equal(pthread_create(&together[i].thread, NULL, ask, &together[i]), 0);
    for (int i = 0; i < ASKERS; i++) {
        (void)pthread_join(together[i].thread, NULL);
        assert_string_equal(together[i].answer, alone[i].answer);
        free(alone[i].answer);
        free(together[i].answer);
    }
}

static void a_client_that_vanishes_frees_its_sequence(void **state)
{
    (void)state;
    const char *body = "{\"prompt\":\"a\",\"max_tokens\":100,\"ignore_eos\":true,\"stream\":true,\"n\":16}";
    rt_text text = {0};
    rt_text_printf(&text, "POST " TEXT " HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n%s", strlen(body),
                   body);
    for (int i = 0; i < 4; i++) {
        const int fd = dial(&shared);
        assert_true(send(fd, text.data, text.size, MSG_NOSIGNAL) > 0);
        char buffer[64];
        if (i % 2)
            (void)recv(fd, buffer, sizeof buffer, 0);
        (void)close(fd);
    }
    rt_text_deinit(&text);
    for (int i = 0; i < 200; i++) {
        char *a = request(&shared, "GET", "/metrics", NULL, NULL);
        const bool idle = strstr(a, "retort_running 0\n") && strstr(a, "retort_queued 0\n");
        free(a);
        if (idle)
            return;
        (void)usleep(50 * 1000);
    }
    fail_msg("the sequences are still running");
}

/* ---- attacks on the transport ---- */

static void smuggling_and_bombs_are_refused_before_anything_runs(void **state)
{
    (void)state;
#define POST_HEAD "POST " TEXT " HTTP/1.1\r\nHost: x\r\n"
    static const struct {
        const char *data;
        int status;
    } cases[] = {
        {POST_HEAD "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", 400},
        {POST_HEAD "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400},
        {POST_HEAD "Content-Length: 99999999\r\n\r\n", 413},
        {POST_HEAD "Transfer-Encoding: chunked\r\n\r\nFFFFFFF\r\n", 413},
        {POST_HEAD "Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400},
        {POST_HEAD "Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", 415},
        {"\x16\x03\x01 garbage\r\n\r\n", 400},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *a = talk(&shared, cases[i].data, strlen(cases[i].data));
        if (status_in(a) != cases[i].status)
            fail_msg("case %zu: %.80s", i, a);
        assert_non_null(strstr(a, "Connection: close"));
        assert_non_null(strstr(a, "{\"error\":{\"message\":"));
        free(a);
    }
    const char *two =
        "GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    char *a = talk(&shared, two, strlen(two));
    const char *second = strstr(a + 1, "HTTP/1.1 200");
    assert_non_null(second);
    free(a);
    const char *chunked =
        POST_HEAD "Connection: close\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
                  "f\r\n{\"prompt\":\"abc\"\r\n1\r\n}\r\n0\r\n\r\n";
    a = talk(&shared, chunked, strlen(chunked));
    assert_int_equal(strncmp(a, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n", 42), 0);
    free(a);
}

static void slow_requests_and_passed_deadlines_end(void **state)
{
    (void)state;
    running slow;
    start(&slow, 600, 1);
    char *a = talk(&slow, "POST / HTTP/1.1\r\nHost: x\r\n", 25); /* and no more */
    assert_int_equal(status_in(a), 408);
    free(a);
    stop(&slow);
    start(&slow, 0, 10); /* no time at all */
    int status;
    json_t *j = post(&slow, TEXT, "{\"prompt\":\"abc\"}", &status);
    assert_int_equal(status, 504);
    json_decref(j);
    stop(&slow);
}

static void the_same_idempotency_key_gets_the_same_answer(void **state)
{
    (void)state;
    const char *key = "Idempotency-Key: k1\r\n", *body = "{\"prompt\":\"abc\",\"max_tokens\":8}";
    char *first = request(&shared, "POST", TEXT, key, body),
         *again = request(&shared, "POST", TEXT, key, body);
    assert_int_equal(status_in(first), 200);
    assert_null(strstr(first, "Idempotent-Replayed"));
    assert_non_null(strstr(again, "Idempotent-Replayed: true"));
    assert_string_equal(strstr(first, "\r\n\r\n"), strstr(again, "\r\n\r\n"));
    free(first);
    free(again);
    again = request(&shared, "POST", TEXT, key, "{\"prompt\":\"abd\"}");
    assert_int_equal(status_in(again), 409);
    free(again);
}

static void a_stopped_server_finishes_what_runs(void **state)
{
    (void)state;
    running other;
    start(&other, 600, 10);
    const char *body = "{\"prompt\":\"a\",\"max_tokens\":100,\"ignore_eos\":true}";
    rt_text text = {0};
    rt_text_printf(&text, "POST " TEXT " HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n%s", strlen(body),
                   body);
    const int fd = dial(&other);
    assert_true(send(fd, text.data, text.size, MSG_NOSIGNAL) > 0);
    (void)usleep(20 * 1000);
    stop(&other);
    rt_text out = {0};
    char buffer[4096];
    ssize_t n;
    while ((n = recv(fd, buffer, sizeof buffer, 0)) > 0)
        rt_text_append(&out, buffer, (size_t)n);
    (void)close(fd);
    assert_non_null(out.data);
    assert_int_equal(status_in(out.data), 200);
    assert_non_null(strstr(out.data, "\"completion_tokens\":100"));
    rt_text_deinit(&out);
    rt_text_deinit(&text);
}

static void pages_of_named_origins_only_may_read_answers(void **state)
{
    (void)state;
    static const char good[] = "Origin: https://page.example\r\nAccess-Control-Request-Method: POST\r\n";
    char *a = request(&shared, "OPTIONS", CHAT, good, NULL);
    assert_int_equal(status_in(a), 204);
    assert_non_null(strstr(a, "Access-Control-Allow-Origin: https://page.example\r\n"));
    assert_non_null(strstr(a, "Access-Control-Allow-Methods: POST"));
    const char *allowed = strstr(a, "Access-Control-Allow-Headers: ");
    assert_non_null(allowed);
    static const char *const fields[] = {"authorization", "content-type", "idempotency-key",
                                         "x-retort-strict", "x-request-timeout-ms"};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        assert_non_null(strstr(allowed, fields[i]));
    free(a);
    /* answers and refusals carry it too, and caches are told that it depends on the origin */
    a = request(&shared, "POST", TEXT, good, "{\"prompt\":\"a\",\"max_tokens\":1}");
    assert_int_equal(status_in(a), 200);
    assert_non_null(strstr(a, "Access-Control-Allow-Origin: https://page.example\r\n"));
    assert_non_null(strstr(a, "Vary: Origin\r\n"));
    free(a);
    a = request(&shared, "POST", TEXT, good, "{\"prompt\":7}");
    assert_int_equal(status_in(a), 400);
    assert_non_null(strstr(a, "Access-Control-Allow-Origin: https://page.example\r\n"));
    free(a);
    static const char *const others[] = {"https://page.example.evil", "https://page.exampl",
                                         "http://page.example", "null", "*"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char field[64];
        (void)snprintf(field, sizeof field, "Origin: %s\r\n", others[i]);
        a = request(&shared, i % 2 ? "OPTIONS" : "GET", "/v1/models", field, NULL);
        assert_null(strstr(a, "Access-Control-Allow-Origin"));
        free(a);
    }
}

static void a_request_may_shorten_its_time_and_not_lengthen_it(void **state)
{
    (void)state;
    static const char body[] = "{\"prompt\":\"a\",\"max_tokens\":100,\"ignore_eos\":true,\"n\":16}";
    char *a = request(&shared, "POST", TEXT, "X-Request-Timeout-Ms: 0\r\n", body);
    assert_int_equal(status_in(a), 504);
    assert_non_null(strstr(a, "\"generation_timeout\""));
    free(a);
    a = request(&shared, "POST", TEXT, "X-Request-Timeout-Ms: 600000\r\n", body);
    assert_int_equal(status_in(a), 200);
    free(a);
    a = request(&shared, "POST", TEXT, "X-Request-Timeout-Ms: soon\r\n", body); /* no number: as without */
    assert_int_equal(status_in(a), 200);
    free(a);
    running none;
    start(&none, 0, 10);
    a = request(&none, "POST", TEXT, "X-Request-Timeout-Ms: 600000\r\n", body);
    assert_int_equal(status_in(a), 504);
    free(a);
    stop(&none);
}

static void every_metric_of_the_api_is_there(void **state)
{
    (void)state;
    static const char *const names[][2] = {{"retort_requests_total", "counter"},
                                           {"retort_prompt_tokens_total", "counter"},
                                           {"retort_generation_tokens_total", "counter"},
                                           {"retort_cached_tokens_total", "counter"},
                                           {"retort_ttft_seconds", "histogram"},
                                           {"retort_tpot_seconds", "histogram"},
                                           {"retort_e2e_seconds", "histogram"},
                                           {"retort_queue_seconds", "histogram"},
                                           {"retort_running", "gauge"},
                                           {"retort_queued", "gauge"},
                                           {"retort_kv_used_ratio", "gauge"},
                                           {"retort_rate_limited_total", "counter"},
                                           {"retort_cancelled_total", "counter"},
                                           {"retort_unknown_fields_total", "counter"},
                                           {"retort_connections", "gauge"},
                                           {"retort_prefix_hits_total", "counter"},
                                           {"retort_prefix_tokens_total", "counter"},
                                           {"retort_prefix_evicted_total", "counter"},
                                           {"retort_prefix_bytes", "gauge"},
                                           {"retort_prefix_bytes_max", "gauge"}};
    int status;
    json_decref(post(&shared, TEXT, "{\"prompt\":\"abc\",\"max_tokens\":2}", &status));
    assert_int_equal(status, 200);
    char *a = request(&shared, "GET", "/metrics", NULL, NULL);
    assert_non_null(strstr(a, "text/plain; version=0.0.4"));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char line[100];
        (void)snprintf(line, sizeof line, "# TYPE %s %s\n", names[i][0], names[i][1]);
        if (!strstr(a, line))
            fail_msg("missing: %s", line);
    }
    assert_non_null(strstr(a, "retort_requests_total{endpoint=\"completions\",status=\"200\"} "));
    assert_null(strstr(a, "\nretort_prompt_tokens_total 0\n"));
    assert_null(strstr(a, "\nretort_prefix_bytes 0\n"));
    free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(faults_have_their_status_code_and_path),
        cmocka_unit_test(every_answer_has_its_headers_and_other_methods_work),
        cmocka_unit_test(text_goes_to_ids_and_back_and_markup_of_users_stays_text),
        cmocka_unit_test(a_stream_tells_what_a_whole_answer_tells),
        cmocka_unit_test(echo_scores_a_prompt_and_the_scores_do_not_depend_on_the_batch),
        cmocka_unit_test(an_answer_does_not_depend_on_its_neighbours),
        cmocka_unit_test(a_client_that_vanishes_frees_its_sequence),
        cmocka_unit_test(smuggling_and_bombs_are_refused_before_anything_runs),
        cmocka_unit_test(slow_requests_and_passed_deadlines_end),
        cmocka_unit_test(the_same_idempotency_key_gets_the_same_answer),
        cmocka_unit_test(a_stopped_server_finishes_what_runs),
        cmocka_unit_test(pages_of_named_origins_only_may_read_answers),
        cmocka_unit_test(a_request_may_shorten_its_time_and_not_lengthen_it),
        cmocka_unit_test(every_metric_of_the_api_is_there),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
