/* serve/guard_desk.c - see guard_desk.h. */
#include "serve/guard_desk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guard/view.h"

static const char prefix[] = "/admin/v1/guard/";
enum { POLICY_BYTES_MAX = 64 << 10 };

typedef struct ask { /* what is asked for; one of the members */
    const char *account;
    double q;
    uint32_t cluster;
    const rt_guard_policy *policy; /* in force */
    rt_guard_policy_file *other;
} ask;

static json_t *look_review(void *context, const rt_guard *guard, const rt_ladders *ladders)
{
    return rt_guard_view_review(guard, ladders, ((const ask *)context)->q);
}

static json_t *look_account(void *context, const rt_guard *guard, const rt_ladders *ladders)
{
    const rt_guard_account *account = rt_guard_find(guard, ((const ask *)context)->account);
    return account ? rt_guard_view_account(guard, ladders, account) : NULL;
}

static json_t *look_clusters(void *context, const rt_guard *guard, const rt_ladders *ladders)
{
    (void)context;
    (void)ladders;
    return rt_guard_view_clusters(guard);
}

static json_t *look_cluster(void *context, const rt_guard *guard, const rt_ladders *ladders)
{
    return rt_guard_view_cluster(guard, ladders, ((const ask *)context)->cluster);
}

static json_t *look_calibration(void *context, const rt_guard *guard, const rt_ladders *ladders)
{
    (void)ladders;
    return rt_guard_view_calibration(guard, ((const ask *)context)->policy);
}

static json_t *look_what_if(void *context, const rt_guard *guard, const rt_ladders *ladders)
{
    const ask *a = context;
    (void)ladders;
    return rt_guard_view_what_if(guard, a->policy, rt_guard_policy_of(a->other));
}

static rt_desk_reply refuse(int http, const char *param, const char *message)
{
    json_t *body =
        rt_error_body("invalid_request_error", http == 404 ? "not_found" : "invalid_value", param, message);
    return (rt_desk_reply){http, body ? body : json_object()};
}

static rt_desk_reply reply_of(json_t *body, const char *missing)
{
    return body ? (rt_desk_reply){200, body} : refuse(404, NULL, missing);
}

static rt_desk_reply what_if(rt_watch *watch, ask *a, const json_t *body)
{
    const json_t *text = json_object_get(body, "policy");
    rt_error err = {0};
    if (!json_is_string(text) || json_string_length(text) > POLICY_BYTES_MAX)
        return refuse(400, "policy", "policy: expected the text of a policy (YAML)");
    if (rt_guard_policy_read(&a->other, json_string_value(text), json_string_length(text), "policy", &err) !=
        RT_OK)
        return refuse(400, "policy", err.text);
    const rt_desk_reply reply = reply_of(rt_watch_view(watch, look_what_if, a), "out of memory");
    rt_guard_policy_close(a->other);
    return reply;
}

static void tell_rows(json_t *rows, const json_t *cases)
{
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        const char *name = json_string_value(json_object_get(row, "account"));
        json_t *about = name ? json_object_get(cases, name) : NULL;
        (void)json_object_set_new(row, "case", about ? json_incref(about) : json_null());
    }
}

void rt_guard_desk_tell_cases(json_t *body, const json_t *cases)
{
    size_t i;
    json_t *item;
    tell_rows(json_object_get(body, "members"), cases);
    json_array_foreach(json_object_get(body, "items"), i, item)
        tell_rows(json_object_get(item, "accounts"), cases);
}

bool rt_guard_desk_is(const char *path) { return strncmp(path, prefix, sizeof prefix - 1) == 0; }

rt_desk_reply rt_guard_desk_call(rt_watch *watch, const char *method, const char *path, const char *query,
                                 const json_t *body)
{
    if (!watch)
        return refuse(404, NULL, "no guard runs: serve with --guard");
    const char *word = path + sizeof prefix - 1;
    ask a = {.q = 0.1, .policy = rt_watch_policy(watch)};
    if (strcmp(word, "what-if") == 0 && strcmp(method, "POST") == 0)
        return what_if(watch, &a, body);
    if (strcmp(method, "GET") != 0)
        return refuse(405, NULL, "this is only read: GET");
    if (strcmp(word, "review") == 0) {
        if (query && strncmp(query, "q=", 2) == 0)
            a.q = strtod(query + 2, NULL);
        if (!(a.q > 0) || a.q > 1)
            return refuse(400, "q", "q: expected a share over 0 and up to 1");
        return reply_of(rt_watch_view(watch, look_review, &a), "out of memory");
    }
    if (strncmp(word, "accounts/", 9) == 0) {
        a.account = word + 9;
        return reply_of(rt_watch_view(watch, look_account, &a),
                        "the guard has seen no request of this account");
    }
    if (strcmp(word, "clusters") == 0)
        return reply_of(rt_watch_view(watch, look_clusters, &a), "out of memory");
    if (strncmp(word, "clusters/", 9) == 0) {
        a.cluster = (uint32_t)strtoul(word + 9, NULL, 10);
        return reply_of(rt_watch_view(watch, look_cluster, &a),
                        "no cluster has this number: sweeps number them anew");
    }
    if (strcmp(word, "calibration") == 0)
        return reply_of(rt_watch_view(watch, look_calibration, &a), "out of memory");
    return refuse(404, NULL, "there is nothing at this path");
}
