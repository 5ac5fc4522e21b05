/* serve/gateway.h - in front of other OpenAI-compatible servers: their answers, this server's accounts,
 * limits and ledger (API.md 11).
 *
 * A request's bytes go up as they came, except for the name of its model where that is mapped and
 * stream_options.include_usage, which is asked for so that a stream can be charged (its chunk is taken out
 * again when the client did not ask).  Events come down as they are, each as soon as it is whole.  One loop:
 * transfers are libcurl's, driven by the server's events. */
#ifndef RT_SERVE_GATEWAY_H
#define RT_SERVE_GATEWAY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/json.h"
#include "base/text.h"

enum { RT_UPSTREAMS_MAX = 16, RT_UPSTREAM_MODELS_MAX = 64 };

typedef struct rt_upstream_model {
    const char *name, *remote; /* what clients say, what the upstream says */
} rt_upstream_model;

typedef struct rt_upstream {         /* copied */
    const char *url;                 /* "http://host:port/v1", with or without /v1 */
    const char *key;                 /* sent as a bearer token; NULL: none */
    unsigned weight;                 /* >= 1 */
    const rt_upstream_model *models; /* none: every model, unmapped */
    size_t n_models;
    /* The member that bounds an answer of chat/completions whose request names no bound; NULL: "max_tokens";
     * "": such requests of any endpoint go up without. */
    const char *limit;
    const char *health; /* what is asked after below the URL; NULL: "/models"; "": nothing */
} rt_upstream;

/* Upstreams are asked after on their own, so that one that is away costs no request. */
typedef struct rt_health_options {
    double interval_s; /* 0: they are not */
    unsigned fall;     /* so many checks must fail one after the other before it gets no requests */
    unsigned rise;     /* and so many be answered before it gets some again */
} rt_health_options;

typedef struct rt_gateway rt_gateway;
typedef struct rt_relay rt_relay; /* one request on its way */
struct rt_serve;
struct rt_call;

rt_status rt_gateway_open(rt_gateway **out, struct rt_serve *serve, rt_error *err);
/* No relay is left: their clients are gone (rt_http_server_close). */
void rt_gateway_close(rt_gateway *gateway);
bool rt_gateway_busy(const rt_gateway *gateway); /* NULL: no */
/* false: checks have found that no upstream answers. */
bool rt_gateway_ready(const rt_gateway *gateway);
/* Other upstreams from the next request on; those under way end where they are.  What is known about the
 * health of one whose URL stays is kept.  On failure nothing has changed. */
rt_status rt_gateway_change(rt_gateway *gateway, const rt_upstream *upstreams, size_t n, rt_error *err);
void rt_gateway_metrics(const rt_gateway *gateway, rt_text *out);
/* Appends what is under way, as the admin API shows it, to a list. */
void rt_gateway_live(const rt_gateway *gateway, double now, json_t *list);
/* Once a second or so: streams of accounts that were suspended end, and all at `cut`. */
void rt_gateway_tick(rt_gateway *gateway, bool look, bool cut);

/* Routes. */
void rt_run_relay(struct rt_call *call);     /* POST: admitted, relayed, charged */
void rt_run_relay_get(struct rt_call *call); /* GET /v1/models */
/* Of a call with a relay. */
void rt_relay_forget(struct rt_call *call); /* the upstream that was chosen before it was admitted */
void rt_relay_gone(struct rt_call *call);
void rt_relay_drained(struct rt_call *call);
void rt_relay_deliver(struct rt_call *call); /* its ledger row is on the disk */

#endif
