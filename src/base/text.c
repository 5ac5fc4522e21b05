/* base/text.c - see text.h. */
#include "base/text.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"

static bool text_reserve(rt_text *text, size_t more)
{
    const size_t limit = text->size_max ? text->size_max : (size_t)1 << 30;
    size_t need;
    if (text->failed || !rt_size_add(text->size, more, &need) || need >= limit) {
        text->failed = true;
        return false;
    }
    if (need < text->capacity)
        return true;
    const size_t capacity = rt_size_min(rt_size_max(need + 1, text->capacity * 2 + 64), limit);
    char *data = realloc(text->data, capacity);
    if (!data) {
        text->failed = true;
        return false;
    }
    text->data = data;
    text->capacity = capacity;
    return true;
}

void rt_text_append(rt_text *text, const void *data, size_t size)
{
    if (!text_reserve(text, size))
        return;
    if (size)
        memcpy(text->data + text->size, data, size);
    text->size += size;
    text->data[text->size] = '\0';
}

void rt_text_puts(rt_text *text, const char *string) { rt_text_append(text, string, strlen(string)); }

void rt_text_printf(rt_text *text, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    const int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0 || !text_reserve(text, (size_t)n)) {
        text->failed = true;
    } else {
        (void)vsnprintf(text->data + text->size, (size_t)n + 1, fmt, again);
        text->size += (size_t)n;
    }
    va_end(again);
}

void rt_text_clear(rt_text *text)
{
    text->size = 0;
    text->failed = false;
    if (text->data)
        text->data[0] = '\0';
}

void rt_text_deinit(rt_text *text)
{
    free(text->data);
    *text = (rt_text){.size_max = text->size_max};
}

/* Table 3-7 of the Unicode standard: the range of the second byte depends on the first. */
uint32_t rt_utf8_decode(const char *data, size_t size, size_t *length)
{
    const unsigned char *s = (const unsigned char *)data;
    const unsigned char first = s[0];
    *length = 1;
    if (first < 0x80)
        return first;
    size_t n;
    uint32_t code;
    unsigned char low = 0x80, high = 0xBF;
    if (first >= 0xC2 && first <= 0xDF) {
        n = 2;
        code = first & 0x1Fu;
    } else if (first >= 0xE0 && first <= 0xEF) {
        n = 3;
        code = first & 0x0Fu;
        if (first == 0xE0)
            low = 0xA0;
        if (first == 0xED)
            high = 0x9F;
    } else if (first >= 0xF0 && first <= 0xF4) {
        n = 4;
        code = first & 0x07u;
        if (first == 0xF0)
            low = 0x90;
        if (first == 0xF4)
            high = 0x8F;
    } else {
        return 0xFFFD;
    }
    for (size_t i = 1; i < n; i++, low = 0x80, high = 0xBF) {
        if (i >= size || s[i] < low || s[i] > high)
            return 0xFFFD; /* *length: the bytes that could have begun a character */
        code = code << 6 | (s[i] & 0x3Fu);
        *length = i + 1;
    }
    return code;
}

size_t rt_utf8_encode(uint32_t c, char out[4])
{
    if (c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF))
        c = 0xFFFD;
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    const size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3F));
    static const unsigned char lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    out[0] = (char)(lead[n] | c);
    return n;
}

bool rt_utf8_valid(const char *data, size_t size)
{
    for (size_t i = 0, n; i < size; i += n) {
        const uint32_t c = rt_utf8_decode(data + i, size - i, &n);
        if (c == 0xFFFD && !(n == 3 && memcmp(data + i, "\xEF\xBF\xBD", 3) == 0))
            return false;
    }
    return true;
}

bool rt_parse_count(size_t *out, const char *text)
{
    static const struct {
        const char *suffix;
        size_t factor;
    } suffixes[] = {{"", 1},
                    {"K", 1000},
                    {"k", 1000},
                    {"M", 1000000},
                    {"G", 1000000000},
                    {"Ki", (size_t)1 << 10},
                    {"Mi", (size_t)1 << 20},
                    {"Gi", (size_t)1 << 30}};
    if (text[0] < '0' || text[0] > '9')
        return false;
    char *end = NULL;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || value > SIZE_MAX)
        return false;
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++)
        if (strcmp(end, suffixes[i].suffix) == 0)
            return rt_size_mul((size_t)value, suffixes[i].factor, out);
    return false;
}

bool rt_parse_real(double *out, const char *text)
{
    char *end = NULL;
    const double value = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(value))
        return false;
    *out = value;
    return true;
}

enum { WORD_MAX = 64 };

static size_t edit_distance(const char *a, const char *b)
{
    const size_t n = strlen(a), m = strlen(b);
    if (n >= WORD_MAX || m >= WORD_MAX)
        return SIZE_MAX; /* never near */
    size_t row[WORD_MAX];
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            const size_t up = row[j], change = diagonal + (a[i - 1] != b[j - 1]);
            row[j] = rt_size_min(change, rt_size_min(up, row[j - 1]) + 1);
            diagonal = up;
        }
    }
    return row[m];
}

const char *rt_nearest_word(const char *word, const char *const *names, size_t count)
{
    const char *best = NULL;
    size_t best_distance = strlen(word) / 2 + 1;
    for (size_t i = 0; i < count; i++) {
        const size_t distance = edit_distance(word, names[i]);
        if (distance < best_distance) {
            best_distance = distance;
            best = names[i];
        }
    }
    return best;
}
