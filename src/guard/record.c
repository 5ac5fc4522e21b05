/* guard/record.c - see record.h.
 *
 * The bytes are little-endian, one field after the other in the order of `numbers`; counts stand before what
 * they count.  The same walk over the fields writes and reads, so that the two cannot differ. */
#include "guard/record.h"

#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "guard/signals.h"

enum { VERSION = 1 };

static uint32_t hash_of(rt_guard_span text, uint64_t key)
{
    const uint32_t h = (uint32_t)(rt_hash64(text.data, text.size, key) >> 32);
    return text.size ? (h ? h : 1) : 0;
}

static void copy_text(char *out, size_t max, rt_guard_span text)
{
    const size_t size = text.size < max ? text.size : max;
    if (size)
        memcpy(out, text.data, size);
    out[size] = '\0';
}

rt_status rt_guard_record_make(rt_guard_record *out, const rt_guard_event *event, uint64_t key, int network,
                               rt_error *err)
{
    const rt_guard_span name = event->account;
    if (name.size == 0 || name.size > RT_GUARD_ACCOUNT_BYTES_MAX || memchr(name.data, 0, name.size))
        return rt_error_set(err, RT_INVALID, "guard: an account's name must have 1 to %d bytes",
                            RT_GUARD_ACCOUNT_BYTES_MAX);
    out->ts = event->ts;
    out->created = event->created;
    copy_text(out->account, RT_GUARD_ACCOUNT_BYTES_MAX, name);
    copy_text(out->request, RT_GUARD_REQUEST_ID_BYTES, event->request);
    out->temperature = event->temperature;
    out->n = event->n ? event->n : 1;
    out->max_tokens = event->max_tokens;
    out->top_logprobs = event->top_logprobs;
    out->prompt_tokens = event->prompt_tokens;
    out->completion_tokens = event->completion_tokens;
    out->logprobs = event->logprobs;
    out->stream = event->stream;
    out->person = rt_guard_is_person(event->user_agent.data, event->user_agent.size);
    out->network = (int8_t)network;
    out->model = (uint8_t)(hash_of(event->model, 0) & 31);
    out->address = hash_of(event->ip, key);
    out->agent = hash_of(event->user_agent, key);
    out->payer = hash_of(event->pay_hash, key);
    out->bias_count = event->bias_count < RT_GUARD_BIAS_IDS_MAX ? event->bias_count : RT_GUARD_BIAS_IDS_MAX;
    memcpy(out->bias_ids, event->bias_ids, out->bias_count * sizeof *out->bias_ids);
    rt_guard_digest_make(&out->digest, event->prompt.data, event->prompt.size, key);
    return RT_OK;
}

/* ---- bytes ---- */

typedef struct cursor { /* writes to `out`, or reads from `in` up to `end` */
    unsigned char *out;
    const unsigned char *in, *end;
    bool failed; /* read past the end, or a value that cannot be */
} cursor;

static uint64_t word(cursor *c, uint64_t value, size_t bytes)
{
    if (c->out) {
        for (size_t i = 0; i < bytes; i++)
            *c->out++ = (unsigned char)(value >> (8 * i));
        return value;
    }
    if ((size_t)(c->end - c->in) < bytes) {
        c->failed = true;
        return 0;
    }
    uint64_t got = 0;
    for (size_t i = 0; i < bytes; i++)
        got |= (uint64_t)*c->in++ << (8 * i);
    return got;
}

static void put_u32(cursor *c, uint32_t *value) { *value = (uint32_t)word(c, *value, 4); }
static void put_u64(cursor *c, uint64_t *value) { *value = word(c, *value, 8); }

static void put_bool(cursor *c, bool *value)
{
    const uint64_t got = word(c, *value, 1);
    c->failed |= got > 1;
    *value = got == 1;
}

static void put_real(cursor *c, double *value)
{
    uint64_t bits;
    memcpy(&bits, value, sizeof bits);
    put_u64(c, &bits);
    memcpy(value, &bits, sizeof bits);
    c->failed |= !isfinite(*value) || *value < 0 || *value > RT_GUARD_TS_MAX;
}

static void put_float(cursor *c, float *value)
{
    uint32_t bits;
    memcpy(&bits, value, sizeof bits);
    put_u32(c, &bits);
    memcpy(value, &bits, sizeof bits);
    c->failed |= !isfinite(*value);
}

/* A count of at most `max`. */
static void put_count(cursor *c, uint32_t *count, uint32_t max)
{
    put_u32(c, count);
    if (*count > max) {
        c->failed = true;
        *count = 0;
    }
}

static void put_text(cursor *c, char *text, uint32_t max)
{
    uint32_t size = c->out ? (uint32_t)strlen(text) : 0;
    put_count(c, &size, max);
    for (uint32_t i = 0; i < size; i++) {
        text[i] = (char)word(c, (unsigned char)text[i], 1);
        c->failed |= text[i] == '\0';
    }
    text[size] = '\0';
}

static void put_digest(cursor *c, rt_guard_digest *d)
{
    uint64_t bytes = d->bytes;
    put_u64(c, &bytes);
    d->bytes = (size_t)bytes;
    put_u64(c, &d->exact);
    put_u64(c, &d->start);
    put_u64(c, &d->simhash);
    for (size_t i = 0; i < 2; i++) {
        put_u32(c, &d->heads[i]);
        put_u32(c, &d->tails[i]);
    }
    put_bool(c, &d->starts_lower);
    put_u32(c, &d->gap);
    put_count(c, &d->n_words, RT_DIGEST_WORDS);
    for (uint32_t i = 0; i < d->n_words; i++)
        put_u32(c, &d->words[i]);
    put_count(c, &d->n_borders, RT_DIGEST_BORDERS);
    for (uint32_t i = 0; i < d->n_borders; i++) {
        put_u32(c, &d->borders[i].bytes);
        put_u64(c, &d->borders[i].start);
    }
}

static void put_record(cursor *c, rt_guard_record *r)
{
    uint32_t *const numbers[] = {&r->max_tokens, &r->top_logprobs, &r->prompt_tokens, &r->completion_tokens,
                                 &r->address,    &r->agent,        &r->payer};
    put_real(c, &r->ts);
    put_real(c, &r->created);
    put_text(c, r->account, RT_GUARD_ACCOUNT_BYTES_MAX);
    put_text(c, r->request, RT_GUARD_REQUEST_ID_BYTES);
    put_float(c, &r->temperature);
    put_u32(c, &r->n);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        put_u32(c, numbers[i]);
    put_bool(c, &r->logprobs);
    put_bool(c, &r->stream);
    put_bool(c, &r->person);
    r->network = (int8_t)word(c, (uint8_t)r->network, 1);
    r->model = (uint8_t)word(c, r->model, 1);
    put_count(c, &r->bias_count, RT_GUARD_BIAS_IDS_MAX);
    for (uint32_t i = 0; i < r->bias_count; i++)
        put_u32(c, &r->bias_ids[i]);
    put_digest(c, &r->digest);
}

_Static_assert(RT_GUARD_RECORD_BYTES_MAX > RT_DIGEST_WORDS * 4 + RT_DIGEST_BORDERS * 12 +
                                               RT_GUARD_BIAS_IDS_MAX * 4 + RT_GUARD_ACCOUNT_BYTES_MAX +
                                               RT_GUARD_REQUEST_ID_BYTES + 256,
               "every record fits");

/* Tells records under different keys apart; says nothing of the key. */
static uint32_t check_of(uint64_t key) { return (uint32_t)rt_hash64("guard record", 12, key); }

size_t rt_guard_record_write(const rt_guard_record *record, uint64_t key, unsigned char *out)
{
    cursor c = {.out = out};
    (void)word(&c, VERSION, 1);
    (void)word(&c, check_of(key), 4);
    put_record(&c, (rt_guard_record *)(uintptr_t)record); /* writing changes nothing in it */
    return (size_t)(c.out - out);
}

rt_status rt_guard_record_read(rt_guard_record *out, uint64_t key, const void *data, size_t size,
                               rt_error *err)
{
    cursor c = {.in = data, .end = (const unsigned char *)data + size};
    const uint64_t version = word(&c, 0, 1), check = word(&c, 0, 4);
    if (c.failed || version != VERSION)
        return rt_error_set(err, RT_CORRUPT, "a guard's record of %zu bytes is not one of this version",
                            size);
    if (check != check_of(key))
        return rt_error_set(err, RT_INVALID, "a guard's record was made under another key");
    memset(out, 0, sizeof *out);
    put_record(&c, out);
    const rt_guard_digest *d = &out->digest;
    if (c.failed || c.in != c.end || out->account[0] == '\0' || out->n == 0 || out->model > 31 ||
        out->network < -1 || out->network >= RT_GUARD_NETWORKS ||
        (d->gap != UINT32_MAX && d->gap >= RT_DIGEST_WORDS))
        return rt_error_set(err, RT_CORRUPT, "a guard's record of %zu bytes is malformed", size);
    return RT_OK;
}
