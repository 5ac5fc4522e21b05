/* evidence/marker.c - see marker.h. */
#include "evidence/marker.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "evidence/hf_kgw.h"
#include "evidence/hf_synthid.h"
#include "tensor/mark.h"

enum { PAD = 16 };
/* Ids below this share of the probability do not take part in a tournament: they are drawn plainly, with the
 * probability that they have, which keeps the mean over keys exact and the tournament small. */
static const double taking_part = 0x1p-21;

struct rt_mark {
    rt_marker marker; /* first: a marker is its mark */
    rt_watermark key[2];
    size_t n_keys;
    double alpha, boost; /* boost: e^delta */
    bool skip_repeated;
    rt_hf_kgw kgw[2];
    rt_hf_synthid synthid[2];
};

typedef struct scratch { /* the draw's work memory, cut up; [n_vocab + PAD] each */
    float *p;
    int32_t *places;
    uint32_t *lo, *hi;
} scratch;

static scratch cut(const rt_draw *d)
{
    const size_t room = rt_size_round_up(d->n_vocab, PAD) + PAD;
    unsigned char *at = d->work;
    return (scratch){(float *)(void *)at, (int32_t *)(void *)(at + 4 * room),
                     (uint32_t *)(void *)(at + 8 * room), (uint32_t *)(void *)(at + 12 * room)};
}

static int32_t id_at(const rt_draw *d, size_t place) { return d->ids ? d->ids[place] : (int32_t)place; }

/* Was the window that ends here, of h ids, complete at an earlier place of the answer? */
static bool repeated(const int32_t *answer, size_t n, size_t h)
{
    const int32_t *window = answer + n - h;
    for (size_t i = h; i < n; i++)
        if (memcmp(answer + i - h, window, h * sizeof *window) == 0)
            return true;
    return false;
}

static double sum_of(const float *p, size_t n)
{
    double part[4] = {0};
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (size_t k = 0; k < 4; k++)
            part[k] += (double)p[i + k];
    for (; i < n; i++)
        part[0] += (double)p[i];
    return (part[0] + part[1]) + (part[2] + part[3]);
}

/* The place at which the running sum of p passes u. */
static size_t draw_from(const float *p, size_t n, double u)
{
    double left = u * sum_of(p, n);
    size_t last = 0;
    for (size_t i = 0; i < n; i++) {
        if (!(p[i] > 0))
            continue;
        last = i;
        left -= (double)p[i];
        if (left < 0)
            break;
    }
    return last;
}

/* A draw among the ids that take no part; d->n when there are none (their mass was rounding). */
static size_t draw_below(const rt_draw *d, float floor, double left)
{
    size_t last = d->n;
    for (size_t i = 0; i < d->n; i++) {
        if (!(d->p[i] > 0) || d->p[i] >= floor)
            continue;
        last = i;
        left -= (double)d->p[i];
        if (left < 0)
            break;
    }
    return last;
}

static int32_t tournament(const rt_watermark *w, const rt_hf_synthid *hf, const rt_draw *d)
{
    const rt_mark_ops *ops = rt_mark_ops_get();
    const scratch s = cut(d);
    const float floor = (float)(d->mass * taking_part);
    const size_t n = ops->gather(s.places, s.p, d->p, d->n, floor);
    const double kept = sum_of(s.p, n), below = fmax(0, d->mass - kept), at = d->u * d->mass;
    if (at < below) {
        const size_t place = draw_below(d, floor, at);
        if (place < d->n)
            return id_at(d, place);
    }
    if (n == 0)
        return -1;
    const float scale = (float)(1 / kept);
    for (size_t i = 0; i < n; i++)
        s.p[i] *= scale;
    const int32_t *answer = d->seen + d->n_seen - d->n_answer;
    if (hf) {
        const size_t h = hf->ngram_len - 1;
        uint64_t context = 1;
        for (size_t i = 0; i < h; i++)
            context = rt_hf_synthid_add(context, d->n_answer + i < h ? 0 : answer[d->n_answer + i - h]);
        for (size_t i = 0; i < n; i++) {
            const uint64_t x =
                rt_hf_synthid_bits(hf, rt_hf_synthid_add(context, id_at(d, (size_t)s.places[i])));
            s.lo[i] = (uint32_t)x;
            s.hi[i] = (uint32_t)(x >> 32);
        }
    } else {
        const uint64_t seed = rt_prf_seed(w->key, answer + d->n_answer - w->h, w->h);
        for (size_t i = 0; d->ids && i < n; i++) /* ids of the places, kept where hi is not yet written */
            s.hi[i] = (uint32_t)d->ids[s.places[i]];
        int32_t *ids = d->ids ? (int32_t *)(void *)s.hi : s.places;
        ops->mix(s.lo, s.hi, seed, ids, n);
    }
    for (size_t i = n; i < rt_size_round_up(n, PAD); i++) {
        s.p[i] = 0;
        s.lo[i] = s.hi[i] = 0;
    }
    const size_t layers = hf ? hf->n_keys : w->layers;
    ops->tournament(s.p, s.lo, n, rt_size_min(layers, 32));
    if (layers > 32)
        ops->tournament(s.p, s.hi, n, layers - 32);
    return id_at(d, (size_t)s.places[draw_from(s.p, n, fmax(0, (at - below) / (d->mass - below)))]);
}

/* argmax ln(u)/p = argmin -ln(u)/p.  As -ln u >= 1 - u, most ids need no logarithm. */
static int32_t gumbel(const rt_watermark *w, const rt_draw *d)
{
    const scratch s = cut(d);
    const uint64_t seed = rt_prf_seed(w->key, d->seen + d->n_seen - w->h, w->h);
    double least = HUGE_VAL;
    int32_t best = -1;
    rt_mark_ops_get()->mix(s.lo, s.hi, seed, d->ids, d->n);
    for (size_t i = 0; i < d->n; i++) {
        const double p = (double)d->p[i], u = rt_prf_u((uint64_t)s.hi[i] << 32 | s.lo[i]);
        if (!(p > 0) || 1 - u > least * p)
            continue;
        const double score = -log(u) / p;
        const int32_t id = id_at(d, i);
        if (score < least || (score == least && id < best)) {
            least = score;
            best = id;
        }
    }
    return best;
}

/* Draws with green ids' probabilities raised; `green` [n] is lent in the scratch. */
static int32_t raised(const rt_mark *m, const rt_draw *d, const uint8_t *green)
{
    size_t best = 0;
    for (size_t i = 0; i < d->n; i++) {
        d->p[i] *= green[i] ? (float)m->boost : 1;
        if (d->p[i] > d->p[best] || (d->p[i] == d->p[best] && id_at(d, i) < id_at(d, best)))
            best = i;
    }
    return id_at(d, d->greedy ? best : draw_from(d->p, d->n, d->u));
}

static int32_t native_green(const rt_mark *m, const rt_watermark *w, const rt_draw *d)
{
    const scratch s = cut(d);
    uint8_t *green = (uint8_t *)(void *)s.p;
    const uint64_t limit = rt_prf_limit(w->gamma);
    rt_mark_ops_get()->mix(s.lo, s.hi, rt_prf_seed(w->key, d->seen + d->n_seen - w->h, w->h), d->ids, d->n);
    for (size_t i = 0; i < d->n; i++)
        green[i] = ((uint64_t)s.hi[i] << 32 | s.lo[i]) < limit;
    return raised(m, d, green);
}

static int by_descending(const void *a, const void *b, void *context)
{
    const rt_draw *d = context;
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    if (d->p[x] != d->p[y])
        return d->p[x] < d->p[y] ? 1 : -1;
    const int32_t i = id_at(d, x), j = id_at(d, y);
    return (i > j) - (i < j);
}

/* The 40 likeliest candidates are tried, each with its own list. */
static void selfhash_green(rt_hf_kgw *k, const rt_draw *d, const scratch *s, uint8_t *green)
{
    enum { EXAMINED = 40 };
    int32_t window[RT_PRF_CONTEXT_MAX];
    const size_t width = k->context_width;
    for (size_t i = 0; i < d->n; i++)
        s->lo[i] = (uint32_t)i;
    qsort_r(s->lo, d->n, sizeof *s->lo, by_descending, (void *)(uintptr_t)d);
    memcpy(window, d->seen + d->n_seen - (width - 1), (width - 1) * sizeof *window);
    for (size_t i = 0; i < rt_size_min(d->n, EXAMINED); i++) {
        window[width - 1] = id_at(d, s->lo[i]);
        green[s->lo[i]] = rt_hf_kgw_green(k, window, width, window[width - 1]);
    }
}

static int32_t hf_green(const rt_mark *m, const rt_hf_kgw *lists, const rt_draw *d)
{
    const scratch s = cut(d);
    uint8_t *green = (uint8_t *)(void *)s.p, *in_list = green + d->n_vocab;
    rt_hf_kgw k = *lists;
    if (d->n_seen < k.context_width || d->n_vocab > k.n_vocab)
        return -1;
    k.work = s.hi;
    memset(green, 0, d->n);
    if (k.selfhash) {
        selfhash_green(&k, d, &s, green);
    } else {
        const uint32_t *list = rt_hf_kgw_list(&k, d->seen, d->n_seen);
        memset(in_list, 0, d->n_vocab);
        for (size_t i = 0; i < k.n_green; i++)
            in_list[list[i]] = 1;
        for (size_t i = 0; i < d->n; i++)
            green[i] = in_list[id_at(d, i)];
    }
    return raised(m, d, green);
}

/* transformers' rule: the context's hash is looked for among the last `history` ones, zeros at first. */
static bool synthid_repeated(const rt_hf_synthid *s, const rt_draw *d)
{
    const size_t h = s->ngram_len - 1, now = d->n_answer;
    const int32_t *answer = d->seen + d->n_seen - now;
    for (size_t back = 1; back <= rt_size_min(s->history, now); back++) {
        const size_t then = now - back;
        bool equal = true;
        for (size_t i = 0; equal && i < h; i++) {
            const int32_t a = now + i < h ? 0 : answer[now + i - h],
                          b = then + i < h ? 0 : answer[then + i - h];
            equal = a == b;
        }
        if (equal)
            return true;
    }
    return false;
}

static int32_t choose(const rt_marker *marker, const rt_draw *d)
{
    const rt_mark *m = (const rt_mark *)(const void *)marker;
    const size_t which = m->n_keys == 2 && d->coin < m->alpha;
    const rt_watermark *w = &m->key[which];
    const bool green =
        w->scheme == RT_SCHEME_KGW || w->scheme == RT_SCHEME_UNIGRAM || w->scheme == RT_SCHEME_HF_KGW;
    if (d->greedy && !green)
        return -1;
    if (w->scheme == RT_SCHEME_HF_SYNTHID)
        return synthid_repeated(&m->synthid[which], d) ? -1 : tournament(w, &m->synthid[which], d);
    if (w->scheme == RT_SCHEME_HF_KGW)
        return hf_green(m, &m->kgw[which], d);
    const int32_t *answer = d->seen + d->n_seen - d->n_answer;
    if (d->n_answer < w->h || ((!green || m->skip_repeated) && w->h && repeated(answer, d->n_answer, w->h)))
        return -1;
    switch (w->scheme) {
    case RT_SCHEME_GUMBEL:
        return gumbel(w, d);
    case RT_SCHEME_TOURNAMENT:
        return tournament(w, NULL, d);
    default:
        return native_green(m, w, d);
    }
}

static rt_status open_key(rt_mark *m, size_t i, const rt_watermark *w, rt_error *err)
{
    if (rt_watermark_check(w, err) != RT_OK)
        return err->status;
    m->key[i] = *w;
    m->n_keys = i + 1;
    if (w->scheme == RT_SCHEME_HF_KGW)
        return rt_hf_kgw_open(&m->kgw[i], w->n_vocab, w->selfhash, w->context_width, w->gamma, w->delta,
                              w->hashing_key, err);
    if (w->scheme == RT_SCHEME_HF_SYNTHID)
        return rt_hf_synthid_open(&m->synthid[i], w->ngram_len, w->keys, w->n_keys, w->table_size,
                                  w->table_seed, w->history, err);
    return RT_OK;
}

rt_status rt_mark_open(rt_mark **out, const rt_watermark *first, const rt_watermark *second, double alpha,
                       bool skip_repeated, rt_error *err)
{
    *out = NULL;
    if (second && (second->scheme != first->scheme || !(alpha >= 0 && alpha <= 1)))
        return rt_error_set(err, RT_INVALID,
                            "two keys mark with one scheme, the second with a share in 0..1, not %g", alpha);
    rt_mark *m = calloc(1, sizeof *m);
    if (!m)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a watermark");
    m->marker.choose = choose;
    m->alpha = alpha;
    m->boost = exp(first->delta);
    m->skip_repeated = skip_repeated;
    if (open_key(m, 0, first, err) != RT_OK || (second && open_key(m, 1, second, err) != RT_OK)) {
        rt_mark_close(m);
        return err->status;
    }
    *out = m;
    return RT_OK;
}

void rt_mark_close(rt_mark *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < 2; i++) {
        rt_hf_kgw_close(&m->kgw[i]);
        rt_hf_synthid_close(&m->synthid[i]);
    }
    free(m);
}

const rt_marker *rt_mark_marker(const rt_mark *m) { return &m->marker; }
rt_mark *rt_mark_of_marker(const rt_marker *marker) { return (rt_mark *)(uintptr_t)marker; }
