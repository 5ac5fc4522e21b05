/* outputs/minhash.c - near duplicates by MinHash and banded hashing; see minhash.h. */
#include "outputs/minhash.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/size.h"

enum { GRAM = 5, ROWS = RT_MINHASH_SIZE / RT_MINHASH_BANDS, CHAIN_MAX = 64 };

/* The letters and digits of the text in lower case, blanks as one; bytes above ASCII as they are. */
static size_t normalise(char *out, const char *text, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < size; i++) {
        const unsigned char c = (unsigned char)text[i];
        if (c >= 'A' && c <= 'Z')
            out[n++] = (char)(c + 32);
        else if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c >= 0x80)
            out[n++] = (char)c;
        else if (n && out[n - 1] != ' ')
            out[n++] = ' ';
    }
    return n && out[n - 1] == ' ' ? n - 1 : n;
}

static void add_gram(uint32_t signature[RT_MINHASH_SIZE], const char *gram, size_t size)
{
    const uint64_t hash = rt_hash64(gram, size, 0x6d696e68);
    uint32_t a = (uint32_t)hash, b = (uint32_t)(hash >> 32) | 1;
    for (size_t i = 0; i < RT_MINHASH_SIZE; i++) { /* permutation i: a mix of a + i b */
        uint32_t x = a + (uint32_t)i * b;
        x ^= x >> 16;
        x *= 0x85ebca6bU;
        x ^= x >> 13;
        x *= 0xc2b2ae35U;
        x ^= x >> 16;
        signature[i] = x < signature[i] ? x : signature[i];
    }
}

void rt_minhash_sign(uint32_t signature[RT_MINHASH_SIZE], const char *text, size_t size)
{
    memset(signature, 0xFF, RT_MINHASH_SIZE * sizeof *signature);
    char *plain = calloc(1, size + 1);
    if (!plain)
        return; /* a signature like no other but itself: nothing is dropped */
    const size_t n = normalise(plain, text, size);
    if (n < GRAM)
        add_gram(signature, plain, n);
    for (size_t i = 0; i + GRAM <= n; i++)
        add_gram(signature, plain + i, GRAM);
    free(plain);
}

double rt_minhash_similarity(const uint32_t a[RT_MINHASH_SIZE], const uint32_t b[RT_MINHASH_SIZE])
{
    size_t same = 0;
    for (size_t i = 0; i < RT_MINHASH_SIZE; i++)
        same += a[i] == b[i];
    return (double)same / RT_MINHASH_SIZE;
}

static bool grow(rt_near *near)
{
    const size_t wanted = rt_size_max(near->capacity * 2, 256);
    void *signatures = realloc(near->signatures, wanted * sizeof *near->signatures);
    if (signatures)
        near->signatures = signatures;
    void *numbers = signatures ? realloc(near->numbers, wanted * sizeof *near->numbers) : NULL;
    if (numbers)
        near->numbers = numbers;
    void *before = numbers ? realloc(near->before, wanted * sizeof *near->before) : NULL;
    if (!before)
        return false;
    near->before = before;
    near->capacity = wanted;
    return true;
}

static rt_idkey band_key(const uint32_t *signature, size_t band)
{
    uint32_t rows[ROWS + 1];
    memcpy(rows, signature + band * ROWS, sizeof rows - sizeof *rows);
    rows[ROWS] = (uint32_t)band;
    return rt_idkey_of((const char *)rows, sizeof rows);
}

rt_status rt_near_add(rt_near *near, const char *text, size_t size, double threshold, uint64_t number,
                      uint64_t *like, rt_error *err)
{
    if (near->count == near->capacity && !grow(near))
        return rt_error_set(err, RT_NO_MEMORY, "no memory to look for near duplicates among %zu prompts",
                            near->count);
    uint32_t *signature = near->signatures[near->count];
    rt_idkey keys[RT_MINHASH_BANDS];
    *like = 0;
    rt_minhash_sign(signature, text, size);
    for (size_t band = 0; band < RT_MINHASH_BANDS; band++) {
        keys[band] = band_key(signature, band);
        uint64_t other = rt_idmap_get(&near->bands, keys[band]);
        for (size_t steps = 0; other && steps < CHAIN_MAX; steps++) {
            if (rt_minhash_similarity(signature, near->signatures[other - 1]) >= threshold) {
                *like = near->numbers[other - 1];
                return RT_OK;
            }
            other = near->before[other - 1][band];
        }
    }
    for (size_t band = 0; band < RT_MINHASH_BANDS; band++) {
        near->before[near->count][band] = (uint32_t)rt_idmap_get(&near->bands, keys[band]);
        if (rt_idmap_put(&near->bands, keys[band], near->count + 1, err) != RT_OK)
            return err->status;
    }
    near->numbers[near->count++] = number;
    return RT_OK;
}

void rt_near_deinit(rt_near *near)
{
    free(near->signatures);
    free(near->numbers);
    free(near->before);
    rt_idmap_deinit(&near->bands);
    *near = (rt_near){0};
}
