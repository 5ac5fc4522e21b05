/* teacher/flow.c - when to send, how many at once, how long to wait; see flow.h. */
#include "teacher/flow.h"

#include <curl/curl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Waits are never longer than this, whatever a server says: the wall is looked at again. */
static const double WAIT_MAX_S = 3600, RESET_MAX_S = 120, JUMP_S = 60;
/* Answers faster than this say nothing about load. */
static const double MEASURED_MS = 250;

/* ---- headers ---- */

void rt_flow_headers_clear(rt_flow_headers *headers) { *headers = (rt_flow_headers){-1, -1, -1, -1, -1, -1}; }

static bool read_number(double *out, const char *text, const char *end, const char **rest)
{
    char copy[32], *stop = NULL;
    const size_t n = (size_t)(end - text) < sizeof copy - 1 ? (size_t)(end - text) : sizeof copy - 1;
    memcpy(copy, text, n);
    copy[n] = '\0';
    if (copy[0] != '.' && (copy[0] < '0' || copy[0] > '9'))
        return false;
    *out = strtod(copy, &stop);
    if (stop == copy || !isfinite(*out))
        return false;
    *rest = text + (stop - copy);
    return true;
}

double rt_flow_duration(const char *text, size_t size)
{
    static const struct {
        const char *unit;
        double seconds;
    } units[] = {{"ms", 1e-3}, {"us", 1e-6}, {"h", 3600}, {"m", 60}, {"s", 1}, {"d", 86400}};
    const char *end = text + size, *at = text;
    double total = 0;
    while (at < end) {
        double x;
        if (!read_number(&x, at, end, &at))
            return -1;
        size_t i = 0;
        for (; i < sizeof units / sizeof units[0]; i++) {
            const size_t n = strlen(units[i].unit);
            if ((size_t)(end - at) >= n && strncasecmp(at, units[i].unit, n) == 0) {
                at += n;
                break;
            }
        }
        if (i == sizeof units / sizeof units[0]) /* bare seconds, and nothing after them */
            return at == end && total == 0 ? x : -1;
        total += x * units[i].seconds;
    }
    return size ? total : -1;
}

static double wait_of(const char *value, size_t size, int64_t unix_now)
{
    const double seconds = rt_flow_duration(value, size);
    if (seconds >= 0)
        return fmin(seconds, WAIT_MAX_S);
    char copy[64];
    if (size >= sizeof copy)
        return -1;
    memcpy(copy, value, size);
    copy[size] = '\0';
    const time_t when = curl_getdate(copy, NULL);
    return when == (time_t)-1 ? -1 : fmin(fmax((double)((int64_t)when - unix_now), 0), WAIT_MAX_S);
}

static double count_of(const char *value, size_t size)
{
    double x;
    const char *rest;
    return read_number(&x, value, value + size, &rest) && rest == value + size ? x : -1;
}

void rt_flow_headers_read(rt_flow_headers *headers, const char *line, size_t size, int64_t unix_now)
{
    const char *colon = memchr(line, ':', size);
    if (!colon)
        return;
    const size_t name = (size_t)(colon - line);
    const char *value = colon + 1, *end = line + size;
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    while (end > value && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r' || end[-1] == '\n'))
        end--;
    const size_t n = (size_t)(end - value);
#define IS(text) (name == sizeof(text) - 1 && strncasecmp(line, text, name) == 0)
    if (IS("retry-after-ms")) {
        const double ms = count_of(value, n);
        if (ms >= 0)
            headers->retry_after_s = fmin(ms / 1000, WAIT_MAX_S);
    } else if (IS("retry-after")) {
        if (headers->retry_after_s < 0)
            headers->retry_after_s = wait_of(value, n, unix_now);
    } else if (IS("x-ratelimit-remaining-requests")) {
        headers->remaining_requests = count_of(value, n);
    } else if (IS("x-ratelimit-remaining-tokens")) {
        headers->remaining_tokens = count_of(value, n);
    } else if (IS("x-ratelimit-reset-requests")) {
        headers->reset_requests_s = rt_flow_duration(value, n);
    } else if (IS("x-ratelimit-reset-tokens")) {
        headers->reset_tokens_s = rt_flow_duration(value, n);
    } else if (IS("x-should-retry")) {
        headers->should_retry = n == 4 && strncasecmp(value, "true", 4) == 0    ? 1
                                : n == 5 && strncasecmp(value, "false", 5) == 0 ? 0
                                                                                : -1;
    }
#undef IS
}

/* ---- state ---- */

void rt_flow_init(rt_flow *flow, size_t concurrency, size_t concurrency_max, uint64_t seed)
{
    *flow = (rt_flow){.limit_max = (double)(concurrency_max ? concurrency_max : 1),
                      .fixed = concurrency > 0,
                      .halved_at = -1,
                      .remaining_requests = -1,
                      .remaining_tokens = -1,
                      .first_failure = -1,
                      .rng = rt_rng_make(seed, 0x666c6f77)};
    flow->limit = concurrency ? (double)concurrency : fmin(4, flow->limit_max);
}

double rt_flow_time(rt_flow *flow, double clock_s)
{
    if (flow->started) {
        const double gone = clock_s - flow->raw;
        if (gone > 0 && gone <= JUMP_S)
            flow->now += gone;
        else if (gone != 0)
            flow->now += 0.05; /* a jump: time goes on all the same */
    }
    flow->started = true;
    flow->raw = clock_s;
    return flow->now;
}

static bool window_closed(double *remaining, double need, double reset_at, double now)
{
    if (*remaining < 0)
        return false;
    if (now >= reset_at) {
        *remaining = -1; /* a new window, of which the next answer will tell */
        return false;
    }
    return *remaining < need;
}

bool rt_flow_may_send(rt_flow *flow, size_t in_flight)
{
    if (flow->now < flow->pause_until || (double)in_flight + 1 > flow->limit)
        return false;
    if (flow->pause_until > 0 && flow->limited_in_a_row && in_flight > 0)
        return false; /* after a pause one goes ahead and tries */
    if (window_closed(&flow->remaining_requests, 1, flow->requests_reset_at, flow->now) ||
        window_closed(&flow->remaining_tokens, fmax(flow->tokens_per_request, 1), flow->tokens_reset_at,
                      flow->now))
        return false;
    if (flow->remaining_requests >= 0)
        flow->remaining_requests--;
    if (flow->remaining_tokens >= 0)
        flow->remaining_tokens -= fmax(flow->tokens_per_request, 1);
    return true;
}

double rt_flow_pause(const rt_flow *flow)
{
    double until = flow->pause_until;
    if (flow->remaining_requests >= 0 && flow->remaining_requests < 1)
        until = fmax(until, flow->requests_reset_at);
    if (flow->remaining_tokens >= 0 && flow->remaining_tokens < fmax(flow->tokens_per_request, 1))
        until = fmax(until, flow->tokens_reset_at);
    return fmax(until - flow->now, 0);
}

static void halve(rt_flow *flow, double sent_at)
{
    flow->loaded = true;
    if (flow->fixed || sent_at <= flow->halved_at)
        return;
    flow->limit = fmax(floor(flow->limit / 2), 1);
    flow->halved_at = flow->now;
    flow->measured = 0;
}

/* The server's count covers what it has seen; what was sent after this answer's request may not be in it,
 * so our own count, where it is lower, stays until the window ends. */
static void note_window(double *remaining, double *reset_at, double said, double reset_s, double now)
{
    if (said < 0 || reset_s < 0)
        return;
    if (*remaining < 0 || said < *remaining || now >= *reset_at)
        *remaining = said;
    *reset_at = now + fmin(reset_s, RESET_MAX_S);
}

static void note_headers(rt_flow *flow, const rt_flow_headers *headers)
{
    note_window(&flow->remaining_requests, &flow->requests_reset_at, headers->remaining_requests,
                headers->reset_requests_s, flow->now);
    note_window(&flow->remaining_tokens, &flow->tokens_reset_at, headers->remaining_tokens,
                headers->reset_tokens_s, flow->now);
}

static void measure(rt_flow *flow, double sent_at, uint64_t tokens)
{
    const double ms = (flow->now - sent_at) * 1000;
    if (tokens < 4 || ms < MEASURED_MS)
        return;
    const double one = ms / (double)tokens;
    flow->ms_per_token = flow->measured ? 0.8 * flow->ms_per_token + 0.2 * one : one;
    flow->measured++;
    if (flow->base_ms_per_token == 0 || flow->ms_per_token < flow->base_ms_per_token)
        flow->base_ms_per_token = flow->ms_per_token;
    if (flow->measured >= 8 && flow->ms_per_token > 2 * flow->base_ms_per_token &&
        sent_at > flow->halved_at) {
        halve(flow, sent_at);
        flow->base_ms_per_token *= 1.1; /* a host that has become slower for good is believed in the end */
    }
}

void rt_flow_success(rt_flow *flow, const rt_flow_headers *headers, double sent_at, uint64_t tokens)
{
    flow->successes++;
    flow->limited_in_a_row = 0;
    flow->first_failure = -1;
    flow->last_success = flow->now;
    flow->tokens_per_request =
        flow->tokens_per_request > 0 ? 0.9 * flow->tokens_per_request + 0.1 * (double)tokens : (double)tokens;
    note_headers(flow, headers);
    if (!flow->fixed && sent_at > flow->halved_at)
        flow->limit = fmin(flow->limit + (flow->loaded ? 1 / flow->limit : 1), flow->limit_max);
    measure(flow, sent_at, tokens);
}

static void failed(rt_flow *flow)
{
    if (flow->first_failure < 0)
        flow->first_failure = flow->now;
}

static double jitter(rt_flow *flow, unsigned times)
{
    const double cap = fmin(0.5 * ldexp(1, (int)(times < 16 ? times : 16)), 60);
    return rt_rng_uniform(&flow->rng) * cap;
}

double rt_flow_limited(rt_flow *flow, const rt_flow_headers *headers, double sent_at)
{
    failed(flow);
    note_headers(flow, headers);
    if (sent_at >= flow->pause_until || flow->limited_in_a_row == 0) /* one storm counts once */
        flow->limited_in_a_row++;
    halve(flow, sent_at);
    /* a server that says when is believed; one that does not is asked ever more seldom */
    const unsigned times = headers->retry_after_s >= 0 ? 0 : flow->limited_in_a_row - 1;
    double wait = fmax(headers->retry_after_s, jitter(flow, times));
    if (headers->retry_after_s < 0 && headers->remaining_requests == 0)
        wait = fmax(wait, fmin(headers->reset_requests_s, RESET_MAX_S));
    if (headers->retry_after_s < 0 && headers->remaining_tokens == 0)
        wait = fmax(wait, fmin(headers->reset_tokens_s, RESET_MAX_S));
    if (sent_at >= flow->pause_until || headers->retry_after_s >= 0)
        flow->pause_until = fmax(flow->pause_until, flow->now + wait);
    return fmax(flow->pause_until - flow->now, 0);
}

void rt_flow_overloaded(rt_flow *flow, double sent_at)
{
    failed(flow);
    halve(flow, sent_at);
}

void rt_flow_unreachable(rt_flow *flow, unsigned times_in_a_row)
{
    failed(flow);
    const double wait = fmin(0.1 + jitter(flow, times_in_a_row - 1), 10); /* a restart is noticed soon */
    if (flow->now >= flow->pause_until)
        flow->pause_until = flow->now + wait;
    if (flow->limited_in_a_row == 0)
        flow->limited_in_a_row = 1; /* one goes ahead and tries */
}

double rt_flow_backoff(rt_flow *flow, unsigned attempt, const rt_flow_headers *headers)
{
    failed(flow);
    return fmax(headers->retry_after_s, jitter(flow, attempt >= 2 ? attempt - 2 : 0));
}

double rt_flow_down(const rt_flow *flow)
{
    return flow->first_failure < 0 ? 0 : flow->now - flow->first_failure;
}
