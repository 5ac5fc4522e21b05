/* model/tokenizer_normalize.c - see tokenizer_normalize.h.
 *
 * Ill-formed bytes pass through the Unicode forms untouched: each well-formed stretch between them is
 * normalised by itself.
 *
 * The charsmap: 4 bytes little-endian size of a double array (Darts), the array of 32-bit units, then
 * NUL-ended replacements.  A unit holds: bits 0-7 the label (bit 31 set: a leaf, whose value is bits
 * 0-30), bit 8 "has a leaf below", bits 10-30 the offset, shifted by 8 more where bit 9 is set. */
#include "model/tokenizer_normalize.h"

#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "model/pretokenizer_class.h"
#include "model/pretokenizer_regex.h"

void rt_normalizer_deinit(rt_normalizer *normalizer)
{
    for (size_t i = 0; i < normalizer->count; i++) {
        free(normalizer->steps[i].from);
        free(normalizer->steps[i].to);
        free(normalizer->steps[i].charsmap);
        rt_regex_close(normalizer->steps[i].regex);
    }
    free(normalizer->steps);
    *normalizer = (rt_normalizer){0};
}

rt_norm_step *rt_normalizer_add(rt_normalizer *normalizer, rt_norm_step_kind kind)
{
    rt_norm_step *steps = realloc(normalizer->steps, (normalizer->count + 1) * sizeof *steps);
    if (!steps)
        return NULL;
    normalizer->steps = steps;
    steps[normalizer->count] = (rt_norm_step){.kind = kind};
    return &steps[normalizer->count++];
}

static char *copy_of(const char *data, size_t size)
{
    char *copy = malloc(size + 1);
    if (copy) {
        if (size)
            memcpy(copy, data, size);
        copy[size] = '\0';
    }
    return copy;
}

rt_status rt_normalizer_add_replace(rt_normalizer *normalizer, rt_norm_step_kind kind, const char *from,
                                    size_t from_size, const char *to, size_t to_size, rt_error *err)
{
    rt_norm_step *step = rt_normalizer_add(normalizer, kind);
    if (step) {
        step->from = copy_of(from, from_size);
        step->to = copy_of(to, to_size);
        step->from_size = from_size;
        step->to_size = to_size;
    }
    return step && step->from && step->to
               ? RT_OK
               : rt_error_set(err, RT_NO_MEMORY, "no memory for a normaliser step");
}

static uint32_t read_u32(const unsigned char *data)
{
    return (uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24;
}

rt_status rt_normalizer_add_charsmap(rt_normalizer *normalizer, const unsigned char *data, size_t size,
                                     rt_error *err)
{
    if (size < 5 || read_u32(data) % 4 != 0 || read_u32(data) > size - 5 || data[size - 1] != '\0')
        return rt_error_set(err, RT_CORRUPT,
                            "the precompiled character map of %zu bytes has sizes that do not fit it", size);
    rt_norm_step *step = rt_normalizer_add(normalizer, RT_NORM_CHARSMAP);
    if (!step || !(step->charsmap = malloc(size)))
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a character map of %zu bytes", size);
    memcpy(step->charsmap, data, size);
    step->charsmap_size = size;
    return RT_OK;
}

/* -- the steps; each appends to out -- */

typedef struct unit_array {
    const unsigned char *units;
    size_t count;
} unit_array;

static uint32_t unit_at(const unit_array *array, size_t index)
{
    return index < array->count ? read_u32(array->units + index * 4) : 0;
}

static size_t unit_offset(uint32_t unit) { return (size_t)(unit >> 10) << ((unit & (1u << 9)) >> 6); }

/* Longest key of the double array that begins at text; its length, and the value in *value. */
static size_t charsmap_match(const unit_array *array, const char *text, size_t size, uint32_t *value)
{
    size_t longest = 0, at = unit_offset(unit_at(array, 0));
    for (size_t i = 0; i < size && text[i]; i++) {
        const unsigned char byte = (unsigned char)text[i];
        at ^= byte;
        const uint32_t unit = unit_at(array, at);
        if ((unit & 0x800000FFu) != byte)
            break;
        at ^= unit_offset(unit);
        if (unit >> 8 & 1) {
            longest = i + 1;
            *value = unit_at(array, at) & 0x7FFFFFFFu;
        }
    }
    return longest;
}

static void run_charsmap(const rt_norm_step *step, const char *text, size_t size, rt_text *out)
{
    const size_t array_size = read_u32(step->charsmap), strings_size = step->charsmap_size - 4 - array_size;
    const unit_array array = {step->charsmap + 4, array_size / 4};
    const char *strings = (const char *)step->charsmap + 4 + array_size;
    for (size_t i = 0, n; i < size; i += n) {
        uint32_t value = 0;
        n = charsmap_match(&array, text + i, size - i, &value);
        if (n && value < strings_size) {
            rt_text_puts(out, strings + value); /* the table ends with a NUL */
            continue;
        }
        const uint32_t c = rt_utf8_decode(text + i, size - i, &n);
        char utf8[4];
        rt_text_append(out, utf8, rt_utf8_encode(c, utf8));
    }
}

static bool all_ascii(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)text[i] >= 128)
            return false;
    return true;
}

/* Length of the well-formed stretch at the beginning. */
static size_t valid_length(const char *text, size_t size)
{
    size_t i = 0;
    for (size_t n; i < size; i += n)
        if (rt_utf8_decode(text + i, size - i, &n) == 0xFFFD &&
            !(n == 3 && memcmp(text + i, "\xEF\xBF\xBD", 3) == 0))
            break;
    return i;
}

static void map_stretch(const char *text, size_t size, utf8proc_option_t options, rt_text *out)
{
    utf8proc_uint8_t *mapped = NULL;
    const utf8proc_ssize_t n =
        utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)size, &mapped, options);
    if (n >= 0)
        rt_text_append(out, mapped, (size_t)n);
    else
        out->failed = true;
    free(mapped);
}

static void run_unicode_form(rt_norm_step_kind kind, const char *text, size_t size, rt_text *out)
{
    static const utf8proc_option_t options[] = {
        [RT_NORM_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        [RT_NORM_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        [RT_NORM_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [RT_NORM_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
    };
    if (all_ascii(text, size)) {
        rt_text_append(out, text, size);
        return;
    }
    for (size_t i = 0; i < size;) {
        const size_t n = valid_length(text + i, size - i);
        if (n) {
            map_stretch(text + i, n, options[kind], out);
            i += n;
        } else {
            size_t bad;
            (void)rt_utf8_decode(text + i, size - i, &bad);
            rt_text_append(out, text + i, bad);
            i += bad;
        }
    }
}

static void run_characters(rt_norm_step_kind kind, const char *text, size_t size, rt_text *out)
{
    for (size_t i = 0, n; i < size; i += n) {
        const uint32_t c = rt_utf8_decode(text + i, size - i, &n);
        char utf8[4];
        if (kind == RT_NORM_STRIP_ACCENTS) {
            if (!(rt_char_class(c) & RT_CHAR_MARK))
                rt_text_append(out, text + i, n);
        } else if (c == 0xFFFD) {
            rt_text_append(out, text + i, n);
        } else if (c == 0x130) { /* the one letter whose lower case is two characters */
            rt_text_append(out, "i\xCC\x87", 3);
        } else {
            rt_text_append(out, utf8, rt_utf8_encode((uint32_t)utf8proc_tolower((utf8proc_int32_t)c), utf8));
        }
    }
}

static void run_strip(const rt_norm_step *step, const char *text, size_t size, rt_text *out)
{
    size_t begin = 0, end = 0, n;
    if (step->left)
        while (begin < size && (rt_char_at(text, begin, size, &n) & RT_CHAR_SPACE))
            begin += n;
    for (size_t i = begin; i < size; i += n)
        if (!(rt_char_at(text, i, size, &n) & RT_CHAR_SPACE))
            end = i + n;
    if (!step->right)
        end = size;
    if (end > begin)
        rt_text_append(out, text + begin, end - begin);
}

static void run_one_blank(const char *text, size_t size, rt_text *out)
{
    const size_t start = out->size;
    bool pending = false;
    for (size_t i = 0; i < size; i++) {
        if (text[i] == ' ') {
            pending = out->size > start;
            continue;
        }
        if (pending)
            rt_text_append(out, " ", 1);
        pending = false;
        rt_text_append(out, text + i, 1);
    }
}

static void replace_string(const rt_norm_step *step, const char *text, size_t size, rt_text *out)
{
    size_t at = 0;
    while (step->from_size && at < size) {
        const char *hit = memmem(text + at, size - at, step->from, step->from_size);
        if (!hit)
            break;
        rt_text_append(out, text + at, (size_t)(hit - text) - at);
        rt_text_append(out, step->to, step->to_size);
        at = (size_t)(hit - text) + step->from_size;
    }
    rt_text_append(out, text + at, size - at);
}

static rt_status replace_pattern(const rt_norm_step *step, const char *text, size_t size, rt_text *out,
                                 rt_error *err)
{
    rt_text clean = {0};
    for (size_t i = 0, n; i < size; i += n) {
        char utf8[4];
        rt_text_append(&clean, utf8, rt_utf8_encode(rt_utf8_decode(text + i, size - i, &n), utf8));
    }
    rt_regex_run *run = NULL;
    rt_status status = rt_regex_run_open(&run, step->regex, err);
    size_t at = 0;
    while (status == RT_OK && at < clean.size) {
        bool found;
        size_t begin, end;
        status = rt_regex_next(run, clean.data, clean.size, at, &found, &begin, &end, err);
        if (status != RT_OK || !found)
            break;
        rt_text_append(out, clean.data + at, begin - at);
        rt_text_append(out, step->to, step->to_size);
        if (end == begin && begin < clean.size) { /* an empty match: copy the next character */
            size_t n;
            (void)rt_utf8_decode(clean.data + begin, clean.size - begin, &n);
            rt_text_append(out, clean.data + begin, n);
            end += n;
        }
        at = end;
    }
    if (status == RT_OK && at < clean.size)
        rt_text_append(out, clean.data + at, clean.size - at);
    rt_regex_run_close(run);
    rt_text_deinit(&clean);
    return status;
}

static rt_status run_step(const rt_norm_step *step, const char *text, size_t size, rt_text *out,
                          rt_error *err)
{
    switch (step->kind) {
    case RT_NORM_NFC:
    case RT_NORM_NFD:
    case RT_NORM_NFKC:
    case RT_NORM_NFKD:
        run_unicode_form(step->kind, text, size, out);
        break;
    case RT_NORM_LOWERCASE:
    case RT_NORM_STRIP_ACCENTS:
        run_characters(step->kind, text, size, out);
        break;
    case RT_NORM_STRIP:
        run_strip(step, text, size, out);
        break;
    case RT_NORM_REPLACE:
        if (step->regex)
            return replace_pattern(step, text, size, out, err);
        replace_string(step, text, size, out);
        break;
    case RT_NORM_PREPEND:
        if (size)
            rt_text_append(out, step->to, step->to_size);
        rt_text_append(out, text, size);
        break;
    case RT_NORM_ONE_BLANK:
        run_one_blank(text, size, out);
        break;
    case RT_NORM_CHARSMAP:
        run_charsmap(step, text, size, out);
        break;
    }
    return RT_OK;
}

rt_status rt_normalizer_run(const rt_normalizer *normalizer, const char *text, size_t size, rt_text *out,
                            rt_error *err)
{
    rt_text current = {0}, next = {0};
    rt_text_append(&current, text, size);
    rt_status status = RT_OK;
    for (size_t i = 0; i < normalizer->count && status == RT_OK && !current.failed; i++) {
        rt_text_clear(&next);
        rt_text_append(&next, "", 0);
        status = run_step(&normalizer->steps[i], current.data, current.size, &next, err);
        const rt_text swap = current;
        current = next;
        next = swap;
    }
    if (status == RT_OK) {
        if (!current.failed)
            rt_text_append(out, current.data, current.size);
        if (current.failed || out->failed)
            status = rt_error_set(err, RT_NO_MEMORY, "no memory to normalise %zu bytes", size);
    }
    rt_text_deinit(&current);
    rt_text_deinit(&next);
    return status;
}
