/* model/export_tokenizer.c - the tokenizer of an exported model.
 *
 *   from            to a folder                         to GGUF
 *   GGUF            rt_tokenizer_write_hf               the metadata under tokenizer.*, as they are
 *   tokenizer.json  its files, as they are              translated: tokens by id, types, merges, scores
 *
 * GGUF's types: 1 normal, 2 unknown, 3 control (special), 4 user-defined (added, not special),
 * 5 unused (ids that only the embedding has), 6 byte ("<0x0A>").  SentencePiece models have scores there
 * instead of merges; in tokenizer.json the merges are in the order of the scores, so that minus a
 * merge's rank is as good a score. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/size.h"
#include "model/export_parts.h"
#include "model/tokenizer.h"

enum { TOKENIZER_BYTES_MAX = 256 << 20 };
enum { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER, TYPE_UNUSED, TYPE_BYTE };

/* The folder that holds tokenizer.json, malloc'd; NULL when path is not such a folder or file. */
static char *json_folder(const char *path)
{
    if (rt_path_is_dir(path)) {
        char *file = rt_path_join(path, "tokenizer.json");
        const bool found = file && rt_path_exists(file);
        free(file);
        return found ? strdup(path) : NULL;
    }
    const size_t size = strlen(path);
    if (size < 5 || strcmp(path + size - 5, ".json") != 0)
        return NULL;
    const char *slash = strrchr(path, '/');
    return slash == path ? strdup("/") : slash ? strndup(path, (size_t)(slash - path)) : strdup(".");
}

/* --- to a folder --- */

static rt_status copy_files(const char *from, const char *to, rt_error *err)
{
    static const char *const names[] = {"tokenizer.json",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "tokenizer.model",
                                        "chat_template.jinja",
                                        "chat_template.json",
                                        "generation_config.json"};
    rt_status status = RT_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names && status == RT_OK; i++) {
        char *source = rt_path_join(from, names[i]), *target = rt_path_join(to, names[i]), *data = NULL;
        size_t size;
        if (!source || !target)
            status = rt_error_set(err, RT_NO_MEMORY, "no memory to copy %s", names[i]);
        else if (rt_path_exists(source) &&
                 (status = rt_file_read(&data, &size, source, TOKENIZER_BYTES_MAX, err)) == RT_OK)
            status = rt_file_write(target, data, size, err);
        free(data);
        free(source);
        free(target);
    }
    return status;
}

/* Which ids end an answer: transformers' generate() looks here. */
static rt_status write_generation_config(const rt_tokenizer *tokenizer, const char *dir, rt_error *err)
{
    json_t *json = json_object(), *ends = json_array();
    for (size_t id = 0; id < rt_tokenizer_size(tokenizer); id++)
        if (rt_tokenizer_is_end(tokenizer, (int32_t)id))
            (void)json_array_append_new(ends, json_integer((json_int_t)id));
    if (rt_tokenizer_bos(tokenizer) >= 0)
        (void)json_object_set_new(json, "bos_token_id", json_integer(rt_tokenizer_bos(tokenizer)));
    if (json_array_size(ends) != 0)
        (void)json_object_set(json, "eos_token_id", ends);
    json_decref(ends);
    if (rt_tokenizer_pad(tokenizer) >= 0)
        (void)json_object_set_new(json, "pad_token_id", json_integer(rt_tokenizer_pad(tokenizer)));
    char *path = rt_path_join(dir, "generation_config.json");
    const rt_status status = path ? rt_json_write(path, json, err)
                                  : rt_error_set(err, RT_NO_MEMORY, "no memory for generation_config.json");
    json_decref(json);
    free(path);
    return status;
}

rt_status rt_export_tokenizer_folder(const char *path, const char *dir, rt_error *err)
{
    char *from = json_folder(path);
    if (from) {
        const rt_status status = copy_files(from, dir, err);
        free(from);
        return status;
    }
    rt_tokenizer *tokenizer = NULL;
    rt_status status = rt_tokenizer_open(&tokenizer, path, err);
    if (status == RT_OK)
        status = rt_tokenizer_write_hf(tokenizer, dir, err);
    if (status == RT_OK)
        status = write_generation_config(tokenizer, dir, err);
    rt_tokenizer_close(tokenizer);
    return status;
}

/* --- GGUF from GGUF --- */

static rt_status copy_metadata(rt_gguf_writer *writer, const char *path, size_t n_vocab, rt_error *err)
{
    rt_weights *weights = NULL;
    size_t count;
    rt_status status = rt_weights_open(&weights, path, err);
    if (status != RT_OK)
        return status;
    if (!rt_weights_meta_array(weights, "tokenizer.ggml.tokens", &count))
        status =
            rt_error_set(err, RT_NOT_FOUND, "%s: there is no tokenizer (tokenizer.ggml.tokens) in it", path);
    else if (count != n_vocab)
        status =
            rt_error_set(err, RT_MISMATCH, "%s: its tokenizer has %zu tokens, but the model's embedding %zu",
                         path, count, n_vocab);
    for (size_t i = 0; i < rt_weights_meta_count(weights) && status == RT_OK; i++) {
        const rt_meta *meta = rt_weights_meta_at(weights, i);
        if (meta->key_size > 10 && !memcmp(meta->key, "tokenizer.", 10))
            rt_gguf_writer_put(writer, meta);
    }
    rt_weights_close(weights);
    return status;
}

/* --- GGUF from tokenizer.json --- */

typedef struct vocabulary {
    const char **tokens; /* [n], borrowed from the JSON; NULL: no token has the id */
    size_t *sizes;
    int32_t *types;
    float *scores;
    size_t n;
} vocabulary;

static bool vocabulary_make(vocabulary *vocab, size_t n)
{
    vocab->n = n;
    vocab->tokens = calloc(n, sizeof *vocab->tokens);
    vocab->sizes = calloc(n, sizeof *vocab->sizes);
    vocab->types = calloc(n, sizeof *vocab->types);
    vocab->scores = calloc(n, sizeof *vocab->scores);
    return vocab->tokens && vocab->sizes && vocab->types && vocab->scores;
}

static void vocabulary_free(vocabulary *vocab)
{
    free(vocab->tokens);
    free(vocab->sizes);
    free(vocab->types);
    free(vocab->scores);
}

static rt_status set_token(vocabulary *vocab, const char *token, size_t size, const json_t *id, int32_t type,
                           rt_error *err)
{
    if (!token || !json_is_integer(id) || json_integer_value(id) < 0 ||
        (size_t)json_integer_value(id) >= vocab->n)
        return rt_error_set(
            err, RT_CORRUPT,
            "tokenizer.json: a token has no id, or one that is not below the %zu rows of the model's "
            "embedding",
            vocab->n);
    const size_t i = (size_t)json_integer_value(id);
    vocab->tokens[i] = token;
    vocab->sizes[i] = size;
    vocab->types[i] = type;
    return RT_OK;
}

static bool is_byte_token(const char *token, size_t size)
{
    return size == 6 && !memcmp(token, "<0x", 3) && token[5] == '>' &&
           strspn(token + 3, "0123456789ABCDEF") == 2;
}

/* The model's own tokens: an object of ids (BPE), or a list of [token, score] (unigram). */
static rt_status read_tokens(vocabulary *vocab, const json_t *model, bool bytes, rt_error *err)
{
    const json_t *tokens = json_object_get(model, "vocab");
    const char *unknown = json_string_value(json_object_get(model, "unk_token")), *token;
    if (json_is_array(tokens)) {
        for (size_t i = 0; i < json_array_size(tokens); i++) {
            const json_t *pair = json_array_get(tokens, i), *text = json_array_get(pair, 0);
            json_t *id = json_integer((json_int_t)i);
            token = json_string_value(text);
            const bool byte = token && bytes && is_byte_token(token, json_string_length(text));
            const rt_status status =
                set_token(vocab, token, json_string_length(text), id, byte ? TYPE_BYTE : TYPE_NORMAL, err);
            json_decref(id);
            if (status != RT_OK)
                return status;
            vocab->scores[i] = (float)json_number_value(json_array_get(pair, 1));
        }
        const json_t *unknown_id = json_object_get(model, "unk_id");
        if (json_is_integer(unknown_id) && json_integer_value(unknown_id) >= 0 &&
            (size_t)json_integer_value(unknown_id) < json_array_size(tokens))
            vocab->types[json_integer_value(unknown_id)] = TYPE_UNKNOWN;
        return RT_OK;
    }
    if (!json_is_object(tokens))
        return rt_error_set(err, RT_CORRUPT, "tokenizer.json: model.vocab must be an object or a list");
    json_t *id;
    json_object_foreach((json_t *)tokens, token, id)
    {
        const size_t size = strlen(token);
        const int32_t type = bytes && is_byte_token(token, size)               ? TYPE_BYTE
                             : bytes && unknown && strcmp(token, unknown) == 0 ? TYPE_UNKNOWN
                                                                               : TYPE_NORMAL;
        if (set_token(vocab, token, size, id, type, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

static rt_status read_added(vocabulary *vocab, const json_t *added, rt_error *err)
{
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *entry = json_array_get(added, i), *content = json_object_get(entry, "content");
        const json_t *id = json_object_get(entry, "id");
        const bool unknown = json_is_integer(id) && json_integer_value(id) >= 0 &&
                             (size_t)json_integer_value(id) < vocab->n &&
                             vocab->types[json_integer_value(id)] == TYPE_UNKNOWN;
        const int32_t type = unknown                                           ? TYPE_UNKNOWN
                             : json_is_true(json_object_get(entry, "special")) ? TYPE_CONTROL
                                                                               : TYPE_USER;
        if (set_token(vocab, json_string_value(content), json_string_length(content), id, type, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

/* A merge is "a b" or, in newer files, ["a", "b"]; false: neither. */
static bool merge_parts(const json_t *merge, const char **a, size_t *a_size, const char **b, size_t *b_size)
{
    if (json_is_array(merge)) {
        const json_t *first = json_array_get(merge, 0), *second = json_array_get(merge, 1);
        *a = json_string_value(first);
        *b = json_string_value(second);
        *a_size = json_string_length(first);
        *b_size = json_string_length(second);
        return *a && *b;
    }
    const char *text = json_string_value(merge), *space = text && *text ? strchr(text + 1, ' ') : NULL;
    if (!space)
        return false;
    *a = text;
    *a_size = (size_t)(space - text);
    *b = space + 1;
    *b_size = json_string_length(merge) - *a_size - 1;
    return true;
}

/* Writes the merges of a byte-level BPE, or turns those of a SentencePiece BPE into scores. */
static rt_status put_merges(rt_gguf_writer *writer, vocabulary *vocab, const json_t *model, bool as_scores,
                            rt_error *err)
{
    const json_t *merges = json_object_get(model, "merges"), *tokens = json_object_get(model, "vocab");
    rt_text text = {0};
    if (!as_scores)
        rt_gguf_writer_strings(writer, "tokenizer.ggml.merges", json_array_size(merges));
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const char *a, *b;
        size_t a_size, b_size;
        if (!merge_parts(json_array_get(merges, i), &a, &a_size, &b, &b_size)) {
            rt_text_deinit(&text);
            return rt_error_set(err, RT_CORRUPT, "tokenizer.json: model.merges[%zu] is no pair of tokens", i);
        }
        rt_text_clear(&text);
        rt_text_append(&text, a, a_size);
        if (!as_scores)
            rt_text_append(&text, " ", 1);
        rt_text_append(&text, b, b_size);
        if (text.failed)
            break;
        if (as_scores) {
            const json_t *id = json_object_getn(tokens, text.data, text.size);
            if (json_is_integer(id) &&
                vocab->scores[json_integer_value(id)] == 0) /* read_tokens bounded the ids */
                vocab->scores[json_integer_value(id)] = -(float)(i + 1);
        } else {
            rt_gguf_writer_strings_add(writer, text.data, text.size);
        }
    }
    const bool failed = text.failed;
    rt_text_deinit(&text);
    return failed ? rt_error_set(err, RT_NO_MEMORY, "no memory for the merges of the tokenizer") : RT_OK;
}

static bool mentions(const json_t *json, const char *needle)
{
    char *text = json ? json_dumps(json, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    const bool found = text && strstr(text, needle);
    free(text);
    return found;
}

static void put_tokens(rt_gguf_writer *writer, const vocabulary *vocab, bool with_scores)
{
    rt_gguf_writer_strings(writer, "tokenizer.ggml.tokens", vocab->n);
    for (size_t i = 0; i < vocab->n; i++) {
        char pad[40];
        if (vocab->tokens[i]) {
            rt_gguf_writer_strings_add(writer, vocab->tokens[i], vocab->sizes[i]);
            continue;
        }
        (void)snprintf(pad, sizeof pad, "[PAD%zu]", i); /* rows of the embedding beyond the vocabulary */
        rt_gguf_writer_strings_add(writer, pad, strlen(pad));
        vocab->types[i] = TYPE_UNUSED;
    }
    rt_gguf_writer_numbers(writer, "tokenizer.ggml.token_type", RT_META_I32, vocab->types, vocab->n);
    if (with_scores)
        rt_gguf_writer_numbers(writer, "tokenizer.ggml.scores", RT_META_F32, vocab->scores, vocab->n);
}

static void put_id(rt_gguf_writer *writer, const char *key, int32_t id)
{
    if (id >= 0)
        rt_gguf_writer_u32(writer, key, (uint32_t)id);
}

/* What the opened tokenizer knows: ids and template. */
static void put_settings(rt_gguf_writer *writer, const rt_tokenizer *tokenizer, const char *dir)
{
    put_id(writer, "tokenizer.ggml.bos_token_id", rt_tokenizer_bos(tokenizer));
    put_id(writer, "tokenizer.ggml.eos_token_id", rt_tokenizer_eos(tokenizer));
    put_id(writer, "tokenizer.ggml.padding_token_id", rt_tokenizer_pad(tokenizer));
    if (rt_tokenizer_chat_template(tokenizer))
        rt_gguf_writer_string(writer, "tokenizer.chat_template", rt_tokenizer_chat_template(tokenizer));
    char *path = rt_path_join(dir, "tokenizer_config.json");
    json_t *config = path ? json_load_file(path, 0, NULL) : NULL;
    static const struct {
        const char *key, *gguf;
    } flags[] = {{"add_bos_token", "tokenizer.ggml.add_bos_token"},
                 {"add_eos_token", "tokenizer.ggml.add_eos_token"}};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (json_is_boolean(json_object_get(config, flags[i].key)))
            rt_gguf_writer_bool(writer, flags[i].gguf, json_is_true(json_object_get(config, flags[i].key)));
    json_decref(config);
    free(path);
}

static rt_status translate(rt_gguf_writer *writer, const json_t *json, const rt_tokenizer *tokenizer,
                           const char *dir, size_t n_vocab, rt_error *err)
{
    const json_t *model = json_object_get(json, "model");
    const char *type = json_string_value(json_object_get(model, "type"));
    const bool unigram = type ? !strcmp(type, "Unigram") : json_is_array(json_object_get(model, "vocab"));
    const bool bytes = json_is_true(json_object_get(model, "byte_fallback")), spm = bytes && !unigram;
    if (type && !unigram && strcmp(type, "BPE") != 0)
        return rt_error_set(err, RT_UNSUPPORTED,
                            "tokenizer.json: a %.40s tokenizer cannot be written to GGUF", type);
    vocabulary vocab = {0};
    rt_status status = vocabulary_make(&vocab, n_vocab)
                           ? RT_OK
                           : rt_error_set(err, RT_NO_MEMORY, "no memory for a vocabulary");
    if (status == RT_OK)
        status = read_tokens(&vocab, model, bytes || unigram, err);
    if (status == RT_OK)
        status = read_added(&vocab, json_object_get(json, "added_tokens"), err);
    const char *pre = NULL;
    if (status == RT_OK && !unigram && !spm)
        status = rt_export_pre_name(&pre, json, err);
    if (status == RT_OK) {
        if (pre)
            rt_gguf_writer_string(writer, "tokenizer.ggml.pre", pre);
        rt_gguf_writer_string(writer, "tokenizer.ggml.model", unigram ? "t5" : spm ? "llama" : "gpt2");
        status = unigram ? RT_OK : put_merges(writer, &vocab, model, spm, err);
    }
    if (status == RT_OK) {
        put_tokens(writer, &vocab, unigram || spm);
        if (unigram || spm) {
            const json_t *before = json_object_get(json, "pre_tokenizer");
            const bool prepends = mentions(json_object_get(json, "normalizer"), "\"Prepend\"") ||
                                  (mentions(before, "\"Metaspace\"") && !mentions(before, "\"never\"") &&
                                   !mentions(before, "\"add_prefix_space\":false"));
            rt_gguf_writer_bool(writer, "tokenizer.ggml.add_space_prefix", prepends);
        }
        put_settings(writer, tokenizer, dir);
    }
    vocabulary_free(&vocab);
    return status;
}

rt_status rt_export_tokenizer_gguf(rt_gguf_writer *writer, const char *path, size_t n_vocab, rt_error *err)
{
    char *dir = json_folder(path), *file = NULL, *text = NULL;
    rt_tokenizer *tokenizer = NULL;
    json_t *json = NULL;
    size_t size;
    if (!dir)
        return copy_metadata(writer, path, n_vocab, err);
    file = rt_path_is_dir(path) ? rt_path_join(dir, "tokenizer.json") : strdup(path);
    rt_status status = file ? rt_file_read(&text, &size, file, TOKENIZER_BYTES_MAX, err)
                            : rt_error_set(err, RT_NO_MEMORY, "%s: no memory to read it", path);
    if (status == RT_OK)
        status = rt_tokenizer_open(&tokenizer, path, err);
    json_error_t parse_error;
    if (status == RT_OK && !(json = json_loadb(text, size, JSON_ALLOW_NUL, &parse_error)))
        status = rt_error_set(err, RT_CORRUPT, "%s: line %d: %s", file, parse_error.line, parse_error.text);
    if (status == RT_OK)
        status = translate(writer, json, tokenizer, dir, n_vocab, err);
    json_decref(json);
    rt_tokenizer_close(tokenizer);
    free(text);
    free(file);
    free(dir);
    return status;
}
