/* guard/guard.c - see guard.h: the table of accounts, one request's way through the signals, the saved state.
 *
 * Accounts live in blocks that never move; a hash table of indexes under a keyed hash finds them.  With the
 * table full, sixteen accounts are looked at from a place that the count of evictions gives, and the one
 * longest unseen that is not flagged makes room: bounded work, the same in a replay. */
#include "guard/guard.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/size.h"
#include "guard/cluster.h"
#include "guard/elicit.h"

enum {
    BLOCK = 256,
    ACCOUNTS_MAX_DEFAULT = 1000000,
    FIRST_CHECK = 20, /* a class of pupils is through with its exercises by then */
    NETWORK_BYTES_MAX = 31,
    NETWORKS_MAX = 100000,
    BLOCK_SECONDS = 7 * 86400,
    SWEEP_SECONDS = 6 * 3600,
};
static const uint64_t key_default = 0x7265746f72743031ULL;
#define LINKED_P_LEAST 1e-5 /* of a cluster: its bet is spread down to there */

typedef struct network {
    char name[NETWORK_BYTES_MAX + 1];
    int class_index;
} network;

struct rt_guard {
    rt_guard_options options;
    const rt_elicit_table *elicit;
    rt_guard_account **blocks;
    size_t n_blocks, count;
    uint32_t *slots;   /* index + 1; 0 is empty */
    size_t n_slots;    /* a power of two */
    network *networks; /* sorted by name */
    size_t n_networks, evicted;
    double swept; /* the number of the last span of sweep_seconds that a sweep was made for */
    rt_guard_drift drift;
};

static rt_guard_account *at(const rt_guard *guard, size_t index)
{
    return &guard->blocks[index / BLOCK][index % BLOCK];
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const network *)a)->name, ((const network *)b)->name);
}

static rt_status read_networks(rt_guard *guard, const char *path, rt_error *err)
{
    json_t *json = NULL, *value;
    const char *name;
    if (rt_json_read(&json, path, 16 << 20, err) != RT_OK)
        return err->status;
    rt_status status = RT_OK;
    if (!json_is_object(json) || json_object_size(json) > NETWORKS_MAX)
        status = rt_error_set(err, RT_CORRUPT,
                              "%.200s: must be an object of at most %d networks with their classes", path,
                              NETWORKS_MAX);
    guard->networks = calloc(json_object_size(json) + 1, sizeof *guard->networks);
    if (status == RT_OK && !guard->networks)
        status = rt_error_set(err, RT_NO_MEMORY, "%.200s: no memory for the networks", path);
    if (status == RT_OK)
        json_object_foreach(json, name, value)
        {
            network *one = &guard->networks[guard->n_networks];
            const size_t size = strlen(name);
            if (size > NETWORK_BYTES_MAX || !json_is_string(value)) {
                status =
                    rt_error_set(err, RT_CORRUPT, "%.200s: \"%.40s\" must have a class as text", path, name);
                break;
            }
            memcpy(one->name, name, size + 1);
            one->class_index = -1; /* a class that is not known says nothing */
            for (int k = 0; k < RT_GUARD_NETWORKS; k++)
                if (!strcmp(rt_guard_networks[k], json_string_value(value)))
                    one->class_index = k;
            guard->n_networks++;
        }
    json_decref(json);
    if (status == RT_OK)
        qsort(guard->networks, guard->n_networks, sizeof *guard->networks, by_name);
    return status;
}

static int network_of(const rt_guard *guard, rt_guard_span asn)
{
    network key;
    if (asn.size == 0 || asn.size > NETWORK_BYTES_MAX || guard->n_networks == 0)
        return -1;
    memcpy(key.name, asn.data, asn.size);
    key.name[asn.size] = '\0';
    const network *found =
        bsearch(&key, guard->networks, guard->n_networks, sizeof *guard->networks, by_name);
    return found ? found->class_index : -1;
}

rt_status rt_guard_open(rt_guard **out, const rt_guard_options *options, rt_error *err)
{
    *out = NULL;
    assert(rt_guard_feature_count() <= RT_GUARD_FEATURES);
    rt_guard *guard = calloc(1, sizeof *guard);
    if (!guard)
        return rt_error_set(err, RT_NO_MEMORY, "guard: no memory");
    guard->options = *options;
    if (!guard->options.accounts_max)
        guard->options.accounts_max = ACCOUNTS_MAX_DEFAULT;
    if (!guard->options.key)
        guard->options.key = key_default;
    if (!(guard->options.block_seconds > 0))
        guard->options.block_seconds = BLOCK_SECONDS;
    if (!(guard->options.sweep_seconds > 0))
        guard->options.sweep_seconds = SWEEP_SECONDS;
    if (!(guard->options.fdr > 0))
        guard->options.fdr = 0.1;
    guard->elicit = rt_elicit_builtin();
    rt_status status = RT_OK;
    if (!guard->options.reference)
        status = rt_guard_reference_builtin(&guard->options.reference, err);
    if (status == RT_OK && options->asn_path)
        status = read_networks(guard, options->asn_path, err);
    if (status != RT_OK) {
        rt_guard_close(guard);
        return status;
    }
    *out = guard;
    return RT_OK;
}

void rt_guard_close(rt_guard *guard)
{
    if (!guard)
        return;
    for (size_t b = 0; b < guard->n_blocks; b++)
        free(guard->blocks[b]);
    free(guard->blocks);
    free(guard->slots);
    free(guard->networks);
    free(guard);
}

/* ---- the table */

static uint64_t name_hash(const rt_guard *guard, const char *name, size_t size)
{
    return rt_hash64(name, size, guard->options.key);
}

static bool is_named(const rt_guard_account *account, const char *name, size_t size)
{
    return memcmp(account->name, name, size) == 0 && account->name[size] == '\0';
}

/* The slot of the name, or the empty one where it would go. */
static size_t slot_of(const rt_guard *guard, const char *name, size_t size)
{
    size_t slot = name_hash(guard, name, size) & (guard->n_slots - 1);
    while (guard->slots[slot] && !is_named(at(guard, guard->slots[slot] - 1), name, size))
        slot = (slot + 1) & (guard->n_slots - 1);
    return slot;
}

static void index_all(rt_guard *guard)
{
    memset(guard->slots, 0, guard->n_slots * sizeof *guard->slots);
    for (size_t i = 0; i < guard->count; i++) {
        const char *name = at(guard, i)->name;
        guard->slots[slot_of(guard, name, strlen(name))] = (uint32_t)(i + 1);
    }
}

/* Room for `count` accounts, and slots for twice as many. */
static rt_status reserve(rt_guard *guard, size_t count, rt_error *err)
{
    const size_t n_blocks = rt_size_ceil_div(count, BLOCK);
    if (n_blocks > guard->n_blocks) {
        rt_guard_account **blocks = realloc(guard->blocks, n_blocks * sizeof *blocks);
        if (!blocks)
            return rt_error_set(err, RT_NO_MEMORY, "guard: no memory for %zu accounts", count);
        guard->blocks = blocks;
        for (; guard->n_blocks < n_blocks; guard->n_blocks++) {
            blocks[guard->n_blocks] = calloc(BLOCK, sizeof **blocks);
            if (!blocks[guard->n_blocks])
                return rt_error_set(err, RT_NO_MEMORY, "guard: no memory for %zu accounts", count);
        }
    }
    if (count * 2 <= guard->n_slots)
        return RT_OK;
    size_t n_slots = guard->n_slots ? guard->n_slots : 1024;
    while (n_slots < count * 2)
        n_slots *= 2;
    uint32_t *slots = calloc(n_slots, sizeof *slots);
    if (!slots)
        return rt_error_set(err, RT_NO_MEMORY, "guard: no memory for %zu accounts", count);
    free(guard->slots);
    guard->slots = slots;
    guard->n_slots = n_slots;
    index_all(guard);
    return RT_OK;
}

/* Takes an entry out of the table and closes the gap that linear probing must not meet. */
static void unindex(rt_guard *guard, const rt_guard_account *account)
{
    const size_t mask = guard->n_slots - 1;
    size_t hole = slot_of(guard, account->name, strlen(account->name)), next = hole;
    for (;;) {
        guard->slots[hole] = 0;
        for (;;) {
            next = (next + 1) & mask;
            if (!guard->slots[next])
                return;
            const char *name = at(guard, guard->slots[next] - 1)->name;
            const size_t home = name_hash(guard, name, strlen(name)) & mask;
            if (((next - home) & mask) >= ((next - hole) & mask))
                break; /* it may move into the hole without passing its home */
        }
        guard->slots[hole] = guard->slots[next];
        hole = next;
    }
}

/* The place of the account that has to go. */
static size_t evict(rt_guard *guard)
{
    const size_t start = (size_t)(rt_guard_mix(guard->evicted, guard->options.key) % guard->count);
    size_t chosen = start;
    for (size_t k = 0; k < 16; k++) {
        const size_t i = (start + k) % guard->count;
        const rt_guard_account *a = at(guard, i), *b = at(guard, chosen);
        const bool kept = a->flagged_at != 0, other_kept = b->flagged_at != 0;
        if (kept < other_kept || (kept == other_kept && a->last_ts < b->last_ts))
            chosen = i;
    }
    unindex(guard, at(guard, chosen));
    memset(at(guard, chosen), 0, sizeof(rt_guard_account));
    guard->evicted++;
    return chosen;
}

static void begin_block(rt_guard_account *account, double ts);

static rt_status account_for(rt_guard_account **out, rt_guard *guard, const rt_guard_record *event,
                             rt_error *err)
{
    const size_t name_size = strlen(event->account);
    if (guard->n_slots) {
        const uint32_t known = guard->slots[slot_of(guard, event->account, name_size)];
        if (known) {
            *out = at(guard, known - 1);
            return RT_OK;
        }
    }
    size_t index = guard->count;
    if (guard->count >= guard->options.accounts_max)
        index = evict(guard);
    else if (reserve(guard, guard->count + 1, err) != RT_OK)
        return err->status;
    else
        guard->count++;
    rt_guard_account *account = at(guard, index);
    memcpy(account->name, event->account, name_size);
    account->last_ts = event->ts;
    account->created = event->created;
    account->index = (uint32_t)index;
    account->best_p = 1;
    account->best_score = -1e9F;
    begin_block(account, event->ts);
    guard->slots[slot_of(guard, event->account, name_size)] = (uint32_t)(index + 1);
    *out = account;
    return RT_OK;
}

/* ---- blocks of time */

/* What the running block says so far: the account's own bet; in a cluster a quarter of it and the rest on
 * the cluster's. */
static double bet_of(const rt_guard *guard, const rt_guard_account *account)
{
    const rt_guard_reference *r = guard->options.reference;
    const rt_evalue_path *path = &account->path;
    const double habit = (double)r->habit, least = 1 / ((double)r->n_benign[rt_guard_use_class(account)] + 1),
                 p = rt_evalue_p_after((double)account->p, (double)path->own_sum, path->blocks, habit),
                 own = rt_evalue_bet(p, least);
    if (!account->cluster)
        return own;
    const double linked =
        rt_evalue_p_after((double)account->lift_p, (double)path->linked_sum, path->blocks, habit);
    return 0.25 * own + 0.75 * rt_evalue_bet(linked, LINKED_P_LEAST);
}

/* An account that was never judged in the block and is in no accused cluster has made no bet. */
static bool has_bet(const rt_guard_account *account)
{
    return account->n >= FIRST_CHECK || account->lift_p < 1;
}

static void update_evidence(const rt_guard *guard, rt_guard_account *account)
{
    account->log_e = (float)(has_bet(account) ? rt_evalue_log(&account->path, bet_of(guard, account))
                                              : rt_evalue_log_closed(&account->path));
}

static void begin_block(rt_guard_account *account, double ts)
{
    static const rt_guard_account nothing;
    const rt_guard_account old = *account;
    memcpy(account, &nothing, sizeof *account); /* padding too: states are compared and hashed as bytes */
    memcpy(account->name, old.name, sizeof old.name);
    account->created = old.created;
    account->first_ts = account->last_ts = account->block_start = ts;
    account->next_check = FIRST_CHECK;
    account->score = account->last_score = account->cluster_score = -1e9F;
    account->p = account->cluster_p = account->lift_p = 1;
    account->flagged_at = old.flagged_at;
    account->index = old.index;
    account->cluster = old.cluster;
    account->n_before = rt_guard_requests(&old);
    account->best_score = old.best_score;
    account->best_p = old.best_p;
    account->path = old.path;
    account->log_e = old.log_e;
    account->confirmed = old.confirmed;
}

static void close_block(rt_guard *guard, rt_guard_account *account)
{
    const int use_class = rt_guard_use_class(account);
    if (has_bet(account))
        rt_evalue_close_block(&account->path, bet_of(guard, account), rt_evalue_deviate((double)account->p),
                              rt_evalue_deviate(fmin(0.5, (double)account->lift_p)));
    if (account->n >= FIRST_CHECK)
        rt_guard_drift_add(&guard->drift, account->last_ts, use_class, (double)account->p);
    account->best_score = fmaxf(account->best_score, fmaxf(account->score, account->cluster_score));
    account->best_p = fminf(account->best_p, fminf(account->p, account->lift_p));
}

/* Is the event past the account's block?  A clock that was set back by more than a block ends it as well. */
static bool is_past(const rt_guard *guard, const rt_guard_account *account, double ts)
{
    return fabs(ts - account->block_start) >= guard->options.block_seconds;
}

uint32_t rt_guard_requests(const rt_guard_account *account) { return account->n_before + account->n; }
double rt_guard_e(const rt_guard_account *account) { return exp(fmin(700, (double)account->log_e)); }

/* ---- one request */

static float p_of(const rt_guard *guard, const rt_guard_account *account)
{
    return rt_guard_p(guard->options.reference, rt_guard_use_class(account), account->score,
                      rt_guard_lot(account->name));
}

static void check(rt_guard *guard, rt_guard_account *account)
{
    float features[RT_GUARD_FEATURES];
    rt_guard_measure(account, features);
    if (guard->options.on_check)
        guard->options.on_check(guard->options.context, account, features);
    const float score = rt_guard_score(guard->options.reference, features);
    /* two checks in a row: one that stands out between two that do not is noise */
    account->score = fmaxf(account->score, fminf(score, account->last_score));
    account->last_score = score;
    account->p = p_of(guard, account);
    if (account->p < 0.01F && !account->flagged_at)
        account->flagged_at = rt_guard_requests(account);
    update_evidence(guard, account);
    account->next_check = account->n + 1 + account->n / 7;
}

rt_status rt_guard_record_of(const rt_guard *guard, rt_guard_record *out, const rt_guard_event *event,
                             rt_error *err)
{
    return rt_guard_record_make(out, event, guard->options.key, network_of(guard, event->asn), err);
}

rt_status rt_guard_observe(rt_guard *guard, const rt_guard_event *event, rt_guard_verdict *verdict,
                           rt_error *err)
{
    rt_guard_record record;
    if (rt_guard_record_of(guard, &record, event, err) != RT_OK)
        return err->status;
    return rt_guard_observe_record(guard, &record, verdict, err);
}

rt_status rt_guard_observe_record(rt_guard *guard, const rt_guard_record *event, rt_guard_verdict *verdict,
                                  rt_error *err)
{
    rt_guard_account *account = NULL;
    if (account_for(&account, guard, event, err) != RT_OK)
        return err->status;
    if (is_past(guard, account, event->ts)) {
        close_block(guard, account);
        begin_block(account, event->ts);
        update_evidence(guard, account);
    }
    const rt_guard_digest *digest = &event->digest;
    rt_guard_elicited elicited;
    rt_guard_seen seen = {.event = event, .digest = digest, .elicited = &elicited, .key = guard->options.key};
    for (size_t s = 0; s < rt_guard_signal_count; s++) {
        rt_guard_signal_at(s)->observe(account, &seen);
        if (s == 0) { /* it is known whether the prompt is a new one, and all others want to know the task */
            seen.task = (rt_guard_range){0, digest->n_words};
            if (!seen.continued && !seen.repeated)
                seen.task = rt_guard_frames_find(&account->frames, digest);
            rt_elicit(&elicited, guard->elicit, digest, seen.task);
        }
    }
    if (rt_guard_requests(account) < UINT32_MAX)
        account->n++;
    account->last_ts = fmax(account->last_ts, event->ts);
    const bool was_flagged = account->flagged_at != 0, due = account->n >= account->next_check;
    if (due)
        check(guard, account);
    else if (account->n == 1) /* nothing is known yet: a tie with all of whom nothing is */
        account->p = p_of(guard, account);
    *verdict = (rt_guard_verdict){.score = account->score,
                                  .p = account->p,
                                  .checked = due,
                                  .newly_flagged = !was_flagged && account->flagged_at,
                                  .e = rt_guard_e(account),
                                  .requests = rt_guard_requests(account),
                                  .flagged_at = account->flagged_at};
    for (int k = 0; k < RT_GUARD_WANTS; k++)
        if (elicited.want[k] > verdict->want_probability) {
            verdict->want = k;
            verdict->want_probability = elicited.want[k];
        }
    return RT_OK;
}

size_t rt_guard_count(const rt_guard *guard) { return guard->count; }
const rt_guard_account *rt_guard_account_at(const rt_guard *guard, size_t index) { return at(guard, index); }
size_t rt_guard_evicted(const rt_guard *guard) { return guard->evicted; }
const rt_guard_reference *rt_guard_reference_of(const rt_guard *guard) { return guard->options.reference; }
const rt_guard_drift *rt_guard_drift_of(const rt_guard *guard) { return &guard->drift; }
uint64_t rt_guard_key(const rt_guard *guard) { return guard->options.key; }

const rt_guard_account *rt_guard_find(const rt_guard *guard, const char *name)
{
    const size_t size = strlen(name);
    if (!guard->n_slots || size == 0 || size > RT_GUARD_ACCOUNT_BYTES_MAX)
        return NULL;
    const uint32_t known = guard->slots[slot_of(guard, name, size)];
    return known ? at(guard, known - 1) : NULL;
}

/* ---- sweeps */

bool rt_guard_sweep_due(const rt_guard *guard, double ts)
{
    return guard->count > 0 && floor(ts / guard->options.sweep_seconds) > guard->swept;
}

/* e-BH over accounts, and over clusters, each with the mean of its members' e-values (a mean of e-values is
 * one, however they depend). */
static rt_status confirm(rt_guard *guard, rt_error *err)
{
    double *e = calloc(guard->count + 1, sizeof *e), *sums = calloc(guard->count + 1, sizeof *sums);
    uint32_t *sizes = calloc(guard->count + 1, sizeof *sizes);
    rt_status status =
        e && sums && sizes
            ? RT_OK
            : rt_error_set(err, RT_NO_MEMORY, "guard: no memory to confirm %zu accounts", guard->count);
    if (status == RT_OK) {
        size_t clusters = 0;
        for (size_t i = 0; i < guard->count; i++) {
            const rt_guard_account *account = at(guard, i);
            e[i] = rt_guard_e(account);
            if (account->cluster && account->cluster <= guard->count) {
                sums[account->cluster - 1] += e[i];
                sizes[account->cluster - 1]++;
            }
        }
        const double least = rt_ebh_threshold(e, guard->count, guard->options.fdr);
        for (size_t c = 0; c < guard->count; c++)
            if (sizes[c]) {
                sums[c] /= sizes[c];
                e[clusters++] = sums[c];
            }
        const double least_linked = rt_ebh_threshold(e, clusters, guard->options.fdr);
        for (size_t i = 0; i < guard->count; i++) {
            rt_guard_account *account = at(guard, i);
            const bool linked = account->cluster && account->cluster <= guard->count &&
                                sums[account->cluster - 1] >= least_linked;
            account->confirmed = (rt_guard_e(account) >= least ? 1U : 0U) | (linked ? 2U : 0U);
        }
    }
    free(e);
    free(sums);
    free(sizes);
    return status;
}

rt_status rt_guard_sweep(rt_guard *guard, double ts, rt_error *err)
{
    guard->swept = fmax(guard->swept, floor(ts / guard->options.sweep_seconds));
    if (rt_guard_clusters_find(guard, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < guard->count; i++)
        update_evidence(guard, at(guard, i));
    return confirm(guard, err);
}

rt_guard_account *rt_guard_account_edit(rt_guard *guard, size_t index) { return at(guard, index); }

/* ---- the state as bytes: header, accounts, hash of both */

typedef struct state_header {
    char magic[8]; /* "rtguard3" */
    uint64_t key, count, evicted, account_bytes, reference;
    int64_t mark;
    double swept;
    rt_guard_drift drift;
} state_header;

static const char state_magic[] = "rtguard3";

static state_header header_of(const rt_guard *guard, int64_t mark)
{
    state_header header = {.key = guard->options.key,
                           .count = guard->count,
                           .evicted = guard->evicted,
                           .account_bytes = sizeof(rt_guard_account),
                           .reference = rt_guard_reference_digest(guard->options.reference),
                           .mark = mark,
                           .swept = guard->swept,
                           .drift = guard->drift};
    memcpy(header.magic, state_magic, 8);
    return header;
}

rt_status rt_guard_write(const rt_guard *guard, int64_t mark, rt_guard_sink sink, void *context,
                         rt_error *err)
{
    const state_header header = header_of(guard, mark);
    uint64_t hash = rt_hash64(&header, sizeof header, 0);
    rt_status status = sink(context, &header, sizeof header, err);
    for (size_t i = 0; status == RT_OK && i < guard->count; i++) {
        hash = rt_hash64(at(guard, i), sizeof(rt_guard_account), hash);
        status = sink(context, at(guard, i), sizeof(rt_guard_account), err);
    }
    return status == RT_OK ? sink(context, &hash, sizeof hash, err) : status;
}

static rt_status to_file(void *context, const void *data, size_t size, rt_error *err)
{
    return rt_writer_write(context, data, size, err);
}

rt_status rt_guard_save(const rt_guard *guard, int64_t mark, const char *path, rt_error *err)
{
    rt_writer writer;
    if (rt_writer_open(&writer, path, err) != RT_OK)
        return err->status;
    const rt_status status = rt_guard_write(guard, mark, to_file, &writer, err);
    if (status == RT_OK)
        return rt_writer_commit(&writer, err);
    rt_writer_abort(&writer);
    return status;
}

static rt_status state_check(const rt_guard *guard, const unsigned char *data, size_t size, const char *where,
                             rt_error *err)
{
    state_header header;
    size_t bytes;
    uint64_t hash, stored;
    if (size < sizeof header + sizeof hash)
        return rt_error_set(err, RT_CORRUPT, "%.200s: is cut short", where);
    memcpy(&header, data, sizeof header);
    const state_header want = header_of(guard, 0);
    if (memcmp(header.magic, want.magic, 8) != 0 || header.account_bytes != want.account_bytes)
        return rt_error_set(err, RT_CORRUPT, "%.200s: is not a guard's state of this build", where);
    if (header.key != want.key || header.reference != want.reference)
        return rt_error_set(err, RT_INVALID, "%.200s: was saved under another key or reference", where);
    if (!isfinite(header.swept))
        return rt_error_set(err, RT_CORRUPT, "%.200s: has no time of its last sweep", where);
    if (header.count > guard->options.accounts_max)
        return rt_error_set(err, RT_INVALID, "%.200s: holds %llu accounts; %zu are allowed here", where,
                            (unsigned long long)header.count, guard->options.accounts_max);
    if (!rt_size_mul((size_t)header.count, sizeof(rt_guard_account), &bytes) ||
        bytes != size - sizeof header - sizeof hash)
        return rt_error_set(err, RT_CORRUPT, "%.200s: has %zu bytes, which is not what its header says",
                            where, size);
    hash = rt_hash64(&header, sizeof header, 0);
    for (size_t i = 0; i < header.count; i++)
        hash = rt_hash64(data + sizeof header + i * sizeof(rt_guard_account), sizeof(rt_guard_account), hash);
    memcpy(&stored, data + size - sizeof stored, sizeof stored);
    if (stored != hash)
        return rt_error_set(err, RT_CORRUPT, "%.200s: its checksum does not hold", where);
    return RT_OK;
}

static bool is_time(double ts) { return isfinite(ts) && ts >= 0 && ts <= RT_GUARD_TS_MAX; }

/* Can an account be so?  The checksum only tells of accidents, and indices in an account are trusted. */
static bool is_sound(const rt_guard_account *a, size_t index)
{
    const rt_hash_sample *const samples[] = {&a->link.prompts, &a->link.fillers, &a->link.templates};
    const rt_guard_frame_side *const sides[] = {&a->frames.front, &a->frames.back};
    float features[RT_GUARD_FEATURES];
    bool sound = a->name[0] && memchr(a->name, 0, sizeof a->name) && a->index == index &&
                 is_time(a->first_ts) && is_time(a->last_ts) && is_time(a->created) &&
                 is_time(a->block_start) && isfinite(a->score) && isfinite(a->last_score) && a->p >= 0 &&
                 a->p <= 1 && a->lift_p >= 0 && a->lift_p <= 1 && a->cluster_p >= 0 && a->cluster_p <= 1 &&
                 a->best_p >= 0 && a->best_p <= 1 && a->log_e < 1e30F && isfinite(a->cluster_score) &&
                 isfinite(a->best_score) && isfinite(a->path.own_sum) && isfinite(a->path.linked_sum);
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++)
        sound = sound && samples[i]->count <= RT_SAMPLE_ITEMS;
    for (size_t s = 0; s < 2; s++)
        for (size_t f = 0; f < RT_GUARD_FRAMES; f++)
            sound = sound && sides[s]->length[f] <= RT_GUARD_FRAME_WORDS;
    for (size_t i = 0; i < RT_EVALUE_STAKES; i++)
        sound = sound && a->path.log_wealth[i] < 1e30F; /* minus infinity: all of a stake is lost */
    if (!sound)
        return false;
    rt_guard_measure(a, features);
    for (size_t f = 0; f < rt_guard_feature_count(); f++)
        sound = sound && isfinite(features[f]);
    return sound;
}

rt_status rt_guard_read(rt_guard *guard, int64_t *mark, const void *bytes, size_t size, const char *where,
                        rt_error *err)
{
    const unsigned char *data = bytes;
    state_header header;
    if (state_check(guard, data, size, where, err) != RT_OK)
        return err->status;
    memcpy(&header, data, sizeof header);
    if (reserve(guard, (size_t)header.count + 1, err) != RT_OK)
        return err->status;
    guard->count = (size_t)header.count;
    guard->evicted = (size_t)header.evicted;
    guard->swept = header.swept;
    guard->drift = header.drift;
    for (size_t i = 0; i < guard->count; i++) {
        rt_guard_account *account = at(guard, i);
        memcpy(account, data + sizeof header + i * sizeof *account, sizeof *account);
        if (!is_sound(account, i)) {
            guard->count = 0;
            index_all(guard);
            return rt_error_set(err, RT_CORRUPT, "%.200s: account %zu cannot be as it is there", where, i);
        }
    }
    index_all(guard);
    *mark = header.mark;
    return RT_OK;
}

rt_status rt_guard_load(rt_guard *guard, int64_t *mark, const char *path, rt_error *err)
{
    rt_file file;
    if (rt_file_map(&file, path, err) != RT_OK)
        return err->status;
    const rt_status status = rt_guard_read(guard, mark, file.data, file.size, path, err);
    rt_file_unmap(&file);
    return status;
}

rt_status rt_guard_state_key(uint64_t *key, const char *path, rt_error *err)
{
    rt_file file;
    state_header header;
    if (rt_file_map(&file, path, err) != RT_OK)
        return err->status;
    rt_status status = RT_OK;
    if (file.size < sizeof header || memcmp(file.data, state_magic, 8) != 0)
        status = rt_error_set(err, RT_CORRUPT, "%.200s: is not a guard's state of this build", path);
    else {
        memcpy(&header, file.data, sizeof header);
        *key = header.key;
    }
    rt_file_unmap(&file);
    return status;
}
