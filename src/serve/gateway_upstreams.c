/* serve/gateway_upstreams.c - the upstreams of a gateway: which one gets a request, how they do, and other
 * ones while requests are under way.
 *
 * Two things keep requests from an upstream: requests that failed (it is left alone for a while that
 * doubles), and checks of our own that failed.  Where all are kept from, one is tried all the same: it may be
 * back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "serve/gateway_internal.h"

enum { DOWN_FIRST_S = 1, DOWN_MAX_S = 30, CHECK_TIMEOUT_MS = 5000 };

/* ---- which one ---- */

const char *rt_upstream_remote(const upstream *up, const char *model)
{
    if (up->n_models == 0)
        return model;
    for (size_t i = 0; i < up->n_models; i++)
        if (strcmp(up->models[i].name, model) == 0)
            return up->models[i].remote;
    return NULL;
}

static bool was_tried(const upstream *up, const uint64_t *tried, size_t n_tried)
{
    for (size_t i = 0; i < n_tried; i++)
        if (tried[i] == up->id)
            return true;
    return false;
}

/* The smooth weighted turn: each candidate gains its weight, the richest pays the sum. */
static upstream *take_turn(rt_gateway *g, const char *model, const uint64_t *tried, size_t n_tried,
                           bool only_up, double now_s)
{
    upstream *best = NULL;
    int64_t sum = 0;
    for (size_t i = 0; i < g->n_upstreams; i++) {
        upstream *up = g->upstreams[i];
        if (was_tried(up, tried, n_tried) || !rt_upstream_remote(up, model) ||
            (only_up && (up->sick || up->down_until_s > now_s)))
            continue;
        up->current += up->weight;
        sum += up->weight;
        if (!best || up->current > best->current)
            best = up;
    }
    if (best)
        best->current -= sum;
    return best;
}

upstream *rt_gateway_pick(rt_gateway *gateway, const char *model, const uint64_t *tried, size_t n_tried,
                          bool *known)
{
    const double now_s = rt_clock_seconds();
    *known = false;
    for (size_t i = 0; i < gateway->n_upstreams; i++)
        *known = *known || rt_upstream_remote(gateway->upstreams[i], model);
    upstream *up = take_turn(gateway, model, tried, n_tried, true, now_s);
    return up ? up : take_turn(gateway, model, tried, n_tried, false, now_s);
}

void rt_upstream_fared(upstream *up, bool well)
{
    if (well) {
        up->failures = 0;
        up->down_until_s = 0;
        return;
    }
    int wait_s = DOWN_FIRST_S;
    for (int i = 0; i < up->failures && wait_s < DOWN_MAX_S; i++)
        wait_s *= 2;
    up->failures++;
    up->failed++;
    up->down_until_s = rt_clock_seconds() + (wait_s < DOWN_MAX_S ? wait_s : DOWN_MAX_S);
}

/* ---- checks ---- */

static size_t ignore_bytes(char *data, size_t one, size_t size, void *context)
{
    (void)data;
    (void)context;
    return one * size;
}

static void begin_check(rt_gateway *g, upstream *up)
{
    CURL *easy = curl_easy_init();
    bool good = easy != NULL;
#define SET(option, value) good = good && curl_easy_setopt(easy, option, value) == CURLE_OK
    SET(CURLOPT_URL, up->health);
    SET(CURLOPT_HTTPHEADER, up->fields);
    SET(CURLOPT_WRITEFUNCTION, ignore_bytes);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_TIMEOUT_MS, (long)CHECK_TIMEOUT_MS);
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_NOPROXY, "localhost,127.0.0.1,::1");
#undef SET
    if (good && curl_multi_add_handle(g->multi, easy) == CURLM_OK)
        up->check = easy;
    else if (easy)
        curl_easy_cleanup(easy);
}

void rt_gateway_check(rt_gateway *gateway, double now_s)
{
    const double interval_s = gateway->serve->options.health.interval_s;
    for (size_t i = 0; i < gateway->n_upstreams && interval_s > 0; i++) {
        upstream *up = gateway->upstreams[i];
        if (!up->health || up->check || now_s < up->check_at_s)
            continue;
        up->check_at_s = now_s + interval_s;
        begin_check(gateway, up);
    }
}

static void end_check(rt_gateway *g, upstream *up)
{
    if (!up->check)
        return;
    (void)curl_multi_remove_handle(g->multi, up->check);
    curl_easy_cleanup(up->check);
    up->check = NULL;
}

/* An answer of any kind is a sign of life, but for faults of the server and for a key that is not taken. */
void rt_gateway_checked(rt_gateway *gateway, CURL *easy, CURLcode result, int status)
{
    const rt_health_options *health = &gateway->serve->options.health;
    const bool well = result == CURLE_OK && status < 500 && status != 401 && status != 403;
    for (size_t i = 0; i < gateway->n_upstreams; i++) {
        upstream *up = gateway->upstreams[i];
        if (up->check != easy)
            continue;
        end_check(gateway, up);
        up->checks_failed += !well;
        up->streak = well == up->sick ? up->streak + 1 : 0;
        if (up->streak >= (up->sick ? health->rise : health->fall)) {
            up->sick = !up->sick;
            up->streak = 0;
        }
        if (well && !up->sick)
            up->down_until_s = 0; /* it may be asked again before its time is over */
    }
}

bool rt_gateway_ready(const rt_gateway *gateway)
{
    for (size_t i = 0; i < gateway->n_upstreams; i++)
        if (!gateway->upstreams[i]->sick)
            return true;
    return false;
}

/* Upstreams are told by their place in the settings: their URLs may hold what is nobody's business. */
void rt_gateway_metrics(const rt_gateway *gateway, rt_text *out)
{
    const rt_gateway *g = gateway;
    const double now_s = rt_clock_seconds();
    rt_text_puts(out, "# TYPE retort_upstream_up gauge\n");
    for (size_t i = 0; i < g->n_upstreams; i++)
        rt_text_printf(out, "retort_upstream_up{upstream=\"%zu\"} %d\n", i,
                       !g->upstreams[i]->sick && g->upstreams[i]->down_until_s <= now_s);
    rt_text_puts(out, "# TYPE retort_upstream_requests_total counter\n");
    for (size_t i = 0; i < g->n_upstreams; i++)
        rt_text_printf(out, "retort_upstream_requests_total{upstream=\"%zu\"} %llu\n", i,
                       (unsigned long long)g->upstreams[i]->requests);
    rt_text_puts(out, "# TYPE retort_upstream_failed_total counter\n");
    for (size_t i = 0; i < g->n_upstreams; i++)
        rt_text_printf(out, "retort_upstream_failed_total{upstream=\"%zu\"} %llu\n", i,
                       (unsigned long long)g->upstreams[i]->failed);
    rt_text_puts(out, "# TYPE retort_upstream_checks_failed_total counter\n");
    for (size_t i = 0; i < g->n_upstreams; i++)
        rt_text_printf(out, "retort_upstream_checks_failed_total{upstream=\"%zu\"} %llu\n", i,
                       (unsigned long long)g->upstreams[i]->checks_failed);
    rt_text_printf(out,
                   "# TYPE retort_gateway_cut_total counter\n"
                   "retort_gateway_cut_total %llu\n",
                   (unsigned long long)g->cut);
}

/* ---- life ---- */

upstream *rt_upstream_retain(upstream *up)
{
    up->users++;
    return up;
}

void rt_upstream_release(upstream *up)
{
    if (!up || --up->users > 0)
        return;
    free(up->base);
    free(up->texts);
    free(up->models);
    free(up->health);
    curl_slist_free_all(up->fields);
    free(up);
}

static bool add_field(upstream *up, const char *text)
{
    struct curl_slist *longer = curl_slist_append(up->fields, text);
    if (longer)
        up->fields = longer;
    return longer != NULL;
}

static bool make_fields(upstream *up, const char *key)
{
    rt_text text = {0};
    bool good = add_field(up, "Content-Type: application/json") &&
                add_field(up, "Accept: application/json, text/event-stream") && add_field(up, "Expect:") &&
                add_field(up, "User-Agent: retort-gateway");
    if (key && good) {
        rt_text_printf(&text, "Authorization: Bearer %s", key);
        good = !text.failed && add_field(up, text.data);
        rt_text_deinit(&text);
    }
    return good;
}

/* The names, one after the other, in memory of its own. */
static bool copy_models(upstream *up, const rt_upstream *from)
{
    rt_text all = {0};
    up->n_models = from->n_models;
    up->models = calloc(from->n_models + 1, sizeof *up->models);
    for (size_t i = 0; i < from->n_models; i++) {
        rt_text_append(&all, from->models[i].name, strlen(from->models[i].name) + 1);
        rt_text_append(&all, from->models[i].remote, strlen(from->models[i].remote) + 1);
    }
    if (!up->models || all.failed) {
        rt_text_deinit(&all);
        return false;
    }
    up->texts = all.data;
    const char *at = up->texts;
    for (size_t i = 0; i < from->n_models; i++) {
        up->models[i].name = at;
        at += strlen(at) + 1;
        up->models[i].remote = at;
        at += strlen(at) + 1;
    }
    return true;
}

static upstream *upstream_new(const rt_upstream *from)
{
    upstream *up = calloc(1, sizeof *up);
    rt_text base = {0}, health = {0};
    if (!up)
        return NULL;
    *up = (upstream){.users = 1, .weight = from->weight ? from->weight : 1};
    (void)snprintf(up->limit, sizeof up->limit, "%s", from->limit ? from->limit : "max_tokens");
    size_t size = strlen(from->url);
    while (size > 0 && from->url[size - 1] == '/')
        size--;
    rt_text_append(&base, from->url, size);
    if (size < 3 || strncmp(from->url + size - 3, "/v1", 3) != 0)
        rt_text_puts(&base, "/v1");
    const char *asked = from->health ? from->health : "/models";
    if (*asked && base.data)
        rt_text_printf(&health, "%s%s", base.data, asked);
    up->base = base.data;
    up->health = health.data;
    if (!base.failed && !health.failed && make_fields(up, from->key) && copy_models(up, from))
        return up;
    rt_upstream_release(up);
    return NULL;
}

void rt_gateway_drop_upstreams(rt_gateway *gateway)
{
    for (size_t i = 0; i < gateway->n_upstreams; i++) {
        end_check(gateway, gateway->upstreams[i]);
        rt_upstream_release(gateway->upstreams[i]);
    }
    gateway->n_upstreams = 0;
}

static void take_over(upstream *up, const rt_gateway *g)
{
    for (size_t i = 0; i < g->n_upstreams; i++) {
        const upstream *old = g->upstreams[i];
        if (strcmp(old->base, up->base) != 0)
            continue;
        up->sick = old->sick;
        up->failures = old->failures;
        up->down_until_s = old->down_until_s;
        up->requests = old->requests;
        up->failed = old->failed;
        up->checks_failed = old->checks_failed;
        return;
    }
}

rt_status rt_gateway_change(rt_gateway *gateway, const rt_upstream *upstreams, size_t n, rt_error *err)
{
    upstream *fresh[RT_UPSTREAMS_MAX];
    if (n == 0 || n > RT_UPSTREAMS_MAX)
        return rt_error_set(err, RT_INVALID, "a gateway has 1 to %d upstreams", RT_UPSTREAMS_MAX);
    for (size_t i = 0; i < n; i++) {
        fresh[i] = upstream_new(&upstreams[i]);
        if (!fresh[i]) {
            while (i-- > 0)
                rt_upstream_release(fresh[i]);
            return rt_error_set(err, RT_NO_MEMORY, "no memory for the upstreams");
        }
        fresh[i]->id = ++gateway->last_id;
        take_over(fresh[i], gateway);
    }
    rt_gateway_drop_upstreams(gateway);
    memcpy(gateway->upstreams, fresh, n * sizeof *fresh);
    gateway->n_upstreams = n;
    return RT_OK;
}
