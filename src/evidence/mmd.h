/* evidence/mmd.h - the two-sample test on completions (METHODS-evidence section 5.2): unbiased MMD^2 over
 * same-prompt pairs, with kernels that are normalised by their diagonal; labels permuted inside each prompt.
 */
#ifndef RT_EVIDENCE_MMD_H
#define RT_EVIDENCE_MMD_H

#include <stddef.h>
#include <stdint.h>

#include "retort/error.h"

typedef enum rt_kernel { RT_KERNEL_HAMMING, RT_KERNEL_SPECTRUM } rt_kernel;

typedef struct rt_completions {
    const int32_t *units; /* [n, length]: tokens or code points, cut or padded to one length */
    size_t n, length;
    const int32_t *prompts; /* [n] */
    const uint8_t *labels;  /* [n] 0: one speaker, 1: the other */
} rt_completions;

typedef struct rt_mmd {
    double mmd2, p;
    double permutations; /* that were counted */
    int exact;           /* all permutations inside prompts were enumerated */
} rt_mmd;

/* Enumerates when there are at most exact_max permutations, else p = (1 + #>=)/(draws + 1).  RT_INVALID when
 * no prompt has two completions of each. */
rt_status rt_mmd_test(rt_mmd *out, const rt_completions *c, rt_kernel kernel, size_t exact_max, size_t draws,
                      uint64_t seed, rt_error *err);

/* One prompt's share of the statistic: sums of kernel values and numbers of ordered pairs. */
typedef struct rt_mmd_part {
    int32_t prompt;
    double within0, within1, between, pairs0, pairs1, pairs_between;
} rt_mmd_part;
/* parts: room for one a completion; *count prompts. */
rt_status rt_mmd_parts(rt_mmd_part *parts, size_t *count, const rt_completions *c, rt_kernel kernel,
                       rt_error *err);
/* MMD^2 of prompts with multiplicities (weights NULL: 1 each), for resampling prompts; NAN without pairs. */
double rt_mmd_of_parts(const rt_mmd_part *parts, size_t count, const double *weights);

#endif
