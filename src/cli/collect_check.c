/* cli/collect_check.c - `retort collect --check URL`: ten small requests that show what a server truly does,
 * whatever it says of itself. */
#include "cli/collect_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/model_arg.h"
#include "teacher/answer.h"
#include "teacher/local.h"
#include "cli/model_arg.h"
#include "teacher/local.h"
#include "teacher/remote.h"
#include "tensor/cpu.h"

typedef struct check {
    char *base;
    char model[128];
    const char *key;
    bool json;
    json_t *results;
    size_t n_requests;
    bool reached;
    rt_error last;
} check;

static void say(check *c, const char *what, bool yes, const char *fmt, ...) RT_PRINTF(4, 5);
static void say(check *c, const char *what, bool yes, const char *fmt, ...)
{
    char text[200];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (!c->json)
        (void)printf("%-16s %-4s %s\n", what, yes ? "yes" : "no", text);
    (void)json_object_set_new(c->results, what, json_pack("{s:b, s:s}", "supported", yes, "detail", text));
}

/* Posts {"model", ...members}; the HTTP status, 0 when there was no answer. */
static int post(check *c, const char *path, json_t *body, rt_text *answer)
{
    int http = 0;
    rt_text url = {0};
    if (c->model[0])
        (void)json_object_set_new(body, "model", json_string(c->model));
    char *bytes = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    rt_text_printf(&url, "%s/%s", c->base, path);
    rt_text_clear(answer);
    if (bytes && !url.failed) {
        const rt_remote_plain request = {.url = url.data,
                                         .key = c->key,
                                         .method = "POST",
                                         .body = bytes,
                                         .body_size = strlen(bytes),
                                         .timeout_s = 120};
        if (rt_remote_fetch(&request, &http, answer, &c->last) == RT_OK)
            c->reached = true;
    }
    c->n_requests++;
    free(bytes);
    rt_text_deinit(&url);
    return http;
}

static json_t *chat(const char *text, int max_tokens)
{
    return json_pack("{s:[{s:s, s:s}], s:i}", "messages", "role", "user", "content", text, "max_tokens",
                     max_tokens);
}

/* Asks and reads the reply; false with c->last when it is none. */
static bool ask(check *c, rt_answered *reply, const char *path, json_t *body, bool logprobs, bool stream)
{
    rt_text answer = {0};
    const rt_answer_wish wish = {
        .chat = strstr(path, "chat") != NULL, .logprobs = logprobs, .model = c->model};
    rt_answered_reset(reply);
    reply->http_status = post(c, path, body, &answer);
    bool good = false;
    if (reply->http_status >= 200 && reply->http_status < 300) {
        good = (stream ? rt_answer_read_stream : rt_answer_read)(reply, &wish, answer.data ? answer.data : "",
                                                                 answer.size, &c->last) == RT_OK;
    } else if (reply->http_status) {
        rt_answer_read_error(reply, answer.data ? answer.data : "", answer.size);
        (void)rt_error_set(&c->last, RT_INVALID, "status %d: %.150s", reply->http_status, reply->error_text);
    }
    rt_text_deinit(&answer);
    return good;
}

static void check_models(check *c)
{
    rt_text url = {0}, answer = {0};
    int http = 0;
    rt_text_printf(&url, "%s/models", c->base);
    const rt_remote_plain request = {.url = url.data, .key = c->key, .method = "GET", .timeout_s = 30};
    c->n_requests++;
    c->reached = !url.failed && rt_remote_fetch(&request, &http, &answer, &c->last) == RT_OK;
    json_t *json = http == 200 ? rt_answer_json(answer.data ? answer.data : "", answer.size, &c->last) : NULL;
    const json_t *list = json_object_get(json, "data");
    const char *first = json_string_value(json_object_get(json_array_get(list, 0), "id"));
    if (!c->model[0] && first)
        (void)snprintf(c->model, sizeof c->model, "%s", first);
    if (c->reached && http == 503) { /* the model is being loaded, or all are busy: nothing can be said now */
        c->reached = false;
        (void)rt_error_set(&c->last, RT_BUSY, "%.200s is not ready (503); try again in a moment", c->base);
    }
    if (c->reached)
        say(c, "models", first != NULL, "%zu listed%s%.80s", json_array_size(list),
            first ? ", the first is " : "", first ? first : "");
    json_decref(json);
    rt_text_deinit(&answer);
    rt_text_deinit(&url);
}

static void check_chat(check *c, rt_answered *reply)
{
    const bool good = ask(c, reply, "chat/completions", chat("Say hello.", 16), false, false);
    say(c, "chat", good, "%.150s", good ? "answers" : c->last.text);
    const bool usage = good && !(reply->flags & RT_REPLY_USAGE);
    say(c, "usage", usage, "%llu + %llu tokens", (unsigned long long)(usage ? reply->usage.prompt : 0),
        (unsigned long long)(usage ? reply->usage.completion : 0));
    if (good && (reply->flags & RT_REPLY_MODEL))
        say(c, "model name", false, "%.60s answered for %.60s", reply->model, c->model);
}

static void check_seed(check *c, rt_answered *reply)
{
    char first[400] = "";
    bool same = true;
    for (int i = 0; i < 2; i++) {
        json_t *body = chat("Write one line of a poem about rain.", 24);
        (void)json_object_set_new(body, "temperature", json_real(1.5));
        (void)json_object_set_new(body, "seed", json_integer(7));
        same = ask(c, reply, "chat/completions", body, false, false) && same;
        const char *text = reply->text.data ? reply->text.data : "";
        if (i == 0)
            (void)snprintf(first, sizeof first, "%s", text);
        else
            same = same && strncmp(first, text, sizeof first - 1) == 0;
    }
    say(c, "seed", same, "two answers at temperature 1.5 with one seed are %s", same ? "equal" : "not equal");
}

static void check_stop(check *c, rt_answered *reply)
{
    json_t *body = chat("Count from 1 to 9: 1 2 3 4 5 6 7 8 9", 40);
    (void)json_object_set_new(body, "temperature", json_integer(0));
    (void)json_object_set_new(body, "stop", json_pack("[s, s]", "5", "e"));
    const bool good = ask(c, reply, "chat/completions", body, false, false);
    const char *text = reply->text.data ? reply->text.data : "";
    const bool kept = good && !strchr(text, '5') && !strchr(text, 'e');
    say(c, "stop", kept, "%s",
        good ? (kept ? "cuts the text before the stop string" : "the stop string is in the text")
             : c->last.text);
}

static void check_stream(check *c, rt_answered *reply)
{
    json_t *body = chat("Say hello.", 16);
    (void)json_object_set_new(body, "stream", json_true());
    (void)json_object_set_new(body, "stream_options", json_pack("{s:b}", "include_usage", 1));
    const bool good = ask(c, reply, "chat/completions", body, false, true);
    say(c, "stream", good, "%.150s", good ? "ends with [DONE]" : c->last.text);
    say(c, "stream usage", good && !(reply->flags & RT_REPLY_USAGE), "usage in the last chunk");
}

static void check_logprobs(check *c, rt_answered *reply)
{
    json_t *body = chat("Say hello.", 16);
    (void)json_object_set_new(body, "logprobs", json_true());
    (void)json_object_set_new(body, "top_logprobs", json_integer(20));
    const bool good = ask(c, reply, "chat/completions", body, true, false);
    const bool given = good && reply->n_tokens && reply->tokens[0].n_top;
    say(c, "logprobs", given, "%zu tokens with %u alternatives%s%s", given ? reply->n_tokens : (size_t)0,
        given ? reply->tokens[0].n_top : 0U, given && reply->tokens[0].chosen.id >= 0 ? ", with ids" : "",
        good && (reply->flags & RT_REPLY_SUM) ? ": they sum to more than 1" : "");
    if (given)
        say(c, "logprob bytes", !(reply->flags & RT_REPLY_BYTES), "the tokens' bytes %s the text",
            reply->flags & RT_REPLY_BYTES ? "do not spell" : "spell");
}

static void check_completions(check *c, rt_answered *reply)
{
    json_t *body =
        json_pack("{s:s, s:i, s:b}", "prompt", "Once upon a", "max_tokens", 8, "return_token_ids", 1);
    const bool good = ask(c, reply, "completions", body, false, false);
    say(c, "completions", good, "%.150s", good ? "answers" : c->last.text);
    say(c, "token ids", good && reply->n_ids > 0, "return_token_ids gives %zu",
        good ? reply->n_ids : (size_t)0);
}

static void check_echo(check *c)
{
    rt_text answer = {0};
    json_t *body = json_pack("{s:s, s:i, s:b, s:i, s:i}", "prompt", "Once upon a time", "max_tokens", 1,
                             "echo", 1, "logprobs", 5, "temperature", 0);
    const int http = post(c, "completions", body, &answer);
    json_t *json = http == 200 ? rt_answer_json(answer.data, answer.size, &c->last) : NULL;
    const json_t *logprobs = json_object_get(json_array_get(json_object_get(json, "choices"), 0), "logprobs");
    const size_t n = json_array_size(json_object_get(logprobs, "token_logprobs"));
    say(c, "echo scoring", n > 2, "status %d, %zu log-probabilities of prompt and answer", http, n);
    json_decref(json);
    rt_text_deinit(&answer);
}

static void check_prompt_logprobs(check *c)
{
    rt_text answer = {0};
    json_t *body = json_pack("{s:s, s:i, s:i, s:i}", "prompt", "Once upon a time", "max_tokens", 1,
                             "prompt_logprobs", 5, "temperature", 0);
    const int http = post(c, "completions", body, &answer);
    json_t *json = http == 200 ? rt_answer_json(answer.data, answer.size, &c->last) : NULL;
    const json_t *choice = json_array_get(json_object_get(json, "choices"), 0);
    const json_t *list = json_object_get(choice, "prompt_logprobs");
    const size_t n = json_array_size(list);
    say(c, "prompt_logprobs", n > 2, "status %d, %zu positions", http, n);
    json_decref(json);
    rt_text_deinit(&answer);
}

int collect_check(const char *url, const char *model, const char *key_env, bool json)
{
    rt_error err = {0};
    check c = {.base = rt_remote_base_url(url, NULL, &err), .json = json, .results = json_object()};
    c.key = key_env ? getenv(key_env) : NULL;
    (void)snprintf(c.model, sizeof c.model, "%s", model ? model : "");
    if (!c.base) {
        json_decref(c.results);
        return cli_fail(&err);
    }
    rt_answered reply;
    rt_answered_init(&reply);
    check_models(&c);
    if (c.reached) {
        check_chat(&c, &reply);
        check_seed(&c, &reply);
        check_stop(&c, &reply);
        check_stream(&c, &reply);
        check_logprobs(&c, &reply);
        check_completions(&c, &reply);
        check_echo(&c);
        check_prompt_logprobs(&c);
    }
    rt_answered_deinit(&reply);
    free(c.base);
    if (!c.reached) {
        json_decref(c.results);
        return cli_fail(&c.last);
    }
    if (json)
        return cli_print_json(
            json_pack("{s:s, s:i, s:o}", "url", url, "requests", (int)c.n_requests, "supports", c.results));
    json_decref(c.results);
    return 0;
}

rt_status collect_teacher_file_open(rt_teacher **out, const collect_settings *settings, rt_error *err)
{
    *out = NULL;
    if (!settings->teacher.file[0])
        return RT_OK;
    char *path = NULL;
    if (cli_model_path(&path, settings->teacher.file, err) != RT_OK)
        return err->status;
    size_t slots = 0; /* auto */
    (void)rt_parse_count(&slots, settings->net.concurrency);
    const rt_local_options options = {.precision = RT_PRECISION_INT8, .n_slots = slots};
    const rt_status status = rt_local_open(out, path, &options, NULL, err);
    free(path);
    return status;
}
