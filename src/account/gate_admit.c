/* account/gate_admit.c - a request's worst case is reserved, and settled at its end.
 *
 * With SQLite the whole decision is made under one mutex on counters in memory.  With PostgreSQL the same
 * function decides on counters that a transaction has locked (gate_shared.c). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "account/gate_internal.h"
#include "base/log.h"

enum { PROMPT_BYTES_MAX = 1 << 20 };

bool rt_gate_check_ask(rt_gate *gate, const rt_caller *caller, const rt_gate_ask *ask, rt_refusal *refusal)
{
    (void)gate;
    const rt_permissions permissions = {.models = caller->models};
    if (ask->model && !rt_permissions_model(&permissions, ask->model))
        return rt_refuse(refusal, 403, "permission_error", "model_not_allowed", "model", -1,
                         "this account may not use this model");
    if (ask->score && !caller->score)
        return rt_refuse(refusal, 403, "permission_error", "feature_not_allowed", NULL, -1,
                         "this account does not have the permission 'score'");
    if (caller->top_logprobs >= 0 && ask->top_logprobs > caller->top_logprobs)
        return rt_refuse(refusal, 403, "permission_error", "feature_not_allowed", "top_logprobs", -1,
                         "this account may ask for at most %lld top_logprobs",
                         (long long)caller->top_logprobs);
    if (caller->max_tokens >= 0 && ask->max_tokens > caller->max_tokens)
        return rt_refuse(refusal, 403, "permission_error", "feature_not_allowed", "max_tokens", -1,
                         "this account may ask for at most %lld tokens", (long long)caller->max_tokens);
    return true;
}

static const json_t *prices_of(const rt_gate *gate, const account_entry *account)
{
    return account->prices ? account->prices : gate->options.prices;
}

static rt_ticket *make_ticket(rt_gate *gate, const rt_caller *caller, const rt_gate_ask *ask)
{
    caller_box *box = (caller_box *)(void *)(uintptr_t)caller;
    rt_ticket *ticket = calloc(1, sizeof *ticket);
    if (!ticket)
        return NULL;
    rt_ledger_row *row = &ticket->row;
    ticket->account = box->account;
    ticket->key = box->key;
    rt_text_clean(row->request, sizeof row->request, ask->request_id);
    rt_text_clean(row->account, sizeof row->account, caller->account);
    rt_text_clean(row->key, sizeof row->key, caller->key);
    rt_text_clean(row->endpoint, sizeof row->endpoint, ask->endpoint);
    rt_text_clean(row->model, sizeof row->model, ask->model);
    rt_text_clean(row->address, sizeof row->address, ask->address);
    rt_text_clean(row->agent, sizeof row->agent, ask->agent);
    if (ask->user && *ask->user)
        rt_keyed_hash(row->user_hash, 16, &gate->secrets, ask->user, strlen(ask->user));
    row->at_ms = rt_gate_unix_ms(gate);
    return ticket;
}

static void note(rt_gate *gate, rt_ticket *ticket, int http, const char *code)
{
    ticket->row.http = http;
    ticket->row.reserved = ticket->row.unsure;
    ticket->row.used_draw = (rt_meter_draw){0};
    if (!ticket->row.unsure)
        ticket->row.reserved_draw = (rt_meter_draw){0};
    rt_text_clean(ticket->row.outcome, sizeof ticket->row.outcome, code);
    rt_gate_queue(gate, ticket);
}

void rt_gate_note_refused(rt_gate *gate, const rt_caller *caller, const rt_gate_ask *ask, int http,
                          const char *code)
{
    rt_ticket *ticket = make_ticket(gate, caller, ask);
    if (ticket)
        note(gate, ticket, http, code);
}

/* The worst case: no token of the prompt was cached, or all, whichever costs more. */
static bool worst_case(const json_t *prices, const rt_gate_ask *ask, rt_meter_draw *draw, rt_refusal *refusal)
{
    int64_t fresh = 0, cached = 0;
    if (ask->prompt_tokens < 0 || ask->output_tokens < 0 || ask->prompt_tokens > RT_LIMIT_MAX ||
        ask->output_tokens > RT_LIMIT_MAX)
        return rt_refuse(refusal, 400, "invalid_request_error", "invalid_value", "max_tokens", -1,
                         "the request asks for more tokens than can be counted");
    draw->tokens = ask->prompt_tokens + ask->output_tokens;
    const char *model = ask->model ? ask->model : "";
    draw->priced =
        rt_prices_cost(prices, model, ask->prompt_tokens, 0, ask->output_tokens, &fresh) &&
        rt_prices_cost(prices, model, ask->prompt_tokens, ask->prompt_tokens, ask->output_tokens, &cached);
    draw->cost = fresh > cached ? fresh : cached;
    return true;
}

bool rt_gate_decide(rt_gate *gate, const rt_ticket *ticket, const rt_meter_draw *more, rt_meter *account,
                    rt_meter *key, rt_refusal *refusal)
{
    const rt_limits *of_account = rt_gate_account_limits(ticket->account), *of_key = &ticket->key->limits;
    const rt_meter_draw *draw = &ticket->row.reserved_draw;
    const rt_instant now = rt_gate_now(gate);
    rt_meter_roll(account, of_account, now);
    rt_meter_roll(key, of_key, now);
    if (more) {
        if (!rt_meter_has_more(key, of_key, more, now, "key", refusal) ||
            !rt_meter_has_more(account, of_account, more, now, "account", refusal))
            return false;
        rt_meter_reserve_more(key, more);
        rt_meter_reserve_more(account, more);
        return true;
    }
    if (!rt_meter_possible(of_account, draw, refusal) || !rt_meter_possible(of_key, draw, refusal) ||
        !rt_meter_has_request(key, of_key, "key", refusal) ||
        !rt_meter_has_request(account, of_account, "account", refusal))
        return false;
    rt_meter_take_request(key);
    rt_meter_take_request(account);
    if (!rt_meter_has_room(key, of_key, draw, now, "key", refusal) ||
        !rt_meter_has_room(account, of_account, draw, now, "account", refusal))
        return false;
    rt_meter_reserve(key, draw);
    rt_meter_reserve(account, draw);
    return true;
}

/* On counters in memory or in the database; a database that does not answer refuses. */
static bool decide(rt_gate *gate, rt_ticket *ticket, const rt_meter_draw *more, rt_refusal *refusal)
{
    rt_error err = {0};
    bool admitted = false;
    rt_status status;
    if (!gate->shared) {
        (void)pthread_mutex_lock(&gate->mutex);
        admitted = rt_gate_decide(gate, ticket, more, &ticket->account->counted.meter,
                                  &ticket->key->counted.meter, refusal);
        (void)pthread_mutex_unlock(&gate->mutex);
        return admitted;
    }
    status = rt_gate_ask_begin(gate, &err);
    if (status == RT_OK) {
        status = rt_gate_ask_end(gate, rt_shared_admit(gate, ticket, more, &admitted, refusal, &err));
        ticket->row.unsure = status != RT_OK && !more;
    }
    if (status != RT_OK) {
        rt_log(RT_LOG_WARNING, "%s", err.text);
        return rt_refuse(refusal, 503, "server_error", "overloaded", NULL, 1,
                         "the account database does not answer");
    }
    return admitted;
}

/* What may have changed since the key was looked at: a suspension, a revocation. */
static bool still_open(const rt_ticket *ticket, rt_refusal *refusal)
{
    if (!ticket->key->revoked && ticket->account->state < RT_ACCOUNT_SUSPENDED)
        return true;
    return rt_refuse(refusal, 403, "permission_error", "account_suspended", NULL, -1,
                     "this account or key was blocked while the request waited");
}

/* Under the gate's lock: Jansson's counts are for one thread at a time, and the writer frees tickets. */
static void drop_prices(rt_gate *gate, rt_ticket *ticket)
{
    (void)pthread_mutex_lock(&gate->mutex);
    json_decref(ticket->prices);
    ticket->prices = NULL;
    (void)pthread_mutex_unlock(&gate->mutex);
}

static bool look_up(rt_gate *gate, rt_ticket *ticket, const rt_gate_ask *ask, rt_refusal *refusal)
{
    (void)pthread_mutex_lock(&gate->mutex);
    const bool over = ticket->account->until > 0 && ticket->account->until <= rt_gate_unix_ms(gate) / 1000;
    ticket->prices = json_incref((json_t *)prices_of(gate, ticket->account)); /* NULL is allowed */
    const bool open = worst_case(ticket->prices, ask, &ticket->row.reserved_draw, refusal) &&
                      (over || still_open(ticket, refusal));
    (void)pthread_mutex_unlock(&gate->mutex);
    return open;
}

rt_ticket *rt_gate_admit(rt_gate *gate, const rt_caller *caller, const rt_gate_ask *ask, rt_refusal *refusal)
{
    rt_ticket *ticket = make_ticket(gate, caller, ask);
    if (!ticket) {
        (void)rt_refuse(refusal, 503, "server_error", "overloaded", NULL, 1, "out of memory");
        return NULL;
    }
    ticket->admitted_s = rt_gate_bucket_s(gate);
    ticket->prompt_tokens = ask->prompt_tokens;
    ticket->output_tokens = ask->output_tokens;
    bool admitted = rt_gate_check_ask(gate, caller, ask, refusal);
    if (admitted && atomic_load(&gate->failing))
        admitted =
            rt_refuse(refusal, 503, "server_error", "overloaded", NULL, 1, "the ledger cannot be written");
    admitted = admitted && look_up(gate, ticket, ask, refusal) && decide(gate, ticket, NULL, refusal);
    if (!admitted)
        drop_prices(gate, ticket);
    ticket->row.reserved = admitted;
    if (admitted)
        return ticket;
    note(gate, ticket, refusal->http, refusal->code);
    return NULL;
}

bool rt_gate_raise(rt_gate *gate, rt_ticket *ticket, int64_t output_tokens, rt_refusal *why)
{
    rt_meter_draw *reserved = &ticket->row.reserved_draw, whole = {0};
    *why = (rt_refusal){.http = atomic_load(&gate->failing) ? 503 : 429};
    if (output_tokens <= 0 || output_tokens > RT_LIMIT_MAX)
        return output_tokens == 0;
    const rt_gate_ask ask = {.model = ticket->row.model,
                             .prompt_tokens = ticket->prompt_tokens,
                             .output_tokens = ticket->output_tokens + output_tokens};
    if (!worst_case(ticket->prices, &ask, &whole, why))
        return false;
    const rt_meter_draw more = {whole.tokens - reserved->tokens,
                                whole.cost > reserved->cost ? whole.cost - reserved->cost : 0, whole.priced};
    const bool raised = why->http != 503 && decide(gate, ticket, &more, why);
    if (raised) {
        reserved->tokens += more.tokens;
        reserved->cost += more.cost;
        ticket->output_tokens += output_tokens;
    }
    return raised;
}

bool rt_gate_still_allowed(rt_gate *gate, const rt_ticket *ticket)
{
    rt_error err = {0};
    (void)rt_gate_lock_tables(gate, &err); /* a database that does not answer ends no stream */
    const bool allowed = !ticket->key->revoked && ticket->account->state < RT_ACCOUNT_SUSPENDED;
    (void)pthread_mutex_unlock(&gate->mutex);
    return allowed;
}

static int64_t microseconds(double s) { return s > 0 && s < 1e9 ? (int64_t)llround(s * 1e6) : 0; }

static int64_t within(int64_t n, int64_t max) { return n < 0 ? 0 : n < max ? n : max; }

static void keep_prompt(rt_ticket *ticket, const rt_prompt_policy *policy, const rt_outcome *outcome)
{
    rt_ledger_row *row = &ticket->row;
    if (!outcome->prompt || policy->keep == RT_PROMPT_NONE)
        return;
    const size_t size = outcome->prompt_size < PROMPT_BYTES_MAX ? outcome->prompt_size : PROMPT_BYTES_MAX;
    row->prompt = malloc(size ? size : 1);
    if (!row->prompt) /* the request counts all the same */
        return;
    memcpy(row->prompt, outcome->prompt, size);
    row->prompt_size = size;
    row->prompt_full = policy->keep == RT_PROMPT_FULL;
    row->prompt_days = policy->days;
}

/* Nobody is charged for more than was reserved, whatever an upstream says was used: else settled + reserved
 * could pass a budget. */
static void hold_to_reserved(rt_ledger_row *row)
{
    const rt_meter_draw *reserved = &row->reserved_draw;
    if (row->input + row->output > reserved->tokens) {
        row->input = within(row->input, reserved->tokens);
        row->output = reserved->tokens - row->input;
        row->cached = within(row->cached, row->input);
        row->estimated = true;
    }
}

bool rt_gate_settle(rt_gate *gate, rt_ticket *ticket, const rt_outcome *outcome, rt_settled_fn done,
                    void *context)
{
    rt_ledger_row *row = &ticket->row;
    row->input = within(outcome->input_tokens, RT_LIMIT_MAX);
    row->cached = within(outcome->cached_tokens, row->input);
    row->output = within(outcome->output_tokens, RT_LIMIT_MAX);
    row->http = outcome->http;
    row->estimated = outcome->estimated;
    hold_to_reserved(row);
    rt_text_clean(row->mark_scheme, sizeof row->mark_scheme, outcome->mark_scheme);
    rt_text_clean(row->mark_key, sizeof row->mark_key, outcome->mark_key);
    row->mark_h = outcome->mark_h;
    row->mark_own = outcome->mark_own;
    row->marked = outcome->marked;
    row->ttft_us = microseconds(outcome->ttft_s);
    row->total_us = microseconds(outcome->total_s);
    rt_text_clean(row->outcome, sizeof row->outcome, outcome->outcome);
    row->record = outcome->record;
    row->record_size = outcome->record_size;
    row->record_line = outcome->record_line;
    ticket->done = done;
    ticket->context = context;
    (void)pthread_mutex_lock(&gate->mutex);
    account_entry *account = ticket->account;
    (void)rt_prices_cost(ticket->prices, row->model, row->input, row->cached, row->output, &row->cost);
    if (row->reserved_draw.priced && row->cost > row->reserved_draw.cost)
        row->cost = row->reserved_draw.cost; /* more of what is dearer, fewer tokens in all */
    json_decref(ticket->prices);
    ticket->prices = NULL;
    row->used_draw = (rt_meter_draw){row->input + row->output, row->cost, true};
    keep_prompt(ticket, &account->prompts, outcome);
    /* With PostgreSQL these are copies for the limit headers; the writer changes what counts. */
    const rt_instant now = rt_gate_now(gate);
    rt_meter *const meters[] = {&account->counted.meter, &ticket->key->counted.meter};
    rt_meter_roll(meters[0], rt_gate_account_limits(account), now);
    rt_meter_roll(meters[1], &ticket->key->limits, now);
    for (int i = 0; i < 2; i++) {
        rt_meter_release(meters[i], &row->reserved_draw);
        rt_meter_charge(meters[i], &row->reserved_draw, &row->used_draw);
    }
    (void)pthread_mutex_unlock(&gate->mutex);
    if (done && rt_gate_write_now(gate, ticket))
        return true;
    rt_gate_queue(gate, ticket);
    return false;
}

typedef struct waiter {
    pthread_mutex_t mutex;
    pthread_cond_t woken;
    bool done;
    rt_status status;
} waiter;

static void wake(void *context, rt_status status)
{
    waiter *wait = context;
    (void)pthread_mutex_lock(&wait->mutex);
    wait->done = true;
    wait->status = status;
    (void)pthread_cond_signal(&wait->woken);
    (void)pthread_mutex_unlock(&wait->mutex);
}

rt_status rt_gate_settle_wait(rt_gate *gate, rt_ticket *ticket, const rt_outcome *outcome, rt_error *err)
{
    waiter wait = {.done = false};
    (void)pthread_mutex_init(&wait.mutex, NULL);
    (void)pthread_cond_init(&wait.woken, NULL);
    if (rt_gate_settle(gate, ticket, outcome, wake, &wait))
        wait.done = true;
    (void)pthread_mutex_lock(&wait.mutex);
    while (!wait.done)
        (void)pthread_cond_wait(&wait.woken, &wait.mutex);
    (void)pthread_mutex_unlock(&wait.mutex);
    (void)pthread_mutex_destroy(&wait.mutex);
    (void)pthread_cond_destroy(&wait.woken);
    return wait.status == RT_OK ? RT_OK
                                : rt_error_set(err, wait.status, "the ledger row could not be written");
}
