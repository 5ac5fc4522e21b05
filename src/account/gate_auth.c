/* account/gate_auth.c - keys: who asks, and what happens to addresses that guess.
 *
 * The hash of what was sent is always computed and always compared, with the stored one or with a dummy, so
 * that an unknown key takes the time of a wrong one.  An address may fail 20 times and then 20 times a
 * minute; past that its failures are answered 429.  A right key is served from any address at any time:
 * behind a proxy everybody has one address, and 256 random bits are not found by those who may try freely
 * either. */
#include <arpa/inet.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "account/gate_internal.h"
#include "account/key.h"
#include "base/hash.h"
#include "base/log.h"

enum { GUESSES_PER_MINUTE = 20, KEY_BYTES_MAX = 512 };

/* One number for an IPv4 address or an IPv6 network of 64 bits. */
static uint64_t address_number(const rt_gate *gate, const char *address)
{
    unsigned char bytes[16] = {0};
    if (!address)
        address = "";
    if (inet_pton(AF_INET, address, bytes) == 1)
        return rt_hash64(bytes, 4, gate->guess_seed);
    if (inet_pton(AF_INET6, address, bytes) == 1)
        return rt_hash64(bytes, 8, gate->guess_seed);
    return rt_hash64(address, strlen(address), gate->guess_seed);
}

/* Counts a failure; true when the address has had too many.  A place holds one address: a collision, which
 * only the seed's keeper could arrange, shares its count. */
static bool guessed_too_often(rt_gate *gate, const char *address, double *wait_s)
{
    const uint64_t number = address_number(gate, address);
    const double now = gate->shared ? (double)rt_gate_unix_ms(gate) / 1000 : rt_gate_bucket_s(gate);
    guess *place = &gate->guesses[number % GUESS_PLACES];
    const double left = place->used - (now - place->used_at) * GUESSES_PER_MINUTE / 60;
    if (place->address != number && left <= 0)
        *place = (guess){.address = number};
    else
        place->used = left > 0 ? left : 0;
    place->used_at = now;
    if (place->used + 1 > GUESSES_PER_MINUTE) {
        *wait_s = (place->used + 1 - GUESSES_PER_MINUTE) * 60 / GUESSES_PER_MINUTE;
        return true;
    }
    place->used += 1;
    return false;
}

static bool refuse_key(rt_gate *gate, const char *address, const char *code, const char *message,
                       rt_refusal *refusal)
{
    double wait_s = 0;
    char shown[64];
    if (guessed_too_often(gate, address, &wait_s))
        return rt_refuse(refusal, 429, "requests", "rate_limit_exceeded", NULL, wait_s,
                         "too many wrong keys from this address");
    rt_text_clean(shown, sizeof shown, address);
    rt_log(RT_LOG_WARNING, "a key from %s was refused: %s", *shown ? shown : "an unknown address", code);
    return rt_refuse(refusal, 401, "authentication_error", code, NULL, -1, "%s", message);
}

static bool database_failed(const rt_error *err, rt_refusal *refusal)
{
    rt_log(RT_LOG_WARNING, "%s", err->text);
    return rt_refuse(refusal, 503, "server_error", "overloaded", NULL, 1,
                     "the account database does not answer");
}

/* The entry whose secret this is; NULL and *refusal otherwise.  With the tables locked, fresh as `status`
 * says. */
static key_entry *find_key(rt_gate *gate, const char *key, const char *address, bool admin, rt_status status,
                           const rt_error *err, rt_refusal *refusal)
{
    static const unsigned char no_hash[32];
    unsigned char hash[32];
    rt_key_text text;
    const bool formed = rt_key_parse(&text, key);
    (void)crypto_hash_sha256(hash, (const unsigned char *)key, strnlen(key, KEY_BYTES_MAX));
    if (status != RT_OK) {
        (void)database_failed(err, refusal);
        return NULL;
    }
    key_entry *entry = id_map_get(&gate->keys, formed ? text.id : "-");
    const bool same = sodium_memcmp(hash, entry ? entry->hash : no_hash, sizeof hash) == 0;
    if (!entry || !same || (entry->role != RT_ROLE_NONE) != admin) {
        (void)refuse_key(gate, address, "invalid_api_key", "this API key is not valid", refusal);
        return NULL;
    }
    const int64_t now_s = rt_gate_unix_ms(gate) / 1000;
    if (entry->revoked) {
        (void)refuse_key(gate, address, "revoked_api_key", "this API key was revoked", refusal);
        return NULL;
    }
    if (entry->expires && entry->expires <= now_s) {
        (void)refuse_key(gate, address, "expired_api_key", "this API key has expired", refusal);
        return NULL;
    }
    return entry;
}

static int64_t stricter(int64_t a, int64_t b) { return a < 0 ? b : b < 0 || a < b ? a : b; }

static bool is_bounded(const rt_limits *limits)
{
    return limits->budget >= 0 || limits->tpd >= 0 || limits->tpm >= 0 || limits->max_tokens >= 0;
}

static caller_box *make_caller(key_entry *key)
{
    caller_box *box = calloc(1, sizeof *box);
    if (!box)
        return NULL;
    account_entry *account = key->account;
    rt_caller *view = &box->view;
    (void)snprintf(view->account, sizeof view->account, "%s", account->counted.id);
    (void)snprintf(view->key, sizeof view->key, "%.23s", key->counted.id);
    const rt_limits *limits = rt_gate_account_limits(account);
    view->max_tokens = stricter(limits->max_tokens, key->limits.max_tokens);
    view->top_logprobs = stricter(limits->top_logprobs, key->limits.top_logprobs);
    view->score = account->permissions.score;
    view->capture = account->permissions.capture;
    view->prompt_log = account->permissions.prompt_log;
    view->distillation = account->permissions.distillation;
    view->created = (double)account->created;
    view->bounded = is_bounded(limits) || is_bounded(&key->limits);
    view->wants_prompt = account->prompts.keep != RT_PROMPT_NONE;
    view->full_prompt = account->prompts.keep == RT_PROMPT_FULL;
    view->models = account->permissions.models ? json_deep_copy(account->permissions.models) : NULL;
    box->account = account;
    box->key = key;
    atomic_init(&box->references, 1); /* the entry's */
    if (account->permissions.models && !view->models) {
        free(box);
        return NULL;
    }
    return box;
}

const rt_caller *rt_caller_retain(const rt_caller *caller)
{
    caller_box *box = (caller_box *)(void *)(uintptr_t)caller;
    (void)atomic_fetch_add(&box->references, 1);
    return caller;
}

void rt_caller_release(const rt_caller *caller)
{
    caller_box *box = (caller_box *)(void *)(uintptr_t)caller;
    if (box && atomic_fetch_sub(&box->references, 1) == 1) {
        json_decref(box->view.models);
        free(box);
    }
}

static const rt_caller *caller_of(key_entry *key, rt_refusal *refusal)
{
    if (!key->caller || key->caller_epoch != key->account->epoch) {
        caller_box *box = make_caller(key);
        if (!box) {
            (void)rt_refuse(refusal, 503, "server_error", "overloaded", NULL, 1, "out of memory");
            return NULL;
        }
        if (key->caller)
            rt_caller_release(&key->caller->view);
        key->caller = box;
        key->caller_epoch = key->account->epoch;
    }
    return rt_caller_retain(&key->caller->view);
}

static bool has_key(const char *key, rt_refusal *refusal)
{
    if (key && *key)
        return true;
    return rt_refuse(refusal, 401, "authentication_error", "missing_api_key", NULL, -1,
                     "no API key was given: send it as 'Authorization: Bearer KEY'");
}

const rt_caller *rt_gate_authenticate(rt_gate *gate, const char *key, const char *address,
                                      rt_refusal *refusal)
{
    if (!has_key(key, refusal))
        return NULL;
    rt_error err = {0};
    const rt_status status = rt_gate_lock_tables(gate, &err);
    key_entry *entry = find_key(gate, key, address, false, status, &err, refusal);
    const rt_caller *caller = entry ? caller_of(entry, refusal) : NULL;
    (void)pthread_mutex_unlock(&gate->mutex);
    return caller;
}

bool rt_gate_authenticate_admin(rt_gate *gate, const char *key, const char *address, rt_admin *admin,
                                rt_refusal *refusal)
{
    *admin = (rt_admin){.role = RT_ROLE_NONE};
    if (!has_key(key, refusal))
        return false;
    rt_error err = {0};
    const rt_status status = rt_gate_lock_tables(gate, &err);
    const key_entry *entry = find_key(gate, key, address, true, status, &err, refusal);
    if (entry) {
        admin->role = entry->role;
        (void)snprintf(admin->name, sizeof admin->name, "admin:%s %s", entry->counted.id, entry->name);
    }
    (void)pthread_mutex_unlock(&gate->mutex);
    return admin->role != RT_ROLE_NONE;
}

static bool check_open(const account_entry *account, rt_refusal *refusal)
{
    if (account->state == RT_ACCOUNT_CLOSED)
        (void)rt_refuse(refusal, 403, "permission_error", "account_closed", NULL, -1,
                        "this account is closed");
    else
        (void)rt_refuse(refusal, 403, "permission_error", "account_suspended", NULL, -1,
                        "this account is suspended, case %s: %s; to appeal, POST {\"statement\": ...} to "
                        "/v1/account/appeals",
                        *account->case_id ? account->case_id : "unknown",
                        *account->public_reason ? account->public_reason : "no reason was published");
    refusal->no_retry = true;
    return false;
}

bool rt_gate_check_state(rt_gate *gate, const rt_caller *caller, rt_refusal *refusal)
{
    caller_box *box = (caller_box *)(void *)(uintptr_t)caller;
    bool passes = true;
    (void)pthread_mutex_lock(&gate->mutex);
    const rt_terms *terms = gate->options.terms;
    account_entry *account = box->account;
    const bool over = account->until > 0 && account->until <= rt_gate_unix_ms(gate) / 1000;
    if (over) { /* the writer thread makes it so in the database */
        (void)pthread_mutex_lock(&gate->queue_mutex);
        gate->lift_expired = true;
        (void)pthread_cond_signal(&gate->queue_filled);
        (void)pthread_mutex_unlock(&gate->queue_mutex);
    }
    if (account->state == RT_ACCOUNT_CLOSED || (account->state == RT_ACCOUNT_SUSPENDED && !over)) {
        passes = check_open(account, refusal);
    } else if (terms && strcmp(account->terms, rt_terms_version(terms)) != 0) {
        passes =
            rt_refuse(refusal, 403, "permission_error", "terms_not_accepted", NULL, -1,
                      "the terms of use, version %s, must be accepted first: read %s and POST {\"version\": "
                      "\"%s\"} to /v1/account/terms",
                      rt_terms_version(terms), rt_terms_link(terms), rt_terms_version(terms));
        refusal->no_retry = true;
    }
    (void)pthread_mutex_unlock(&gate->mutex);
    return passes;
}
