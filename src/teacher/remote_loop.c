/* teacher/remote_loop.c - many requests in flight from one thread: libcurl's multi interface.
 *
 * A slot is one piece of work with its attempts: waiting until a time, or flying.  What may be sent and when
 * is asked of flow.h; here is the I/O, and the decision what an answer means. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/size.h"
#include "teacher/remote_internal.h"

enum { POLL_MS = 100, REFUSALS_FIRST_MAX = 100 };

typedef enum slot_state { SLOT_FREE, SLOT_WAITING, SLOT_FLYING } slot_state;

struct remote_slot {
    slot_state state;
    remote_work work;
    double due, sent_at;     /* believed time */
    unsigned attempts, sent; /* that count; all */
    unsigned variant;        /* another body, or an answer not wanted again: another idempotency key */
    bool plain;              /* not streamed: a stream could not be trusted */
    size_t level;            /* of log-probabilities that the attempt asked for */
    CURL *easy;
    char *bytes;
    struct curl_slist *headers;
    rt_text answer;
    rt_flow_headers limits;
    char request_id[128];
    bool streamed; /* the answer is text/event-stream */
    bool too_long;
};

typedef struct loop {
    remote *self;
    const remote_job *job;
    CURLM *multi;
    remote_slot *slots; /* [n_slots] */
    size_t n_slots, n_flying, n_waiting;
    bool ended, draining;           /* next said END; tick said stop */
    unsigned unreachable, refusals; /* in a row */
    rt_answered reply;
    rt_status stop; /* why the call ends before its work does */
    rt_error *err;
} loop;

/* ---- what libcurl hands over ---- */

static size_t on_body(char *data, size_t size, size_t n, void *context)
{
    remote_slot *slot = context;
    const size_t bytes = size * n;
    if (slot->answer.size + bytes > RT_ANSWER_BYTES_MAX) {
        slot->too_long = true;
        return 0;
    }
    rt_text_append(&slot->answer, data, bytes);
    return slot->answer.failed ? 0 : bytes;
}

static size_t on_header(char *data, size_t size, size_t n, void *context)
{
    remote_slot *slot = context;
    const size_t bytes = size * n;
    static const char type[] = "content-type:", id[] = "x-request-id:";
    rt_flow_headers_read(&slot->limits, data, bytes, rt_clock_unix_seconds());
    if (bytes > sizeof type && strncasecmp(data, type, sizeof type - 1) == 0)
        slot->streamed = memmem(data, bytes, "text/event-stream", 17) != NULL;
    if (bytes > sizeof id && strncasecmp(data, id, sizeof id - 1) == 0) {
        const char *start = data + sizeof id - 1, *end = data + bytes;
        while (start < end && *start == ' ')
            start++;
        while (end > start && (unsigned char)end[-1] <= ' ')
            end--;
        (void)snprintf(slot->request_id, sizeof slot->request_id, "%.*s", (int)(end - start), start);
    }
    return bytes;
}

/* ---- sending ---- */

static bool prepare_easy(loop *l, remote_slot *slot)
{
    if (slot->easy)
        return true;
    const rt_remote_options *options = &l->self->options;
    CURL *easy = slot->easy = curl_easy_init();
    return easy && !curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body) &&
           !curl_easy_setopt(easy, CURLOPT_WRITEDATA, slot) &&
           !curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header) &&
           !curl_easy_setopt(easy, CURLOPT_HEADERDATA, slot) &&
           !curl_easy_setopt(easy, CURLOPT_PRIVATE, slot) && !curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) &&
           !curl_easy_setopt(easy, CURLOPT_POST, 1L) &&
           !curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") &&
           !curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "") &&
           !curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)(options->timeout_s * 1000)) &&
           !curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, 20000L) &&
           !curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L) &&
           !curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)options->silence_s) &&
           !curl_easy_setopt(easy, CURLOPT_USERAGENT, options->user_agent);
}

/* The headers that all requests share, and the key that names this one. */
static bool set_headers(loop *l, remote_slot *slot)
{
    char line[128];
    curl_slist_free_all(slot->headers);
    slot->headers = NULL;
    for (const struct curl_slist *header = l->self->headers; header; header = header->next) {
        struct curl_slist *more = curl_slist_append(slot->headers, header->data);
        if (!more)
            return false;
        slot->headers = more;
    }
    if (slot->work.key[0]) {
        (void)snprintf(line, sizeof line, "Idempotency-Key: %s-%u", slot->work.key, slot->variant);
        struct curl_slist *more = curl_slist_append(slot->headers, line);
        if (!more)
            return false;
        slot->headers = more;
    }
    return curl_easy_setopt(slot->easy, CURLOPT_HTTPHEADER, slot->headers) == CURLE_OK;
}

static rt_status no_memory(loop *l) { return rt_error_set(l->err, RT_NO_MEMORY, "no memory for a request"); }

static rt_status send_slot(loop *l, remote_slot *slot)
{
    remote *self = l->self;
    rt_text url = {0};
    free(slot->bytes);
    slot->bytes = l->job->bytes(l->job->context, &slot->work, l->job->stream && !slot->plain);
    const char *path = l->job->path(l->job->context, &slot->work);
    rt_text_printf(&url, "%s/%s", self->base, path);
    rt_text_clear(&slot->answer);
    rt_flow_headers_clear(&slot->limits);
    slot->request_id[0] = '\0';
    slot->streamed = slot->too_long = false;
    slot->level = self->top_logprobs;
    const bool ready =
        slot->bytes && !url.failed && prepare_easy(l, slot) && set_headers(l, slot) &&
        !curl_easy_setopt(slot->easy, CURLOPT_URL, url.data) &&
        !curl_easy_setopt(slot->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(slot->bytes)) &&
        !curl_easy_setopt(slot->easy, CURLOPT_POSTFIELDS, slot->bytes);
    rt_text_deinit(&url);
    if (!ready || curl_multi_add_handle(l->multi, slot->easy) != CURLM_OK)
        return no_memory(l);
    slot->sent++;
    slot->sent_at = self->flow.now;
    slot->state = SLOT_FLYING;
    l->n_flying++;
    self->attempts++;
    self->retries += slot->sent > 1;
    return RT_OK;
}

static remote_slot *due_slot(loop *l)
{
    remote_slot *best = NULL;
    for (size_t i = 0; i < l->n_slots && l->n_waiting; i++) {
        remote_slot *slot = &l->slots[i];
        if (slot->state == SLOT_WAITING && slot->due <= l->self->flow.now && (!best || slot->due < best->due))
            best = slot;
    }
    return best;
}

static remote_slot *free_slot(loop *l)
{
    for (size_t i = 0; i < l->n_slots; i++)
        if (l->slots[i].state == SLOT_FREE)
            return &l->slots[i];
    return NULL;
}

/* New work is only taken when it can be sent at once: what waits for its next try goes first, and counts. */
static rt_status send_all(loop *l)
{
    remote *self = l->self;
    for (;;) {
        remote_slot *slot = due_slot(l);
        const bool fresh = !slot;
        if (fresh && (l->ended || l->draining || l->n_flying + l->n_waiting >= l->n_slots ||
                      (double)(l->n_flying + l->n_waiting) >= self->flow.limit_max))
            return RT_OK;
        if (!rt_flow_may_send(&self->flow, l->n_flying))
            return RT_OK;
        if (fresh) {
            slot = free_slot(l);
            assert(slot);
            const rt_next next = l->job->next(l->job->context, &slot->work);
            if (next != RT_NEXT_TAKE) {
                /* LATER with nothing under way: no reply will change what next says */
                l->ended = next == RT_NEXT_END || l->n_flying + l->n_waiting == 0;
                return RT_OK;
            }
            slot->attempts = slot->sent = slot->variant = 0;
            slot->plain = false;
        } else {
            l->n_waiting--;
        }
        if (send_slot(l, slot) != RT_OK) {
            slot->state = SLOT_WAITING; /* so that its work is freed with the loop */
            return l->err->status;
        }
    }
}

/* ---- what an answer means ---- */

static void finish(loop *l, remote_slot *slot, rt_status status)
{
    l->reply.status = status;
    l->reply.attempts = slot->sent;
    l->reply.ms = (l->self->flow.now - slot->sent_at) * 1000;
    if (!l->reply.request_id[0])
        (void)snprintf(l->reply.request_id, sizeof l->reply.request_id, "%s", slot->request_id);
    l->job->done(l->job->context, &slot->work, &l->reply);
    json_decref(slot->work.body);
    slot->work.body = NULL;
    slot->state = SLOT_FREE;
}

static void wait_until(loop *l, remote_slot *slot, double due)
{
    slot->state = SLOT_WAITING;
    slot->due = due;
    l->n_waiting++;
}

/* Tries again, or gives the row up when its attempts are used. */
static void again(loop *l, remote_slot *slot, rt_status status, const char *code)
{
    remote *self = l->self;
    slot->attempts++;
    self->failures++;
    if (slot->attempts < self->options.attempts) {
        wait_until(l, slot, self->flow.now + rt_flow_backoff(&self->flow, slot->attempts + 1, &slot->limits));
        return;
    }
    if (!l->reply.error_code[0])
        (void)snprintf(l->reply.error_code, sizeof l->reply.error_code, "%s", code);
    finish(l, slot, status);
}

/* The call ends; this row stays unanswered and is asked again by the next run. */
static void stop(loop *l, remote_slot *slot, rt_status status, const char *why)
{
    slot->state = SLOT_WAITING;
    slot->due = l->self->flow.now;
    l->n_waiting++;
    if (l->stop == RT_OK)
        l->stop = rt_error_set(l->err, status, "%.120s: %s%s%.250s", l->self->base, why,
                               l->reply.error_text[0] ? ": " : "", l->reply.error_text);
}

static void on_answer(loop *l, remote_slot *slot)
{
    remote *self = l->self;
    rt_error why = {0};
    const rt_status status =
        l->job->read(l->job->context, &l->reply, &slot->work, slot->streamed,
                     slot->answer.data ? slot->answer.data : "", slot->answer.size, &why);
    if (status == RT_OK) {
        l->refusals = 0;
        rt_flow_success(&self->flow, &slot->limits, slot->sent_at,
                        l->reply.usage.prompt + l->reply.usage.completion);
        finish(l, slot, RT_OK);
        return;
    }
    if (status == RT_NO_MEMORY) {
        stop(l, slot, status, "no memory for an answer");
        return;
    }
    slot->variant++; /* a server that keeps answers must not give this one again */
    slot->plain = slot->plain || slot->streamed;
    (void)snprintf(l->reply.error_text, sizeof l->reply.error_text, "%s", why.text);
    again(l, slot, status, status == RT_IO ? "server_error" : "invalid_answer");
}

static void on_limited(loop *l, remote_slot *slot)
{
    remote *self = l->self;
    const bool quota = strcmp(l->reply.error_code, "insufficient_quota") == 0 ||
                       (slot->limits.should_retry == 0 && slot->limits.retry_after_s < 0);
    if (quota) {
        stop(l, slot, RT_STOPPED, "the quota is used up");
        return;
    }
    self->limited++;
    const double wait = rt_flow_limited(&self->flow, &slot->limits, slot->sent_at);
    if (rt_flow_down(&self->flow) > self->options.patience_s + wait)
        stop(l, slot, RT_STOPPED, "nothing but 429 for too long");
    else
        wait_until(l, slot, self->flow.now + wait);
}

static bool is_passing(long http)
{
    return http == 408 || http == 409 || http == 500 || http == 502 || http == 503 || http == 504;
}

/* No connection at all, or a model still to be loaded, is the host's fault and not the row's, as long as the
 * host is expected back: because it was there before, or says that it will be. */
static void on_unreachable(loop *l, remote_slot *slot, const char *why, bool expected)
{
    remote *self = l->self;
    if (slot->sent_at >= self->flow.pause_until || l->unreachable == 0)
        l->unreachable++;
    if (why != l->reply.error_text)
        (void)snprintf(l->reply.error_text, sizeof l->reply.error_text, "%s", why);
    const bool given_up = self->flow.successes == 0 && !expected
                              ? l->unreachable >= self->options.attempts
                              : rt_flow_down(&self->flow) > self->options.patience_s;
    if (given_up) {
        stop(l, slot, RT_STOPPED, "the server cannot be reached");
        return;
    }
    rt_flow_unreachable(&self->flow, l->unreachable);
    wait_until(l, slot, self->flow.pause_until);
}

static void on_refusal(loop *l, remote_slot *slot, long http)
{
    remote *self = l->self;
    rt_answer_read_error(&l->reply, slot->answer.data ? slot->answer.data : "", slot->answer.size);
    const rt_answered *reply = &l->reply;
    if (http == 429) {
        on_limited(l, slot);
    } else if (http == 402 || strcmp(reply->error_code, "insufficient_quota") == 0) {
        stop(l, slot, RT_STOPPED, "the quota is used up");
    } else if (http == 401 || http == 403) {
        stop(l, slot, RT_FORBIDDEN, http == 401 ? "the key is refused (401)" : "access is refused (403)");
    } else if (http == 503 && (strcmp(reply->error_code, "model_loading") == 0 ||
                               strcasestr(reply->error_text, "loading model"))) {
        on_unreachable(l, slot, reply->error_text, true);
    } else if (is_passing(http) && slot->limits.should_retry != 0) {
        if (http == 503)
            rt_flow_overloaded(&self->flow, slot->sent_at);
        again(l, slot, RT_IO, "attempts");
    } else if (l->job->refused(l->job->context, &slot->work, reply) || slot->level != self->top_logprobs) {
        slot->variant++; /* with less, since the server does not know it */
        wait_until(l, slot, self->flow.now);
    } else if (http == 404 && (strstr(reply->error_code, "model") || strstr(reply->error_text, "model"))) {
        stop(l, slot, RT_NOT_FOUND, "the model is not there (404)");
    } else if (self->flow.successes == 0 && ++l->refusals >= REFUSALS_FIRST_MAX) {
        stop(l, slot, RT_INVALID, "every request so far was refused");
    } else {
        self->failures++;
        finish(l, slot, RT_INVALID);
    }
}

static void on_fault(loop *l, remote_slot *slot, CURLcode code)
{
    rt_answered *reply = &l->reply;
    if (code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_HOST ||
        code == CURLE_COULDNT_RESOLVE_PROXY) {
        on_unreachable(l, slot, curl_easy_strerror(code), false);
        return;
    }
    if (code == CURLE_OUT_OF_MEMORY) {
        stop(l, slot, RT_NO_MEMORY, "no memory for a request");
        return;
    }
    (void)snprintf(reply->error_text, sizeof reply->error_text, "%s",
                   slot->too_long ? "the answer is longer than 64 MiB" : curl_easy_strerror(code));
    if (code == CURLE_OPERATION_TIMEDOUT)
        rt_flow_overloaded(&l->self->flow, slot->sent_at);
    again(l, slot, slot->too_long ? RT_CORRUPT : RT_IO,
          code == CURLE_OPERATION_TIMEDOUT ? "timeout" : "connection");
}

static void on_done(loop *l, remote_slot *slot, CURLcode code)
{
    long http = 0;
    (void)curl_easy_getinfo(slot->easy, CURLINFO_RESPONSE_CODE, &http);
    (void)curl_multi_remove_handle(l->multi, slot->easy);
    l->n_flying--;
    rt_answered_reset(&l->reply);
    l->reply.http_status = (int)http;
    if (code != CURLE_OK) {
        on_fault(l, slot, code);
        return;
    }
    if (http != 503)
        l->unreachable = 0;
    if (http >= 200 && http < 300)
        on_answer(l, slot);
    else if (http >= 400)
        on_refusal(l, slot, http);
    else {
        (void)snprintf(l->reply.error_text, sizeof l->reply.error_text,
                       "the server answered with status %ld (an address that moved is not followed)", http);
        finish(l, slot, RT_INVALID);
    }
}

static void receive(loop *l)
{
    int running = 0, left = 0;
    (void)curl_multi_perform(l->multi, &running);
    for (CURLMsg *message = curl_multi_info_read(l->multi, &left); message;
         message = curl_multi_info_read(l->multi, &left)) {
        if (message->msg != CURLMSG_DONE)
            continue;
        char *slot = NULL;
        const CURLcode code = message->data.result;
        if (curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &slot) == CURLE_OK && slot)
            on_done(l, (remote_slot *)(void *)slot, code);
    }
}

/* ---- the loop ---- */

static rt_status tick(loop *l)
{
    remote *self = l->self;
    if (!l->job->tick)
        return RT_OK;
    const rt_teacher_state state = {.in_flight = l->n_flying,
                                    .limit = (size_t)self->flow.limit,
                                    .attempts = self->attempts,
                                    .retries = self->retries,
                                    .limited = self->limited,
                                    .failures = self->failures,
                                    .paused_s = rt_flow_pause(&self->flow),
                                    .notice = self->notice};
    rt_error why = {0};
    const rt_status status = l->job->tick(l->job->tick_context, &state, &why);
    if (status == RT_STOPPED) {
        l->draining = true;
        return RT_OK;
    }
    if (status != RT_OK)
        *l->err = why;
    return status;
}

static int sleep_ms(const loop *l)
{
    const rt_flow *flow = &l->self->flow;
    double wait = 0.001 * POLL_MS;
    const double pause = rt_flow_pause(flow);
    for (size_t i = 0; i < l->n_slots && l->n_waiting; i++)
        if (l->slots[i].state == SLOT_WAITING && l->slots[i].due - flow->now < wait)
            wait = l->slots[i].due - flow->now;
    wait = wait < pause ? pause : wait;
    wait = wait > 0.001 * POLL_MS ? 0.001 * POLL_MS : wait;
    return wait < 0.001 ? 1 : (int)(wait * 1000);
}

static bool is_finished(const loop *l)
{
    if (l->n_flying)
        return false;
    return l->draining || (l->ended && l->n_waiting == 0);
}

static rt_status turn(loop *l)
{
    remote *self = l->self;
    (void)rt_flow_time(&self->flow, self->clock(self->clock_context));
    if (tick(l) != RT_OK)
        return l->err->status;
    if (!l->draining && send_all(l) != RT_OK)
        return l->err->status;
    receive(l);
    if (l->stop != RT_OK && !l->draining)
        l->draining = true; /* what is in flight is paid for: it is awaited */
    if (is_finished(l))
        return RT_OK;
    (void)curl_multi_poll(l->multi, NULL, 0, sleep_ms(l), NULL);
    return RT_OK;
}

static void close_loop(loop *l)
{
    for (size_t i = 0; i < l->n_slots && l->slots; i++) {
        remote_slot *slot = &l->slots[i];
        if (slot->state == SLOT_FLYING)
            (void)curl_multi_remove_handle(l->multi, slot->easy);
        if (slot->easy)
            curl_easy_cleanup(slot->easy);
        if (slot->state != SLOT_FREE)
            json_decref(slot->work.body);
        curl_slist_free_all(slot->headers);
        rt_text_deinit(&slot->answer);
        free(slot->bytes);
    }
    free(l->slots);
    if (l->multi)
        (void)curl_multi_cleanup(l->multi);
    rt_answered_deinit(&l->reply);
}

rt_status remote_run(remote *self, const remote_job *job, rt_error *err)
{
    loop l = {.self = self, .job = job, .n_slots = (size_t)self->flow.limit_max, .err = err};
    if (self->flow.limit > self->flow.limit_max)
        l.n_slots = (size_t)self->flow.limit;
    l.slots = calloc(l.n_slots, sizeof *l.slots);
    l.multi = curl_multi_init();
    rt_answered_init(&l.reply);
    rt_status status = l.slots && l.multi ? RT_OK : no_memory(&l);
    if (status == RT_OK)
        (void)curl_multi_setopt(l.multi, CURLMOPT_MAXCONNECTS, (long)(2 * l.n_slots));
    while (status == RT_OK && !is_finished(&l))
        status = turn(&l);
    if (status == RT_OK && l.stop != RT_OK)
        status = l.stop;
    else if (status == RT_OK && l.draining)
        status = rt_error_set(err, RT_STOPPED, "stopped; what was in flight is answered");
    close_loop(&l);
    return status;
}
