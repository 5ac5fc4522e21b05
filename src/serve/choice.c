/* serve/choice.c - see choice.h. */
#include "serve/choice.h"

#include <string.h>

#include "base/size.h"

static size_t longest_stop(const rt_job_options *options)
{
    size_t longest = 0;
    for (size_t i = 0; i < options->n_stops; i++)
        longest = rt_size_max(longest, options->stops[i].size);
    return longest;
}

/* The first place at or after `from` where a stop string stands; false: none. */
static bool find_stop(const rt_text *raw, const rt_job_options *options, size_t from, size_t *at)
{
    const char *first = NULL;
    for (size_t i = 0; i < options->n_stops; i++) {
        const rt_stop *stop = &options->stops[i];
        const char *hit = memmem(raw->data + from, raw->size - from, stop->bytes, stop->size);
        if (hit && (!first || hit < first))
            first = hit;
    }
    if (first)
        *at = (size_t)(first - raw->data);
    return first != NULL;
}

bool rt_choice_push(rt_choice *choice, const rt_job_options *options, const char *bytes, size_t size)
{
    rt_text *raw = &choice->raw;
    const size_t before = raw->size, longest = longest_stop(options);
    rt_text_append(raw, bytes, size);
    if (longest == 0 || size == 0 || raw->failed)
        return false;
    const size_t back = rt_size_min(before, longest - 1);
    size_t at;
    if (!find_stop(raw, options, rt_size_max(before - back, choice->raw_taken), &at))
        return false;
    raw->size = at;
    raw->data[at] = '\0';
    return true;
}

/* Bytes at the end of the raw text that may be the beginning of a stop string. */
static size_t held_back(const rt_choice *choice, const rt_job_options *options)
{
    const rt_text *raw = &choice->raw;
    size_t held = 0;
    for (size_t i = 0; i < options->n_stops; i++) {
        const rt_stop *stop = &options->stops[i];
        size_t n = rt_size_min(stop->size - 1, raw->size - choice->raw_taken);
        for (; n > held; n--)
            if (memcmp(raw->data + raw->size - n, stop->bytes, n) == 0)
                held = n;
    }
    return held;
}

/* Is this the beginning of a character that may still be completed? */
static bool is_unfinished(const char *data, size_t size)
{
    const unsigned char lead = (unsigned char)data[0];
    const size_t need = lead >= 0xF0 && lead <= 0xF4 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC2 ? 2 : 1;
    size_t n;
    if (size >= need || lead > 0xF4)
        return false;
    (void)rt_utf8_decode(data, size, &n);
    return n == size; /* all of it is one maximal ill-formed part: only the end is missing */
}

size_t rt_utf8_append(rt_text *out, const char *data, size_t size, bool last)
{
    size_t at = 0, n;
    while (at < size) {
        if (!last && size - at < 4 && is_unfinished(data + at, size - at))
            break;
        char utf8[4];
        const uint32_t code = rt_utf8_decode(data + at, size - at, &n);
        rt_text_append(out, utf8, rt_utf8_encode(code, utf8));
        at += n;
    }
    return at;
}

void rt_choice_release(rt_choice *choice, const rt_job_options *options, bool last)
{
    rt_text *raw = &choice->raw;
    const size_t limit = last ? raw->size : raw->size - held_back(choice, options);
    if (limit > choice->raw_taken)
        choice->raw_taken +=
            rt_utf8_append(&choice->text, raw->data + choice->raw_taken, limit - choice->raw_taken, last);
    while (choice->n_ready < choice->n_tokens &&
           (last || choice->tokens[choice->n_ready].text_end <= choice->raw_taken))
        choice->n_ready++;
}
