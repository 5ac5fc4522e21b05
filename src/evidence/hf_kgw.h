/* evidence/hf_kgw.h - the green lists of transformers' WatermarkingConfig, bit for bit (METHODS-evidence
 * section 2.5): lefthash and selfhash.
 *
 * The generator is PyTorch's on the CPU: text that transformers marked on a GPU has other lists and is found
 * by neither.  Lists are fixed-size draws without replacement, so counts within one context are slightly
 * negatively correlated and the binomial tail is conservative. */
#ifndef RT_EVIDENCE_HF_KGW_H
#define RT_EVIDENCE_HF_KGW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "retort/error.h"

typedef struct rt_hf_kgw {
    size_t n_vocab; /* of the model's config, padding included; not the tokenizer's */
    bool selfhash;
    size_t context_width; /* 1..16 */
    double gamma, bias;
    uint64_t key;
    size_t n_green;  /* floor(gamma n_vocab) */
    uint32_t *table; /* selfhash: randperm(1000003) */
    uint32_t *work;  /* [n_vocab] */
} rt_hf_kgw;

/* One list at a time: not for two threads at once. */
rt_status rt_hf_kgw_open(rt_hf_kgw *kgw, size_t n_vocab, bool selfhash, size_t context_width, double gamma,
                         double bias, uint64_t key, rt_error *err);
void rt_hf_kgw_close(rt_hf_kgw *kgw);
/* How many of the last ids decide a list (selfhash: the candidate is one of them). */
size_t rt_hf_kgw_window(const rt_hf_kgw *kgw);
/* The seed before PyTorch takes its low 32 bits.  ids [n], n >= 1: the last ones (selfhash: with the
 * candidate at the end). */
uint64_t rt_hf_kgw_seed(const rt_hf_kgw *kgw, const int32_t *ids, size_t n);
/* The green ids of that window, in the order of the draw: [n_green], lent until the next call. */
const uint32_t *rt_hf_kgw_list(rt_hf_kgw *kgw, const int32_t *ids, size_t n);
/* Is `target` green after ids [n]? */
bool rt_hf_kgw_green(rt_hf_kgw *kgw, const int32_t *ids, size_t n, int32_t target);
/* raised [n_vocab]: 1 for entries that generation raises by `bias`.  scores [n_vocab] matter to selfhash
 * only, which looks at the 40 highest.  Fewer ids than context_width: none are raised. */
void rt_hf_kgw_raise(rt_hf_kgw *kgw, const int32_t *ids, size_t n, const float *scores, uint8_t *raised);

typedef struct rt_hf_kgw_result {
    size_t scored, green;
    double z, log10_p_normal,
        log10_p; /* the library's z and its tail; the exact binomial with n_green/n_vocab */
} rt_hf_kgw_result;
/* transformers' WatermarkDetector.  bos: an id that is dropped at the front, -1: none.  Ids past the
 * vocabulary are RT_INVALID. */
rt_status rt_hf_kgw_detect(rt_hf_kgw *kgw, const int32_t *ids, size_t n, int32_t bos, bool ignore_repeated,
                           rt_hf_kgw_result *out, rt_error *err);

#endif
