/* serve/gateway_internal.h - what gateway.c (upstreams, transfers) and gateway_relay.c (one request) share.
 */
#ifndef RT_SERVE_GATEWAY_INTERNAL_H
#define RT_SERVE_GATEWAY_INTERNAL_H

#include <curl/curl.h>

#include "serve/gateway.h"
#include "serve/service.h"
#include "serve/sse.h"

typedef struct upstream {
    uint64_t id;  /* never used twice */
    size_t users; /* the gateway, relays, a check under way */
    char *base;   /* "http://host:port/v1" */
    char *texts;  /* what names of models point into */
    unsigned weight;
    rt_upstream_model *models;
    size_t n_models;
    char limit[32];            /* as rt_upstream */
    char *health;              /* the URL that is asked after it; NULL: nothing is */
    struct curl_slist *fields; /* sent with every request */
    int64_t current;           /* of the weighted turn */
    double down_until_s;       /* because of requests that failed */
    int failures;              /* of requests, one after the other */
    CURL *check;               /* while one runs */
    double check_at_s;
    bool sick;       /* because of checks */
    unsigned streak; /* of checks that say otherwise than `sick` */
    uint64_t requests, failed, checks_failed;
} upstream;

enum { IDLE_HANDLES_MAX = 256 };

struct rt_gateway {
    rt_serve *serve;
    CURLM *multi;
    struct event *timer;
    upstream *upstreams[RT_UPSTREAMS_MAX];
    size_t n_upstreams;
    uint64_t last_id;
    CURL *idle[IDLE_HANDLES_MAX];
    size_t n_idle;
    rt_relay *relays;
    uint64_t cut; /* streams that ended at what was reserved */
};

enum { ATTEMPTS_MAX = 2 };

struct rt_relay {
    rt_call *call;
    rt_gateway *gateway;
    rt_relay *prev, *next;
    CURL *easy; /* while the transfer runs */
    upstream *upstream;
    uint64_t tried[ATTEMPTS_MAX]; /* ids of upstreams */
    size_t attempts;
    rt_text rewritten; /* the body where it is not the client's own */
    bool wants_stream, added_usage;
    int status; /* of the upstream's answer */
    char type[128], retry_after[16], retry_after_ms[16];
    bool events, begun, paused, overflow, settling;
    rt_text body; /* an answer that is no stream */
    rt_sse sse;
    rt_text tail; /* the end of a stream, held until the row is on the disk */
    bool done_seen, broken;
    rt_sse_usage usage;
    size_t text_bytes;
    rt_text said; /* where answers are counted here */
    size_t reserved_prompt;
    size_t counted, counted_bytes, text_events; /* tokens of `said`[0..counted_bytes); events with text */
    uint64_t finished;                          /* choices among the first 64 that have their end */
    bool cut, mid_event;                        /* mid_event: what went down last is a piece of one */
    rt_text last;                               /* the event at which it was cut */
    /* More is being reserved beside the loop, and until that is known the answer waits. */
    struct rt_raise {
        rt_errand errand;
        struct rt_relay *relay;
        size_t missing, got; /* tokens */
    } raise;
    bool raising, no_room; /* no_room: there was none; what is reserved is all */
    rt_text held;          /* its events meanwhile: rt_held_event and the bytes */
    bool ended, stopped;   /* what happened meanwhile */
    CURLcode ended_result;
    rt_fault stop_fault;
    int settle_http; /* its end waits for a raise; 0: it does not */
};

/* gateway.c */
bool rt_gateway_start(rt_relay *relay); /* a transfer to relay->upstream */
void rt_gateway_cancel(rt_relay *relay);

/* gateway_upstreams.c */
/* NULL: no upstream has this model; *known false then.  Not one of `tried`. */
upstream *rt_gateway_pick(rt_gateway *gateway, const char *model, const uint64_t *tried, size_t n_tried,
                          bool *known);
const char *rt_upstream_remote(const upstream *up, const char *model); /* NULL: not there */
upstream *rt_upstream_retain(upstream *up);
void rt_upstream_release(upstream *up);
void rt_upstream_fared(upstream *up, bool well);
/* Checks that are due, once a second or so. */
void rt_gateway_check(rt_gateway *gateway, double now_s);
void rt_gateway_checked(rt_gateway *gateway, CURL *easy, CURLcode result, int status);
void rt_gateway_drop_upstreams(rt_gateway *gateway);

/* gateway_limit.c: an answer takes no more than is reserved for it */
/* The member to bound an answer with, and *tokens; NULL: the request needs none. */
const char *rt_limit_field(const rt_relay *relay, size_t *tokens);
typedef enum rt_cover {
    RT_COVERED,
    RT_COVER_WAITS, /* relay->raising: give it again after rt_relay_go_on */
    RT_COVER_FULL,  /* the stream must end before it */
} rt_cover;
/* May an event with text_bytes of text, already in relay->text_bytes and relay->said, go down?  More is
 * reserved for it where there is room. */
rt_cover rt_limit_covers(rt_relay *relay, const char *data, size_t size, size_t text_bytes);
/* Of the event at which a stream ends (relay->text_bytes and relay->said without it): appends it with as much
 * of its text as there is room for; false where there is none, or the text cannot be shortened. */
bool rt_limit_shorten(rt_relay *relay, const char *data, size_t size, rt_text *out);
/* What was used after all: reserves what is missing, as far as there is room.  false: relay->raising. */
bool rt_limit_cover_used(rt_relay *relay);
/* Appends the end of a stream that was cut, with finish_reason "length", to relay->tail. */
void rt_limit_close(rt_relay *relay);

/* gateway_relay.c: called by libcurl's callbacks */
void rt_relay_field(rt_relay *relay, const char *line, size_t size);
size_t rt_relay_bytes(rt_relay *relay, const char *data, size_t size); /* CURL_WRITEFUNC_PAUSE: later */
void rt_relay_ended(rt_relay *relay, CURLcode result);
void rt_relay_go_on(rt_relay *relay); /* it is no longer raising */
void rt_relay_stop(rt_relay *relay, const rt_fault *fault);

#endif
