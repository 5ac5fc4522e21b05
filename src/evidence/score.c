/* evidence/score.c - see score.h. */
#include "evidence/score.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "evidence/hf_kgw.h"
#include "evidence/hf_synthid.h"
#include "evidence/saddle.h"
#include "evidence/tails.h"
#include "tensor/mark.h"

struct rt_scorer {
    rt_watermark mark;
    rt_hf_kgw kgw;
    rt_hf_synthid synthid;
    double weights[RT_PRF_LAYERS_MAX]; /* of the layers; sum 1 */
    double weight_squares;
    double bytes[8][256]; /* what a byte of x adds to the weighted sum */
    uint64_t limit;       /* green below it */
};

static const char *const words[] = {
#define WORD(name, word) word,
    RT_SCHEME_MAP(WORD)
#undef WORD
};

const char *rt_scheme_word(rt_scheme scheme) { return words[scheme]; }

int rt_scheme_from_word(const char *word)
{
    for (int i = 0; i < RT_SCHEME_COUNT; i++)
        if (strcmp(words[i], word) == 0)
            return i;
    return -1;
}

rt_watermark rt_watermark_default(rt_scheme scheme)
{
    return (rt_watermark){.scheme = scheme,
                          .h = scheme == RT_SCHEME_UNIGRAM ? 0 : 2,
                          .gamma = 0.25,
                          .delta = 2,
                          .layers = 30,
                          .context_width = 1,
                          .hashing_key = 15485863,
                          .ngram_len = 5,
                          .table_size = 65536,
                          .history = 1024};
}

size_t rt_watermark_context(const rt_watermark *m)
{
    if (m->scheme == RT_SCHEME_HF_KGW)
        return m->selfhash ? m->context_width - 1 : 1;
    return m->scheme == RT_SCHEME_HF_SYNTHID ? m->ngram_len - 1 : m->h;
}

rt_status rt_watermark_check(const rt_watermark *m, rt_error *err)
{
    if (m->scheme == RT_SCHEME_HF_KGW) {
        if (m->n_vocab == 0)
            return rt_error_set(err, RT_INVALID,
                                "hf-kgw needs the vocabulary of the model's config (padding included)");
        if (m->context_width == 0 || m->context_width > RT_PRF_CONTEXT_MAX)
            return rt_error_set(err, RT_INVALID, "hf-kgw: context_width %zu is not in 1..%d",
                                m->context_width, (int)RT_PRF_CONTEXT_MAX);
    } else if (m->scheme == RT_SCHEME_HF_SYNTHID) {
        if (m->n_keys == 0 || m->n_keys > RT_PRF_LAYERS_MAX || m->ngram_len < 2 ||
            m->ngram_len > RT_PRF_CONTEXT_MAX + 1)
            return rt_error_set(err, RT_INVALID,
                                "hf-synthid: 1..64 keys and an ngram_len of 2..17 are needed");
    } else if (m->h > RT_PRF_CONTEXT_MAX || (m->scheme == RT_SCHEME_UNIGRAM) != (m->h == 0)) {
        return rt_error_set(err, RT_INVALID, "a context of %zu ids: unigram has 0, the others 1..%d", m->h,
                            (int)RT_PRF_CONTEXT_MAX);
    }
    if (m->scheme == RT_SCHEME_TOURNAMENT && (m->layers == 0 || m->layers > RT_PRF_LAYERS_MAX))
        return rt_error_set(err, RT_INVALID, "a tournament has 1..64 layers, not %zu", m->layers);
    if (!(m->gamma > 0 && m->gamma < 1) || !(fabs(m->delta) <= 100))
        return rt_error_set(err, RT_INVALID, "gamma %g is not in (0, 1) or delta %g not in -100..100",
                            m->gamma, m->delta);
    return RT_OK;
}

static void set_weights(rt_scorer *s, size_t layers)
{
    rt_synthid_weights(s->weights, layers);
    for (size_t l = 0; l < layers; l++)
        s->weight_squares += s->weights[l] * s->weights[l];
    for (size_t b = 0; b < 8; b++)
        for (size_t v = 0; v < 256; v++)
            for (size_t l = 0; l < 8; l++)
                if (((v >> l) & 1) && 8 * b + l < layers)
                    s->bytes[b][v] += s->weights[8 * b + l];
}

rt_status rt_scorer_open(rt_scorer **out, const rt_watermark *mark, rt_error *err)
{
    *out = NULL;
    if (rt_watermark_check(mark, err) != RT_OK)
        return err->status;
    rt_scorer *s = calloc(1, sizeof *s);
    if (!s)
        return rt_error_set(err, RT_NO_MEMORY, "no memory to score");
    s->mark = *mark;
    s->limit = rt_prf_limit(mark->gamma);
    rt_status status = RT_OK;
    if (mark->scheme == RT_SCHEME_HF_KGW)
        status = rt_hf_kgw_open(&s->kgw, mark->n_vocab, mark->selfhash, mark->context_width, mark->gamma,
                                mark->delta, mark->hashing_key, err);
    else if (mark->scheme == RT_SCHEME_HF_SYNTHID)
        status = rt_hf_synthid_open(&s->synthid, mark->ngram_len, mark->keys, mark->n_keys, mark->table_size,
                                    mark->table_seed, mark->history, err);
    if (mark->scheme == RT_SCHEME_TOURNAMENT)
        set_weights(s, mark->layers);
    else if (mark->scheme == RT_SCHEME_HF_SYNTHID)
        set_weights(s, mark->n_keys);
    if (status == RT_OK)
        *out = s;
    else
        rt_scorer_close(s);
    return status;
}

void rt_scorer_close(rt_scorer *s)
{
    if (!s)
        return;
    rt_hf_kgw_close(&s->kgw);
    rt_hf_synthid_close(&s->synthid);
    free(s);
}

const rt_watermark *rt_scorer_mark(const rt_scorer *s) { return &s->mark; }

void rt_scorer_set_key(rt_scorer *s, const uint8_t key[RT_PRF_KEY_BYTES])
{
    memcpy(s->mark.key, key, RT_PRF_KEY_BYTES);
}

enum { CHUNK = 512 };

/* x of pairs [from, from + n), n <= CHUNK. */
static void draw_chunk(const rt_scorer *s, const rt_pairs *pairs, size_t from, size_t n, uint64_t x[CHUNK])
{
    const size_t h = s->mark.h;
    const int32_t *grams = rt_pairs_get(pairs, from);
    rt_mark_ops_get()->seeds(x, s->mark.key, grams, h + 1, h, n);
    rt_mark_ops_get()->mix_each(x, grams + h, h + 1, n);
}

static size_t count_green(const rt_scorer *s, const rt_pairs *pairs)
{
    const size_t n = rt_pairs_count(pairs);
    uint64_t x[CHUNK];
    size_t green = 0;
    for (size_t from = 0; from < n; from += CHUNK) {
        const size_t m = rt_size_min(n - from, CHUNK);
        draw_chunk(s, pairs, from, m, x);
        for (size_t i = 0; i < m; i++)
            green += x[i] < s->limit;
    }
    return green;
}

/* Lists of lefthash belong to one id: they are made once for each, in the order of ids. */
static size_t count_hf_green(rt_scorer *s, const rt_pairs *pairs, rt_error *err)
{
    const size_t n = rt_pairs_count(pairs), h = rt_pairs_context(pairs), vocab = s->mark.n_vocab;
    size_t green = 0;
    if (s->mark.selfhash) {
        for (size_t i = 0; i < n; i++) {
            const int32_t *gram = rt_pairs_get(pairs, i);
            green += rt_hf_kgw_green(&s->kgw, gram, h + 1, gram[h]);
        }
        return green;
    }
    uint32_t *first = calloc(vocab, sizeof *first), *next = calloc(n + 1, sizeof *next);
    uint8_t *raised = malloc(vocab);
    if (!first || !next || !raised) {
        (void)rt_error_set(err, RT_NO_MEMORY, "no memory to score %zu pairs", n);
    } else {
        for (size_t i = 0; i < n; i++) { /* lists of pairs by context, linked; 0 ends one */
            const int32_t *gram = rt_pairs_get(pairs, i);
            next[i] = first[gram[0]];
            first[gram[0]] = (uint32_t)i + 1;
        }
        for (size_t c = 0; c < vocab; c++) {
            const int32_t context = (int32_t)c;
            if (!first[c])
                continue;
            const uint32_t *list = rt_hf_kgw_list(&s->kgw, &context, 1);
            memset(raised, 0, vocab);
            for (size_t i = 0; i < s->kgw.n_green; i++)
                raised[list[i]] = 1;
            for (uint32_t i = first[c]; i; i = next[i - 1])
                green += raised[rt_pairs_get(pairs, i - 1)[1]];
        }
    }
    free(first);
    free(next);
    free(raised);
    return green;
}

static double sum_gumbel(const rt_scorer *s, const rt_pairs *pairs)
{
    const size_t n = rt_pairs_count(pairs);
    uint64_t x[CHUNK];
    double sum = 0;
    for (size_t from = 0; from < n; from += CHUNK) {
        const size_t m = rt_size_min(n - from, CHUNK);
        draw_chunk(s, pairs, from, m, x);
        for (size_t i = 0; i < m; i++)
            sum -= log1p(-rt_prf_u(x[i]));
    }
    return sum;
}

static void count_layers(const rt_scorer *s, const rt_pairs *pairs, rt_score *out)
{
    const size_t n = rt_pairs_count(pairs), h = rt_pairs_context(pairs);
    uint32_t counts[RT_PRF_LAYERS_MAX] = {0};
    uint64_t x[CHUNK];
    for (size_t from = 0; from < n; from += CHUNK) {
        const size_t m = rt_size_min(n - from, CHUNK);
        if (s->mark.scheme == RT_SCHEME_TOURNAMENT)
            draw_chunk(s, pairs, from, m, x);
        else
            for (size_t i = 0; i < m; i++)
                x[i] =
                    rt_hf_synthid_bits(&s->synthid, rt_hf_synthid_hash(rt_pairs_get(pairs, from + i), h + 1));
        rt_mark_ops_get()->count_bits(counts, x, m);
    }
    for (size_t l = 0; l < out->layers; l++) {
        out->per_layer[l] = counts[l];
        out->ones += counts[l];
        out->statistic += s->weights[l] * counts[l];
    }
}

static void tail_of_green(rt_score *out, double p)
{
    const double n = (double)out->n;
    out->statistic = (double)out->ones;
    out->mean = n * p;
    out->sd = sqrt(n * p * (1 - p));
    out->log10_p = out->log10_p_equal = rt_log10_binomial(out->n, out->ones, p);
}

static void tail_of_layers(const rt_scorer *s, rt_score *out, double p)
{
    const double n = (double)out->n;
    out->mean = n * p;
    out->sd = sqrt(n * p * (1 - p) * s->weight_squares);
    out->log10_p = rt_log10_weighted_bernoulli(s->weights, out->layers, out->n, p, out->statistic);
    out->log10_p_equal = rt_log10_binomial((uint64_t)out->n * out->layers, out->ones, p);
}

static rt_status check_ids(const rt_pairs *pairs, size_t n_vocab, rt_error *err)
{
    const size_t h = rt_pairs_context(pairs);
    for (size_t i = 0; i < rt_pairs_count(pairs); i++)
        for (size_t j = 0; j <= h; j++) {
            const int32_t id = rt_pairs_get(pairs, i)[j];
            if (id < 0 || (size_t)id >= n_vocab)
                return rt_error_set(err, RT_INVALID,
                                    "id %d is not in the vocabulary of %zu that the hf-kgw lists are drawn "
                                    "from: give the vocab_size of the model's config",
                                    id, n_vocab);
        }
    return RT_OK;
}

rt_status rt_scorer_run(rt_scorer *s, const rt_pairs *pairs, rt_score *out, rt_error *err)
{
    assert(rt_pairs_context(pairs) == rt_watermark_context(&s->mark));
    *out = (rt_score){.n = rt_pairs_count(pairs)};
    err->status = RT_OK;
    switch (s->mark.scheme) {
    case RT_SCHEME_KGW:
    case RT_SCHEME_UNIGRAM:
        out->ones = count_green(s, pairs);
        tail_of_green(out, s->mark.gamma);
        break;
    case RT_SCHEME_HF_KGW:
        if (check_ids(pairs, s->mark.n_vocab, err) != RT_OK)
            return err->status;
        out->ones = count_hf_green(s, pairs, err);
        tail_of_green(out, (double)s->kgw.n_green / (double)s->kgw.n_vocab);
        break;
    case RT_SCHEME_GUMBEL:
        out->statistic = sum_gumbel(s, pairs);
        out->mean = (double)out->n;
        out->sd = sqrt((double)out->n);
        out->log10_p = out->log10_p_equal = out->n ? rt_log10_gamma((double)out->n, out->statistic) : 0;
        break;
    default:
        out->layers = s->mark.scheme == RT_SCHEME_TOURNAMENT ? s->mark.layers : s->mark.n_keys;
        count_layers(s, pairs, out);
        tail_of_layers(s, out,
                       s->mark.scheme == RT_SCHEME_TOURNAMENT
                           ? 0.5
                           : (double)s->synthid.ones / (double)s->synthid.table_size);
        break;
    }
    out->z = out->sd > 0 ? (out->statistic - out->mean) / out->sd : 0;
    return err->status;
}

rt_unit rt_scorer_unit(const rt_scorer *s)
{
    const double g = s->mark.gamma;
    switch (s->mark.scheme) {
    case RT_SCHEME_KGW:
    case RT_SCHEME_UNIGRAM:
        return (rt_unit){g, g * (1 - g)};
    case RT_SCHEME_GUMBEL:
        return (rt_unit){1, 1};
    default:
        return (rt_unit){0.5, s->weight_squares / 4};
    }
}

double rt_scorer_one(const rt_scorer *s, uint64_t seed, int32_t token)
{
    const uint64_t x = rt_prf_x(seed, token);
    if (s->mark.scheme == RT_SCHEME_GUMBEL)
        return -log1p(-rt_prf_u(x));
    if (s->mark.scheme != RT_SCHEME_TOURNAMENT)
        return x < s->limit;
    double sum = 0;
    for (size_t b = 0; b < 8; b++)
        sum += s->bytes[b][(x >> (8 * b)) & 255];
    return sum;
}
