/* evidence/verify_marks.c - generators, watermarks, detection and reading against reference vectors. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "evidence/hf_kgw.h"
#include "evidence/hf_synthid.h"
#include "evidence/reading.h"
#include "evidence/saddle.h"
#include "evidence/score.h"
#include "evidence/torch_rng.h"
#include "evidence/tournament.h"
#include "evidence/verify_case.h"

enum { PERM_MAX = 1 << 22 };

static bool equal_bits(const char *text, uint64_t bits)
{
    for (size_t i = 0; text[i]; i++)
        if (i >= 64 || (text[i] == '1') != ((bits >> i) & 1))
            return false;
    return true;
}

/* randperm<n>: the permutation; randperm<n>_sha256_le_i64: its digest. */
static rt_status permutation(ev_run *run, uint64_t seed, const char *key, const json_t *want, rt_error *err)
{
    size_t n = 0, used = 0;
    for (const char *c = key + strlen("randperm"); *c >= '0' && *c <= '9' && n < PERM_MAX; c++, used++)
        n = 10 * n + (size_t)(*c - '0');
    if (n == 0 || n > PERM_MAX)
        return ev_bad(run, err, "%s: the length is not 1..%d", key, (int)PERM_MAX);
    uint32_t *perm;
    rt_torch_rng rng;
    if (ev_room(run, &perm, n, sizeof *perm, err) != RT_OK)
        return err->status;
    rt_torch_rng_seed(&rng, seed);
    rt_torch_randperm(&rng, perm, n, n);
    if (json_is_string(want)) {
        int64_t *wide;
        char hex[65];
        if (ev_room(run, &wide, n, sizeof *wide, err) != RT_OK)
            return err->status;
        for (size_t i = 0; i < n; i++)
            wide[i] = perm[i];
        rt_sha256_hex(hex, wide, n * sizeof *wide);
        ev_exact(run, key, strcmp(hex, json_string_value(want)) == 0);
        return RT_OK;
    }
    bool equal = json_array_size(want) == n;
    for (size_t i = 0; equal && i < n; i++)
        equal = json_integer_value(json_array_get(want, i)) == (json_int_t)perm[i];
    ev_exact(run, key, equal);
    return RT_OK;
}

static rt_status generator(ev_run *run, const json_t *e, rt_error *err)
{
    uint64_t seed;
    const char *key;
    json_t *want;
    if (ev_get_u64(run, e, "seed", &seed, err) != RT_OK)
        return err->status;
    json_object_foreach((json_t *)(uintptr_t)e, key, want)
    {
        rt_torch_rng rng;
        rt_torch_rng_seed(&rng, seed);
        const bool word = strncmp(key, "u32", 3) == 0, bit = strncmp(key, "randint2", 8) == 0,
                   real = strncmp(key, "rand_f32", 8) == 0;
        if (strncmp(key, "randperm", 8) == 0 && permutation(run, seed, key, want, err) != RT_OK)
            return err->status;
        if (!word && !bit && !real)
            continue;
        bool equal = json_is_array(want);
        for (size_t i = 0; equal && i < json_array_size(want); i++) {
            const json_t *value = json_array_get(want, i);
            if (real)
                equal = (float)json_number_value(value) == rt_torch_rand(&rng);
            else
                equal = json_integer_value(value) ==
                        (bit ? (json_int_t)rt_torch_randint2(&rng) : (json_int_t)rt_torch_rng_u32(&rng));
        }
        ev_exact(run, key, equal);
    }
    return RT_OK;
}

rt_status ev_torch_rng(ev_run *run, const json_t *root, rt_error *err)
{
    const json_t *cases = json_object_get(root, "cases");
    for (size_t i = 0; i < json_array_size(cases); i++) {
        ev_entry(run, "case", i);
        if (generator(run, json_array_get(cases, i), err) != RT_OK)
            return err->status;
    }
    const char *name;
    json_t *table;
    json_object_foreach((json_t *)(uintptr_t)root, name, table)
    {
        unsigned long long seed;
        size_t size, ones;
        const int64_t key = 0;
        const char *first, *digest;
        if (sscanf(name, "synthid_table_seed%llu_size%zu", &seed, &size) != 2)
            continue;
        ev_entry(run, name, 0);
        rt_hf_synthid s;
        if (ev_get_size(run, table, "ones", &ones, err) != RT_OK ||
            ev_get_text(run, table, "first64", &first, err) != RT_OK ||
            ev_get_text(run, table, "sha256_u8", &digest, err) != RT_OK ||
            rt_hf_synthid_open(&s, 2, &key, 1, size, seed, 0, err) != RT_OK)
            return err->status;
        char hex[65];
        bool equal = true;
        for (size_t i = 0; first[i] && i < size; i++)
            equal &= (first[i] == '1') == s.table[i];
        rt_sha256_hex(hex, s.table, size);
        ev_exact(run, "ones", s.ones == ones);
        ev_exact(run, "first64", equal);
        ev_exact(run, "sha256_u8", strcmp(hex, digest) == 0);
        rt_hf_synthid_close(&s);
    }
    return RT_OK;
}

static rt_status green_list(ev_run *run, rt_hf_kgw *k, const json_t *e, rt_error *err)
{
    int32_t *context, *first;
    size_t n, n_first;
    uint64_t seed;
    const char *digest;
    uint8_t *mask;
    char hex[65];
    if (ev_get_ids(run, e, "context", &context, &n, err) != RT_OK ||
        ev_get_ids(run, e, "first8", &first, &n_first, err) != RT_OK ||
        ev_get_u64(run, e, "seed", &seed, err) != RT_OK ||
        ev_get_text(run, e, "mask_sha256_u8", &digest, err) != RT_OK ||
        ev_room(run, &mask, k->n_vocab, 1, err) != RT_OK)
        return err->status;
    if (n == 0)
        return ev_bad(run, err, "a context is empty");
    ev_exact(run, "seed", rt_hf_kgw_seed(k, context, n) == seed);
    const uint32_t *list = rt_hf_kgw_list(k, context, n);
    bool equal = n_first <= k->n_green;
    for (size_t i = 0; equal && i < n_first; i++)
        equal = list[i] == (uint32_t)first[i];
    ev_exact(run, "first8", equal);
    for (size_t i = 0; i < k->n_green; i++)
        mask[list[i]] = 1;
    rt_sha256_hex(hex, mask, k->n_vocab);
    ev_exact(run, "mask_sha256_u8", strcmp(hex, digest) == 0);
    return RT_OK;
}

static rt_status hf_text(ev_run *run, rt_hf_kgw *k, const json_t *text, rt_error *err)
{
    int32_t *ids;
    size_t n;
    const json_t *list = json_object_get(text, "detector");
    if (ev_get_ids(run, text, "ids", &ids, &n, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *want = json_array_get(list, i);
        size_t scored, green;
        double z, p, exact;
        rt_hf_kgw_result got;
        if (ev_get_size(run, want, "scored", &scored, err) != RT_OK ||
            ev_get_size(run, want, "green", &green, err) != RT_OK ||
            ev_get_real(run, want, "z", &z, err) != RT_OK ||
            ev_get_real(run, want, "p_normal", &p, err) != RT_OK ||
            ev_get_real(run, want, "log10p_binomial_exact", &exact, err) != RT_OK ||
            rt_hf_kgw_detect(k, ids, n, 1, json_is_true(json_object_get(want, "ignore_repeated_ngrams")),
                             &got, err) != RT_OK)
            return err->status;
        ev_exact(run, "scored", got.scored == scored);
        ev_exact(run, "green", got.green == green);
        ev_within(run, "z", got.z, z, 1e-3, 1e-9);
        if (p > 0)
            ev_real(run, "p_normal", pow(10, got.log10_p_normal), p);
        ev_log10(run, "log10p_binomial_exact", got.log10_p, exact);
    }
    return RT_OK;
}

static rt_status processor(ev_run *run, rt_hf_kgw *k, const json_t *e, rt_error *err)
{
    int32_t *ids;
    size_t n, count, raised = 0;
    const char *digest;
    float *scores;
    uint8_t *mask;
    char hex[65];
    if (ev_get_ids(run, e, "input_ids", &ids, &n, err) != RT_OK ||
        ev_get_size(run, e, "raised", &count, err) != RT_OK ||
        ev_get_text(run, e, "raised_sha256_u8", &digest, err) != RT_OK ||
        ev_room(run, &scores, k->n_vocab, sizeof *scores, err) != RT_OK ||
        ev_room(run, &mask, k->n_vocab, 1, err) != RT_OK)
        return err->status;
    for (size_t v = 0; v < k->n_vocab; v++) /* linspace(-3, 3, V): ascending */
        scores[v] = (float)(-3 + 6 * (double)v / (double)(k->n_vocab > 1 ? k->n_vocab - 1 : 1));
    rt_hf_kgw_raise(k, ids, n, scores, mask);
    for (size_t v = 0; v < k->n_vocab; v++)
        raised += mask[v];
    rt_sha256_hex(hex, mask, k->n_vocab);
    ev_exact(run, "raised", raised == count);
    ev_exact(run, "raised_sha256_u8", strcmp(hex, digest) == 0);
    return RT_OK;
}

static rt_status hf_kgw_case(ev_run *run, rt_hf_kgw *k, const json_t *e, rt_error *err)
{
    const json_t *lists = json_object_get(e, "greenlists");
    size_t n_green;
    if (ev_get_size(run, e, "greenlist_size", &n_green, err) != RT_OK)
        return err->status;
    ev_exact(run, "greenlist_size", k->n_green == n_green);
    for (size_t i = 0; i < json_array_size(lists); i++)
        if (green_list(run, k, json_array_get(lists, i), err) != RT_OK)
            return err->status;
    const char *name;
    json_t *text;
    json_object_foreach(json_object_get(e, "texts"), name, text)
    {
        if (hf_text(run, k, text, err) != RT_OK)
            return err->status;
    }
    const json_t *check = json_object_get(e, "processor_check");
    return check ? processor(run, k, check, err) : RT_OK;
}

rt_status ev_hf_kgw(ev_run *run, const json_t *root, rt_error *err)
{
    const json_t *cases = json_object_get(root, "cases");
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *e = json_array_get(cases, i);
        size_t vocab, width;
        double gamma, bias;
        uint64_t key;
        const char *scheme;
        ev_entry(run, "case", i);
        if (ev_get_size(run, e, "vocab_size", &vocab, err) != RT_OK ||
            ev_get_size(run, e, "context_width", &width, err) != RT_OK ||
            ev_get_real(run, e, "greenlist_ratio", &gamma, err) != RT_OK ||
            ev_get_real(run, e, "bias", &bias, err) != RT_OK ||
            ev_get_u64(run, e, "hashing_key", &key, err) != RT_OK ||
            ev_get_text(run, e, "seeding_scheme", &scheme, err) != RT_OK)
            return err->status;
        rt_hf_kgw k;
        if (rt_hf_kgw_open(&k, vocab, strcmp(scheme, "selfhash") == 0, width, gamma, bias, key, err) != RT_OK)
            return err->status;
        const rt_status status = hf_kgw_case(run, &k, e, err);
        rt_hf_kgw_close(&k);
        if (status != RT_OK)
            return status;
    }
    return RT_OK;
}

static rt_status synthid_hash(ev_run *run, const rt_hf_synthid *s, const json_t *e, rt_error *err)
{
    int32_t *gram;
    size_t n;
    uint64_t context, hash;
    const char *g;
    if (ev_get_ids(run, e, "ngram", &gram, &n, err) != RT_OK ||
        ev_get_u64(run, e, "context_hash", &context, err) != RT_OK ||
        ev_get_u64(run, e, "ngram_hash", &hash, err) != RT_OK || ev_get_text(run, e, "g", &g, err) != RT_OK)
        return err->status;
    if (n != s->ngram_len)
        return ev_bad(run, err, "an n-gram has %zu ids", n);
    const uint64_t got = rt_hf_synthid_hash(gram, n);
    ev_exact(run, "context_hash", rt_hf_synthid_hash(gram, n - 1) == context);
    ev_exact(run, "ngram_hash", got == hash);
    ev_exact(run, "g", strlen(g) == s->n_keys && equal_bits(g, rt_hf_synthid_bits(s, got)));
    const json_t *layers = json_object_get(e, "key_hash_first3");
    for (size_t l = 0; l < json_array_size(layers) && l < s->n_keys; l++) {
        uint64_t want;
        json_t *wrapped = json_pack("{s:O}", "hash", json_array_get(layers, l));
        const rt_status status = ev_get_u64(run, wrapped, "hash", &want, err);
        json_decref(wrapped);
        if (status != RT_OK)
            return status;
        ev_exact(run, "key_hash_first3", rt_hf_synthid_add(got, s->keys[l]) == want);
    }
    return RT_OK;
}

static rt_status synthid_text(ev_run *run, const rt_hf_synthid *s, const json_t *e, rt_error *err)
{
    int32_t *ids, *ones;
    size_t n, n_layers, scored, ngrams;
    uint8_t *keep;
    const char *mask;
    double mean, weighted, w[RT_SYNTHID_LAYERS_MAX], sum = 0, weighted_sum = 0;
    if (ev_get_ids(run, e, "ids", &ids, &n, err) != RT_OK ||
        ev_get_ids(run, e, "g_ones_per_layer", &ones, &n_layers, err) != RT_OK ||
        ev_get_size(run, e, "scored", &scored, err) != RT_OK ||
        ev_get_size(run, e, "ngrams", &ngrams, err) != RT_OK ||
        ev_get_text(run, e, "mask", &mask, err) != RT_OK ||
        ev_get_real(run, e, "mean_score", &mean, err) != RT_OK ||
        ev_get_real(run, e, "weighted_mean_score", &weighted, err) != RT_OK ||
        ev_room(run, &keep, n, 1, err) != RT_OK)
        return err->status;
    if (n_layers != s->n_keys || n < s->ngram_len)
        return ev_bad(run, err, "a text is too short, or has counts of %zu layers", n_layers);
    const size_t kept = rt_hf_synthid_mask(s, ids, n, -1, keep), grams = n - s->ngram_len + 1;
    ev_exact(run, "ngrams", grams == ngrams);
    ev_exact(run, "scored", kept == scored);
    bool equal = strlen(mask) == grams;
    size_t counts[RT_SYNTHID_LAYERS_MAX] = {0};
    for (size_t i = 0; i < grams; i++) {
        equal = equal && (mask[i] == '1') == keep[i];
        const uint64_t bits = rt_hf_synthid_bits(s, rt_hf_synthid_hash(ids + i, s->ngram_len));
        for (size_t l = 0; keep[i] && l < s->n_keys; l++)
            counts[l] += (bits >> l) & 1;
    }
    ev_exact(run, "mask", equal);
    rt_synthid_weights(w, s->n_keys);
    for (size_t l = 0; l < s->n_keys; l++) {
        ev_exact(run, "g_ones_per_layer", counts[l] == (size_t)ones[l]);
        sum += (double)counts[l];
        weighted_sum += w[l] * (double)counts[l];
    }
    if (kept > 0) {
        ev_real(run, "mean_score", sum / ((double)kept * (double)s->n_keys), mean);
        ev_real(run, "weighted_mean_score", weighted_sum / (double)kept, weighted);
    }
    return RT_OK;
}

static rt_status update_scores(ev_run *run, const json_t *e, rt_error *err)
{
    double *scores, *g, *want, *p, most = -HUGE_VAL, total = 0;
    size_t n, rows, layers, n_want;
    uint64_t *bits;
    if (ev_get_reals(run, e, "scores", &scores, &n, err) != RT_OK ||
        ev_get_matrix(run, e, "g", &g, &rows, &layers, err) != RT_OK ||
        ev_get_reals(run, e, "logprobs", &want, &n_want, err) != RT_OK ||
        ev_room(run, &bits, n, sizeof *bits, err) != RT_OK || ev_room(run, &p, n, sizeof *p, err) != RT_OK)
        return err->status;
    if (rows != n || n_want != n || layers > 64)
        return ev_bad(run, err, "update_scores: scores, g and logprobs do not fit");
    for (size_t i = 0; i < n; i++)
        most = fmax(most, scores[i]);
    for (size_t i = 0; i < n; i++)
        total += p[i] = exp(scores[i] - most);
    for (size_t i = 0; i < n; i++) {
        p[i] /= total;
        for (size_t l = 0; l < layers; l++)
            bits[i] |= (uint64_t)(g[i * layers + l] != 0) << l;
    }
    rt_tournament(p, bits, n, layers);
    for (size_t i = 0; i < n; i++) /* a probability of 0 is given as a very low logarithm */
        if (p[i] > 0 && want[i] > -1e30)
            ev_within(run, "update_scores", log(p[i]), want[i], 1, 2e-5);
    return RT_OK;
}

/* The context at a step is what was generated before, zeros first.  The logits are not in the vectors. */
static rt_status processor_steps(ev_run *run, const rt_hf_synthid *s, const json_t *e, rt_error *err)
{
    const json_t *steps = json_object_get(e, "processor_steps"),
                 *text = json_object_get(json_object_get(e, "texts"), "watermarked");
    int32_t *ids, *window;
    size_t n, width, step;
    for (size_t i = 0; text && i < json_array_size(steps); i++) {
        const json_t *want = json_array_get(steps, i);
        if (ev_get_ids(run, text, "ids", &ids, &n, err) != RT_OK ||
            ev_get_ids(run, want, "context_window_used", &window, &width, err) != RT_OK ||
            ev_get_size(run, want, "step", &step, err) != RT_OK)
            return err->status;
        bool equal = width == s->ngram_len - 1 && step < n;
        for (size_t j = 0; equal && j < width; j++)
            equal = window[j] == (step + j < width ? 0 : ids[step + j - width]);
        ev_exact(run, "context_window_used", equal);
    }
    return RT_OK;
}

static rt_status hf_synthid_case(ev_run *run, const rt_hf_synthid *s, const json_t *e, rt_error *err)
{
    const json_t *hashes = json_object_get(e, "hash"), *update = json_object_get(e, "update_scores");
    size_t ones;
    if (ev_get_size(run, e, "table_ones", &ones, err) != RT_OK)
        return err->status;
    ev_exact(run, "table_ones", s->ones == ones);
    for (size_t i = 0; i < json_array_size(hashes); i++)
        if (synthid_hash(run, s, json_array_get(hashes, i), err) != RT_OK)
            return err->status;
    const char *name;
    json_t *text;
    json_object_foreach(json_object_get(e, "texts"), name, text)
    {
        if (synthid_text(run, s, text, err) != RT_OK)
            return err->status;
    }
    if (update && update_scores(run, update, err) != RT_OK)
        return err->status;
    return processor_steps(run, s, e, err);
}

rt_status ev_hf_synthid(ev_run *run, const json_t *root, rt_error *err)
{
    const json_t *cases = json_object_get(root, "cases");
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *e = json_array_get(cases, i);
        double *reals;
        int64_t keys[RT_SYNTHID_LAYERS_MAX];
        size_t n_keys, ngram_len, table_size, history = 1024;
        uint64_t table_seed;
        rt_hf_synthid s;
        ev_entry(run, "case", i);
        if (ev_get_reals(run, e, "keys", &reals, &n_keys, err) != RT_OK ||
            ev_get_size(run, e, "ngram_len", &ngram_len, err) != RT_OK ||
            ev_get_size(run, e, "sampling_table_size", &table_size, err) != RT_OK ||
            ev_get_u64(run, e, "sampling_table_seed", &table_seed, err) != RT_OK ||
            (json_object_get(e, "context_history_size") &&
             ev_get_size(run, e, "context_history_size", &history, err) != RT_OK))
            return err->status;
        for (size_t l = 0; l < n_keys && l < RT_SYNTHID_LAYERS_MAX; l++)
            keys[l] = (int64_t)json_integer_value(json_array_get(json_object_get(e, "keys"), l));
        if (rt_hf_synthid_open(&s, ngram_len, keys, n_keys, table_size, table_seed, history, err) != RT_OK)
            return err->status;
        const rt_status status = hf_synthid_case(run, &s, e, err);
        rt_hf_synthid_close(&s);
        if (status != RT_OK)
            return status;
    }
    return RT_OK;
}

static rt_status siphash(ev_run *run, const json_t *e, rt_error *err)
{
    uint8_t key[16], message[64];
    const char *hex;
    uint64_t want;
    ev_entry(run, "siphash", 0);
    if (ev_get_key(run, e, "key", key, err) != RT_OK || ev_get_text(run, e, "msg", &hex, err) != RT_OK ||
        ev_get_u64(run, e, "out", &want, err) != RT_OK)
        return err->status;
    const size_t n = strlen(hex) / 2;
    if (n > sizeof message || strspn(hex, "0123456789abcdef") != strlen(hex))
        return ev_bad(run, err, "the message is not at most 64 bytes in hex");
    for (size_t i = 0; i < n; i++) {
        unsigned byte;
        (void)sscanf(hex + 2 * i, "%2x", &byte);
        message[i] = (uint8_t)byte;
    }
    ev_exact(run, "out", rt_siphash(message, n, key) == want);
    return RT_OK;
}

static rt_status prf_case(ev_run *run, const json_t *e, rt_error *err)
{
    const json_t *tokens = json_object_get(e, "tokens");
    uint8_t key[16];
    int32_t *context;
    size_t h;
    uint64_t seed, want;
    if (ev_get_key(run, e, "key", key, err) != RT_OK ||
        ev_get_ids(run, e, "ctx", &context, &h, err) != RT_OK ||
        ev_get_u64(run, e, "seed", &want, err) != RT_OK)
        return err->status;
    if (h > RT_PRF_CONTEXT_MAX)
        return ev_bad(run, err, "a context of %zu ids", h);
    seed = rt_prf_seed(key, context, h);
    ev_exact(run, "seed", seed == want);
    for (size_t i = 0; i < json_array_size(tokens); i++) {
        const json_t *t = json_array_get(tokens, i);
        size_t v, quarter, half;
        double u;
        const char *g;
        if (ev_get_size(run, t, "v", &v, err) != RT_OK || ev_get_u64(run, t, "x", &want, err) != RT_OK ||
            ev_get_real(run, t, "u", &u, err) != RT_OK ||
            ev_get_size(run, t, "green_025", &quarter, err) != RT_OK ||
            ev_get_size(run, t, "green_05", &half, err) != RT_OK ||
            ev_get_text(run, t, "g30", &g, err) != RT_OK)
            return err->status;
        const uint64_t x = rt_prf_x(seed, (int32_t)(uint32_t)v);
        ev_exact(run, "x", x == want);
        ev_real(run, "u", rt_prf_u(x), u);
        ev_exact(run, "green_025", rt_prf_green(x, rt_prf_limit(0.25)) == (int)quarter);
        ev_exact(run, "green_05", rt_prf_green(x, rt_prf_limit(0.5)) == (int)half);
        ev_exact(run, "g30", equal_bits(g, x));
    }
    return RT_OK;
}

rt_status ev_rt1_prf(ev_run *run, const json_t *root, rt_error *err)
{
    const json_t *cases = json_object_get(root, "cases"), *mixes = json_object_get(root, "mix64_check"),
                 *sip = json_object_get(root, "siphash_check");
    if (sip && siphash(run, sip, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < json_array_size(mixes); i++) {
        uint64_t z, want;
        ev_entry(run, "mix64", i);
        if (ev_get_u64(run, json_array_get(mixes, i), "z", &z, err) != RT_OK ||
            ev_get_u64(run, json_array_get(mixes, i), "out", &want, err) != RT_OK)
            return err->status;
        ev_exact(run, "out", rt_mix64(z) == want);
    }
    for (size_t i = 0; i < json_array_size(cases); i++) {
        ev_entry(run, "case", i);
        if (prf_case(run, json_array_get(cases, i), err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

static rt_status native_mark(ev_run *run, const json_t *e, rt_watermark *out, rt_error *err)
{
    const char *kind = "kgw";
    size_t h;
    if (json_object_get(e, "kind") && ev_get_text(run, e, "kind", &kind, err) != RT_OK)
        return err->status;
    if (ev_get_size(run, e, "h", &h, err) != RT_OK)
        return err->status;
    const int scheme = strcmp(kind, "synthid") == 0 ? (int)RT_SCHEME_TOURNAMENT : rt_scheme_from_word(kind);
    if (scheme < 0 || h > RT_PRF_CONTEXT_MAX)
        return ev_bad(run, err, "the kind %.40s with a context of %zu is not known", kind, h);
    *out = rt_watermark_default((rt_scheme)scheme);
    out->h = h;
    if (json_is_number(json_object_get(e, "gamma")))
        out->gamma = json_number_value(json_object_get(e, "gamma"));
    if (json_is_integer(json_object_get(e, "layers")))
        out->layers = (size_t)json_integer_value(json_object_get(e, "layers"));
    return ev_get_key(run, e, "key", out->key, err);
}

static rt_status scored(const rt_watermark *mark, const int32_t *ids, size_t n, rt_dedup dedup, rt_score *out,
                        rt_error *err)
{
    rt_pairs *pairs = NULL;
    rt_scorer *scorer = NULL;
    rt_status status = rt_pairs_open(&pairs, mark->h, dedup, err);
    if (status == RT_OK)
        status = rt_pairs_add(pairs, ids, n, err);
    if (status == RT_OK)
        status = rt_scorer_open(&scorer, mark, err);
    if (status == RT_OK)
        status = rt_scorer_run(scorer, pairs, out, err);
    rt_scorer_close(scorer);
    rt_pairs_close(pairs);
    return status;
}

/* Does a score have the figures of `want`?  With `count` each figure is one comparison. */
static bool has_figures(ev_run *run, const json_t *want, const rt_score *got, bool count)
{
    static const char *const names[] = {"n", "green", "ones",          "log10_p",
                                        "z", "S",     "log10_p_equal", "weighted_S"};
    const double values[] = {(double)got->n, (double)got->ones, (double)got->ones,  got->log10_p,
                             got->z,         got->statistic,    got->log10_p_equal, got->statistic};
    bool all = true;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const json_t *value = json_object_get(want, names[i]);
        if (!json_is_number(value))
            continue;
        const double ref = json_number_value(value);
        if (i < 3)
            all &= values[i] == ref;
        if (!count)
            continue;
        if (i < 3)
            ev_exact(run, names[i], values[i] == ref);
        else if (strncmp(names[i], "log10_p", 7) == 0)
            ev_log10(run, names[i], values[i], ref);
        else
            ev_within(run, names[i], values[i], ref, 1e-3, 1e-9);
    }
    const json_t *layers = json_object_get(want, "ones_per_layer");
    for (size_t l = 0; l < json_array_size(layers); l++) {
        const bool equal =
            l < got->layers && json_integer_value(json_array_get(layers, l)) == (json_int_t)got->per_layer[l];
        all &= equal;
        if (count)
            ev_exact(run, "ones_per_layer", equal);
    }
    if (count && json_is_number(json_object_get(want, "log10_p_weighted_lr")))
        ev_saddle(run, "log10_p_weighted_lr", got->log10_p,
                  json_number_value(json_object_get(want, "log10_p_weighted_lr")));
    return all;
}

/* Which wrong key was used is not said in older vectors: one of the keys of rt1_prf.json. */
static rt_status wrong_key(ev_run *run, const json_t *e, rt_watermark mark, const int32_t *ids, size_t n,
                           rt_error *err)
{
    const json_t *want = json_object_get(e, "wrong_key");
    uint8_t keys[66][16] = {
        {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}};
    size_t n_keys = 1;
    if (json_object_get(want, "key") && ev_get_key(run, want, "key", keys[0], err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < json_array_size(run->other_keys) && n_keys < 66; i++)
        if (ev_get_key(run, json_array_get(run->other_keys, i), "key", keys[n_keys], err) == RT_OK &&
            memcmp(keys[n_keys], mark.key, 16) != 0 && memcmp(keys[n_keys], keys[n_keys - 1], 16) != 0)
            n_keys++;
    rt_score got = {0};
    for (size_t i = 0; i < n_keys; i++) {
        memcpy(mark.key, keys[i], 16);
        if (scored(&mark, ids, n, RT_DEDUP_PAIR, &got, err) != RT_OK)
            return err->status;
        const json_t *s = json_object_get(want, "S");
        if (has_figures(run, want, &got, false) &&
            (!s || fabs(json_number_value(s) - got.statistic) < 1e-6 * got.statistic))
            break;
    }
    (void)has_figures(run, want, &got, true);
    return RT_OK;
}

rt_status ev_rt1_detect(ev_run *run, const json_t *root, rt_error *err)
{
    const json_t *cases = json_object_get(root, "cases");
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *e = json_array_get(cases, i), *right = json_object_get(e, "right");
        rt_watermark mark;
        int32_t *ids;
        size_t n;
        ev_entry(run, "case", i);
        if (native_mark(run, e, &mark, err) != RT_OK || ev_get_ids(run, e, "ids", &ids, &n, err) != RT_OK)
            return err->status;
        for (size_t j = 0; j < json_array_size(right); j++) {
            const json_t *want = json_array_get(right, j);
            const char *dedup;
            rt_score got;
            if (ev_get_text(run, want, "dedup", &dedup, err) != RT_OK ||
                scored(&mark, ids, n,
                       strcmp(dedup, "v2") == 0   ? RT_DEDUP_PAIR
                       : strcmp(dedup, "v1") == 0 ? RT_DEDUP_CONTEXT
                                                  : RT_DEDUP_NONE,
                       &got, err) != RT_OK)
                return err->status;
            (void)has_figures(run, want, &got, true);
        }
        if (json_object_get(e, "wrong_key") && wrong_key(run, e, mark, ids, n, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

static rt_status add_rows(ev_run *run, const json_t *rows, size_t h, rt_reading *soft, rt_reading *diff,
                          rt_pairs *hard, rt_error *err)
{
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        int32_t *context, *ids;
        double *ps, *pb;
        size_t n_context, n, n_s, n_b, best = 0;
        const size_t mark = rt_arena_mark(&run->arena);
        if (ev_get_ids(run, row, "ctx", &context, &n_context, err) != RT_OK ||
            ev_get_ids(run, row, "ids", &ids, &n, err) != RT_OK ||
            ev_get_reals(run, row, "ps", &ps, &n_s, err) != RT_OK ||
            ev_get_reals(run, row, "pb", &pb, &n_b, err) != RT_OK)
            return err->status;
        if (n_context != h || n_s != n || n_b != n || n == 0)
            return ev_bad(run, err, "row %zu: ctx, ids, ps and pb do not fit", i);
        for (size_t j = 0; j < n; j++) {
            best = ps[j] > ps[best] ? j : best;
            if (rt_reading_add(soft, context, ids[j], ps[j], err) != RT_OK ||
                rt_reading_add(diff, context, ids[j], ps[j] - pb[j], err) != RT_OK)
                return err->status;
        }
        int32_t gram[RT_PRF_CONTEXT_MAX + 1];
        if (h > 0)
            memcpy(gram, context, h * sizeof *gram);
        gram[h] = ids[best];
        if (rt_pairs_add_gram(hard, gram, err) != RT_OK)
            return err->status;
        rt_arena_rewind(&run->arena, mark);
    }
    return RT_OK;
}

static rt_status pooled(ev_run *run, const rt_reading *reading, const rt_watermark *mark, const json_t *want,
                        const char *name, rt_error *err)
{
    rt_reading_result got;
    rt_scorer *scorer = NULL;
    double t, variance;
    char what[64];
    if (!want)
        return RT_OK;
    if (ev_get_real(run, want, "T", &t, err) != RT_OK ||
        ev_get_real(run, want, "var", &variance, err) != RT_OK || rt_scorer_open(&scorer, mark, err) != RT_OK)
        return err->status;
    const rt_status status = rt_reading_test(reading, scorer, &got, err);
    rt_scorer_close(scorer);
    if (status != RT_OK)
        return status;
    (void)snprintf(what, sizeof what, "%s T", name);
    ev_within(run, what, got.statistic, t, 1e-3, 1e-9);
    (void)snprintf(what, sizeof what, "%s var", name);
    ev_within(run, what, got.variance, variance, 1e-9, 1e-9);
    if (json_is_number(json_object_get(want, "z"))) {
        (void)snprintf(what, sizeof what, "%s z", name);
        ev_within(run, what, got.z, json_number_value(json_object_get(want, "z")), 1e-3, 1e-9);
    }
    if (json_is_number(json_object_get(want, "log10_p_lr"))) {
        (void)snprintf(what, sizeof what, "%s log10_p_lr", name);
        ev_saddle(run, what, got.log10_p, json_number_value(json_object_get(want, "log10_p_lr")));
    }
    return RT_OK;
}

static rt_status reading_figures(ev_run *run, const json_t *e, rt_watermark mark, const rt_reading *soft,
                                 const rt_reading *diff, const rt_pairs *hard, rt_error *err)
{
    const json_t *other = json_object_get(e, "other_scores_same_rows"), *want = json_object_get(e, "hard");
    rt_scorer *scorer = NULL;
    rt_score got;
    if (want) {
        if (rt_scorer_open(&scorer, &mark, err) != RT_OK)
            return err->status;
        const rt_status status = rt_scorer_run(scorer, hard, &got, err);
        rt_scorer_close(scorer);
        if (status != RT_OK)
            return status;
        (void)has_figures(run, want, &got, true);
    }
    rt_watermark gumbel = mark, tournament = mark;
    gumbel.scheme = RT_SCHEME_GUMBEL;
    tournament.scheme = RT_SCHEME_TOURNAMENT;
    if (pooled(run, soft, &mark, json_object_get(e, "soft"), "soft", err) != RT_OK ||
        pooled(run, diff, &mark, json_object_get(e, "diff"), "diff", err) != RT_OK ||
        pooled(run, soft, &gumbel, json_object_get(other, "gumbel_soft"), "gumbel_soft", err) != RT_OK ||
        pooled(run, diff, &gumbel, json_object_get(other, "gumbel_diff"), "gumbel_diff", err) != RT_OK)
        return err->status;
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)other, name, value)
    {
        size_t layers;
        char form[8];
        if (sscanf(name, "synthid%zu_%7s", &layers, form) != 2 || layers < 1 || layers > 64)
            continue;
        tournament.layers = layers;
        if (pooled(run, strcmp(form, "soft") == 0 ? soft : diff, &tournament, value, name, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

rt_status ev_rt1_reading(ev_run *run, const json_t *root, rt_error *err)
{
    const json_t *cases = json_object_get(root, "cases");
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *e = json_array_get(cases, i);
        rt_watermark mark;
        rt_reading *soft = NULL, *diff = NULL;
        rt_pairs *hard = NULL;
        ev_entry(run, "case", i);
        if (native_mark(run, e, &mark, err) != RT_OK)
            return err->status;
        rt_status status = rt_reading_open(&soft, mark.h, err);
        if (status == RT_OK)
            status = rt_reading_open(&diff, mark.h, err);
        if (status == RT_OK)
            status = rt_pairs_open(&hard, mark.h, RT_DEDUP_PAIR, err);
        if (status == RT_OK)
            status = add_rows(run, json_object_get(e, "rows"), mark.h, soft, diff, hard, err);
        if (status == RT_OK)
            status = rt_reading_freeze(soft, 0, err);
        if (status == RT_OK)
            status = rt_reading_freeze(diff, 0, err);
        if (status == RT_OK)
            status = reading_figures(run, e, mark, soft, diff, hard, err);
        rt_reading_close(soft);
        rt_reading_close(diff);
        rt_pairs_close(hard);
        if (status != RT_OK)
            return status;
    }
    return RT_OK;
}
