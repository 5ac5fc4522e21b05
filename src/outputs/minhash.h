/* outputs/minhash.h - prompts that nearly say the same, found without comparing every pair.
 *
 * MinHash (Broder 1997): a text is the set of its 5-grams of letters and digits (case and the rest do not
 * count); 128 permutations of their hashes give a signature whose agreement estimates the Jaccard similarity
 * (standard deviation 0.035 at 0.8).  Banded locality-sensitive hashing, 32 bands of 4 rows, finds
 * candidates: a pair of similarity 0.8 is missed with a chance of 5e-8, one of 0.5 is looked at with a chance
 * of 0.87 and then told apart by its signature.  Each text that is kept takes 0.5 KiB and 32 entries of a
 * table (24 bytes). */
#ifndef RT_OUTPUTS_MINHASH_H
#define RT_OUTPUTS_MINHASH_H

#include "outputs/idmap.h"

enum { RT_MINHASH_SIZE = 128, RT_MINHASH_BANDS = 32 };

void rt_minhash_sign(uint32_t signature[RT_MINHASH_SIZE], const char *text, size_t size);
double rt_minhash_similarity(const uint32_t a[RT_MINHASH_SIZE], const uint32_t b[RT_MINHASH_SIZE]);

typedef struct rt_near { /* zero is an empty set */
    uint32_t (*signatures)[RT_MINHASH_SIZE];
    uint64_t *numbers; /* [count] the caller's */
    size_t count, capacity;
    rt_idmap bands;                       /* band and its rows -> the last text that has them, from 1 */
    uint32_t (*before)[RT_MINHASH_BANDS]; /* the text before that one, from 1; 0: none */
} rt_near;

/* *like: the number of a text that is at least `threshold` alike, or 0; then `number` (> 0) is not added. */
rt_status rt_near_add(rt_near *near, const char *text, size_t size, double threshold, uint64_t number,
                      uint64_t *like, rt_error *err);
void rt_near_deinit(rt_near *near);

#endif
