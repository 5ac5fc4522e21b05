/* serve/watch_act.c - the ladder's decisions become states and cases in the account database. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "guard/result.h"
#include "serve/watch_internal.h"

static const rt_admin guard_admin = {.role = RT_ROLE_FULL, .name = "guard"};

static rt_desk_reply desk_call(const rt_watch *w, const char *method, const char *account, const char *tail,
                               json_t *body)
{
    char path[160];
    (void)snprintf(path, sizeof path, "/admin/v1/accounts/%s%s", account, tail);
    const rt_desk_reply reply =
        rt_admin_call(rt_gate_desk(w->options.gate), &guard_admin, method, path, NULL, body);
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

/* A case as the database has it; NULL: it cannot be had. */
static json_t *case_now(const rt_watch *w, const char *id)
{
    char path[96];
    (void)snprintf(path, sizeof path, "/admin/v1/cases/%.60s", id);
    const rt_desk_reply reply =
        rt_admin_call(rt_gate_desk(w->options.gate), &guard_admin, "GET", path, NULL, NULL);
    if (reply.http == 200)
        return reply.body;
    json_decref(reply.body);
    return NULL;
}

static bool is_text(const json_t *object, const char *key, const char *wanted)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text && strcmp(text, wanted) == 0;
}

/* What a person has decided is left alone: suspended and closed accounts, and cases that are not the ladder's
 * when it would step down. */
static bool may_act(const rt_watch *w, const rt_ladder_entry *entry, const rt_ladder_step *step)
{
    json_t *account = account_now(w, entry->name);
    bool may = account && !has_state(account, "suspended") && !has_state(account, "closed") &&
               !(step->to == RT_RUNG_NONE && has_state(account, "active"));
    const char *id = json_string_value(json_object_get(account, "case"));
    if (may && step->to < step->from && id) {
        json_t *open = case_now(w, id);
        may = is_text(open, "actor", guard_admin.name);
        json_decref(open);
    }
    json_decref(account);
    return may;
}

/* Was this very decision acted upon before a crash?  The same rows give the same reason, to the letter. */
static bool was_done(const rt_watch *w, rt_ladder_entry *entry, const char *reason)
{
    if (w->row > w->recover_to)
        return false;
    json_t *account = account_now(w, entry->name);
    const char *id = json_string_value(json_object_get(account, "case"));
    json_t *open = id ? case_now(w, id) : NULL;
    const bool done = is_text(open, "actor", guard_admin.name) && is_text(open, "reason", reason);
    if (done)
        (void)snprintf(entry->case_id, sizeof entry->case_id, "%s", id);
    json_decref(open);
    json_decref(account);
    return done;
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
        const char *why = reason.data ? reason.data : rt_rung_name(step->to);
        if (was_done(w, entry, why)) {
            rt_text_deinit(&reason);
            return;
        }
        body = json_pack("{s:s, s:s, s:o}", "reason", why, "public_reason", told, "evidence",
                         exemplars_of(entry));
    }
    rt_text_deinit(&reason);
    const rt_desk_reply reply = desk_call(w, "POST", entry->name, tail, body);
    const char *opened = json_string_value(json_object_get(reply.body, "case"));
    (void)snprintf(entry->case_id, sizeof entry->case_id, "%s", opened ? opened : "");
    json_decref(reply.body);
    (void)pthread_mutex_lock(&w->lock);
    w->counts.decisions++;
    w->counts.failed += reply.http >= 300;
    (void)pthread_mutex_unlock(&w->lock);
}

static void decided(void *context, const rt_guard_account *account, rt_ladder_entry *entry,
                    const rt_ladder_step *step)
{
    rt_watch *w = context;
    if (!step->lifted && !w->policy->dry_run && may_act(w, entry, step))
        act(w, account, entry, step);
}

/* The rung goes into the database before the next row is judged: after a crash it is not taken again. */
static void changed(void *context, const rt_ladder_entry *entry)
{
    rt_watch *w = context;
    rt_error err = {0};
    json_t *json = rt_ladder_entry_json(entry);
    char *text = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    if (!text || rt_guard_store_rung_put(w->store, entry->name, w->row, text,
                                         entry->state.rung < RT_RUNG_CHALLENGE, &err) != RT_OK) {
        rt_watch_complain(w, &err);
        (void)pthread_mutex_lock(&w->lock);
        w->counts.failed++;
        (void)pthread_mutex_unlock(&w->lock);
    }
    json_decref(json);
    free(text);
    rt_watch_publish(w, entry, w->row);
}

const rt_ladders_calls rt_watch_calls = {
    .lifted = was_lifted, .decided = decided, .decides = rt_watch_decides, .changed = changed};
