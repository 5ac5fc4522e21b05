/* serve/service.h - the server's inside, shared by the files that answer requests.  Event thread only. */
#ifndef RT_SERVE_SERVICE_H
#define RT_SERVE_SERVICE_H

#include <event2/event.h>
#include <pthread.h>

#include "account/gate.h"
#include "serve/clerks.h"
#include "serve/door.h"
#include "serve/fault.h"
#include "serve/idempotency.h"
#include "serve/metrics.h"
#include "serve/compose.h"
#include "serve/serve.h"

typedef struct rt_pair rt_pair;
typedef struct rt_canary rt_canary;

typedef struct rt_route {
    const char *path;     /* with a trailing '/': everything below */
    const char *methods;  /* "GET", "POST"; HEAD comes with GET, OPTIONS with all */
    const char *endpoint; /* for logs and metrics */
    unsigned flags;
    void (*run)(rt_call *call);
} rt_route;
enum {
    RT_ROUTE_OPEN = 1,      /* no key */
    RT_ROUTE_TOKENIZER = 2, /* no key with --open-tokenizer */
    RT_ROUTE_METRICS = 4,   /* no key with --metrics-open */
    RT_ROUTE_OWN = 8,       /* for suspended accounts too; any method, the path and what is below it */
};
extern const rt_route rt_routes[];
extern const size_t rt_routes_count;

struct rt_call { /* a request from its head to its last byte */
    rt_serve *serve;
    rt_http_exchange *x;
    const rt_route *route;
    const rt_served_model *model; /* once known */
    size_t lane;
    json_t *body;
    rt_request request;
    rt_compose reply;
    rt_job *job;
    bool streaming; /* events have begun */
    double last_sent_s;
    const char *finish; /* for the log */
    size_t prompt_tokens, output_tokens, cached_tokens;
    double ttft_s;
    rt_call *prev, *next;                 /* of those with a job */
    const rt_caller *caller;              /* NULL: no key was needed */
    rt_ticket *ticket;                    /* open between admission and the bill */
    size_t reserved_tokens, named_tokens; /* the worst case; the request's own max_tokens, 0: none */
    int top_logprobs;
    rt_pair *pair;       /* whose delivered answer this is; NULL: none */
    rt_canary *canary;   /* that its answer will end with; NULL: none */
    bool gone_billed;    /* the client left a pair: output_tokens are those until then */
    rt_marking_use mark; /* what stood at the answer, for log and ledger; the job's own is taken back */
    rt_watch_note note;  /* for the guard, on its way into the ledger */
    bool marked;         /* an answer has tokens that could carry it */
    bool scores, binary, tail, noted, delivered, revoked; /* noted: in the ledger; delivered: whole */
    rt_fault fault;                                       /* instead of a whole answer; status 0: none */
    rt_call *next_settled;
    rt_kept_answer *kept; /* the entry of its Idempotency-Key */
    bool captures;        /* it becomes a row of --capture */
    bool sent_stream;
    rt_text sent;            /* its answer then, where `kept` does not hold it */
    rt_relay *relay;         /* gateway: on its way to an upstream, or its answer's end waits for the row */
    const char *model_name;  /* gateway: as the client says it */
    size_t choices;          /* gateway: all that are asked for */
    size_t assumed_tokens;   /* gateway: of each, where the request names no bound; else 0 */
    bool estimated;          /* tokens were not counted by the upstream */
    struct upstream *chosen; /* gateway: until it is admitted */
    rt_call_then key_known;  /* goes on after its Idempotency-Key was looked up */
    rt_question question;    /* to the gate, while one is asked */
};

struct rt_serve {
    rt_serve_options options;
    struct event_base *base;
    rt_http_server *http;
    rt_http_handler handler, admin_handler;
    rt_http_wakeup *wakeup;
    rt_engine *engine;   /* NULL: a gateway */
    rt_clerks *clerks;   /* NULL: no accounts */
    rt_gateway *gateway; /* NULL: models of its own */
    rt_served_model models[RT_SERVE_MODELS_MAX];
    char fingerprints[RT_SERVE_MODELS_MAX][24];
    struct event *tick, *sigterm, *sigint, *sighup;
    int port, admin_port;
    bool draining, looking;         /* looking: a clerk asks what has changed */
    double drain_until_s, looked_s; /* looked_s: when running calls were last checked */
    _Atomic bool stop_wanted;
    rt_metrics metrics;
    rt_pair *pairs; /* of answers that are drawn twice (twins.c) */
    rt_call *calls; /* with a job, or waiting for their row */
    rt_kept_answers kept;
    pthread_mutex_t settled_lock;
    rt_call *settled; /* whose rows are on the disk */
};

/* route.c: answers */
void rt_call_json(rt_call *call, int status, const rt_text *body);
void rt_call_reply(rt_call *call, int status, const char *type, const rt_text *body);
void rt_call_fault(rt_call *call, const rt_fault *fault);
void rt_fault_write(const rt_fault *fault, rt_text *out); /* the JSON body */
bool rt_content_type_is_json(const rt_http_exchange *x);  /* or it has none */
void rt_call_headers(rt_serve *serve, rt_http_exchange *x);
void rt_serve_send_fault(rt_serve *serve, rt_http_exchange *x, const rt_fault *fault);
/* Parses the body into call->body and finds the model it names; false: answered. */
bool rt_call_body(rt_call *call);
bool rt_call_find_model(rt_call *call);
/* handlers of http.h */
bool rt_service_head(void *context, rt_http_exchange *x);
void rt_service_body(void *context, rt_http_exchange *x);
void rt_service_fault(void *context, rt_http_exchange *x, const rt_http_fault *fault);
void rt_service_gone(void *context, rt_http_exchange *x);
void rt_service_drained(void *context, rt_http_exchange *x);
void rt_service_finished(void *context, rt_http_exchange *x);

/* watching.c; without a guard all of it does nothing */
bool rt_call_watch_allows(rt_call *call, rt_fault *fault);
void rt_call_watch(rt_call *call);

/* marking.c: puts the watermark of this caller on the job */
bool rt_call_mark(rt_call *call, rt_fault *fault);
/* Notes whether an answer has tokens that could carry it; under the job's lock. */
void rt_call_note_mark(rt_call *call);

/* twins.c; without sealed answers all of it does nothing */
void rt_call_twin(rt_call *call); /* perhaps draws a second answer; the job is not submitted yet */
void rt_pair_twin_ended(rt_pair *pair);
void rt_pair_delivered(rt_call *call); /* its job has ended */
void rt_pair_abandon(rt_call *call);   /* its job was never submitted */
void rt_pairs_cut(rt_serve *serve);    /* ends the twins that run */

/* canaries.c; without canaries all of it does nothing */
void rt_call_canary(rt_call *call);  /* perhaps draws one; the job is not submitted yet */
bool rt_canary_waits(rt_call *call); /* the answer has ended and its last sentence is still to come */
void rt_canary_end(rt_call *call);   /* its job has ended: puts the sentence there */
void rt_canary_abandon(rt_call *call);

/* admission.c; without accounts all of it lets through */
const char *rt_request_key(const rt_http_exchange *x); /* NULL: none was sent */
void rt_fault_of_refusal(const rt_refusal *why, rt_fault *fault);
bool rt_call_needs_key(const rt_call *call);
bool rt_call_authenticate(rt_call *call, rt_fault *fault);
void rt_call_limit_headers(const rt_call *call);
void rt_call_rules(const rt_call *call, rt_request_rules *rules);
/* then: perhaps before it returns. */
void rt_call_admit(rt_call *call, rt_call_then then);
void rt_call_note_refused(rt_call *call, const rt_fault *fault);
/* wait: rt_serve_take_settled returns the call when its row is on the disk; not where it is there already,
 * which is when the result is true. */
bool rt_call_settle(rt_call *call, int http, bool wait);
rt_call *rt_serve_take_settled(rt_serve *serve);
/* Calls `then`, perhaps before it returns, if there is something to do; else the call is answered. */
void rt_call_idempotency(rt_call *call, rt_call_then then);
/* The answer begins: what is sent of it is recorded for whoever wants it. */
void rt_call_record(rt_call *call, bool stream);
void rt_call_capture(rt_call *call);         /* a call that has ended becomes a row */
void rt_call_idempotency_end(rt_call *call); /* of a call that has ended, with call->kept */

/* own.c */
void rt_run_own(rt_call *call);
bool rt_admin_head(void *context, rt_http_exchange *x);
void rt_admin_body(void *context, rt_http_exchange *x);
void rt_admin_gone(void *context, rt_http_exchange *x);
void rt_admin_finished(void *context, rt_http_exchange *x);

/* answering.c: chat/completions and completions */
void rt_run_chat(rt_call *call);
void rt_run_completions(rt_call *call);
void rt_serve_news(rt_serve *serve);                   /* the engine or the ledger has something */
void rt_serve_tick_calls(rt_serve *serve, double now); /* once a second */
void rt_call_gone(rt_call *call);
void rt_call_drained(rt_call *call);

/* Admits and submits what call->request holds, perhaps later; false: *fault, and rt_call_give_up answers. */
bool rt_call_start(rt_call *call, rt_fault *fault);
void rt_call_give_up(rt_call *call, const rt_fault *fault);

/* score.c */
void rt_run_score(rt_call *call);
void rt_compose_score(rt_call *call, rt_text *out);
rt_status rt_compose_score_binary(const rt_call *call, rt_text *out, rt_error *err);

/* tokens.c, operations.c */
void rt_run_models(rt_call *call);
void rt_run_model(rt_call *call);
void rt_run_tokenize(rt_call *call);
void rt_run_detokenize(rt_call *call);
void rt_run_tokenizer_info(rt_call *call);
void rt_run_health(rt_call *call);
void rt_run_ready(rt_call *call);
void rt_run_metrics(rt_call *call);
void rt_log_call(rt_call *call);

#endif
