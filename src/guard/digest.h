/* guard/digest.h - a prompt read once: everything that the signals want of its text.
 *
 * Words are runs of letters, digits and bytes past 127, in lower case, every run of digits read as one
 * "0".  Only the first and last RT_DIGEST_WORDS / 2 words are looked at, so a huge prompt costs what a
 * long one costs.  No text is kept. */
#ifndef RT_GUARD_DIGEST_H
#define RT_GUARD_DIGEST_H

#include "guard/event.h"

enum {
    RT_DIGEST_WORDS = 160,  /* words looked at: half from the front, half from the back */
    RT_DIGEST_BORDERS = 64, /* ends of lines kept: half from the front, half from the back */
};

/* A line ends after `bytes` bytes; `start` is the keyed hash of all before it. */
typedef struct rt_guard_border {
    uint32_t bytes;
    uint64_t start;
} rt_guard_border;

typedef struct rt_guard_digest {
    uint32_t n_words;                /* looked at */
    size_t bytes;                    /* of the whole prompt */
    uint32_t words[RT_DIGEST_WORDS]; /* hashes, not keyed: the classifier's table needs them */
    uint32_t gap;   /* words[gap] and the next one are not neighbours in the text; n_words: all are */
    uint64_t exact; /* of the text's bytes, keyed */
    uint64_t start; /* of the same by lines: the border that a prompt which goes on from it has there */
    uint32_t n_borders;
    rt_guard_border borders[RT_DIGEST_BORDERS];
    uint32_t heads[2]; /* of the first 4 and 8 words, keyed; 0 where there are fewer */
    uint32_t tails[2]; /* of the last 4 and 8 words, keyed; 0 where there are fewer */
    uint64_t simhash;  /* of the words: near texts have near hashes */
    bool starts_lower; /* begins with a lower-case letter */
} rt_guard_digest;

/* The hash of a pair of neighbouring words, for the classifier's table. */
static inline uint32_t rt_guard_digest_pair(uint32_t a, uint32_t b)
{
    uint32_t h = a * 0x9e3779b1U + (b ^ 0x7f4a7c15U);
    h = (h ^ (h >> 16)) * 0x85ebca6bU;
    h = (h ^ (h >> 13)) * 0xc2b2ae35U;
    return h ^ (h >> 16);
}

void rt_guard_digest_make(rt_guard_digest *out, const char *prompt, size_t size, uint64_t key);
/* Is a text of so many bytes and this `start` the beginning of the prompt, up to the end of a line? */
bool rt_guard_digest_begins(const rt_guard_digest *digest, uint32_t bytes, uint64_t start);

#endif
