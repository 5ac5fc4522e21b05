/* outputs/rls_code.c - a sequence as a record: see rls_code.h, and docs/rls.md for every bit.
 *
 * A record says its own size and carries a checksum, so that the sequences of a block that was cut, or of
 * which one byte is wrong, can be told apart: each is whole or not there. */
#include "outputs/rls_code.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/size.h"
#include "outputs/rls_bits.h"
#include "outputs/rls_bytes.h"

enum { MASK_PARAMETER = 4, PARAMETERS = 16, TAIL_NONE = 65535, COUNT_BITS = 13 };

#define CODE8_X_MAX 64.0   /* nats: less probable ids are kept as e^-64 */
#define CODE16_STEP 1024.0 /* codes a nat */
#define LOG_Z_STEP 256.0   /* codes a nat, from -128 to 128 */
#define LOG_S_STEP 1024.0  /* from -32 to 32 */

/* ---- numbers as codes ---- */

static double code8_step(void) { return log1p(CODE8_X_MAX / 2) / 255; }

static uint32_t code_of(unsigned bits, double logq)
{
    const double x = fmin(fmax(-logq, 0), CODE8_X_MAX);
    if (bits == 16)
        return (uint32_t)fmin(x * CODE16_STEP + 0.5, 65535);
    return (uint32_t)(log1p(x / 2) / code8_step() + 0.5);
}

static float value_of(unsigned bits, uint32_t code)
{
    return bits == 16 ? -(float)code / (float)CODE16_STEP : (float)(-2 * expm1(code * code8_step()));
}

double rt_rls_code_error(unsigned code_bits, double logq)
{
    const double x = fmax(-logq, 0);
    if (x > CODE8_X_MAX)
        return x - CODE8_X_MAX + 0.5;
    return (code_bits == 16 ? 1.0 / CODE16_STEP : (x + 2) * expm1(code8_step() / 2)) + 1e-6 * (1 + x);
}

static uint32_t tail_code(float tail)
{
    return (double)tail > -CODE8_X_MAX ? code_of(16, (double)tail) : TAIL_NONE;
}

static uint32_t bits_of_float(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float float_of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint32_t signed_code(float x, double step)
{
    return (uint32_t)(int32_t)lrint((double)x * step) & 0xffff;
}

static unsigned width_of(uint32_t n) { return n ? rls_log2(n) + 1 : 0; } /* bits of numbers 0..n */

/* ---- identity ---- */

void rls_document_key(unsigned char key[16], const int32_t *ids, const uint8_t *mask, size_t n)
{
    crypto_hash_sha256_state state;
    unsigned char digest[crypto_hash_sha256_BYTES], piece[1024];
    (void)crypto_hash_sha256_init(&state);
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        const uint32_t id = (uint32_t)ids[i];
        for (unsigned byte = 0; byte < 4; byte++)
            piece[used++] = (unsigned char)(id >> (8 * byte));
        if (used == sizeof piece || i + 1 == n) {
            (void)crypto_hash_sha256_update(&state, piece, used);
            used = 0;
        }
    }
    for (size_t i = 0; i < n; i++) { /* the first token is never a target */
        piece[used++] = i > 0 && mask[i];
        if (used == sizeof piece || i + 1 == n) {
            (void)crypto_hash_sha256_update(&state, piece, used);
            used = 0;
        }
    }
    (void)crypto_hash_sha256_final(&state, digest);
    memcpy(key, digest, 16);
}

/* ---- writing ---- */

/* The parameter under which the numbers take the fewest bits. */
static unsigned best_parameter(const uint32_t *numbers, size_t n)
{
    unsigned best = 0;
    size_t least = SIZE_MAX;
    for (unsigned p = 0; p < PARAMETERS; p++) {
        size_t bits = 0;
        for (size_t i = 0; i < n; i++)
            bits += rls_golomb_bits(numbers[i], p);
        if (bits < least) {
            least = bits;
            best = p;
        }
    }
    return best;
}

typedef struct group { /* the top-k, or the other ids of a row */
    const uint32_t *ids;
    const float *logq;
    const uint16_t *counts;
    size_t n;
    bool has_counts, zero_counts; /* zero_counts: a count of 0 can occur */
} group;

static void put_group(rls_bits_out *b, const group *g, unsigned code_bits)
{
    uint32_t gaps[RT_TOPK_MAX], codes[RT_TOPK_MAX], base = 0;
    for (size_t i = 0; i < g->n; i++) {
        gaps[i] = i ? g->ids[i] - g->ids[i - 1] - 1 : g->ids[0];
        codes[i] = code_of(code_bits, (double)g->logq[i]);
        base = codes[i] > base ? codes[i] : base;
    }
    for (size_t i = 0; i < g->n; i++)
        codes[i] = base - codes[i];
    const unsigned p_gap = best_parameter(gaps, g->n), p_code = best_parameter(codes, g->n);
    rls_put(b, p_gap, 4);
    rls_put(b, p_code, 4);
    rls_put(b, base, code_bits);
    for (size_t i = 0; i < g->n; i++)
        rls_put_golomb(b, gaps[i], p_gap);
    for (size_t i = 0; i < g->n; i++)
        rls_put_golomb(b, codes[i], p_code);
    for (size_t i = 0; g->has_counts && i < g->n; i++)
        rls_put_golomb(b, g->counts[i] - !g->zero_counts, 0);
}

/* A row as the header says: so many ids, draws and no surprises. */
static bool is_regular(const rt_sparse_row *row, const rt_rls_header *h, bool zeros)
{
    const uint32_t topk = h->topk < h->n_vocab ? h->topk : h->n_vocab;
    return row->n_topk == topk && row->n_draws == h->draws && row->n - row->n_topk <= h->draws && !zeros &&
           fabsf(row->log_z) < 127 && fabsf(row->log_s) < 31;
}

static void put_row(rls_bits_out *b, const rt_sparse_row *row, const rt_rls_header *h)
{
    const uint32_t extra = row->n - row->n_topk;
    bool zeros = false;
    for (uint32_t i = row->n_topk; i < row->n; i++)
        zeros |= !row->counts[i];
    const bool regular = is_regular(row, h, zeros);
    rls_put(b, !regular, 1);
    if (regular) {
        rls_put(b, extra, width_of(h->draws));
        rls_put(b, signed_code(row->log_z, LOG_Z_STEP), 16);
        if (h->proposal != 1)
            rls_put(b, signed_code(row->log_s, LOG_S_STEP), 16);
    } else {
        rls_put(b, row->n_topk, COUNT_BITS);
        rls_put(b, extra, COUNT_BITS);
        rls_put(b, row->n_draws, COUNT_BITS);
        rls_put(b, zeros, 1);
        rls_put(b, bits_of_float(row->log_z), 32);
        if (h->proposal != 1)
            rls_put(b, bits_of_float(row->log_s), 32);
    }
    if (row->n_topk) {
        rls_put(b, tail_code(row->tail_logprob), 16);
        put_group(b, &(group){row->ids, row->logq, row->counts, row->n_topk, row->n_draws > 0, true},
                  h->code_bits);
    }
    if (extra)
        put_group(b,
                  &(group){row->ids + row->n_topk, row->logq + row->n_topk, row->counts + row->n_topk, extra,
                           row->n_draws > 0, zeros},
                  h->code_bits);
}

static rt_status check_row(const rt_sparse_row *row, const rt_rls_header *h, size_t index, rt_error *err)
{
    bool ok = row->n_topk <= row->n && row->n_topk <= RT_TOPK_MAX && row->n - row->n_topk <= RT_TOPK_MAX &&
              row->n_draws <= RT_DRAWS_MAX && !(row->tail_logprob > 1e-3f);
    uint64_t counted = 0;
    for (size_t i = 0; ok && i < row->n; i++) {
        ok = row->ids[i] < h->n_vocab && row->logq[i] <= 1e-3f && /* NaN fails */
             (i == 0 || i == row->n_topk || row->ids[i] > row->ids[i - 1]);
        counted += row->counts[i];
    }
    if (!ok || counted != row->n_draws)
        return rt_error_set(
            err, RT_INVALID,
            "row %zu is not one that can be kept: ids must ascend below %u, log-probabilities "
            "be at most 0, and counts sum to the draws",
            index, (unsigned)h->n_vocab);
    return RT_OK;
}

static rt_status check_document(const rt_store_document *doc, const rt_rls_header *h, rt_error *err)
{
    if (doc->n_tokens == 0 || doc->n_tokens > RLS_SEQUENCE_MAX)
        return rt_error_set(err, RT_INVALID, "a sequence of %zu tokens cannot be kept (1 to %d)",
                            doc->n_tokens, RLS_SEQUENCE_MAX);
    size_t targets = 0;
    for (size_t i = 0; i < doc->n_tokens; i++) {
        if (doc->ids[i] < 0 || (uint32_t)doc->ids[i] >= h->n_vocab)
            return rt_error_set(err, RT_INVALID, "token %zu has the id %d, outside the vocabulary of %u", i,
                                (int)doc->ids[i], (unsigned)h->n_vocab);
        targets += i > 0 && doc->mask[i];
    }
    if (doc->rows.n_rows && doc->rows.n_rows != targets)
        return rt_error_set(err, RT_INVALID, "a sequence with %zu targets comes with %zu rows", targets,
                            doc->rows.n_rows);
    for (size_t r = 0; r < doc->rows.n_rows; r++) {
        const rt_sparse_row row = rt_sparse_rows_at(&doc->rows, r);
        if (check_row(&row, h, r, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

static void put_mask(rls_bits_out *b, const uint8_t *mask, size_t n)
{
    bool value = false;
    for (size_t at = 0; at < n; value = !value) {
        size_t end = at;
        while (end < n && (end > 0 && mask[end] != 0) == value)
            end++;
        rls_put_golomb(b, (uint32_t)(end - at), MASK_PARAMETER);
        at = end;
    }
}

rt_status rls_record_write(rt_text *out, const rt_rls_header *h, const rt_store_document *doc, rt_error *err)
{
    if (check_document(doc, h, err) != RT_OK)
        return err->status;
    const size_t begin = out->size;
    unsigned char head[RLS_RECORD_HEADER] = {0};
    rls_put_u32(head + 12, (uint32_t)doc->n_tokens);
    rls_document_key(head + 16, doc->ids, doc->mask, doc->n_tokens);
    rls_put_u64(head + 32, doc->number);
    rls_put_u32(head + 40, (uint32_t)doc->rows.n_rows);
    rt_text_append(out, head, sizeof head);
    rls_bits_out b = {.out = out};
    put_mask(&b, doc->mask, doc->n_tokens);
    const unsigned width = width_of(h->n_vocab - 1);
    for (size_t i = 0; i < doc->n_tokens; i++)
        rls_put(&b, (uint32_t)doc->ids[i], width);
    for (size_t r = 0; r < doc->rows.n_rows; r++) {
        const rt_sparse_row row = rt_sparse_rows_at(&doc->rows, r);
        put_row(&b, &row, h);
    }
    rls_put_end(&b);
    if (out->failed || out->size - begin > UINT32_MAX / 2)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a sequence of %zu tokens", doc->n_tokens);
    unsigned char *record = (unsigned char *)out->data + begin;
    rls_put_u32(record + 8, (uint32_t)(out->size - begin));
    rls_put_u64(record, rt_hash64(record + 8, out->size - begin - 8, 0));
    return RT_OK;
}

/* ---- reading ---- */

bool rls_record_header(rls_record *out, const unsigned char *data, size_t size)
{
    if (size < RLS_RECORD_HEADER)
        return false;
    *out = (rls_record){.data = data,
                        .size = rls_get_u32(data + 8),
                        .n_tokens = rls_get_u32(data + 12),
                        .number = rls_get_u64(data + 32),
                        .n_rows = rls_get_u32(data + 40)};
    memcpy(out->key, data + 16, 16);
    /* a token takes at least a bit, a row at least its flag */
    return out->size >= RLS_RECORD_HEADER && out->size <= size && out->n_tokens > 0 &&
           out->n_tokens <= RLS_SEQUENCE_MAX && out->n_rows < out->n_tokens && out->n_tokens / 8 <= out->size;
}

bool rls_record_find(rls_record *out, const unsigned char *data, size_t size)
{
    return rls_record_header(out, data, size) && rls_get_u64(data) == rt_hash64(data + 8, out->size - 8, 0);
}

static rt_status damaged(rt_error *err, const char *what)
{
    return rt_error_set(err, RT_CORRUPT, "the sequence is malformed: %s", what);
}

static rt_status get_mask(rls_bits_in *b, uint8_t *mask, size_t n, size_t *targets, rt_error *err)
{
    bool value = false;
    *targets = 0;
    for (size_t at = 0; at < n; value = !value) {
        const size_t run = rls_get_golomb(b, MASK_PARAMETER);
        if (!rls_bits_sound(b) || run > n - at || (run == 0 && at > 0))
            return damaged(err, "its mask does not have the length of its tokens");
        memset(mask + at, value, run);
        *targets += value ? run : 0;
        at += run;
    }
    return mask[0] ? damaged(err, "its first token is a target") : RT_OK;
}

static float values8[256]; /* of all codes of 8 bits */
static pthread_once_t values8_once = PTHREAD_ONCE_INIT;

static void fill_values8(void)
{
    for (uint32_t c = 0; c < 256; c++)
        values8[c] = value_of(8, c);
}

typedef struct row_room { /* where a row's entries are written */
    uint32_t *ids;
    float *logq;
    uint16_t *counts;
} row_room;

/* `n` entries; false when an id or code is out of range. */
static bool get_group(rls_bits_in *b, const row_room *to, size_t n, const rt_rls_header *h, bool has_counts,
                      bool zero_counts, uint64_t *counted)
{
    uint32_t numbers[RT_TOPK_MAX];
    const unsigned p_gap = rls_get(b, 4), p_code = rls_get(b, 4);
    const uint32_t base = rls_get(b, h->code_bits);
    const uint64_t next = rls_get_ids(b, p_gap, n, to->ids);
    uint32_t worst = 0;
    if (h->code_bits == 8) {
        worst = !rls_get_values(b, p_code, n, base, values8, to->logq);
    } else {
        rls_get_numbers(b, p_code, n, numbers);
        for (size_t i = 0; i < n; i++) {
            worst |= numbers[i] > base;
            to->logq[i] = value_of(16, base - numbers[i]);
        }
    }
    if (!has_counts) {
        memset(to->counts, 0, n * sizeof *to->counts);
        return !worst && next <= h->n_vocab;
    }
    rls_get_numbers(b, 0, n, numbers);
    for (size_t i = 0; i < n; i++) {
        const uint64_t count = (uint64_t)numbers[i] + !zero_counts;
        worst |= count > RT_DRAWS_MAX;
        to->counts[i] = (uint16_t)count;
        *counted += count;
    }
    return !worst && next <= h->n_vocab;
}

static rt_status get_row(rls_bits_in *b, rt_sparse_rows *rows, const rt_rls_header *h, rt_error *err)
{
    rt_sparse_head head = {.n_topk = h->topk < h->n_vocab ? h->topk : h->n_vocab, .n_draws = h->draws};
    uint32_t extra;
    bool zeros = false;
    if (!rls_get(b, 1)) {
        extra = rls_get(b, width_of(h->draws));
        head.log_z = (float)(int16_t)rls_get(b, 16) / (float)LOG_Z_STEP;
        if (h->proposal != 1)
            head.log_s = (float)(int16_t)rls_get(b, 16) / (float)LOG_S_STEP;
    } else {
        head.n_topk = rls_get(b, COUNT_BITS);
        extra = rls_get(b, COUNT_BITS);
        head.n_draws = rls_get(b, COUNT_BITS);
        zeros = rls_get(b, 1);
        head.log_z = float_of_bits(rls_get(b, 32));
        if (h->proposal != 1)
            head.log_s = float_of_bits(rls_get(b, 32));
    }
    head.n = head.n_topk + extra;
    if (head.n_topk > RT_TOPK_MAX || extra > RT_TOPK_MAX || head.n_draws > RT_DRAWS_MAX ||
        head.n_topk > h->n_vocab || extra > h->n_vocab || !rls_bits_sound(b))
        return damaged(err, "a row has more entries than it can");
    if (rt_sparse_rows_reserve(rows, 1, head.n, err) != RT_OK)
        return err->status;
    const size_t at = rows->n_rows ? rows->begins[rows->n_rows] : 0;
    const row_room top = {rows->ids + at, rows->logq + at, rows->counts + at};
    const row_room rest = {top.ids + head.n_topk, top.logq + head.n_topk, top.counts + head.n_topk};
    const bool counts = head.n_draws > 0;
    uint64_t counted = 0;
    bool ok = true;
    if (head.n_topk) {
        const uint32_t tail = rls_get(b, 16);
        head.tail_logprob = tail == TAIL_NONE ? -INFINITY : value_of(16, tail);
        ok = get_group(b, &top, head.n_topk, h, counts, true, &counted);
    }
    if (extra)
        ok = get_group(b, &rest, extra, h, counts, zeros, &counted) && ok;
    if (!ok || !rls_bits_sound(b) || counted != head.n_draws)
        return damaged(err, "a row has an id outside the vocabulary, or counts that are not its draws");
    rows->heads[rows->n_rows] = head;
    rows->begins[rows->n_rows] = at;
    rows->begins[++rows->n_rows] = at + head.n;
    return RT_OK;
}

static rt_status reserve(rt_store_document *doc, size_t n, rt_error *err)
{
    if (n <= doc->capacity)
        return RT_OK;
    int32_t *ids = realloc(doc->ids, n * sizeof *ids);
    doc->ids = ids ? ids : doc->ids;
    uint8_t *mask = ids ? realloc(doc->mask, n) : NULL;
    doc->mask = mask ? mask : doc->mask;
    if (!mask)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a sequence of %zu tokens", n);
    doc->capacity = n;
    return RT_OK;
}

rt_status rls_record_read(rt_store_document *doc, const rls_record *record, const rt_rls_header *h,
                          bool with_rows, rt_error *err)
{
    const size_t n = record->n_tokens;
    rt_sparse_rows_clear(&doc->rows);
    doc->n_tokens = 0;
    if (reserve(doc, n, err) != RT_OK)
        return err->status;
    rls_bits_in b = {.data = record->data + RLS_RECORD_HEADER, .size = record->size - RLS_RECORD_HEADER};
    size_t targets;
    if (get_mask(&b, doc->mask, n, &targets, err) != RT_OK)
        return err->status;
    const unsigned width = width_of(h->n_vocab - 1);
    uint32_t worst = 0;
    for (size_t i = 0; i < n; i++) {
        const uint32_t id = rls_get(&b, width);
        worst = id > worst ? id : worst;
        doc->ids[i] = (int32_t)id;
    }
    if (worst >= h->n_vocab || !rls_bits_sound(&b))
        return damaged(err, "a token's id is outside the vocabulary");
    if (record->n_rows && record->n_rows != targets)
        return damaged(err, "it has not as many rows as targets");
    doc->n_tokens = n;
    doc->number = record->number;
    (void)pthread_once(&values8_once, fill_values8);
    for (size_t r = 0; with_rows && r < record->n_rows; r++)
        if (get_row(&b, &doc->rows, h, err) != RT_OK)
            return err->status;
    return RT_OK;
}

void rt_store_document_deinit(rt_store_document *doc)
{
    free(doc->ids);
    free(doc->mask);
    rt_sparse_rows_deinit(&doc->rows);
    *doc = (rt_store_document){0};
}
