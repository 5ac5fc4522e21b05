/* serve/door.c - see door.h. */
#include "serve/door.h"

#include <stdlib.h>

#include "base/log.h"
#include "serve/service.h"

enum { DONE = 200 };

static bool is_beside(const rt_serve *serve)
{
    return serve->options.gate && rt_gate_is_shared(serve->options.gate);
}

static void silent(rt_fault *fault)
{
    (void)rt_fault_set(fault, 503, "server_error", "overloaded", "the account database does not answer");
    fault->retry_after_s = 1;
}

/* ---- heads ---- */

typedef struct head_errand {
    rt_errand errand;
    rt_serve *serve;
    rt_http_exchange *x;
    rt_head_then then;
    rt_status status;
} head_errand;

static rt_status look(rt_serve *serve)
{
    rt_error err = {0};
    const rt_status status = rt_gate_look(serve->options.gate, &err);
    if (status != RT_OK)
        rt_log(RT_LOG_WARNING, "%s", err.text);
    return status;
}

static rt_desk_reply head_work(rt_errand *errand, rt_desk *desk)
{
    (void)desk;
    head_errand *head = (head_errand *)errand;
    head->status = look(head->serve);
    return (rt_desk_reply){.http = DONE};
}

static void head_done(rt_errand *errand)
{
    const head_errand head = *(const head_errand *)errand;
    rt_fault fault = {0};
    free(errand);
    silent(&fault);
    if (rt_http_is_gone(head.x))
        rt_http_abort(head.x);
    else if (head.then(head.serve, head.x, head.errand.reply.http && head.status == RT_OK ? NULL : &fault))
        rt_http_go_on(head.x);
}

bool rt_door_head(rt_serve *serve, rt_http_exchange *x, rt_head_then then)
{
    rt_fault fault = {0};
    if (!is_beside(serve))
        return then(serve, x, NULL);
    head_errand *head = malloc(sizeof *head);
    if (head) {
        *head = (head_errand){
            .errand = {.work = head_work, .done = head_done}, .serve = serve, .x = x, .then = then};
        rt_http_wait(x);
        if (rt_clerks_send(serve->clerks, RT_CLERK_DOOR, &head->errand))
            return true;
    }
    free(head);
    silent(&fault);
    return then(serve, x, &fault);
}

/* ---- calls ---- */

/* false: it is the caller's to answer. */
static bool ask(rt_call *call, rt_call_then then, rt_desk_reply (*work)(rt_errand *, rt_desk *),
                void (*done)(rt_errand *))
{
    rt_question *q = &call->question;
    q->errand = (rt_errand){.work = work, .done = done};
    q->call = call;
    q->then = then;
    return rt_clerks_send(call->serve->clerks, RT_CLERK_DOOR, &q->errand);
}

static rt_desk_reply admit_work(rt_errand *errand, rt_desk *desk)
{
    (void)desk;
    rt_question *q = (rt_question *)errand;
    const rt_call *call = q->call;
    q->ticket = rt_gate_admit(call->serve->options.gate, call->caller, &q->ask, &q->refusal);
    return (rt_desk_reply){.http = DONE};
}

static void admitted(rt_call *call)
{
    rt_question *q = &call->question;
    rt_fault fault = {0};
    call->ticket = q->ticket;
    call->noted = true; /* admitted or not, there is a row */
    if (rt_http_is_gone(call->x)) {
        call->finish = "client_closed";
        call->serve->metrics.cancelled++;
        call->prompt_tokens = 0; /* nothing was sent on */
        (void)rt_call_settle(call, 499, false);
        rt_http_abort(call->x);
        return;
    }
    if (call->ticket) {
        q->then(call, NULL);
        return;
    }
    rt_fault_of_refusal(&q->refusal, &fault);
    if (q->refusal.http == 429)
        rt_metrics_limited(&call->serve->metrics, q->refusal.type);
    q->then(call, &fault);
}

static void not_asked(rt_call *call, rt_call_then then)
{
    rt_fault fault = {0};
    silent(&fault);
    if (rt_http_is_gone(call->x))
        rt_http_abort(call->x);
    else
        then(call, &fault);
}

static void admit_done(rt_errand *errand)
{
    rt_question *q = (rt_question *)errand;
    if (errand->reply.http)
        admitted(q->call);
    else
        not_asked(q->call, q->then);
}

void rt_door_admit(rt_call *call, rt_call_then then)
{
    if (is_beside(call->serve)) {
        if (!ask(call, then, admit_work, admit_done))
            not_asked(call, then);
        return;
    }
    call->question.call = call;
    call->question.then = then;
    (void)admit_work(&call->question.errand, NULL);
    admitted(call);
}

static rt_desk_reply stored_work(rt_errand *errand, rt_desk *desk)
{
    (void)desk;
    rt_question *q = (rt_question *)errand;
    const rt_serve *serve = q->call->serve;
    q->state = rt_gate_stored_begin(serve->options.gate, q->entry->id, q->entry->request,
                                    serve->options.request_timeout_s, &q->body, &q->stream);
    return (rt_desk_reply){.http = DONE};
}

static void stored_done(rt_errand *errand)
{
    rt_question *q = (rt_question *)errand;
    if (!errand->reply.http) /* then the promise cannot be kept, and nothing is served */
        q->state = RT_STORED_RUNNING;
    q->then(q->call, NULL);
}

void rt_door_stored(rt_call *call, rt_call_then then)
{
    if (is_beside(call->serve) && ask(call, then, stored_work, stored_done))
        return;
    call->question.call = call;
    call->question.state = RT_STORED_RUNNING;
    if (!is_beside(call->serve))
        (void)stored_work(&call->question.errand, NULL);
    then(call, NULL);
}

/* ---- once a second ---- */

typedef struct look_errand {
    rt_errand errand;
    rt_serve *serve;
} look_errand;

static rt_desk_reply look_work(rt_errand *errand, rt_desk *desk)
{
    (void)desk;
    (void)look(((look_errand *)errand)->serve);
    return (rt_desk_reply){.http = DONE};
}

static void look_done(rt_errand *errand)
{
    ((look_errand *)errand)->serve->looking = false;
    free(errand);
}

void rt_door_tick(rt_serve *serve)
{
    if (!is_beside(serve) || serve->looking)
        return;
    look_errand *errand = malloc(sizeof *errand);
    if (!errand)
        return;
    *errand = (look_errand){.errand = {.work = look_work, .done = look_done}, .serve = serve};
    serve->looking = rt_clerks_send(serve->clerks, RT_CLERK_DOOR, &errand->errand);
    if (!serve->looking)
        free(errand);
}
