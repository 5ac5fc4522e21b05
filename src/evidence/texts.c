/* evidence/texts.c - see texts.h. */
#include "evidence/texts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/size.h"
#include "base/unpack.h"

static const size_t input_max = (size_t)4 << 30;

static rt_status add(rt_texts *t, rt_text_item **out, rt_error *err)
{
    if (t->count == t->capacity) {
        const size_t more = t->capacity ? 2 * t->capacity : 64;
        rt_text_item *list = realloc(t->list, more * sizeof *list);
        if (!list)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for more than %zu texts", t->count);
        t->list = list;
        t->capacity = more;
    }
    *out = &t->list[t->count++];
    **out = (rt_text_item){0};
    return RT_OK;
}

static char *copy(const char *data, size_t size)
{
    char *out = malloc(size + 1);
    if (out) {
        memcpy(out, data, size);
        out[size] = '\0';
    }
    return out;
}

static rt_status add_text(rt_texts *t, const char *data, size_t size, const char *prompt, rt_error *err)
{
    rt_text_item *item = NULL;
    if (add(t, &item, err) != RT_OK)
        return err->status;
    item->text = copy(data, size);
    item->size = size;
    item->prompt = prompt ? copy(prompt, strlen(prompt)) : NULL;
    t->bytes += size;
    return item->text ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for a text of %zu bytes", size);
}

static rt_status add_ids(rt_texts *t, const json_t *list, const char *where, rt_error *err)
{
    rt_text_item *item = NULL;
    const size_t n = json_array_size(list);
    if (add(t, &item, err) != RT_OK)
        return err->status;
    item->ids.ids = malloc((n + 1) * sizeof *item->ids.ids);
    if (!item->ids.ids)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu ids", n);
    item->ids.count = item->ids.capacity = n;
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_array_get(list, i);
        const json_int_t id = json_integer_value(value);
        if (!json_is_integer(value) || id < 0 || id > INT32_MAX - 1)
            return rt_error_set(err, RT_CORRUPT, "%.280s: id %zu is not a token id", where, i);
        item->ids.ids[i] = (int32_t)id;
    }
    return RT_OK;
}

rt_status rt_texts_add_ids(rt_texts *t, const int32_t *ids, size_t n, rt_error *err)
{
    rt_text_item *item = NULL;
    if (add(t, &item, err) != RT_OK)
        return err->status;
    item->ids.ids = malloc((n + 1) * sizeof *ids);
    if (!item->ids.ids)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu ids", n);
    memcpy(item->ids.ids, ids, n * sizeof *ids);
    item->ids.count = item->ids.capacity = n;
    t->tokens += n;
    return RT_OK;
}

/* The last assistant's words, and the last question before them. */
static const char *last_answer(const json_t *messages, const char **prompt)
{
    const char *answer = NULL;
    for (size_t i = json_array_size(messages); i-- > 0;) {
        const json_t *m = json_array_get(messages, i);
        const char *role = json_string_value(json_object_get(m, "role"));
        const char *content = json_string_value(json_object_get(m, "content"));
        if (!role || !content)
            continue;
        if (!answer && strcmp(role, "assistant") == 0)
            answer = content;
        else if (answer && strcmp(role, "user") == 0) {
            *prompt = content;
            break;
        }
    }
    return answer;
}

static rt_status note_tokenizer(rt_texts *t, const json_t *row, const char *where, rt_error *err)
{
    const char *hash = json_string_value(json_object_get(json_object_get(row, "watermark"), "tokenizer"));
    if (!hash || strlen(hash) >= sizeof t->tokenizer)
        return RT_OK;
    if (t->tokenizer[0] && strcmp(t->tokenizer, hash) != 0)
        return rt_error_set(err, RT_MISMATCH, "%.280s: rows say different tokenizers; test them apart",
                            where);
    (void)snprintf(t->tokenizer, sizeof t->tokenizer, "%s", hash);
    return RT_OK;
}

static rt_status add_row(rt_texts *t, const json_t *row, const char *where, rt_error *err)
{
    static const char *const id_keys[] = {"completion_ids", "answer_ids", "ids", "token_ids"};
    static const char *const text_keys[] = {"completion", "answer", "response", "output", "text", "content"};
    if (note_tokenizer(t, row, where, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < sizeof id_keys / sizeof *id_keys; i++)
        if (json_is_array(json_object_get(row, id_keys[i])))
            return add_ids(t, json_object_get(row, id_keys[i]), where, err);
    const char *prompt = json_string_value(json_object_get(row, "prompt"));
    for (size_t i = 0; i < sizeof text_keys / sizeof *text_keys; i++) {
        const json_t *text = json_object_get(row, text_keys[i]);
        if (json_is_string(text))
            return add_text(t, json_string_value(text), json_string_length(text), prompt, err);
    }
    const char *answer = last_answer(json_object_get(row, "messages"), &prompt);
    if (answer)
        return add_text(t, answer, strlen(answer), prompt, err);
    return rt_error_set(err, RT_CORRUPT,
                        "%.280s: the row has no text (completion, answer, response, output, text, content, "
                        "messages) and no ids",
                        where);
}

static bool rows_by_look(const char *data, size_t size)
{
    size_t i = 0;
    while (i < size && strchr(" \t\r\n", data[i]) && data[i])
        i++;
    return i < size && data[i] == '{';
}

rt_status rt_texts_parse(rt_texts *t, const char *data, size_t size, int form, const char *where,
                         rt_error *err)
{
    if (form == RT_TEXTS_PLAIN || (form == RT_TEXTS_AUTO && !rows_by_look(data, size)))
        return add_text(t, data, size, NULL, err);
    size_t line = 0;
    for (const char *at = data, *end = data + size; at < end;) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const size_t length = (size_t)((newline ? newline : end) - at);
        line++;
        if (length > 0 && strspn(at, " \t\r") < length) {
            char place[320];
            json_t *row = NULL;
            (void)snprintf(place, sizeof place, "%.280s:%zu", where, line);
            rt_status status = rt_json_parse(&row, at, length, place, err);
            if (status == RT_OK && !json_is_object(row))
                status = rt_error_set(err, RT_CORRUPT, "%s: the row is no JSON object", place);
            if (status == RT_OK)
                status = add_row(t, row, place, err);
            json_decref(row);
            if (status != RT_OK)
                return status;
        }
        at += length + 1;
    }
    return RT_OK;
}

static bool ends_in(const char *path, const char *end)
{
    const size_t n = strlen(path), m = strlen(end);
    return n >= m && strcmp(path + n - m, end) == 0;
}

static rt_status read_input(rt_text *out, rt_error *err)
{
    char block[65536];
    for (size_t n; (n = fread(block, 1, sizeof block, stdin)) > 0;)
        rt_text_append(out, block, n);
    return out->failed || ferror(stdin)
               ? rt_error_set(err, RT_IO, "standard input cannot be read, or is past 4 GiB")
               : RT_OK;
}

rt_status rt_texts_read(rt_texts *t, const char *path, int form, rt_error *err)
{
    rt_text data = {.size_max = input_max};
    const bool input = strcmp(path, "-") == 0;
    if (form == RT_TEXTS_AUTO && (ends_in(path, ".jsonl") || ends_in(path, ".jsonl.zst")))
        form = RT_TEXTS_ROWS;
    rt_status status = input ? read_input(&data, err) : rt_file_read_unpacked(&data, path, err);
    if (status == RT_OK)
        status = rt_texts_parse(t, data.data ? data.data : "", data.size, form,
                                input ? "standard input" : path, err);
    rt_text_deinit(&data);
    return status;
}

/* The question of a row: the last user's message before any last answer. */
static const char *question_of(const json_t *row)
{
    static const char *const keys[] = {"prompt", "instruction", "question", "text"};
    const json_t *messages = json_object_get(row, "messages");
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (json_is_string(json_object_get(row, keys[i])))
            return json_string_value(json_object_get(row, keys[i]));
    for (size_t i = json_array_size(messages); i-- > 0;) {
        const char *role = json_string_value(json_object_get(json_array_get(messages, i), "role"));
        if (role && strcmp(role, "user") == 0)
            return json_string_value(json_object_get(json_array_get(messages, i), "content"));
    }
    return NULL;
}

rt_status rt_texts_read_prompts(rt_texts *t, const char *path, rt_error *err)
{
    rt_text data = {.size_max = input_max};
    rt_status status = rt_file_read_unpacked(&data, path, err);
    const bool rows = data.data && rows_by_look(data.data, data.size);
    size_t line = 0;
    for (const char *at = data.data, *end = data.data ? data.data + data.size : NULL;
         status == RT_OK && at && at < end;) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const size_t length = (size_t)((newline ? newline : end) - at);
        char where[320];
        json_t *row = NULL;
        (void)snprintf(where, sizeof where, "%.280s:%zu", path, ++line);
        if (length > 0 && strspn(at, " \t\r") < length) {
            if (!rows) {
                status = add_text(t, at, length, NULL, err);
            } else if (rt_json_parse(&row, at, length, where, err) == RT_OK) {
                const char *question = question_of(row);
                status = question ? add_text(t, question, strlen(question), NULL, err)
                                  : rt_error_set(err, RT_CORRUPT, "%s: the row holds no question", where);
            } else {
                status = err->status;
            }
            json_decref(row);
        }
        at += length + 1;
    }
    rt_text_deinit(&data);
    if (status == RT_OK && t->count == 0)
        status = rt_error_set(err, RT_INVALID, "%.300s: holds no question", path);
    return status;
}

typedef struct encoding {
    rt_texts *texts;
    const rt_tokenizer *tokenizer;
    rt_error *errors; /* [threads] */
} encoding;

static void encode_one(void *context, size_t index, unsigned thread)
{
    encoding *e = context;
    rt_text_item *item = &e->texts->list[index];
    rt_error *err = &e->errors[thread];
    if (!item->text || item->ids.count || err->status != RT_OK)
        return;
    (void)rt_tokenizer_encode(e->tokenizer, item->text, item->size, false, &item->ids, err);
}

rt_status rt_texts_encode(rt_texts *t, const rt_tokenizer *tokenizer, rt_pool *pool, rt_error *err)
{
    if (tokenizer && t->tokenizer[0] && strcmp(t->tokenizer, rt_tokenizer_hash(tokenizer)) != 0)
        return rt_error_set(
            err, RT_MISMATCH,
            "wrong tokenizer: the rows were marked in ids of tokenizer %.12s, the model given "
            "has %.12s (%s)",
            t->tokenizer, rt_tokenizer_hash(tokenizer), rt_tokenizer_kind(tokenizer));
    for (size_t i = 0; i < t->count; i++) {
        const rt_text_item *item = &t->list[i];
        if (item->text && !tokenizer)
            return rt_error_set(err, RT_INVALID,
                                "text %zu has no ids: a tokenizer is needed (--model, that of the teacher)",
                                i + 1);
        for (size_t j = 0; tokenizer && !item->text && j < item->ids.count; j++)
            if ((size_t)item->ids.ids[j] >= rt_tokenizer_size(tokenizer))
                return rt_error_set(
                    err, RT_MISMATCH,
                    "wrong tokenizer: text %zu has id %d, and the model's tokenizer has %zu ids", i + 1,
                    item->ids.ids[j], rt_tokenizer_size(tokenizer));
    }
    const size_t threads = pool ? rt_pool_threads(pool) : 1;
    rt_error *errors = calloc(threads, sizeof *errors);
    if (!errors)
        return rt_error_set(err, RT_NO_MEMORY, "no memory to read texts");
    encoding e = {t, tokenizer, errors};
    if (tokenizer)
        rt_pool_run(pool, t->count, encode_one, &e);
    rt_status status = RT_OK;
    for (size_t i = 0; i < threads && status == RT_OK; i++)
        if (errors[i].status != RT_OK) {
            *err = errors[i];
            status = err->status;
        }
    free(errors);
    t->tokens = 0;
    for (size_t i = 0; i < t->count; i++)
        t->tokens += t->list[i].ids.count;
    return status;
}

void rt_texts_deinit(rt_texts *t)
{
    for (size_t i = 0; i < t->count; i++) {
        free(t->list[i].text);
        free(t->list[i].prompt);
        rt_token_list_deinit(&t->list[i].ids);
    }
    free(t->list);
    *t = (rt_texts){0};
}
