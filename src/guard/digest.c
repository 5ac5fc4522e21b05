/* guard/digest.c - see digest.h.
 *
 * One pass over at most 2 x 4 KiB.  Word hashes are FNV-1a with a finaliser: the words are short, and the
 * loop over bytes has to look at each of them anyway. */
#include "guard/digest.h"

#include <string.h>

#include "base/hash.h"
#include "guard/sketch.h"

enum { SIDE_BYTES = 4096, SIDE_WORDS = RT_DIGEST_WORDS / 2, HASHED_BYTES_MAX = 64 << 10 };

static uint64_t exact_hash(const char *prompt, size_t size, uint64_t key)
{
    return rt_hash64(prompt, size < HASHED_BYTES_MAX ? size : HASHED_BYTES_MAX, key ^ size);
}

static void put_border(rt_guard_digest *out, size_t bytes, uint64_t start)
{
    enum { HALF = RT_DIGEST_BORDERS / 2 };
    if (bytes > UINT32_MAX)
        return;
    uint32_t at = out->n_borders;
    if (at < RT_DIGEST_BORDERS)
        out->n_borders++;
    else { /* of those in the middle the oldest goes */
        memmove(out->borders + HALF, out->borders + HALF + 1, (HALF - 1) * sizeof *out->borders);
        at = RT_DIGEST_BORDERS - 1;
    }
    out->borders[at] = (rt_guard_border){(uint32_t)bytes, start};
}

/* One hash over the lines, each with the one before it as its seed: at the end of each line it is that of a
 * prompt which ends there, so that a dialogue's earlier turn is known without its text. */
static void find_borders(rt_guard_digest *out, const char *prompt, size_t size, uint64_t key)
{
    uint64_t chain = key;
    size_t begin = 0;
    out->n_borders = 0;
    for (;;) {
        const char *end = begin < size ? memchr(prompt + begin, '\n', size - begin) : NULL;
        const size_t stop = end ? (size_t)(end - prompt) : size;
        if (begin < HASHED_BYTES_MAX)
            chain = rt_hash64(prompt + begin, stop - begin, chain);
        const uint64_t start = rt_guard_mix(chain ^ stop, key);
        if (!end) {
            out->start = start;
            return;
        }
        put_border(out, stop, start);
        begin = stop + 1;
    }
}

bool rt_guard_digest_begins(const rt_guard_digest *digest, uint32_t bytes, uint64_t start)
{
    for (uint32_t i = 0; i < digest->n_borders; i++)
        if (digest->borders[i].bytes == bytes)
            return digest->borders[i].start == start;
    return false;
}

/* What a byte is to a word: 0 ends it; else the byte that is hashed. */
static unsigned char fold[256];

__attribute__((constructor)) static void fold_fill(void)
{
    for (int c = 0; c < 256; c++) {
        if (c >= 'A' && c <= 'Z')
            fold[c] = (unsigned char)(c - 'A' + 'a');
        else if ((c >= 'a' && c <= 'z') || c >= 128)
            fold[c] = (unsigned char)c;
        else if (c >= '0' && c <= '9')
            fold[c] = '0';
    }
}

static inline uint32_t finish(uint32_t h)
{
    h = (h ^ (h >> 16)) * 0x85ebca6bU;
    h = (h ^ (h >> 13)) * 0xc2b2ae35U;
    return h ^ (h >> 16);
}

/* Reads words from text[0..size) into words[0..max), and returns how many; *used gets the bytes read. */
static size_t read_words(uint32_t *words, size_t max, const char *text, size_t size, size_t *used)
{
    size_t count = 0, i = 0;
    while (i < size && count < max) {
        while (i < size && !fold[(unsigned char)text[i]])
            i++;
        if (i == size)
            break;
        uint32_t h = 0x811c9dc5U;
        unsigned char before = 0, c;
        for (; i < size && (c = fold[(unsigned char)text[i]]) != 0; i++) {
            if (c == '0' && before == '0')
                continue;
            h = (h ^ c) * 0x01000193U;
            before = c;
        }
        words[count++] = finish(h);
    }
    *used = i;
    return count;
}

/* The last `max` words of the text after the first `from` bytes: reads backwards to find where they begin. */
static size_t tail_begin(const char *text, size_t from, size_t size, size_t max)
{
    size_t i = size, words = 0;
    const size_t stop = size - from > SIDE_BYTES ? size - SIDE_BYTES : from;
    while (i > stop) {
        const bool in = fold[(unsigned char)text[i - 1]] != 0;
        const bool begins = in && (i - 1 == stop || !fold[(unsigned char)text[i - 2]]);
        i--;
        if (begins && ++words == max)
            break;
    }
    return i;
}

static uint32_t run_hash(const uint32_t *words, size_t count, uint64_t key)
{
    uint64_t h = key;
    for (size_t i = 0; i < count; i++)
        h = (h ^ words[i]) * 0x9e3779b97f4a7c15ULL;
    const uint32_t out = (uint32_t)(rt_guard_mix(h, key) >> 32);
    return out ? out : 1;
}

static uint64_t simhash(const rt_guard_digest *digest, uint64_t key)
{
    int16_t bits[64] = {0};
    for (uint32_t i = 0; i < digest->n_words; i++) {
        const uint64_t h = rt_guard_mix(digest->words[i], key);
        for (int b = 0; b < 64; b++)
            bits[b] = (int16_t)(bits[b] + (int16_t)((h >> b) & 1));
    }
    const int16_t half = (int16_t)(digest->n_words / 2);
    uint64_t out = 0;
    for (int b = 0; b < 64; b++)
        out |= (uint64_t)(bits[b] > half) << b;
    return out;
}

static bool starts_lower(const char *text, size_t size)
{
    const size_t limit = size < SIDE_BYTES ? size : SIDE_BYTES;
    size_t first = 0;
    while (first < limit && !fold[(unsigned char)text[first]])
        first++;
    return first < limit && text[first] >= 'a' && text[first] <= 'z';
}

void rt_guard_digest_make(rt_guard_digest *out, const char *prompt, size_t size, uint64_t key)
{
    size_t used;
    size_t n = read_words(out->words, SIDE_WORDS, prompt, size < SIDE_BYTES ? size : SIDE_BYTES, &used);
    out->gap = UINT32_MAX;
    if (used < size) {
        const size_t begin = tail_begin(prompt, used, size, SIDE_WORDS);
        out->gap = (uint32_t)n - 1;
        n += read_words(out->words + n, SIDE_WORDS, prompt + begin, size - begin, &used);
    }
    out->n_words = (uint32_t)n;
    out->bytes = size;
    out->exact = exact_hash(prompt, size, key);
    find_borders(out, prompt, size, key);
    static const size_t lengths[2] = {4, 8};
    for (size_t k = 0; k < 2; k++) {
        out->heads[k] = n >= lengths[k] ? run_hash(out->words, lengths[k], key + k) : 0;
        out->tails[k] = n >= lengths[k] ? run_hash(out->words + n - lengths[k], lengths[k], key + 2 + k) : 0;
    }
    out->simhash = simhash(out, key);
    out->starts_lower = starts_lower(prompt, size);
}
