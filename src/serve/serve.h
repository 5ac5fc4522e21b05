/* serve/serve.h - the server: models behind the HTTP surface of API.md.
 *
 * One event loop (the thread that calls rt_serve_run) owns sockets, requests and answers; the engine's thread
 * owns the models' sessions. */
#ifndef RT_SERVE_SERVE_H
#define RT_SERVE_SERVE_H

#include "account/gate.h"
#include "serve/engine.h"
#include "serve/gateway.h"
#include "serve/http.h"
#include "serve/marking.h"
#include "serve/request.h"
#include "serve/canaries.h"
#include "serve/capture.h"
#include "serve/twins.h"
#include "serve/watch.h"

enum { RT_SERVE_MODELS_MAX = 16, RT_SERVE_ALIASES_MAX = 16, RT_SERVE_ORIGINS_MAX = 16 };

typedef struct rt_serve_model { /* borrowed for the server's life */
    const char *id;
    const rt_model *model;
    const rt_tokenizer *tokenizer;
    const rt_chat_template *chat_template; /* or NULL */
    const char *quant;                     /* "Q4_1", ... for /v1/models */
    const char *sha256;                    /* of the weight file, or NULL */
    int64_t created;                       /* Unix seconds */
    const rt_marking *marking;             /* a watermark on its answers; NULL: none */
} rt_serve_model;

typedef struct rt_serve_alias {
    const char *name, *model; /* another name for a model's id */
} rt_serve_alias;

typedef struct rt_serve_options { /* borrowed for the server's life */
    const rt_serve_model *models;
    size_t n_models;
    const rt_serve_alias *aliases;
    size_t n_aliases;
    const char *host;
    int port;                         /* 0: a free one */
    size_t n_slots, n_positions;      /* of each model; n_positions 0: the model's context */
    size_t prefill_tokens, queue_max; /* 0: the engine's defaults */
    size_t prefix_bytes;              /* of all models, for prompts that begin like earlier ones; 0: none */
    bool prefix_share_all;            /* earlier ones of every account, not only of one's own */
    double request_timeout_s, drain_s;
    bool open_tokenizer, metrics_open; /* no key needed for these */
    bool reasoning;                    /* think tags become reasoning_content */
    const char *const *origins;        /* allowed by CORS */
    size_t n_origins;
    rt_http_options http;
    /* One line of JSON a request, without newline; NULL: no log. */
    void (*log)(void *context, const char *line);
    void (*reload)(void *context); /* on SIGHUP, in the loop's thread; NULL: nothing */
    void *context;
    rt_gate *gate;          /* accounts; borrowed; NULL: everybody may */
    rt_watch *watch;        /* the guard; borrowed; NULL: nobody is judged */
    rt_twins *twins;        /* borrowed; NULL: every answer is drawn once */
    rt_canaries *canaries;  /* borrowed; NULL: no answer holds one */
    rt_capture *capture;    /* borrowed; NULL: answers are not kept */
    const rt_terms *terms;  /* for an account's own view; NULL: none */
    const char *admin_host; /* where /admin/v1 listens; NULL: nowhere */
    int admin_port;
    bool admin_port_any; /* any free one when that is taken */
    /* A gateway: requests go to these, and there are no models of its own (n_models 0). */
    const rt_upstream *upstreams;
    size_t n_upstreams;
    rt_health_options health;
    const rt_tokenizer
        *counter;       /* counts what an upstream does not; borrowed; NULL: bytes/4, marked as estimated */
    bool ledger_behind; /* a gateway's answers do not wait until their rows are on the disk */
    bool signals;       /* SIGTERM and SIGINT drain, SIGHUP reloads */
} rt_serve_options;
rt_serve_options rt_serve_options_default(void);

typedef struct rt_serve rt_serve;
rt_status rt_serve_open(rt_serve **out, const rt_serve_options *options, rt_error *err);
/* In the loop's thread (the reload callback): other aliases, origins, upstreams, checks, trusted proxies,
 * terms, time-outs and open endpoints, all borrowed until the next change; the rest of `options` is not read.
 * On failure nothing has changed. */
rt_status rt_serve_change(rt_serve *serve, const rt_serve_options *options, rt_error *err);
int rt_serve_port(const rt_serve *serve);
int rt_serve_admin_port(const rt_serve *serve); /* 0: it does not listen */
/* Serves until it is stopped and drained. */
rt_status rt_serve_run(rt_serve *serve, rt_error *err);
/* From any thread: stops accepting, finishes what runs for at most drain_s, then rt_serve_run returns. */
void rt_serve_stop(rt_serve *serve);
void rt_serve_close(rt_serve *serve);

#endif
