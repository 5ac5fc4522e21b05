/* evidence/hf_kgw.c - see hf_kgw.h. */
#include "evidence/hf_kgw.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "evidence/pairs.h"
#include "evidence/tails.h"
#include "evidence/torch_rng.h"

enum { TABLE = 1000003, EXAMINED = 40, VOCAB_MAX = 1 << 24, WIDTH_MAX = 16 };

rt_status rt_hf_kgw_open(rt_hf_kgw *k, size_t n_vocab, bool selfhash, size_t context_width, double gamma,
                         double bias, uint64_t key, rt_error *err)
{
    *k = (rt_hf_kgw){0};
    if (n_vocab == 0 || n_vocab > VOCAB_MAX || context_width == 0 || context_width > WIDTH_MAX ||
        !(gamma > 0 && gamma < 1) || !isfinite(bias))
        return rt_error_set(err, RT_INVALID,
                            "hf-kgw: a vocabulary of 1..2^24, a context of 1..16 and a share in (0, 1) are "
                            "needed, not %zu, %zu and %g",
                            n_vocab, context_width, gamma);
    *k = (rt_hf_kgw){.n_vocab = n_vocab,
                     .selfhash = selfhash,
                     .context_width = context_width,
                     .gamma = gamma,
                     .bias = bias,
                     .key = key,
                     .n_green = (size_t)((double)n_vocab * gamma)};
    k->work = malloc(n_vocab * sizeof *k->work);
    k->table = selfhash ? malloc(TABLE * sizeof *k->table) : NULL;
    if (!k->work || (selfhash && !k->table)) {
        rt_hf_kgw_close(k);
        return rt_error_set(err, RT_NO_MEMORY, "hf-kgw: no memory for the lists of %zu ids", n_vocab);
    }
    if (selfhash) {
        rt_torch_rng rng;
        rt_torch_rng_seed(&rng, key);
        rt_torch_randperm(&rng, k->table, TABLE, TABLE);
    }
    return RT_OK;
}

void rt_hf_kgw_close(rt_hf_kgw *k)
{
    free(k->table);
    free(k->work);
    *k = (rt_hf_kgw){0};
}

size_t rt_hf_kgw_window(const rt_hf_kgw *k) { return k->selfhash ? k->context_width : 1; }

uint64_t rt_hf_kgw_seed(const rt_hf_kgw *k, const int32_t *ids, size_t n)
{
    if (!k->selfhash) { /* Python's integers do not wrap: the remainder is of the whole product */
        const unsigned __int128 product = (unsigned __int128)k->key * (uint32_t)ids[n - 1];
        return (uint64_t)(product % UINT64_MAX);
    }
    const size_t width = rt_size_min(n, k->context_width);
    const uint64_t last = (uint64_t)k->table[(uint32_t)ids[n - 1] % TABLE] + 1;
    int64_t least = INT64_MAX;
    for (size_t i = n - width; i < n; i++) {
        const uint64_t wrapped = k->key * ((uint64_t)k->table[(uint32_t)ids[i] % TABLE] + 1) * last;
        int64_t product;
        memcpy(&product, &wrapped, sizeof product);
        least = product < least ? product : least;
    }
    /* the remainder by 2^64 - 1, never negative */
    return least >= 0 ? (uint64_t)least : (uint64_t)least - 1;
}

const uint32_t *rt_hf_kgw_list(rt_hf_kgw *k, const int32_t *ids, size_t n)
{
    rt_torch_rng rng;
    rt_torch_rng_seed(&rng, rt_hf_kgw_seed(k, ids, n));
    rt_torch_randperm(&rng, k->work, k->n_vocab, k->n_green);
    return k->work;
}

bool rt_hf_kgw_green(rt_hf_kgw *k, const int32_t *ids, size_t n, int32_t target)
{
    const uint32_t *list = rt_hf_kgw_list(k, ids, n);
    for (size_t i = 0; i < k->n_green; i++)
        if (list[i] == (uint32_t)target)
            return true;
    return false;
}

/* The ids of the EXAMINED highest scores, by descending score and ascending id. */
static size_t highest(const float *scores, size_t n, int32_t out[EXAMINED])
{
    size_t kept = 0;
    for (size_t v = 0; v < n; v++) {
        if (kept == EXAMINED && !(scores[v] > scores[out[kept - 1]]))
            continue;
        size_t at = kept < EXAMINED ? kept++ : kept - 1;
        for (; at > 0 && scores[v] > scores[out[at - 1]]; at--)
            out[at] = out[at - 1];
        out[at] = (int32_t)v;
    }
    return kept;
}

void rt_hf_kgw_raise(rt_hf_kgw *k, const int32_t *ids, size_t n, const float *scores, uint8_t *raised)
{
    memset(raised, 0, k->n_vocab);
    if (n < k->context_width)
        return;
    if (!k->selfhash) {
        const uint32_t *list = rt_hf_kgw_list(k, ids, n);
        for (size_t i = 0; i < k->n_green; i++)
            raised[list[i]] = 1;
        return;
    }
    int32_t window[WIDTH_MAX], best[EXAMINED];
    const size_t width = k->context_width, examined = highest(scores, k->n_vocab, best);
    memcpy(window, ids + n - (width - 1), (width - 1) * sizeof *window);
    for (size_t i = 0; i < examined; i++) {
        window[width - 1] = best[i];
        raised[best[i]] = rt_hf_kgw_green(k, window, width, best[i]);
    }
}

rt_status rt_hf_kgw_detect(rt_hf_kgw *k, const int32_t *ids, size_t n, int32_t bos, bool ignore_repeated,
                           rt_hf_kgw_result *out, rt_error *err)
{
    *out = (rt_hf_kgw_result){0};
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= k->n_vocab)
            return rt_error_set(err, RT_INVALID, "id %d at place %zu is not in a vocabulary of %zu", ids[i],
                                i, k->n_vocab);
    if (n > 0 && ids[0] == bos) {
        ids++;
        n--;
    }
    const size_t h = k->context_width - k->selfhash; /* ids of an n-gram before its last */
    rt_pairs *grams = NULL;
    if (rt_pairs_open(&grams, h, ignore_repeated ? RT_DEDUP_PAIR : RT_DEDUP_NONE, err) != RT_OK)
        return err->status;
    rt_status status = rt_pairs_add(grams, ids, n, err);
    const size_t window = k->selfhash ? h + 1 : h;
    for (size_t i = 0; status == RT_OK && i < rt_pairs_count(grams); i++) {
        const int32_t *gram = rt_pairs_get(grams, i);
        out->green += rt_hf_kgw_green(k, gram, window, gram[h]);
    }
    if (status == RT_OK) {
        const double scored = (double)(out->scored = rt_pairs_count(grams)), g = k->gamma;
        out->z = scored > 0 ? ((double)out->green - g * scored) / sqrt(scored * g * (1 - g)) : 0;
        out->log10_p_normal = rt_log10_normal(out->z);
        out->log10_p = rt_log10_binomial(out->scored, out->green, (double)k->n_green / (double)k->n_vocab);
    }
    rt_pairs_close(grams);
    return status;
}
