/* judge/verify_tokenizer.c - see verify_tokenizer.h. */
#include "judge/verify_tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/json.h"
#include "base/unpack.h"
#include "model/chat_template.h"

static const size_t text_bytes_max = (size_t)1 << 30;

typedef struct check {
    rt_verify *result;
    const rt_tokenizer *tokenizer;
    rt_chat_template *chat_template; /* NULL: the model has none */
    const char *path;
    size_t line;
    rt_token_list ids; /* what this build gives */
    rt_text text;      /* what this build gives back, or renders */
    rt_error *err;
} check;

static rt_status bad_row(const check *c, const char *what)
{
    return rt_error_set(c->err, RT_CORRUPT, "%.300s:%zu: %s", c->path, c->line, what);
}

static void count(check *c, const char *wrong) /* NULL: the row passes */
{
    if (!wrong) {
        c->result->passed++;
        return;
    }
    if (c->result->failed++ == 0) {
        (void)snprintf(c->result->worst, sizeof c->result->worst, "line %zu: %s", c->line, wrong);
        c->result->worst_error = 1;
    }
}

static bool same_ids(const check *c, const json_t *wanted)
{
    if (!json_is_array(wanted) || json_array_size(wanted) != c->ids.count)
        return false;
    for (size_t i = 0; i < c->ids.count; i++)
        if (json_integer_value(json_array_get(wanted, i)) != c->ids.ids[i])
            return false;
    return true;
}

static rt_status encode(check *c, const char *text, size_t size, bool parse_special)
{
    c->ids.count = 0;
    return rt_tokenizer_encode(c->tokenizer, text, size, parse_special, &c->ids, c->err);
}

static rt_status decode(check *c)
{
    rt_text_clear(&c->text);
    if (rt_tokenizer_decode(c->tokenizer, c->ids.ids, c->ids.count, false, &c->text, c->err) != RT_OK)
        return c->err->status;
    return c->text.failed ? rt_error_set(c->err, RT_NO_MEMORY, "no memory for the decoded text") : RT_OK;
}

static bool text_is(const check *c, const char *text, size_t size)
{
    return c->text.size == size && (size == 0 || memcmp(c->text.data, text, size) == 0);
}

static bool text_is_nfc_of(const check *c, const char *text, size_t size)
{
    utf8proc_uint8_t *nfc = NULL;
    const utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)size, &nfc,
                                            UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    const bool same = n >= 0 && text_is(c, (const char *)nfc, (size_t)n);
    free(nfc);
    return same;
}

static rt_status check_text(check *c, const json_t *row)
{
    const json_t *text = json_object_get(row, "text");
    const json_t *ids = json_object_get(row, "ids");
    if (!json_is_string(text) || !json_is_array(ids))
        return bad_row(c, "needs a text and its ids");
    const char *data = json_string_value(text);
    const size_t size = json_string_length(text);
    if (encode(c, data, size, json_is_true(json_object_get(row, "parse_special"))) != RT_OK)
        return c->err->status;
    if (!same_ids(c, ids) && !same_ids(c, json_object_get(row, "llama_cpp_ids"))) {
        count(c, "the ids differ");
        return RT_OK;
    }
    if (decode(c) != RT_OK)
        return c->err->status;
    count(c, text_is(c, data, size) || text_is_nfc_of(c, data, size) ? NULL : "the text does not come back");
    return RT_OK;
}

static json_t *token_text(const rt_tokenizer *tokenizer, int32_t id)
{
    size_t size = 0;
    const char *bytes = id >= 0 ? rt_tokenizer_token_bytes(tokenizer, id, &size) : NULL;
    return rt_json_text(bytes ? bytes : "", size);
}

static rt_status check_chat(check *c, const json_t *row)
{
    json_t *messages = json_object_get(row, "messages");
    const json_t *text = json_object_get(row, "text"), *ids = json_object_get(row, "ids");
    if (!json_is_array(messages) || !json_is_string(text) || !json_is_array(ids))
        return bad_row(c, "needs messages, the text of the chat template and its ids");
    if (!c->chat_template)
        return rt_error_set(c->err, RT_INVALID, "%.300s holds chats, and the model has no chat template",
                            c->path);
    json_t *variables = json_pack("{s:O,s:b,s:o,s:o}", "messages", messages, "add_generation_prompt",
                                  json_is_true(json_object_get(row, "add_generation_prompt")), "bos_token",
                                  token_text(c->tokenizer, rt_tokenizer_bos(c->tokenizer)), "eos_token",
                                  token_text(c->tokenizer, rt_tokenizer_eos(c->tokenizer)));
    if (!variables)
        return rt_error_set(c->err, RT_NO_MEMORY, "no memory for the chat template's variables");
    rt_text_clear(&c->text);
    const rt_status status = rt_chat_template_render(c->chat_template, variables, &c->text, c->err);
    json_decref(variables);
    if (status != RT_OK)
        return status;
    if (!text_is(c, json_string_value(text), json_string_length(text))) {
        count(c, "the chat template's text differs");
        return RT_OK;
    }
    if (encode(c, c->text.data ? c->text.data : "", c->text.size, true) != RT_OK)
        return c->err->status;
    count(c, same_ids(c, ids) ? NULL : "the ids of the chat differ");
    return RT_OK;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static rt_status check_malformed(check *c, const json_t *row)
{
    const char *hex = json_string_value(json_object_get(row, "hex"));
    const size_t size = hex ? strlen(hex) / 2 : 0;
    if (!hex || strlen(hex) % 2 != 0)
        return bad_row(c, "hex must be pairs of digits");
    char *bytes = malloc(size + 1);
    if (!bytes)
        return rt_error_set(c->err, RT_NO_MEMORY, "no memory for a row");
    rt_status status = RT_OK;
    for (size_t i = 0; i < size && status == RT_OK; i++) {
        const int high = hex_digit(hex[2 * i]), low = hex_digit(hex[2 * i + 1]);
        bytes[i] = (char)(high * 16 + low);
        if (high < 0 || low < 0)
            status = bad_row(c, "hex must be pairs of digits");
    }
    if (status == RT_OK)
        status = encode(c, bytes, size, false);
    if (status == RT_OK)
        status = decode(c);
    if (status == RT_OK)
        count(c, text_is(c, bytes, size) || same_ids(c, json_object_get(row, "replaced_ids"))
                     ? NULL
                     : "the malformed bytes neither come back nor give the replaced ids");
    free(bytes);
    return status;
}

static rt_status check_row(check *c, const char *data, size_t size)
{
    char where[400];
    (void)snprintf(where, sizeof where, "%.300s:%zu", c->path, c->line);
    json_error_t problem;
    json_t *row = json_loadb(data, size, JSON_ALLOW_NUL, &problem); /* rows hold every code point, NUL too */
    if (!row)
        return rt_error_set(c->err, RT_CORRUPT, "%s: is not valid JSON: %.100s", where, problem.text);
    rt_status status;
    if (json_object_get(row, "hex"))
        status = check_malformed(c, row);
    else if (json_object_get(row, "messages"))
        status = check_chat(c, row);
    else
        status = check_text(c, row);
    json_decref(row);
    return status;
}

static rt_status check_rows(check *c, const rt_text *file)
{
    rt_status status = RT_OK;
    for (size_t at = 0; at < file->size && status == RT_OK;) {
        const char *line = file->data + at, *end = memchr(line, '\n', file->size - at);
        const size_t size = end ? (size_t)(end - line) : file->size - at;
        c->line++;
        if (size > 0)
            status = check_row(c, line, size);
        at += size + 1;
    }
    return status;
}

/* Compares the ids of one text with a line of numbers; returns where the next line begins. */
static const char *check_line(check *c, const char *numbers)
{
    bool same = true;
    size_t n = 0;
    while (*numbers && *numbers != '\n') {
        char *end = NULL;
        const long id = strtol(numbers, &end, 10);
        if (end == numbers) {
            numbers++;
            continue;
        }
        same = same && n < c->ids.count && c->ids.ids[n] == id;
        n++;
        numbers = end;
        numbers += strspn(numbers, " \t\r");
    }
    count(c, same && n == c->ids.count ? NULL : "the ids differ");
    return *numbers ? numbers + 1 : numbers;
}

static rt_status check_pairs(check *c, const rt_text *inputs)
{
    static const char separator[] = "\n__ggml_vocab_test__\n";
    rt_text outputs = {.size_max = text_bytes_max};
    const size_t n = strlen(c->path);
    char *out_path = strdup(c->path);
    if (!out_path)
        return rt_error_set(c->err, RT_NO_MEMORY, "no memory for a file's name");
    memcpy(out_path + n - 3, "out", 3);
    rt_status status = rt_file_read_unpacked(&outputs, out_path, c->err);
    free(out_path);
    const char *numbers = outputs.data ? outputs.data : "";
    bool is_last = false;
    for (size_t at = 0; status == RT_OK && !is_last;) {
        const char *begin = inputs->data + at;
        const char *end = memmem(begin, inputs->size - at, separator, sizeof separator - 1);
        const size_t size = end ? (size_t)(end - begin) : inputs->size - at;
        is_last = !end;
        c->line++;
        if (!*numbers && (size > 0 || !is_last))
            status = bad_row(c, "the .out file has fewer lines than there are texts");
        else if (*numbers)
            status = encode(c, begin, size, false);
        if (status == RT_OK && *numbers)
            numbers = check_line(c, numbers);
        at += size + sizeof separator - 1;
    }
    rt_text_deinit(&outputs);
    return status;
}

rt_status rt_verify_tokenizer(rt_verify *result, const char *path, const rt_tokenizer *tokenizer,
                              rt_error *err)
{
    *result = (rt_verify){0};
    check c = {.result = result, .tokenizer = tokenizer, .path = path, .err = err};
    rt_text file = {.size_max = text_bytes_max};
    const char *source = rt_tokenizer_chat_template(tokenizer);
    rt_status status = RT_OK;
    if (source)
        status = rt_chat_template_parse(&c.chat_template, source, err);
    if (status == RT_OK)
        status = rt_file_read_unpacked(&file, path, err);
    const size_t n = strlen(path);
    const bool is_pair = n > 4 && strcmp(path + n - 4, ".inp") == 0;
    if (status == RT_OK)
        status = is_pair ? check_pairs(&c, &file) : check_rows(&c, &file);
    if (status == RT_OK && result->passed + result->failed == 0)
        status = rt_error_set(err, RT_INVALID, "%.300s: holds no row to compare with", path);
    rt_text_deinit(&file);
    rt_text_deinit(&c.text);
    rt_token_list_deinit(&c.ids);
    rt_chat_template_free(c.chat_template);
    return status;
}
