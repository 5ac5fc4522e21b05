/* tests/teacher/fault_server.h - an OpenAI-compatible server that fails in every way that real ones do.
 *
 * A process of its own (forked), a thread for each connection; what it did is counted in shared memory, by
 * the number in the prompt ("p17 ..."), so that a test proves what was asked how often.  Faults come by
 * chance in 1,000, drawn from a seed and the number of the request. */
#ifndef TESTS_TEACHER_FAULT_SERVER_H
#define TESTS_TEACHER_FAULT_SERVER_H

#include <arpa/inet.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/hash.h"

enum { FAULT_PROMPTS_MAX = 1 << 16, FAULT_BODY_MAX = 1 << 20 };

typedef struct fault_plan { /* chances in 1,000 */
    unsigned limited, status_500, status_503, reset, reset_before, drip, bad_json, twice, other_model,
        usage_lie, no_done, sum_lie, bad_ids, other_bytes, refusal, empty, filter, html;
    unsigned latency_ms, retry_after_ms; /* of every answer; of a 429 (0: not said) */
    unsigned length;                     /* chance that the answer is cut off at max_tokens */
    int top_logprobs_max;                /* more are refused with 400; -1: none are known */
    bool no_token_ids;                   /* return_token_ids is refused */
    enum { FAULT_SCORE_NONE, FAULT_SCORE_LISTS, FAULT_SCORE_ECHO } score; /* how given tokens are scored */
    unsigned expire; /* chance that a request of a batch gets no answer */
    unsigned window; /* requests a window of x-ratelimit, then 429; 0: no such limit */
    unsigned window_ms;
    int always;       /* this status for everything; 0: none */
    const char *code; /* error code that goes with it */
    bool think;       /* answers begin with <think>...</think> */
    uint64_t seed;
} fault_plan;

typedef struct fault_counts {
    atomic_uint requests, limited, connections, in_flight, in_flight_max;
    atomic_uint asked[FAULT_PROMPTS_MAX]; /* requests that came whole */
    atomic_uint good[FAULT_PROMPTS_MAX];  /* whole, right answers that were sent to the end */
    atomic_uint window_used;
    atomic_llong window_from;
} fault_counts;

enum { FAULT_FILES_MAX = 32 };
typedef struct fault_files { /* of the Batch API */
    char data[FAULT_FILES_MAX][FAULT_BODY_MAX], out[FAULT_FILES_MAX][32], errors[FAULT_FILES_MAX][32];
    unsigned n_files, n_batches;
    atomic_uint looked;
} fault_files;

typedef struct fault_server {
    pid_t pid;
    int port;
    char url[64];
    fault_plan *plan;     /* shared */
    fault_counts *counts; /* shared */
    fault_files *files;   /* shared */
} fault_server;

static long long fault_now_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static bool fault_send(int fd, const char *data, size_t size)
{
    while (size) {
        const ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        data += n;
        size -= (size_t)n;
    }
    return true;
}

static void fault_reset(int fd) /* a reset, not an end */
{
    const struct linger now = {1, 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

typedef struct fault_request {
    char *data;
    size_t size, head, body; /* sizes of the head with its blank line, and of the body */
} fault_request;

static bool fault_read(int fd, fault_request *r)
{
    size_t have = r->size;
    for (;;) {
        const char *end = have ? memmem(r->data, have, "\r\n\r\n", 4) : NULL;
        if (end) {
            r->head = (size_t)(end - r->data) + 4;
            r->body = 0;
            const char *length = strcasestr(r->data, "content-length:");
            if (length && length < end)
                r->body = (size_t)strtoul(length + 15, NULL, 10);
            if (r->body > FAULT_BODY_MAX)
                return false;
            if (have >= r->head + r->body) {
                r->size = have;
                return true;
            }
        }
        if (have + 1 >= 2 * FAULT_BODY_MAX)
            return false;
        const ssize_t n = recv(fd, r->data + have, 2 * FAULT_BODY_MAX - 1 - have, 0);
        if (n <= 0)
            return false;
        have += (size_t)n;
        r->data[have] = '\0';
    }
}

static unsigned fault_number(const json_t *body, const char **text)
{
    const json_t *messages = json_object_get(body, "messages"), *prompt = json_object_get(body, "prompt");
    *text = json_string_value(
        messages ? json_object_get(json_array_get(messages, json_array_size(messages) - 1), "content")
                 : prompt);
    unsigned number = 0;
    if (!*text)
        *text = "";
    return sscanf(*text, "p%u", &number) == 1 && number < FAULT_PROMPTS_MAX ? number : 0;
}

/* The answer to a prompt is a fact of it. */
static void fault_answer(char *out, size_t size, const char *prompt)
{
    char ascii[61];
    size_t n = 0;
    for (const char *c = prompt; *c && n < sizeof ascii - 1; c++)
        ascii[n++] = (unsigned char)*c >= ' ' && (unsigned char)*c < 0x7F ? *c : '?';
    ascii[n] = '\0';
    (void)snprintf(out, size, "The answer to %s is %llu.", ascii,
                   (unsigned long long)(rt_hash64(prompt, strlen(prompt), 7) % 1000000));
}

typedef struct fault_draw {
    uint64_t state;
} fault_draw;

static bool fault_by_chance(fault_draw *draw, unsigned permille)
{
    draw->state = rt_hash64(&draw->state, sizeof draw->state, 99);
    return draw->state % 1000 < permille;
}

static bool fault_error(int fd, int status, const char *code, const char *message, const char *headers)
{
    char body[512], head[512];
    const int n = snprintf(
        body, sizeof body,
        "{\"error\":{\"message\":\"%s\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"%s\"}}",
        message, code);
    const int h = snprintf(head, sizeof head,
                           "HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n",
                           status, n, headers);
    return fault_send(fd, head, (size_t)h) && fault_send(fd, body, (size_t)n);
}

/* The tokens of an answer: words with their blanks. */
static json_t *fault_logprobs(const char *text, int top, bool chat, const fault_plan *plan, fault_draw *draw)
{
    json_t *list = json_array();
    const bool lie = fault_by_chance(draw, plan->sum_lie), ids = fault_by_chance(draw, plan->bad_ids),
               other = fault_by_chance(draw, plan->other_bytes);
    for (const char *c = text; *c;) {
        size_t n = 1;
        while (c[n] && c[n] != ' ')
            n++;
        json_t *tops = json_array();
        for (int i = 0; i < top; i++) {
            char name[32];
            (void)snprintf(name, sizeof name, "w%d", i);
            (void)json_array_append_new(tops, json_pack("{s:s, s:f, s:n, s:i}", "token", name, "logprob",
                                                        lie ? -0.01 : -1.0 - i * 0.7, "bytes", "id",
                                                        ids ? 1000000 : i));
        }
        json_t *token = json_stringn(other ? "?" : c, other ? 1 : n);
        (void)json_array_append_new(list, json_pack("{s:o, s:f, s:n, s:o}", "token", token, "logprob", -1.0,
                                                    "bytes", "top_logprobs", tops));
        c += n;
    }
    (void)chat;
    return json_pack("{s:o}", "content", list);
}

static size_t fault_words(const char *text)
{
    size_t n = 0;
    for (const char *c = text; *c; n++)
        for (c++; *c && *c != ' ';)
            c++;
    return n;
}

static json_t *fault_usage(size_t prompt, size_t words, bool lie)
{
    return json_pack("{s:i, s:i, s:i}", "prompt_tokens", (int)prompt, "completion_tokens",
                     lie ? -5 : (int)words + 1, "total_tokens", (int)(prompt + words + 1));
}

/* Sends the head and the body; with `drip` in small pieces; with `cut` a reset in the middle. */
static bool fault_body(int fd, const char *type, const char *headers, const char *body, size_t size,
                       bool drip, bool cut)
{
    char head[512];
    const int h =
        snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s\r\n",
                 type, size, headers);
    if (!fault_send(fd, head, (size_t)h))
        return false;
    if (cut) {
        (void)fault_send(fd, body, size / 2);
        fault_reset(fd);
        return false;
    }
    if (!drip)
        return fault_send(fd, body, size);
    for (size_t at = 0, n; at < size; at += n) {
        n = size / 8 + 1 < size - at ? size / 8 + 1 : size - at;
        if (!fault_send(fd, body + at, n))
            return false;
        (void)usleep(20000);
    }
    return true;
}

/* A stream of one chunk a word; *right: nothing was left out or sent twice. */
static char *fault_stream(const char *text, const char *model, const fault_plan *plan, fault_draw *draw,
                          size_t *size, bool *right, bool chat)
{
    char *out = NULL;
    FILE *stream = open_memstream(&out, size);
    const bool twice = fault_by_chance(draw, plan->twice), no_done = fault_by_chance(draw, plan->no_done);
    const size_t words = fault_words(text);
    size_t i = 0;
    for (const char *c = text; *c; i++) {
        size_t n = 1;
        while (c[n] && c[n] != ' ')
            n++;
        json_t *piece = json_stringn(c, n);
        json_t *choice =
            chat ? json_pack("{s:i, s:{s:O}, s:n}", "index", 0, "delta", "content", piece, "finish_reason")
                 : json_pack("{s:i, s:O, s:n}", "index", 0, "text", piece, "finish_reason");
        json_t *json = json_pack("{s:s, s:s, s:[o]}", "id", "c1", "model", model, "choices", choice);
        char *line = json_dumps(json, JSON_COMPACT);
        for (int times = twice && i == words / 2 ? 2 : 1; times; times--)
            (void)fprintf(stream, "data: %s\n\n", line);
        free(line);
        json_decref(json);
        json_decref(piece);
        c += n;
    }
    (void)fprintf(
        stream,
        ": ping\n\ndata: "
        "{\"id\":\"c1\",\"model\":\"%s\",\"choices\":[{\"index\":0,%s,\"finish_reason\":\"stop\"}]}\n\n",
        model, chat ? "\"delta\":{}" : "\"text\":\"\"");
    char *usage =
        json_dumps(json_pack("{s:[], s:o}", "choices", "usage", fault_usage(5, words, false)), JSON_COMPACT);
    (void)fprintf(stream, "data: %s\n\n", usage);
    free(usage);
    if (!no_done)
        (void)fprintf(stream, "data: [DONE]\n\n");
    (void)fclose(stream);
    *right = !twice && !no_done;
    return out;
}

static bool fault_window(const fault_plan *plan, fault_counts *counts, char *headers, size_t size, bool *over)
{
    *over = false;
    if (plan->window == 0)
        return false;
    const long long now = fault_now_ms();
    if (now - atomic_load(&counts->window_from) >= (long long)plan->window_ms) {
        atomic_store(&counts->window_from, now);
        atomic_store(&counts->window_used, 0);
    }
    const unsigned used = atomic_fetch_add(&counts->window_used, 1) + 1;
    *over = used > plan->window;
    const long long left = (long long)plan->window_ms - (now - atomic_load(&counts->window_from));
    (void)snprintf(headers, size,
                   "x-ratelimit-limit-requests: %u\r\nx-ratelimit-remaining-requests: "
                   "%u\r\nx-ratelimit-reset-requests: %lldms\r\n",
                   plan->window, used < plan->window ? plan->window - used : 0, left > 1 ? left : 1);
    return true;
}

/* ---- batches: files and jobs live in shared memory ---- */

static bool fault_json(int fd, json_t *json)
{
    char *text = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    const bool keep = fault_body(fd, "application/json", "", text, strlen(text), false, false);
    free(text);
    return keep;
}

/* The answers to a file of requests; what expires is left to the error file. */
static void fault_run_batch(const fault_server *server, fault_files *files, unsigned input)
{
    fault_draw draw = {server->plan->seed * 77 + files->n_batches};
    char *out = files->data[files->n_files + 1], *errors = files->data[files->n_files + 2];
    size_t n_out = 0, n_errors = 0;
    for (char *line = files->data[input], *end = strchr(line, '\n'); end;
         line = end + 1, end = strchr(line, '\n')) {
        json_t *json = json_loadb(line, (size_t)(end - line), 0, NULL);
        const char *id = json_string_value(json_object_get(json, "custom_id")), *prompt;
        char text[160];
        if (!id)
            continue;
        const unsigned number = fault_number(json_object_get(json, "body"), &prompt);
        atomic_fetch_add(&server->counts->asked[number], 1);
        fault_answer(text, sizeof text, prompt);
        if (fault_by_chance(&draw, server->plan->expire)) {
            n_errors += (size_t)snprintf(errors + n_errors, FAULT_BODY_MAX - n_errors,
                                         "{\"custom_id\":\"%s\",\"response\":null,\"error\":{\"code\":"
                                         "\"batch_expired\",\"message\":\"too late\"}}\n",
                                         id);
        } else {
            n_out += (size_t)snprintf(
                out + n_out, FAULT_BODY_MAX - n_out,
                "{\"custom_id\":\"%s\",\"response\":{\"status_code\":200,\"request_id\":\"r\","
                "\"body\":{\"model\":\"m\",\"choices\":[{\"message\":{\"content\":\"%s\"},"
                "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":5,"
                "\"completion_tokens\":9}}},\"error\":null}\n",
                id, text);
            atomic_fetch_add(&server->counts->good[number], 1);
        }
        json_decref(json);
    }
    files->n_files += 2;
}

static bool fault_upload(int fd, fault_files *files, const fault_request *r)
{
    const char *start = memmem(r->data + r->head, r->body, "{\"", 2), *end = NULL;
    for (const char *c = start; c && c + 2 < r->data + r->size; c++)
        if (memcmp(c, "\r\n-", 3) == 0)
            end = c;
    char name[32];
    if (!start || !end || files->n_files + 4 >= FAULT_FILES_MAX)
        return false;
    memcpy(files->data[++files->n_files], start, (size_t)(end - start));
    (void)snprintf(name, sizeof name, "file-%u", files->n_files);
    return fault_json(fd, json_pack("{s:s}", "id", name));
}

static bool fault_make_batch(int fd, const fault_server *server, const fault_request *r)
{
    fault_files *files = server->files;
    json_t *body = json_loadb(r->data + r->head, r->body, 0, NULL);
    const char *input = json_string_value(json_object_get(body, "input_file_id"));
    unsigned file = 0;
    const bool known = input && sscanf(input, "file-%u", &file) == 1 && file <= files->n_files;
    json_decref(body);
    if (!known)
        return false;
    const unsigned n = ++files->n_batches;
    fault_run_batch(server, files, file);
    (void)snprintf(files->out[n], sizeof files->out[n], "file-%u", files->n_files - 1);
    (void)snprintf(files->errors[n], sizeof files->errors[n], "file-%u", files->n_files);
    char name[32];
    (void)snprintf(name, sizeof name, "batch-%u", n);
    return fault_json(fd, json_pack("{s:s, s:s}", "id", name, "status", "validating"));
}

static bool fault_batch(int fd, const fault_server *server, const fault_request *r)
{
    fault_files *files = server->files;
    unsigned number = 0;
    const char *path = strstr(r->data, "/v1/");
    if (sscanf(path, "/v1/files/file-%u/content", &number) == 1 && number <= files->n_files)
        return fault_body(fd, "text/plain", "", files->data[number], strlen(files->data[number]), false,
                          false);
    if (sscanf(path, "/v1/batches/batch-%u", &number) == 1 && number <= files->n_batches) {
        const bool done = atomic_fetch_add(&files->looked, 1) % 2 == 1; /* at the second look */
        return fault_json(fd, done ? json_pack("{s:s, s:s, s:s, s:s}", "id", "b", "status", "completed",
                                               "output_file_id", files->out[number], "error_file_id",
                                               files->errors[number])
                                   : json_pack("{s:s, s:s}", "id", "b", "status", "in_progress"));
    }
    return strncmp(path, "/v1/files", 9) == 0 ? fault_upload(fd, files, r) : fault_make_batch(fd, server, r);
}

/* The distribution at each position of ids: the id itself and two more, in the form that is asked for. */
static bool fault_score(int fd, const fault_server *server, const json_t *body)
{
    const json_t *ids = json_object_get(body, "prompt");
    const bool lists = json_object_get(body, "prompt_logprobs") != NULL;
    const size_t n = json_array_size(ids);
    if (lists && server->plan->score != FAULT_SCORE_LISTS)
        return fault_error(fd, 400, "unknown_parameter", "prompt_logprobs is not known", "");
    json_t *rows = json_array(), *tokens = json_array(), *values = json_array();
    for (size_t i = 0; i < n + !lists; i++) {
        char names[3][32];
        json_t *row = json_object();
        const json_int_t id = i < n ? json_integer_value(json_array_get(ids, i)) : 7;
        for (int j = 0; j < 3; j++) {
            const double p = server->plan->sum_lie ? -0.1 : -1.0 - j;
            const json_int_t which =
                server->plan->bad_ids && j == 2 ? 60000 : id + j + (server->plan->other_bytes ? 9 : 0);
            (void)snprintf(names[j], sizeof names[j], "%s%lld", lists ? "" : "token_id:", (long long)which);
            (void)json_object_set_new(
                row, names[j], lists ? json_pack("{s:f, s:i}", "logprob", p, "rank", j + 1) : json_real(p));
        }
        (void)json_array_append_new(rows, i ? row : json_null());
        if (i == 0)
            json_decref(row);
        (void)json_array_append_new(tokens, json_string(names[0]));
        (void)json_array_append_new(values, i ? json_real(-1) : json_null());
    }
    json_t *choice = json_pack("{s:i, s:s, s:s}", "index", 0, "text", "", "finish_reason", "length");
    if (lists)
        (void)json_object_set(choice, "prompt_logprobs", rows);
    else
        (void)json_object_set_new(
            choice, "logprobs",
            json_pack("{s:O, s:O, s:O}", "tokens", tokens, "token_logprobs", values, "top_logprobs", rows));
    json_decref(rows);
    json_decref(tokens);
    json_decref(values);
    return fault_json(fd, json_pack("{s:s, s:[o]}", "model", "m", "choices", choice));
}

/* Answers one request; false: the connection ends. */
static bool fault_serve(int fd, const fault_server *server, const fault_request *r)
{
    const fault_plan plan = *server->plan;
    fault_counts *counts = server->counts;
    const unsigned n = atomic_fetch_add(&counts->requests, 1);
    fault_draw draw = {plan.seed * 1000003 + n};
    if (strncmp(r->data + 5, "v1/files", 8) == 0 || strncmp(r->data + 6, "v1/files", 8) == 0 ||
        strncmp(r->data + 5, "v1/batches", 10) == 0 || strncmp(r->data + 6, "v1/batches", 10) == 0)
        return fault_batch(fd, server, r);
    if (strncmp(r->data, "GET ", 4) == 0) {
        static const char models[] = "{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\"}]}";
        return fault_body(fd, "application/json", "", models, sizeof models - 1, false, false);
    }
    json_t *body = json_loadb(r->data + r->head, r->body, 0, NULL);
    const char *prompt;
    const unsigned number = fault_number(body, &prompt);
    const bool chat = json_object_get(body, "messages") != NULL;
    atomic_fetch_add(&counts->asked[number], 1);
    char headers[256] = "", text[160];
    bool over = false, keep = true;
    (void)fault_window(&plan, counts, headers, sizeof headers, &over);
    if (plan.latency_ms)
        (void)usleep(plan.latency_ms * 1000);
    const json_int_t top = chat ? json_integer_value(json_object_get(body, "top_logprobs"))
                                : json_integer_value(json_object_get(body, "logprobs"));
    if (plan.score && json_is_array(json_object_get(body, "prompt"))) {
        keep = fault_score(fd, server, body);
    } else if (plan.always) {
        keep = fault_error(fd, plan.always, plan.code ? plan.code : "x", "it is always so", headers);
    } else if (over || fault_by_chance(&draw, plan.limited)) {
        atomic_fetch_add(&counts->limited, 1);
        if (plan.retry_after_ms)
            (void)snprintf(headers + strlen(headers), 64, "retry-after-ms: %u\r\n", plan.retry_after_ms);
        keep = fault_error(fd, 429, "rate_limit_exceeded", "slower", headers);
    } else if (fault_by_chance(&draw, plan.status_500)) {
        keep = fault_error(fd, 500, "internal_error", "broken", "");
    } else if (fault_by_chance(&draw, plan.status_503)) {
        keep = fault_error(fd, 503, "overloaded", "busy", "Retry-After: 0\r\n");
    } else if (fault_by_chance(&draw, plan.reset_before)) {
        fault_reset(fd);
        keep = false;
    } else if (fault_by_chance(&draw, plan.html)) {
        keep = fault_body(fd, "text/html", "", "<html>hello</html>", 18, false, false);
    } else if (plan.no_token_ids && json_object_get(body, "return_token_ids")) {
        keep = fault_error(fd, 400, "unknown_parameter", "unknown field return_token_ids", "");
    } else if (top > 0 && (plan.top_logprobs_max < 0 || top > plan.top_logprobs_max) &&
               plan.top_logprobs_max) {
        keep = fault_error(fd, 400, "invalid_value", "top_logprobs is too large", "");
    } else {
        const char *model = json_string_value(json_object_get(body, "model"));
        const bool other = fault_by_chance(&draw, plan.other_model);
        model = other || !model ? "somebody-else" : model;
        fault_answer(text, sizeof text, prompt);
        char said[400];
        (void)snprintf(said, sizeof said, "%s%s", plan.think ? "<think>\nhm " : "",
                       plan.think ? "so\n</think>\n\n" : "");
        if (fault_by_chance(&draw, plan.refusal))
            (void)snprintf(said + strlen(said), 200, "I'm sorry, but I can't help with that.");
        else if (!fault_by_chance(&draw, plan.empty))
            (void)snprintf(said + strlen(said), 200, "%s", text);
        const bool cut = fault_by_chance(&draw, plan.reset), drip = fault_by_chance(&draw, plan.drip),
                   bad = fault_by_chance(&draw, plan.bad_json), lie = fault_by_chance(&draw, plan.usage_lie);
        const char *finish = fault_by_chance(&draw, plan.filter)   ? "content_filter"
                             : fault_by_chance(&draw, plan.length) ? "length"
                                                                   : "stop";
        size_t size = 0;
        bool right = !cut && !bad;
        char *out;
        const char *type = "application/json";
        if (json_is_true(json_object_get(body, "stream"))) {
            bool whole;
            out = fault_stream(said, model, &plan, &draw, &size, &whole, chat);
            right = right && whole;
            type = "text/event-stream";
        } else {
            json_t *choice =
                chat ? json_pack("{s:i, s:{s:s, s:s}, s:s}", "index", 0, "message", "role", "assistant",
                                 "content", said, "finish_reason", finish)
                     : json_pack("{s:i, s:s, s:s}", "index", 0, "text", said, "finish_reason", finish);
            if (top > 0)
                (void)json_object_set_new(choice, "logprobs",
                                          fault_logprobs(said, (int)top, chat, &plan, &draw));
            json_t *answer = json_pack("{s:s, s:s, s:s, s:i, s:[o], s:o}", "id", "c1", "object",
                                       "chat.completion", "model", model, "created", 1, "choices", choice,
                                       "usage", fault_usage(5, fault_words(said), lie));
            out = json_dumps(answer, JSON_COMPACT);
            json_decref(answer);
            size = strlen(out);
        }
        if (bad)
            out[size / 2] = '\x01';
        keep = fault_body(fd, type, headers, out, size, drip, cut);
        if (keep && right)
            atomic_fetch_add(&counts->good[number], 1);
        free(out);
    }
    json_decref(body);
    return keep;
}

typedef struct fault_connection {
    int fd;
    const fault_server *server;
} fault_connection;

static void *fault_talk(void *context)
{
    fault_connection c = *(fault_connection *)context;
    free(context);
    fault_request r = {.data = malloc(2 * FAULT_BODY_MAX)};
    while (r.data && fault_read(c.fd, &r)) {
        const unsigned now = atomic_fetch_add(&c.server->counts->in_flight, 1) + 1;
        if (now > atomic_load(&c.server->counts->in_flight_max))
            atomic_store(&c.server->counts->in_flight_max, now);
        const bool keep = fault_serve(c.fd, c.server, &r);
        atomic_fetch_sub(&c.server->counts->in_flight, 1);
        if (!keep)
            break;
        const size_t used = r.head + r.body;
        memmove(r.data, r.data + used, r.size - used);
        r.size -= used;
        r.data[r.size] = '\0';
    }
    free(r.data);
    (void)close(c.fd);
    return NULL;
}

static void fault_loop(int listener, const fault_server *server)
{
    pthread_attr_t attr;
    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    (void)pthread_attr_setstacksize(&attr, 1 << 20);
    for (;;) {
        const int fd = accept(listener, NULL, NULL);
        if (fd < 0)
            continue;
        atomic_fetch_add(&server->counts->connections, 1);
        pthread_t thread;
        fault_connection *c = malloc(sizeof *c);
        *c = (fault_connection){fd, server};
        if (pthread_create(&thread, &attr, fault_talk, c) != 0) {
            (void)close(fd);
            free(c);
        }
    }
}

/* port 0: a free one, and server->port says which.  May be called again after fault_stop: the counts stay. */
static bool fault_start(fault_server *server, int port)
{
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    (void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, 512) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &size) != 0)
        return false;
    if (!server->plan) {
        server->plan =
            mmap(NULL, sizeof *server->plan, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        server->files =
            mmap(NULL, sizeof *server->files, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        server->counts =
            mmap(NULL, sizeof *server->counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    }
    server->port = ntohs(address.sin_port);
    (void)snprintf(server->url, sizeof server->url, "http://127.0.0.1:%d", server->port);
    server->pid = fork();
    if (server->pid == 0) {
        (void)signal(SIGPIPE, SIG_IGN);
        fault_loop(listener, server);
        _exit(0);
    }
    (void)close(listener);
    return server->pid > 0;
}

static void fault_stop(fault_server *server)
{
    if (server->pid > 0) {
        (void)kill(server->pid, SIGKILL);
        (void)waitpid(server->pid, NULL, 0);
    }
    server->pid = 0;
}

#endif
