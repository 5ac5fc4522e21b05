/* evidence/texts.c - see texts.h. */
#include "evidence/texts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
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

static uint64_t hash_text(uint64_t hash, const char *text)
{
    return text ? rt_hash64(text, strlen(text), hash + 1) : hash;
}

rt_status rt_texts_add_answer(rt_texts *t, const char *prompt, uint64_t unit, const char *text, size_t size,
                              const int32_t *ids, size_t n, rt_error *err)
{
    if (add_text(t, text, size, prompt, err) != RT_OK)
        return err->status;
    rt_text_item *item = &t->list[t->count - 1];
    item->unit = unit ? unit : prompt ? hash_text(0, prompt) : 0;
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

/* All that was asked: every message but a last answer, or a system prompt and the prompt. */
static uint64_t unit_of(const json_t *row, const json_t *messages, const char *prompt)
{
    uint64_t hash = hash_text(0, json_string_value(json_object_get(row, "system")));
    size_t n = json_array_size(messages);
    if (n == 0)
        return prompt ? hash_text(hash, prompt) : 0;
    const char *last = json_string_value(json_object_get(json_array_get(messages, n - 1), "role"));
    n -= last && strcmp(last, "assistant") == 0;
    for (size_t i = 0; i < n; i++) {
        const char *role = json_string_value(json_object_get(json_array_get(messages, i), "role"));
        const char *content = json_string_value(json_object_get(json_array_get(messages, i), "content"));
        if (n == 1 && role && strcmp(role, "user") == 0) /* the same as a bare prompt */
            return hash_text(hash, content);
        if (role && strcmp(role, "system") == 0)
            hash = hash_text(0, content);
        else
            hash = hash_text(hash, content);
    }
    return hash;
}

static const char *last_question(const json_t *messages)
{
    for (size_t i = json_array_size(messages); i-- > 0;) {
        const char *role = json_string_value(json_object_get(json_array_get(messages, i), "role"));
        if (role && strcmp(role, "user") == 0)
            return json_string_value(json_object_get(json_array_get(messages, i), "content"));
    }
    return NULL;
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
    const json_t *request = json_object_get(row, "request"); /* of a collected row */
    const json_t *messages = json_object_get(request ? request : row, "messages");
    const char *prompt = json_string_value(json_object_get(request ? request : row, "prompt"));
    if (!prompt)
        prompt = last_question(messages);
    const char *answer = NULL;
    size_t size = 0;
    for (size_t i = 0; i < sizeof text_keys / sizeof *text_keys && !answer; i++) {
        const json_t *text = json_object_get(row, text_keys[i]);
        answer = json_string_value(text);
        size = json_string_length(text);
    }
    if (!answer && (answer = last_answer(messages, &prompt)))
        size = strlen(answer);
    if (answer) {
        if (add_text(t, answer, size, prompt, err) != RT_OK)
            return err->status;
        rt_text_item *item = &t->list[t->count - 1];
        item->unit = unit_of(row, messages, prompt);
        if (json_array_size(json_object_get(row, "logprobs")) > 0)
            item->logprobs = json_incref(json_object_get(row, "logprobs"));
        return RT_OK;
    }
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
    if (size >= 3 && memcmp(data, "\xEF\xBB\xBF", 3) == 0) { /* a byte order mark */
        data += 3;
        size -= 3;
    }
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
                if (status == RT_OK)
                    t->list[t->count - 1].unit = unit_of(row, json_object_get(row, "messages"), question);
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

rt_status rt_texts_decode(rt_texts *t, const rt_tokenizer *tokenizer, rt_error *err)
{
    for (size_t i = 0; i < t->count; i++) {
        rt_text_item *item = &t->list[i];
        rt_text text = {0};
        rt_text_append(&text, "", 0);
        if (!item->text &&
            rt_tokenizer_decode(tokenizer, item->ids.ids, item->ids.count, true, &text, err) != RT_OK) {
            rt_text_deinit(&text);
            return err->status;
        }
        if (item->text) {
            rt_text_deinit(&text);
        } else {
            item->text = text.data;
            item->size = text.size;
            t->bytes += text.size;
        }
        t->tokens -= rt_size_min(t->tokens, item->ids.count);
        rt_token_list_deinit(&item->ids);
        item->ids = (rt_token_list){0};
        if (!item->text || text.failed)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for a text");
    }
    return RT_OK;
}

static void item_free(rt_text_item *item)
{
    free(item->text);
    free(item->prompt);
    json_decref(item->logprobs);
    rt_token_list_deinit(&item->ids);
}

void rt_texts_drop(rt_texts *t, const uint8_t *drop)
{
    size_t kept = 0;
    for (size_t i = 0; i < t->count; i++) {
        if (drop[i]) {
            t->tokens -= rt_size_min(t->tokens, t->list[i].ids.count);
            t->bytes -= rt_size_min(t->bytes, t->list[i].size);
            item_free(&t->list[i]);
        } else {
            t->list[kept++] = t->list[i];
        }
    }
    t->count = kept;
}

void rt_texts_deinit(rt_texts *t)
{
    for (size_t i = 0; i < t->count; i++)
        item_free(&t->list[i]);
    free(t->list);
    *t = (rt_texts){0};
}
