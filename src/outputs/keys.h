/* outputs/keys.h - a set of 16-byte keys that are uniform already (halves of SHA-256).  Internal to the room.
 */
#ifndef RT_OUTPUTS_KEYS_H
#define RT_OUTPUTS_KEYS_H

#include <stdbool.h>
#include <stddef.h>

#include "retort/error.h"

typedef struct key_set {
    unsigned char (*slots)[16]; /* all zero: empty; the key of zeros is counted apart */
    size_t n, capacity;         /* capacity: a power of two, or 0 */
    bool has_zero;
} key_set;

bool key_set_has(const key_set *set, const unsigned char key[16]);
/* *added: false when it was there. */
rt_status key_set_add(key_set *set, const unsigned char key[16], bool *added, rt_error *err);
void key_set_deinit(key_set *set);
/* 32 hex digits as they are, any other text by its SHA-256. */
void key_from_text(unsigned char key[16], const char *text);
void key_to_hex(char out[33], const unsigned char key[16]);

#endif
