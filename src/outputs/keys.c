/* outputs/keys.c - see keys.h. */
#include "outputs/keys.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

static const unsigned char zero[16];

/* The slot that holds the key, or the empty one where it belongs. */
static size_t find_slot(const key_set *set, const unsigned char key[16])
{
    size_t at;
    memcpy(&at, key, sizeof at);
    for (at &= set->capacity - 1;; at = (at + 1) & (set->capacity - 1))
        if (memcmp(set->slots[at], key, 16) == 0 || memcmp(set->slots[at], zero, 16) == 0)
            return at;
}

bool key_set_has(const key_set *set, const unsigned char key[16])
{
    if (memcmp(key, zero, 16) == 0)
        return set->has_zero;
    return set->capacity && memcmp(set->slots[find_slot(set, key)], key, 16) == 0;
}

static bool grow(key_set *set)
{
    const size_t capacity = set->capacity ? set->capacity * 2 : 1024;
    key_set bigger = {
        .slots = calloc(capacity, 16), .n = set->n, .capacity = capacity, .has_zero = set->has_zero};
    if (!bigger.slots)
        return false;
    for (size_t i = 0; i < set->capacity; i++)
        if (memcmp(set->slots[i], zero, 16) != 0)
            memcpy(bigger.slots[find_slot(&bigger, set->slots[i])], set->slots[i], 16);
    free(set->slots);
    *set = bigger;
    return true;
}

rt_status key_set_add(key_set *set, const unsigned char key[16], bool *added, rt_error *err)
{
    *added = !key_set_has(set, key);
    if (!*added)
        return RT_OK;
    if (memcmp(key, zero, 16) == 0) {
        set->has_zero = true;
    } else {
        if (set->n >= set->capacity / 2 && !grow(set))
            return rt_error_set(err, RT_NO_MEMORY, "no memory for the keys of %zu rows", set->n);
        memcpy(set->slots[find_slot(set, key)], key, 16);
    }
    set->n++;
    return RT_OK;
}

void key_set_deinit(key_set *set)
{
    free(set->slots);
    *set = (key_set){0};
}

void key_from_text(unsigned char key[16], const char *text)
{
    const size_t size = strlen(text);
    size_t n = 0;
    if (size == 32 && sodium_hex2bin(key, 16, text, 32, NULL, &n, NULL) == 0 && n == 16)
        return;
    unsigned char digest[crypto_hash_sha256_BYTES];
    (void)crypto_hash_sha256(digest, (const unsigned char *)text, size);
    memcpy(key, digest, 16);
}

void key_to_hex(char out[33], const unsigned char key[16]) { (void)sodium_bin2hex(out, 33, key, 16); }
