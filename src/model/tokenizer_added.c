/* model/tokenizer_added.c - see tokenizer_added.h. */
#include "model/tokenizer_added.h"

#include <stdlib.h>
#include <string.h>

#include "model/pretokenizer_class.h"

bool rt_added_is_markup(const char *text, size_t size)
{
    return size >= 3 &&
           ((text[0] == '<' && text[size - 1] == '>') || (text[0] == '[' && text[size - 1] == ']'));
}

bool rt_added_push(rt_added *added, const rt_added_token *token)
{
    if (added->count == added->capacity) {
        const size_t capacity = added->capacity * 2 + 16;
        rt_added_token *tokens = realloc(added->tokens, capacity * sizeof *tokens);
        if (!tokens)
            return false;
        added->tokens = tokens;
        added->capacity = capacity;
    }
    char *text = malloc(token->size + 1);
    if (!text)
        return false;
    memcpy(text, token->text, token->size);
    text[token->size] = '\0';
    added->tokens[added->count] = *token;
    added->tokens[added->count++].text = text;
    return true;
}

static rt_status make_set(rt_prefix_set *set, const rt_added *added, bool normalized, rt_error *err)
{
    rt_prefix_entry *entries = malloc((added->count + 1) * sizeof *entries);
    if (!entries)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu added tokens", added->count);
    size_t count = 0;
    for (size_t i = 0; i < added->count; i++)
        if (added->tokens[i].normalized == normalized)
            entries[count++] =
                (rt_prefix_entry){added->tokens[i].text, (uint32_t)added->tokens[i].size, (int32_t)i};
    return rt_prefix_init(set, entries, count, err);
}

rt_status rt_added_seal(rt_added *added, rt_error *err)
{
    if (make_set(&added->raw, added, false, err) != RT_OK)
        return err->status;
    return make_set(&added->normalized, added, true, err);
}

void rt_added_deinit(rt_added *added)
{
    for (size_t i = 0; i < added->count; i++)
        free(added->tokens[i].text);
    free(added->tokens);
    rt_prefix_deinit(&added->raw);
    rt_prefix_deinit(&added->normalized);
    *added = (rt_added){0};
}

/* Where the character that ends at text[at], at > 0, begins; an ill-formed byte stands alone. */
static size_t step_back(const char *text, size_t at)
{
    size_t begin = at - 1, n;
    while (begin > 0 && at - begin < 4 && ((unsigned char)text[begin] & 0xC0) == 0x80)
        begin--;
    (void)rt_utf8_decode(text + begin, at - begin, &n);
    return n == at - begin ? begin : at - 1;
}

static bool word_at(const char *text, size_t at, size_t size)
{
    size_t n;
    return rt_char_is_word(rt_utf8_decode(text + at, size - at, &n));
}

static bool inside_word(const char *text, size_t size, size_t begin, size_t end)
{
    return (begin > 0 && word_at(text, step_back(text, begin), begin)) ||
           (end < size && word_at(text, end, size));
}

static void take_whitespace(const rt_added_token *token, const char *text, size_t size, size_t from,
                            rt_added_match *match)
{
    size_t n;
    while (token->lstrip && match->begin > from) {
        const size_t begin = step_back(text, match->begin);
        if (!(rt_char_at(text, begin, match->begin, &n) & RT_CHAR_SPACE))
            break;
        match->begin = begin;
    }
    if (token->rstrip)
        while (match->end < size && (rt_char_at(text, match->end, size, &n) & RT_CHAR_SPACE))
            match->end += n;
}

bool rt_added_find(const rt_added *added, bool normalized, const char *text, size_t size, size_t from,
                   bool parse_special, rt_added_match *out)
{
    const rt_prefix_set *set = normalized ? &added->normalized : &added->raw;
    if (set->count == 0)
        return false;
    for (size_t at = from; at < size; at++) {
        rt_prefix_walk walk;
        const rt_added_token *best = NULL;
        if (!rt_prefix_start(set, &walk, text[at]))
            continue;
        do {
            const int32_t index = rt_prefix_value(set, &walk);
            if (index >= 0 && (parse_special || !added->tokens[index].markup))
                best = &added->tokens[index];
        } while (at + walk.depth < size && rt_prefix_step(set, &walk, text[at + walk.depth]));
        if (!best || (best->single_word && inside_word(text, size, at, at + best->size)))
            continue;
        *out = (rt_added_match){at, at + best->size, best->id};
        take_whitespace(best, text, size, from, out);
        return true;
    }
    return false;
}
