/* serve/twins.c - see twins.h.
 *
 * A pair lives from the coin to the end of the later of its two jobs: the client's, which tells the pair when
 * it has ended, and the twin's, which belongs to the pair. */
#include "serve/twins.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "serve/sealed.h"

struct rt_twins {
    int coins, rows; /* files that are appended to */
    const char *const *suspects;
    size_t n_suspects;
    double share;
};

struct rt_pair {
    rt_serve *serve;
    json_t *row; /* what the row will say */
    rt_job *twin;
    bool delivered_ended, twin_ended, left_out;
    rt_pair *prev, *next;
};

rt_status rt_twins_open(rt_twins **out, const char *folder, const char *const *suspects, size_t n,
                        double share, rt_error *err)
{
    *out = NULL;
    if (!(share >= 0 && share <= 0.2))
        return rt_error_set(err, RT_INVALID, "the share of twins is in 0..0.2, not %g", share);
    rt_twins *t = malloc(sizeof *t);
    if (!t)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for twin answers");
    *t = (rt_twins){.coins = -1, .rows = -1, .suspects = suspects, .n_suspects = n, .share = share};
    if (rt_sealed_open(&t->coins, folder, "coins.jsonl", err) != RT_OK ||
        rt_sealed_open(&t->rows, folder, "twins.jsonl", err) != RT_OK) {
        rt_twins_close(t);
        return err->status;
    }
    *out = t;
    return RT_OK;
}

void rt_twins_close(rt_twins *t)
{
    if (!t)
        return;
    if (t->coins >= 0)
        (void)close(t->coins);
    if (t->rows >= 0)
        (void)close(t->rows);
    free(t);
}

/* ---- which requests ---- */

static double share_of(const rt_call *call)
{
    const rt_twins *t = call->serve->options.twins;
    rt_watch *watch = call->serve->options.watch;
    for (size_t i = 0; i < t->n_suspects; i++)
        if (strcmp(t->suspects[i], call->caller->account) == 0)
            return t->share;
    return watch ? rt_watch_rules_of(watch, call->caller->account).twins_share : 0;
}

static bool wanted(const rt_call *call)
{
    return call->serve->options.twins && rt_sealed_suits(call) && rt_sealed_coin(share_of(call));
}

/* ---- pairs ---- */

static void end_pair(rt_pair *pair)
{
    rt_serve *serve = pair->serve;
    if (!pair->delivered_ended || !pair->twin_ended)
        return;
    const char *a = json_string_value(json_object_get(pair->row, "delivered")),
               *b = json_string_value(json_object_get(pair->row, "twin"));
    if (!pair->left_out && a && b && strcmp(a, b) != 0)
        (void)rt_sealed_append(serve->options.twins->rows, pair->row);
    if (pair->prev)
        pair->prev->next = pair->next;
    else
        serve->pairs = pair->next;
    if (pair->next)
        pair->next->prev = pair->prev;
    rt_job_free(pair->twin);
    json_decref(pair->row);
    free(pair);
}

/* Under no lock: the job has ended. */
static void take(rt_pair *pair, const rt_job *job, const char *name)
{
    const rt_choice *choice = &job->choices[0];
    pair->left_out |= choice->finish == RT_JOB_ABORTED || job->timed_out || choice->text.failed;
    (void)json_object_set_new(pair->row, name,
                              rt_json_text(choice->text.data ? choice->text.data : "", choice->text.size));
}

static rt_job *second_job(rt_call *call)
{
    rt_request again = {0};
    rt_request_rules rules = {0};
    rt_fault fault = {0};
    rt_error err = {0};
    rt_job *job = NULL;
    rt_call_rules(call, &rules);
    if (rt_request_read(&again, json_object_get(call->body, "messages") != NULL, call->body, call->model,
                        &rules, &fault) &&
        rt_job_new(&job, &again.options, again.prompts, again.n_prompts, &err) == RT_OK) {
        job->lane = call->lane;
        job->deadline_s = call->job->deadline_s;
        job->account = ~call->job->account; /* its turn is not taken from the client's own */
        job->scope = call->job->scope;
        const rt_marking *marking = call->mark.marking;
        if (marking) {
            const char *own = call->mark.own_share > 0 ? call->caller->account : NULL;
            if (rt_marking_take(&job->mark, marking, own, &err) == RT_OK) {
                job->options.sampling.marker = job->mark.marker;
            } else {
                rt_job_free(job);
                job = NULL;
            }
        }
    }
    rt_request_deinit(&again);
    return job;
}

void rt_call_twin(rt_call *call)
{
    if (!wanted(call))
        return;
    rt_serve *serve = call->serve;
    rt_job *job = second_job(call);
    rt_pair *pair = job ? calloc(1, sizeof *pair) : NULL;
    const uint32_t coin = randombytes_uniform(2);
    json_t *row = pair ? json_pack("{s:s,s:s,s:s,s:f,s:i}", "request", rt_http_request_of(call->x)->id,
                                   "account", call->caller->account, "model", call->model->id, "at",
                                   rt_clock_unix(), "coin", (int)coin)
                       : NULL;
    if (!row || !rt_sealed_append(serve->options.twins->coins, row)) { /* no coin on record, no pair */
        json_decref(row);
        free(pair);
        rt_job_free(job);
        return;
    }
    if (coin) {
        const uint64_t seed = job->options.sampling.seed;
        job->options.sampling.seed = call->job->options.sampling.seed;
        call->job->options.sampling.seed = seed;
    }
    (void)json_object_set_new(row, "prompt", json_string(rt_sealed_prompt(call)));
    if (call->mark.marking)
        (void)json_object_set_new(row, "key", json_string(call->mark.marking->key));
    *pair = (rt_pair){.serve = serve, .row = row, .twin = job, .next = serve->pairs};
    job->pair = pair;
    if (!rt_engine_submit(serve->engine, job)) {
        rt_job_free(job);
        json_decref(row);
        free(pair);
        return;
    }
    if (serve->pairs)
        serve->pairs->prev = pair;
    serve->pairs = pair;
    call->pair = pair;
}

void rt_pair_twin_ended(rt_pair *pair)
{
    take(pair, pair->twin, "twin");
    pair->twin_ended = true;
    end_pair(pair);
}

void rt_pair_delivered(rt_call *call)
{
    rt_pair *pair = call->pair;
    if (!pair)
        return;
    call->pair = NULL;
    take(pair, call->job, "delivered");
    pair->delivered_ended = true;
    end_pair(pair);
}

void rt_pair_abandon(rt_call *call)
{
    if (!call->pair)
        return;
    rt_pair *pair = call->pair;
    call->pair = NULL;
    pair->left_out = pair->delivered_ended = true;
    end_pair(pair);
}

void rt_pairs_cut(rt_serve *serve)
{
    bool any = false;
    for (rt_pair *pair = serve->pairs; pair; pair = pair->next)
        any |= !atomic_exchange(&pair->twin->cancelled, true);
    if (any)
        rt_engine_poke(serve->engine);
}
