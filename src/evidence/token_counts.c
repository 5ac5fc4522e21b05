/* evidence/token_counts.c - see token_counts.h. */
#include "evidence/token_counts.h"

#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/json.h"
#include "outputs/lines.h"

enum { MOST = 256, FEWEST = 8 };

typedef struct tally {
    const rt_tokenizer *tokenizer;
    json_t *seen; /* prompts */
    int64_t differences[MOST];
    size_t n;
} tally;

/* The text of a row's only message, or its prompt; NULL: it has neither. */
static const json_t *text_of(const json_t *row)
{
    const json_t *request = json_object_get(row, "request"), *messages = json_object_get(request, "messages");
    return json_array_size(messages) == 1 ? json_object_get(json_array_get(messages, 0), "content")
                                          : json_object_get(request, "prompt");
}

static rt_status take_row(tally *t, const json_t *row, rt_error *err)
{
    const json_t *prompt = text_of(row),
                 *billed = json_object_get(json_object_get(row, "usage"), "prompt_tokens");
    const char *text = json_string_value(prompt);
    rt_token_list ids = {0};
    if (!text || json_integer_value(billed) <= 0 || json_object_get(t->seen, text))
        return RT_OK;
    if (json_object_set_new(t->seen, text, json_true()) != 0)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %d prompts", (int)MOST);
    const rt_status status =
        rt_tokenizer_encode(t->tokenizer, text, json_string_length(prompt), false, &ids, err);
    if (status == RT_OK)
        t->differences[t->n++] = json_integer_value(billed) - (int64_t)ids.count;
    rt_token_list_deinit(&ids);
    return status;
}

static int by_value(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static size_t most_alike(int64_t *values, size_t n)
{
    size_t most = 0, run = 0;
    qsort(values, n, sizeof *values, by_value);
    for (size_t i = 0; i < n; i++) {
        run = i > 0 && values[i] == values[i - 1] ? run + 1 : 1;
        most = run > most ? run : most;
    }
    return most;
}

rt_status rt_token_counts_read(rt_token_counts *out, const char *path, const rt_tokenizer *tokenizer,
                               rt_error *err)
{
    tally t = {.tokenizer = tokenizer, .seen = json_object()};
    rt_lines *lines = NULL;
    rt_status status = t.seen ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for prompts");
    if (status == RT_OK)
        status = rt_lines_open(&lines, path, err);
    while (status == RT_OK && t.n < MOST) {
        const char *line = NULL;
        size_t size = 0;
        bool whole = false;
        json_t *row = NULL;
        status = rt_lines_next(lines, &line, &size, &whole, err);
        if (status != RT_OK || !line || !whole)
            break;
        if (size > 0)
            status = rt_json_parse(&row, line, size, path, err);
        if (status == RT_OK)
            status = take_row(&t, row, err);
        json_decref(row);
    }
    *out = (rt_token_counts){.prompts = t.n, .alike = most_alike(t.differences, t.n)};
    rt_lines_close(lines);
    json_decref(t.seen);
    return status;
}

bool rt_token_counts_differ(const rt_token_counts *c)
{
    return c->prompts >= FEWEST && 5 * c->alike < 4 * c->prompts;
}
