/* base/text.h - small helpers on text: a growing buffer, UTF-8, the nearest known word. */
#ifndef RT_BASE_TEXT_H
#define RT_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "retort/error.h"

/* A growing byte buffer with a named maximum; data is NUL-terminated after the first append.
 * A failed append (no memory, or past size_max) sets `failed` and drops later appends, so a
 * writer checks once at the end. */
typedef struct rt_text {
    char *data;
    size_t size, capacity, size_max; /* bytes; size_max 0 stands for 1 GiB */
    bool failed;
} rt_text;
void rt_text_append(rt_text *text, const void *data, size_t size);
void rt_text_puts(rt_text *text, const char *string);
void rt_text_printf(rt_text *text, const char *fmt, ...) RT_PRINTF(2, 3);
void rt_text_clear(rt_text *text); /* keeps the memory */
void rt_text_deinit(rt_text *text);

/* The code point at data[0..size) and its length in bytes; an ill-formed sequence gives U+FFFD and
 * the length of the maximal ill-formed part (Unicode 3.9, at least 1).  size > 0. */
uint32_t rt_utf8_decode(const char *data, size_t size, size_t *length);
/* Writes 1..4 bytes to out[4]; a surrogate or a value past U+10FFFF is written as U+FFFD. */
size_t rt_utf8_encode(uint32_t code_point, char out[4]);
bool rt_utf8_valid(const char *data, size_t size);

/* Numbers as people write them; the whole text must be the number.  A count may end in K M G (thousands)
 * or Ki Mi Gi (1024); a real is finite. */
bool rt_parse_count(size_t *out, const char *text);
bool rt_parse_real(double *out, const char *text);

/* The entry of names[0..count) nearest to `word` by edit distance, or NULL when none is near. */
const char *rt_nearest_word(const char *word, const char *const *names, size_t count);

#endif
