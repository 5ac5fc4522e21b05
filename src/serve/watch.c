/* serve/watch.c - see watch.h.
 *
 * Two locks: `queue_lock` for the queue and the rules, held for moments, which the event thread takes;
 * `guard_lock` for the guard and the ladder, which only the watch's thread holds for long (a sweep over all
 * accounts). */
#include "serve/watch.h"

#include <errno.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "guard/replay.h"
#include "guard/result.h"
#include "guard/state.h"
#include "guard/view.h"

enum { QUEUE_MAX = 8192, SAVE_S = 60 };
static const size_t queue_bytes_max = (size_t)64 << 20;

typedef struct queued {
    struct queued *next;
    rt_guard_event event;
    size_t bytes;
    char texts[];
} queued;

typedef struct rules_entry { /* of accounts that are or were on a rung; sorted by name */
    char name[RT_GUARD_ACCOUNT_BYTES_MAX + 1];
    rt_watch_rules rules;
    uint8_t rung;
} rules_entry;

struct rt_watch {
    rt_watch_options options;
    const rt_guard_policy *policy;      /* written by the watch's thread under both locks */
    const rt_guard_policy *next_policy; /* under queue_lock; NULL: none */
    pthread_t thread;
    bool running;

    pthread_mutex_t queue_lock;
    pthread_cond_t queue_filled;
    queued *first, **last;
    size_t n_queued, queued_bytes;
    bool closing;
    rules_entry *rules;
    size_t n_rules, rules_capacity;
    rt_watch_counts counts;

    pthread_mutex_t guard_lock;
    rt_guard *guard;
    rt_ladders *ladders;
    double saved_s;
    FILE *log;
};

static const rt_admin guard_admin = {.role = RT_ROLE_FULL, .name = "guard"};

/* ---- what the ladder leaves of answers ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const rules_entry *)a)->name, ((const rules_entry *)b)->name);
}

static rules_entry *find_rules(const rt_watch *w, const char *account)
{
    rules_entry wanted;
    (void)snprintf(wanted.name, sizeof wanted.name, "%s", account);
    return w->n_rules ? bsearch(&wanted, w->rules, w->n_rules, sizeof *w->rules, by_name) : NULL;
}

static rt_watch_rules rules_of_rung(const rt_guard_policy *policy, const rt_ladder_entry *entry)
{
    rt_watch_rules rules = {.top_logprobs = policy->exposure_top,
                            .no_bias_with_logprobs = !policy->exposure_bias};
    if (!entry || policy->dry_run)
        return rules;
    rules.own_mark = entry->state.rung >= RT_RUNG_WATERMARK && policy->p[RT_RUNG_WATERMARK] > 0;
    if (entry->state.rung >= RT_RUNG_TWINS && policy->p[RT_RUNG_TWINS] > 0) {
        rules.twins_share = policy->twins_share;
        rules.canaries_share = policy->canaries_share;
    }
    if (entry->state.rung >= RT_RUNG_LOGPROBS && policy->p[RT_RUNG_LOGPROBS] > 0) {
        rules.top_logprobs = policy->logprobs_top;
        rules.no_logprobs = policy->logprobs_top == 0;
    }
    rules.no_reasoning = entry->state.rung >= RT_RUNG_REASONING && policy->p[RT_RUNG_REASONING] > 0;
    (void)snprintf(rules.case_id, sizeof rules.case_id, "%s", entry->case_id);
    rules.challenged =
        entry->state.rung >= RT_RUNG_CHALLENGE && policy->p[RT_RUNG_CHALLENGE] > 0 && !entry->answered;
    return rules;
}

/* The rules that the event thread reads are those of the account's rung. */
static void publish(rt_watch *w, const rt_ladder_entry *entry)
{
    (void)pthread_mutex_lock(&w->queue_lock);
    rules_entry *found = find_rules(w, entry->name);
    if (!found && entry->state.rung > RT_RUNG_NONE) {
        if (w->n_rules == w->rules_capacity) {
            const size_t capacity = 2 * w->rules_capacity + 64;
            rules_entry *rules = realloc(w->rules, capacity * sizeof *rules);
            if (!rules) {
                w->counts.failed++;
                (void)pthread_mutex_unlock(&w->queue_lock);
                return;
            }
            w->rules = rules;
            w->rules_capacity = capacity;
        }
        memcpy(w->rules[w->n_rules].name, entry->name, sizeof entry->name);
        w->rules[w->n_rules].rung = entry->state.rung;
        w->rules[w->n_rules++].rules = rules_of_rung(w->policy, entry);
        qsort(w->rules, w->n_rules, sizeof *w->rules, by_name);
    } else if (found) {
        found->rules = rules_of_rung(w->policy, entry);
        found->rung = entry->state.rung;
    }
    (void)pthread_mutex_unlock(&w->queue_lock);
}

rt_watch_rules rt_watch_rules_of(rt_watch *w, const char *account)
{
    (void)pthread_mutex_lock(&w->queue_lock);
    const rules_entry *found = account ? find_rules(w, account) : NULL;
    const rt_watch_rules rules = found ? found->rules : rules_of_rung(w->policy, NULL);
    (void)pthread_mutex_unlock(&w->queue_lock);
    return rules;
}

const rt_guard_policy *rt_watch_policy(rt_watch *w)
{
    (void)pthread_mutex_lock(&w->queue_lock);
    const rt_guard_policy *policy = w->next_policy ? w->next_policy : w->policy;
    (void)pthread_mutex_unlock(&w->queue_lock);
    return policy;
}

void rt_watch_set_policy(rt_watch *w, const rt_guard_policy_file *policy)
{
    (void)pthread_mutex_lock(&w->queue_lock);
    w->next_policy = rt_guard_policy_of(policy);
    (void)pthread_cond_signal(&w->queue_filled);
    (void)pthread_mutex_unlock(&w->queue_lock);
}

/* ---- decisions ---- */

static rt_desk_reply desk_call(const rt_watch *w, const char *method, const char *account, const char *tail,
                               json_t *body)
{
    char path[160];
    (void)snprintf(path, sizeof path, "/admin/v1/accounts/%s%s", account, tail);
    const rt_desk_reply reply = rt_admin_call(w->options.desk, &guard_admin, method, path, NULL, body);
    json_decref(body);
    return reply;
}

/* The account as the database has it; NULL: it cannot be had. */
static json_t *account_now(const rt_watch *w, const char *name)
{
    const rt_desk_reply reply = desk_call(w, "GET", name, "", NULL);
    if (reply.http == 200)
        return reply.body;
    json_decref(reply.body);
    return NULL;
}

static bool has_state(const json_t *account, const char *state)
{
    const char *own = json_string_value(json_object_get(account, "state"));
    return own && strcmp(own, state) == 0;
}

/* Has a person put the account back since the ladder last acted? */
static bool was_lifted(void *context, const rt_ladder_entry *entry)
{
    const rt_watch *w = context;
    if (w->policy->dry_run ||
        !*entry->case_id) /* it was never acted upon: a replay's state, or the database failed */
        return false;
    json_t *account = account_now(w, entry->name);
    const bool lifted = account && has_state(account, "active");
    json_decref(account);
    return lifted;
}

/* What a person has decided is left alone: suspended and closed accounts, and cases that are not the ladder's
 * when it would step down. */
static bool may_act(const rt_watch *w, const rt_ladder_entry *entry, const rt_ladder_step *step)
{
    json_t *account = account_now(w, entry->name);
    bool may = account && !has_state(account, "suspended") && !has_state(account, "closed");
    const char *id = json_string_value(json_object_get(account, "case"));
    if (may && step->to < step->from && id) {
        char path[96];
        (void)snprintf(path, sizeof path, "/admin/v1/cases/%.60s", id);
        const rt_desk_reply reply = rt_admin_call(w->options.desk, &guard_admin, "GET", path, NULL, NULL);
        const char *actor = json_string_value(json_object_get(reply.body, "actor"));
        may = actor && strcmp(actor, guard_admin.name) == 0;
        json_decref(reply.body);
    }
    json_decref(account);
    return may;
}

/* "p 0.0004; template.share 0.93 (99.1th percentile of benign accounts), ..." */
static void write_reason(rt_text *out, const rt_watch *w, const rt_guard_account *account,
                         const rt_ladder_step *step)
{
    rt_guard_reason reasons[RT_GUARD_REASONS_MAX];
    const size_t n = rt_guard_reasons(rt_guard_reference_of(w->guard), account, reasons);
    rt_text_printf(out, "%s%s after %u requests: p %.2g", rt_rung_name(step->to),
                   step->proposed ? ", suspension proposed" : "", rt_guard_requests(account),
                   (double)rt_guard_block_p(account));
    rt_text_printf(out, ", e %.3g over %u weeks", rt_guard_e(account), account->path.blocks + 1);
    if (account->cluster)
        rt_text_printf(out, ", cluster %u with p %.2g", account->cluster, (double)account->cluster_p);
    for (size_t i = 0; i < n; i++)
        rt_text_printf(out, "; %s.%s %.3g (%.1f%% of benign accounts have less)",
                       rt_guard_feature_signal(reasons[i].feature)->name,
                       rt_guard_feature_name(reasons[i].feature), (double)reasons[i].value,
                       (double)reasons[i].percentile);
}

/* Ids of requests that an appeal can be judged by. */
static json_t *exemplars_of(const rt_ladder_entry *entry)
{
    json_t *ids = json_array();
    for (size_t i = 0; entry->history && i < entry->history->n_exemplars; i++)
        (void)json_array_append_new(ids, json_string(entry->history->exemplars[i].request));
    return ids;
}

static void act(rt_watch *w, const rt_guard_account *account, rt_ladder_entry *entry,
                const rt_ladder_step *step)
{
    const rt_guard_policy *policy = w->policy;
    rt_text reason = {.size_max = 3900};
    const char *tail = "/watch", *told = "";
    if (step->to >= RT_RUNG_SLOW) {
        tail = "/throttle";
        told = policy->slow_message;
    }
    if (step->to >= RT_RUNG_CHALLENGE)
        told = policy->challenge_message;
    if (step->to == RT_RUNG_SUSPEND) {
        tail = "/suspend";
        told = policy->suspend_message;
    }
    json_t *body = NULL;
    write_reason(&reason, w, account, step);
    if (step->to == RT_RUNG_NONE) {
        tail = "/reinstate";
        body = json_pack("{s:s}", "note", "the rung has lapsed without stronger evidence");
    } else {
        body = json_pack("{s:s, s:s, s:o}", "reason", reason.data ? reason.data : rt_rung_name(step->to),
                         "public_reason", told, "evidence", exemplars_of(entry));
    }
    rt_text_deinit(&reason);
    const rt_desk_reply reply = desk_call(w, "POST", entry->name, tail, body);
    const char *opened = json_string_value(json_object_get(reply.body, "case"));
    (void)snprintf(entry->case_id, sizeof entry->case_id, "%s", opened ? opened : "");
    json_decref(reply.body);
    (void)pthread_mutex_lock(&w->queue_lock);
    w->counts.decisions++;
    w->counts.failed += reply.http >= 300;
    (void)pthread_mutex_unlock(&w->queue_lock);
}

static void decided(void *context, const rt_guard_account *account, rt_ladder_entry *entry,
                    const rt_ladder_step *step)
{
    rt_watch *w = context;
    if (!step->lifted && !w->policy->dry_run && may_act(w, entry, step))
        act(w, account, entry, step);
    publish(w, entry);
}

/* ---- the thread ---- */

static void put_span(json_t *row, const char *key, rt_guard_span span)
{
    (void)json_object_set_new(row, key, rt_json_text(span.data, span.size));
}

/* The event as a row of recorded traffic. */
static void log_event(rt_watch *w, const rt_guard_event *e)
{
    if (!w->log)
        return;
    json_t *row = json_object(), *params = json_object(), *bias = json_object();
    const struct {
        const char *key;
        rt_guard_span span;
    } texts[] = {
        {"account", e->account},   {"ip", e->ip},       {"asn", e->asn},       {"user_agent", e->user_agent},
        {"pay_hash", e->pay_hash}, {"model", e->model}, {"prompt", e->prompt}, {"request", e->request}};
    (void)json_object_set_new(row, "ts", json_real(e->ts));
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        put_span(row, texts[i].key, texts[i].span);
    (void)json_object_set_new(row, "created", json_real(e->created));
    (void)json_object_set_new(params, "temperature", json_real((double)e->temperature));
    (void)json_object_set_new(params, "n", json_integer(e->n));
    (void)json_object_set_new(params, "logprobs", json_boolean(e->logprobs));
    (void)json_object_set_new(params, "stream", json_boolean(e->stream));
    if (e->max_tokens)
        (void)json_object_set_new(params, "max_tokens", json_integer(e->max_tokens));
    if (e->top_logprobs)
        (void)json_object_set_new(params, "top_logprobs", json_integer(e->top_logprobs));
    for (uint32_t i = 0; i < e->bias_count; i++) {
        char id[16];
        (void)snprintf(id, sizeof id, "%u", e->bias_ids[i]);
        (void)json_object_set_new(bias, id, json_integer(1));
    }
    if (e->bias_count)
        (void)json_object_set(params, "logit_bias", bias);
    json_decref(bias);
    (void)json_object_set_new(row, "params", params);
    (void)json_object_set_new(row, "prompt_tokens", json_integer(e->prompt_tokens));
    (void)json_object_set_new(row, "completion_tokens", json_integer(e->completion_tokens));
    char *line = json_dumps(row, JSON_COMPACT | JSON_REAL_PRECISION(17));
    if (line)
        (void)fprintf(w->log, "%s\n", line);
    free(line);
    json_decref(row);
}

/* When the account was made: from the guard, or for a new one from the database. */
static double created_of(const rt_watch *w, const char *name)
{
    const rt_guard_account *known = rt_guard_find(w->guard, name);
    if (known)
        return known->created;
    json_t *account = account_now(w, name);
    const double created = json_number_value(json_object_get(account, "created"));
    json_decref(account);
    return created;
}

static void judge(rt_watch *w, rt_guard_event *event)
{
    char name[RT_GUARD_ACCOUNT_BYTES_MAX + 1];
    (void)snprintf(name, sizeof name, "%.*s", (int)event->account.size, event->account.data);
    rt_error err = {0};
    rt_guard_verdict verdict = {0};
    (void)pthread_mutex_lock(&w->guard_lock);
    event->created = created_of(w, name);
    log_event(w, event);
    const rt_status status = rt_ladders_feed(w->ladders, event, &verdict, &err);
    (void)pthread_mutex_unlock(&w->guard_lock);
    (void)pthread_mutex_lock(&w->queue_lock);
    w->counts.judged += status == RT_OK;
    w->counts.dropped += status != RT_OK;
    (void)pthread_mutex_unlock(&w->queue_lock);
}

static rt_status save(rt_watch *w, rt_error *err)
{
    if (!w->options.state_path)
        return RT_OK;
    (void)pthread_mutex_lock(&w->guard_lock);
    const rt_status status = rt_guard_state_save(w->guard, w->ladders, w->options.state_path, err);
    if (w->log)
        (void)fflush(w->log);
    (void)pthread_mutex_unlock(&w->guard_lock);
    w->saved_s = rt_clock_seconds();
    return status;
}

/* The next event; NULL when there is another policy, or *over: the watch closes and nothing is left. */
static queued *wait_for_event(rt_watch *w, bool *over)
{
    (void)pthread_mutex_lock(&w->queue_lock);
    while (!w->first && !w->closing && !w->next_policy)
        (void)pthread_cond_wait(&w->queue_filled, &w->queue_lock);
    queued *item = w->next_policy ? NULL : w->first;
    *over = !item && !w->next_policy;
    if (item) {
        w->first = item->next;
        if (!w->first)
            w->last = &w->first;
        w->n_queued--;
        w->queued_bytes -= item->bytes;
    }
    (void)pthread_mutex_unlock(&w->queue_lock);
    return item;
}

static void publish_all(rt_watch *w)
{
    for (size_t i = 0; i < rt_guard_count(w->guard); i++) {
        const rt_ladder_entry *entry = rt_ladders_find(w->ladders, rt_guard_account_at(w->guard, i));
        if (entry && entry->state.rung)
            publish(w, entry);
    }
}

static void take_policy(rt_watch *w)
{
    (void)pthread_mutex_lock(&w->guard_lock);
    (void)pthread_mutex_lock(&w->queue_lock);
    const bool other = w->next_policy != NULL;
    if (other)
        w->policy = w->next_policy;
    w->next_policy = NULL;
    (void)pthread_mutex_unlock(&w->queue_lock);
    if (other) {
        rt_ladders_set_policy(w->ladders, w->policy);
        publish_all(w);
    }
    (void)pthread_mutex_unlock(&w->guard_lock);
}

static void *watch_thread(void *context)
{
    rt_watch *w = context;
    rt_error err = {0};
    for (bool over = false; !over;) {
        queued *item = wait_for_event(w, &over);
        if (!item) {
            take_policy(w);
            continue;
        }
        judge(w, &item->event);
        free(item);
        if (rt_clock_seconds() - w->saved_s > SAVE_S)
            (void)save(w, &err); /* tried again in a minute */
    }
    return NULL;
}

/* ---- the queue ---- */

static size_t texts_size(const rt_guard_event *e)
{
    return e->account.size + e->ip.size + e->asn.size + e->user_agent.size + e->pay_hash.size +
           e->model.size + e->prompt.size + e->request.size;
}

static void copy_texts(queued *item)
{
    rt_guard_event *e = &item->event;
    rt_guard_span *spans[] = {&e->account,  &e->ip,    &e->asn,    &e->user_agent,
                              &e->pay_hash, &e->model, &e->prompt, &e->request};
    char *at = item->texts;
    for (size_t i = 0; i < sizeof spans / sizeof *spans; i++) {
        if (spans[i]->size)
            memcpy(at, spans[i]->data, spans[i]->size);
        spans[i]->data = at;
        at += spans[i]->size;
    }
}

void rt_watch_request(rt_watch *w, const rt_guard_event *event)
{
    const size_t texts = texts_size(event), bytes = sizeof(queued) + texts;
    queued *item = texts <= queue_bytes_max ? malloc(bytes) : NULL;
    if (item) {
        item->next = NULL;
        item->event = *event;
        item->bytes = bytes;
        copy_texts(item);
    }
    (void)pthread_mutex_lock(&w->queue_lock);
    if (!item || w->n_queued == QUEUE_MAX || w->queued_bytes + bytes > queue_bytes_max) {
        w->counts.dropped++;
        free(item);
    } else {
        *w->last = item;
        w->last = &item->next;
        w->n_queued++;
        w->queued_bytes += bytes;
        (void)pthread_cond_signal(&w->queue_filled);
    }
    (void)pthread_mutex_unlock(&w->queue_lock);
}

void rt_watch_answered(rt_watch *w, const char *account)
{
    (void)pthread_mutex_lock(&w->guard_lock);
    const rt_guard_account *found = rt_guard_find(w->guard, account);
    rt_ladder_entry *entry = found ? rt_ladders_entry(w->ladders, found) : NULL;
    if (entry && entry->state.rung) {
        entry->answered = true;
        publish(w, entry);
    }
    (void)pthread_mutex_unlock(&w->guard_lock);
}

/* ---- views ---- */

json_t *rt_watch_view(rt_watch *w, rt_watch_look look, void *context)
{
    (void)pthread_mutex_lock(&w->guard_lock);
    json_t *seen = look(context, w->guard, w->ladders);
    (void)pthread_mutex_unlock(&w->guard_lock);
    return seen;
}

static int by_p(const void *a, const void *b)
{
    const float x = rt_guard_final_p(*(const rt_guard_account *const *)a),
                y = rt_guard_final_p(*(const rt_guard_account *const *)b);
    return (x > y) - (x < y);
}

static json_t *look_list(void *context, const rt_guard *guard, const rt_ladders *ladders)
{
    (void)context;
    json_t *list = json_array();
    const size_t count = rt_guard_count(guard);
    const rt_guard_account **found = calloc(count + 1, sizeof *found);
    size_t n = 0;
    for (size_t i = 0; found && i < count; i++) {
        const rt_ladder_entry *entry = rt_ladders_find(ladders, rt_guard_account_at(guard, i));
        if (entry && entry->state.rung)
            found[n++] = rt_guard_account_at(guard, i);
    }
    if (n)
        qsort(found, n, sizeof *found, by_p);
    for (size_t i = 0; i < n && i < RT_GUARD_VIEW_LIST_MAX; i++)
        (void)json_array_append_new(list, rt_guard_view_row(guard, ladders, found[i]));
    free(found);
    return list;
}

json_t *rt_watch_list(rt_watch *w) { return rt_watch_view(w, look_list, NULL); }

rt_watch_counts rt_watch_counts_of(rt_watch *w)
{
    (void)pthread_mutex_lock(&w->queue_lock);
    rt_watch_counts counts = w->counts;
    for (size_t i = 0; i < w->n_rules; i++)
        counts.rungs[w->rules[i].rung]++;
    (void)pthread_mutex_unlock(&w->queue_lock);
    return counts;
}

/* ---- life ---- */

static rt_status restore(rt_watch *w, rt_error *err)
{
    if (!w->options.state_path)
        return RT_OK;
    const rt_status status = rt_guard_state_load(w->guard, w->ladders, w->options.state_path, err);
    publish_all(w);
    return status;
}

/* The key of the sketches: of the state, or beside the log, else a random one that no client can know. */
static rt_status choose_key(rt_watch *w, rt_error *err)
{
    const char *state = w->options.state_path, *log = w->options.log_path;
    uint64_t *key = &w->options.guard.key;
    rt_status status = RT_OK;
    if (state && rt_path_exists(state))
        status = rt_guard_state_key(key, state, err);
    else if (log)
        status = rt_guard_key_beside(key, log, err);
    while (status == RT_OK && *key == 0)
        randombytes_buf(key, sizeof *key);
    if (status == RT_OK && log)
        status = rt_guard_key_write_beside(*key, log, err);
    return status;
}

rt_status rt_watch_open(rt_watch **out, const rt_watch_options *options, rt_error *err)
{
    *out = NULL;
    rt_watch *w = calloc(1, sizeof *w);
    if (!w)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the guard");
    w->options = *options;
    w->policy = rt_guard_policy_of(options->policy);
    w->last = &w->first;
    (void)pthread_mutex_init(&w->queue_lock, NULL);
    (void)pthread_mutex_init(&w->guard_lock, NULL);
    (void)pthread_cond_init(&w->queue_filled, NULL);
    w->saved_s = rt_clock_seconds();
    rt_guard_policy_apply(options->policy, &w->options.guard);
    rt_status status = choose_key(w, err);
    if (status == RT_OK)
        status = rt_guard_open(&w->guard, &w->options.guard, err);
    const rt_ladders_calls calls = {was_lifted, decided, w};
    if (status == RT_OK)
        status = rt_ladders_open(&w->ladders, w->guard, w->policy, &calls, err);
    if (status == RT_OK)
        status = restore(w, err);
    if (status == RT_OK && options->log_path && !(w->log = fopen(options->log_path, "a")))
        status = rt_error_set(err, RT_IO, "%.300s: cannot be opened for the guard's rows: %s",
                              options->log_path, strerror(errno));
    if (w->log)
        (void)setvbuf(w->log, NULL, _IOLBF, 0); /* a row is in the file before the next is judged */
    if (status == RT_OK && pthread_create(&w->thread, NULL, watch_thread, w) != 0)
        status = rt_error_set(err, RT_NO_MEMORY, "cannot start the guard's thread");
    w->running = status == RT_OK;
    if (status != RT_OK) {
        rt_watch_close(w);
        return status;
    }
    *out = w;
    return RT_OK;
}

void rt_watch_close(rt_watch *w)
{
    if (!w)
        return;
    rt_error err = {0};
    if (w->running) {
        (void)pthread_mutex_lock(&w->queue_lock);
        w->closing = true;
        (void)pthread_cond_signal(&w->queue_filled);
        (void)pthread_mutex_unlock(&w->queue_lock);
        (void)pthread_join(w->thread, NULL);
        (void)save(w, &err);
    }
    if (w->log)
        (void)fclose(w->log);
    rt_guard_close(w->guard);
    rt_ladders_close(w->ladders);
    free(w->rules);
    (void)pthread_cond_destroy(&w->queue_filled);
    (void)pthread_mutex_destroy(&w->queue_lock);
    (void)pthread_mutex_destroy(&w->guard_lock);
    free(w);
}
