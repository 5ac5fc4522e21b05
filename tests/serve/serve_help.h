/* tests/serve/serve_help.h - the server in this process, with a small model, behind real sockets. */
#ifndef RT_TEST_SERVE_HELP_H
#define RT_TEST_SERVE_HELP_H

#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/json.h"
#include "serve/serve.h"
#include "tiny_tokenizer.h"

static rt_pool *pool;
static rt_model *model;
static rt_tokenizer *tokenizer;
static rt_chat_template *chat_template;

typedef struct running {
    rt_serve *serve;
    pthread_t thread;
} running;
static running shared;

static void *serve_thread(void *context)
{
    running *r = context;
    rt_error err = {0};
    (void)rt_serve_run(r->serve, &err);
    return NULL;
}

__attribute__((unused)) static void start(running *r, double timeout_s, int head_s)
{
    static const rt_serve_alias aliases[] = {{"small", "tiny/model"}};
    static rt_serve_model served;
    static const char *const origins[] = {"https://page.example"};
    rt_error err = {0};
    served = (rt_serve_model){.id = "tiny/model",
                              .model = model,
                              .tokenizer = tokenizer,
                              .chat_template = chat_template,
                              .quant = "F32",
                              .created = 1};
    rt_serve_options options = rt_serve_options_default();
    options.models = &served;
    options.n_models = 1;
    options.aliases = aliases;
    options.n_aliases = 1;
    options.origins = origins;
    options.n_origins = 1;
    options.n_slots = 4;
    options.prefill_tokens = 40;
    options.queue_max = 64;
    options.request_timeout_s = timeout_s;
    options.drain_s = 5;
    options.http.timeouts.head_s = head_s;
    options.http.limits.body_bytes_max = 1 << 20;
    if (rt_serve_open(&r->serve, &options, &err) != RT_OK)
        fail_msg("%s", err.text);
    assert_int_equal(pthread_create(&r->thread, NULL, serve_thread, r), 0);
}

__attribute__((unused)) static void stop(running *r)
{
    rt_serve_stop(r->serve);
    (void)pthread_join(r->thread, NULL);
    rt_serve_close(r->serve);
}

/* ---- a client ---- */

__attribute__((unused)) static int dial(const running *r)
{
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)rt_serve_port(r->serve))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
        abort();
    const struct timeval patience = {.tv_sec = 60};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return fd;
}

/* Sends bytes and reads to the end; the caller frees. */
__attribute__((unused)) static char *talk(const running *r, const char *data, size_t size)
{
    rt_text out = {0};
    char buffer[4096];
    ssize_t n;
    const int fd = dial(r);
    if (send(fd, data, size, MSG_NOSIGNAL) < 0)
        abort();
    while ((n = recv(fd, buffer, sizeof buffer, 0)) > 0)
        rt_text_append(&out, buffer, (size_t)n);
    (void)close(fd);
    rt_text_append(&out, "", 0);
    return out.data ? out.data : strdup("");
}

__attribute__((unused)) static char *request(const running *r, const char *method, const char *path,
                                             const char *headers, const char *body)
{
    rt_text text = {0};
    rt_text_printf(&text, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s", method, path,
                   headers ? headers : "");
    if (body)
        rt_text_printf(&text, "Content-Type: application/json\r\nContent-Length: %zu\r\n", strlen(body));
    rt_text_printf(&text, "\r\n%s", body ? body : "");
    char *answer = talk(r, text.data, text.size);
    rt_text_deinit(&text);
    return answer;
}

__attribute__((unused)) static int status_in(const char *answer)
{
    return strncmp(answer, "HTTP/1.1 ", 9) == 0 ? (int)strtol(answer + 9, NULL, 10) : -1;
}

/* The JSON of a POST; *status its status. */
__attribute__((unused)) static json_t *post(const running *r, const char *path, const char *body, int *status)
{
    rt_error err = {0};
    json_t *json = NULL;
    char *answer = request(r, "POST", path, NULL, body);
    const char *blank = strstr(answer, "\r\n\r\n");
    *status = status_in(answer);
    if (blank)
        (void)rt_json_parse(&json, blank + 4, strlen(blank + 4), "answer", &err);
    free(answer);
    return json;
}

__attribute__((unused)) static const char *string_at(const json_t *json, const char *a, size_t index,
                                                     const char *b, const char *c)
{
    const json_t *one = json_array_get(json_object_get(json, a), index);
    one = json_object_get(one, b);
    return json_string_value(c ? json_object_get(one, c) : one);
}

__attribute__((unused)) static void expect_fault(const char *path, const char *body, int status,
                                                 const char *code, const char *param)
{
    int got;
    json_t *json = post(&shared, path, body, &got);
    const json_t *error = json_object_get(json, "error");
    const char *is = json_string_value(json_object_get(error, "code"));
    const char *where = json_string_value(json_object_get(error, "param"));
    if (got != status || !is || strcmp(is, code) != 0 || json_object_size(error) != 4 ||
        (param ? !where || strcmp(where, param) != 0 : !json_is_null(json_object_get(error, "param"))))
        fail_msg("%s %.100s: %d %s %s", path, body, got, is ? is : "-", where ? where : "null");
    json_decref(json);
}

/* ---- the server of all tests ---- */

__attribute__((unused)) static int open_all(void **state)
{
    (void)state;
    rt_error err = {0};
    rt_weights *weights;
    if (rt_pool_open(&pool, 2, &err) != RT_OK ||
        rt_weights_open(&weights, RT_TEST_SOURCE_DIR "/tests/golden/engine/llama", &err) != RT_OK ||
        rt_model_open(&model, weights, RT_PRECISION_F32, pool, &err) != RT_OK ||
        rt_chat_template_parse(&chat_template,
                               "{% for m in messages %}<s>{{ m.role }}:{{ m.content }}</s>{% endfor %}"
                               "{% if add_generation_prompt %}<s>assistant:{% endif %}",
                               &err) != RT_OK ||
        !(tokenizer = tiny_tokenizer(&err)))
        fail_msg("%s", err.text);
    rt_weights_close(weights);
    start(&shared, 600, 10);
    return 0;
}

__attribute__((unused)) static int close_all(void **state)
{
    (void)state;
    stop(&shared);
    rt_model_close(model);
    rt_chat_template_free(chat_template);
    rt_tokenizer_close(tokenizer);
    rt_pool_close(pool);
    return 0;
}

#endif
