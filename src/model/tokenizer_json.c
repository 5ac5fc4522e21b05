/* model/tokenizer_json.c - a tokenizer from tokenizer.json (the format of the Hugging Face tokenizers
 * library), with tokenizer_config.json beside it for the names of BOS, EOS and PAD and the template.
 *
 * Byte-level or not is seen from the steps: a ByteLevel pre-tokenizer or decoder means that the
 * vocabulary is spelled in GPT-2's alphabet.  The post-processor (which adds BOS and the like) is not
 * read: encode never adds a token. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "model/tokenizer_internal.h"
#include "model/tokenizer_steps.h"

enum { JSON_BYTES_MAX = 512 << 20, HOLES_MAX = 1 << 17 };

static rt_status no_memory(rt_error *err)
{
    return rt_error_set(err, RT_NO_MEMORY, "no memory for the tokenizer");
}

static rt_status bad_id(rt_error *err, const char *token)
{
    return rt_error_set(err, RT_CORRUPT, "the id of token \"%.60s\" is not a number between 0 and %d", token,
                        RT_VOCAB_MAX - 1);
}

static bool id_of(const json_t *value, size_t *id)
{
    const json_int_t n = json_integer_value(value);
    *id = (size_t)n;
    return json_is_integer(value) && n >= 0 && n < RT_VOCAB_MAX;
}

/* One more than the largest id; *tokens: how many there are. */
static rt_status count_ids(const json_t *vocab, const json_t *added, size_t *count, size_t *tokens,
                           rt_error *err)
{
    const char *key;
    json_t *value;
    size_t index, id;
    *count = *tokens = json_is_array(vocab) ? json_array_size(vocab) : 0;
    if (json_is_object(vocab)) {
        json_object_foreach((json_t *)(size_t)vocab, key, value)
        {
            if (!id_of(value, &id))
                return bad_id(err, key);
            *count = id >= *count ? id + 1 : *count;
            ++*tokens;
        }
    }
    json_array_foreach(added, index, value)
    {
        const char *content = json_string_value(json_object_get(value, "content"));
        if (!content || !id_of(json_object_get(value, "id"), &id))
            return bad_id(err, content ? content : "(added)");
        *count = id >= *count ? id + 1 : *count;
        ++*tokens;
    }
    if (*count > *tokens + HOLES_MAX)
        return rt_error_set(err, RT_CORRUPT,
                            "the vocabulary has %zu tokens and ids up to %zu: too many are missing", *tokens,
                            *count - 1);
    return RT_OK;
}

static rt_status twice(rt_error *err, size_t id, const char *token)
{
    return rt_error_set(err, RT_CORRUPT, "id %zu belongs to two tokens, one of them \"%.60s\"", id, token);
}

static rt_status set_vocab(rt_vocab *out, const json_t *vocab, rt_error *err)
{
    const char *key;
    json_t *value;
    size_t index, id;
    if (json_is_object(vocab)) {
        json_object_foreach((json_t *)(size_t)vocab, key, value)
        {
            (void)id_of(value, &id); /* checked when counting */
            if (out->tokens[id].type != RT_TOKEN_ABSENT)
                return twice(err, id, key);
            rt_vocab_set(out, id, key, strlen(key), RT_TOKEN_NORMAL, 0.0f);
        }
        return RT_OK;
    }
    json_array_foreach(vocab, index, value)
    {
        const json_t *text = json_array_get(value, 0), *score = json_array_get(value, 1);
        if (!json_is_string(text) || !json_is_number(score))
            return rt_error_set(err, RT_CORRUPT, "piece %zu of the vocabulary is not [text, score]", index);
        rt_vocab_set(out, index, json_string_value(text), json_string_length(text), RT_TOKEN_NORMAL,
                     (float)json_number_value(score));
    }
    return RT_OK;
}

static rt_status set_added(rt_tokenizer *tokenizer, const json_t *added, rt_error *err)
{
    size_t index, id;
    json_t *value;
    json_array_foreach(added, index, value)
    {
        const json_t *content = json_object_get(value, "content");
        const char *text = json_string_value(content);
        const size_t size = json_string_length(content);
        (void)id_of(json_object_get(value, "id"), &id);
        const rt_vocab_token *there = &tokenizer->vocab.tokens[id];
        if (there->type != RT_TOKEN_ABSENT &&
            (there->text_size != size || memcmp(tokenizer->vocab.store.data + there->text, text, size) != 0))
            return twice(err, id, text);
        const bool outside = there->type == RT_TOKEN_ABSENT || there->outside;
        rt_added_token token = {.id = (int32_t)id,
                                .size = size,
                                .special = json_is_true(json_object_get(value, "special")),
                                .lstrip = json_is_true(json_object_get(value, "lstrip")),
                                .rstrip = json_is_true(json_object_get(value, "rstrip")),
                                .single_word = json_is_true(json_object_get(value, "single_word")),
                                .normalized = json_is_true(json_object_get(value, "normalized"))};
        token.markup = token.special || rt_added_is_markup(text, size);
        const rt_token_type type_of_it = token.special ? RT_TOKEN_CONTROL : RT_TOKEN_USER_DEFINED;
        if (outside)
            rt_vocab_set(&tokenizer->vocab, id, text, size, type_of_it, 0.0f);
        tokenizer->vocab.tokens[id].type =
            (unsigned char)type_of_it; /* one of the model's own keeps its bytes */
        tokenizer->vocab.tokens[id].outside = outside;
        rt_text normal = {0};
        if (token.normalized && rt_normalizer_run(&tokenizer->normalizer, text, size, &normal, err) != RT_OK)
            return err->status;
        token.text = token.normalized && normal.data ? normal.data : (char *)(size_t)text;
        token.size = token.normalized && normal.data ? normal.size : size;
        const bool ok = rt_added_push(&tokenizer->added, &token);
        rt_text_deinit(&normal);
        if (!ok)
            return no_memory(err);
    }
    return RT_OK;
}

static rt_status read_vocab(rt_tokenizer *tokenizer, const json_t *root, rt_vocab_spelling spelling,
                            rt_error *err)
{
    const json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    const json_t *added = json_object_get(root, "added_tokens");
    size_t count, tokens;
    if (!json_is_object(vocab) && !json_is_array(vocab))
        return rt_error_set(err, RT_CORRUPT, "model.vocab is missing or not a list of tokens");
    if (count_ids(vocab, added, &count, &tokens, err) != RT_OK ||
        rt_vocab_init(&tokenizer->vocab, spelling, count, err) != RT_OK ||
        set_vocab(&tokenizer->vocab, vocab, err) != RT_OK || set_added(tokenizer, added, err) != RT_OK)
        return err->status;
    return rt_vocab_seal(&tokenizer->vocab, err);
}

/* "a b", or ["a", "b"]. */
static bool merge_parts(const json_t *merge, const char **left, size_t *left_size, const char **right,
                        size_t *right_size)
{
    if (json_is_array(merge) && json_array_size(merge) == 2) {
        const json_t *l = json_array_get(merge, 0), *r = json_array_get(merge, 1);
        *left = json_string_value(l);
        *left_size = json_string_length(l);
        *right = json_string_value(r);
        *right_size = json_string_length(r);
        return *left && *right;
    }
    const char *text = json_string_value(merge);
    const char *blank = text && *text ? strchr(text + 1, ' ') : NULL;
    if (!blank)
        return false;
    *left = text;
    *left_size = (size_t)(blank - text);
    *right = blank + 1;
    *right_size = strlen(*right);
    return true;
}

static rt_status read_merges(rt_tokenizer *tokenizer, const json_t *merges, rt_error *err)
{
    if (!json_is_array(merges))
        return rt_error_set(err, RT_CORRUPT, "model.merges is missing or not an array");
    if (rt_bpe_init(&tokenizer->bpe, &tokenizer->vocab, json_array_size(merges), err) != RT_OK)
        return err->status;
    rt_text scratch = {0};
    rt_status status = RT_OK;
    for (size_t i = 0; i < json_array_size(merges) && status == RT_OK; i++) {
        const char *left, *right;
        size_t left_size, right_size;
        if (!merge_parts(json_array_get(merges, i), &left, &left_size, &right, &right_size))
            status = rt_error_set(err, RT_CORRUPT, "merge %zu is not two parts", i);
        else
            status = rt_bpe_add(&tokenizer->bpe, left, left_size, right, right_size, &scratch, err);
    }
    rt_text_deinit(&scratch);
    return status;
}

static rt_status refuse_affix(const json_t *model, const char *key, rt_error *err)
{
    const char *value = json_string_value(json_object_get(model, key));
    if (!value || !*value)
        return RT_OK;
    return rt_error_set(err, RT_UNSUPPORTED,
                        "model.%s is \"%.20s\"; vocabularies with such marks are not supported", key, value);
}

static rt_status read_bpe(rt_tokenizer *tokenizer, const json_t *model, rt_error *err)
{
    rt_bpe *bpe = &tokenizer->bpe;
    const json_t *unknown = json_object_get(model, "unk_token");
    if (refuse_affix(model, "continuing_subword_prefix", err) != RT_OK ||
        refuse_affix(model, "end_of_word_suffix", err) != RT_OK)
        return err->status;
    bpe->byte_level = tokenizer->vocab.spelling == RT_SPELLING_BYTES;
    bpe->byte_fallback = json_is_true(json_object_get(model, "byte_fallback"));
    bpe->fuse_unknown = json_is_true(json_object_get(model, "fuse_unk"));
    bpe->ignore_merges = json_is_true(json_object_get(model, "ignore_merges"));
    bpe->unknown_id = -1;
    if (json_is_string(unknown)) {
        bpe->unknown_id =
            rt_vocab_find(&tokenizer->vocab, json_string_value(unknown), json_string_length(unknown));
        if (bpe->unknown_id < 0)
            return rt_error_set(err, RT_CORRUPT, "model.unk_token \"%.60s\" is not in the vocabulary",
                                json_string_value(unknown));
    }
    return read_merges(tokenizer, json_object_get(model, "merges"), err);
}

static rt_status read_unigram(rt_tokenizer *tokenizer, const json_t *model, rt_error *err)
{
    const json_t *unknown = json_object_get(model, "unk_id");
    size_t id = 0;
    if (json_is_integer(unknown) && (!id_of(unknown, &id) || id >= tokenizer->vocab.count))
        return rt_error_set(err, RT_CORRUPT, "model.unk_id is not an id of the vocabulary");
    tokenizer->model = RT_MODEL_UNIGRAM;
    return rt_unigram_init(&tokenizer->unigram, &tokenizer->vocab,
                           json_is_integer(unknown) ? (int32_t)id : -1,
                           json_is_true(json_object_get(model, "byte_fallback")), err);
}

/* "</s>" or {"content": "</s>", ...} -> its id, or -1. */
static int32_t id_of_name(const rt_tokenizer *tokenizer, const json_t *name)
{
    const json_t *text = json_is_object(name) ? json_object_get(name, "content") : name;
    if (!json_is_string(text))
        return -1;
    for (size_t i = 0; i < tokenizer->added.count; i++)
        if (strcmp(tokenizer->added.tokens[i].text, json_string_value(text)) == 0)
            return tokenizer->added.tokens[i].id;
    return rt_vocab_find(&tokenizer->vocab, json_string_value(text), json_string_length(text));
}

/* The template: a string, or a list of named ones of which "default" is taken. */
static const char *template_of(const json_t *config)
{
    const json_t *templates = json_object_get(config, "chat_template");
    size_t index;
    json_t *value;
    json_array_foreach(templates, index, value)
    {
        const char *name = json_string_value(json_object_get(value, "name"));
        if (name && strcmp(name, "default") == 0)
            return json_string_value(json_object_get(value, "template"));
    }
    return json_string_value(templates);
}

static rt_status read_config(rt_tokenizer *tokenizer, const json_t *config, rt_error *err)
{
    tokenizer->bos = id_of_name(tokenizer, json_object_get(config, "bos_token"));
    tokenizer->eos = id_of_name(tokenizer, json_object_get(config, "eos_token"));
    tokenizer->pad = id_of_name(tokenizer, json_object_get(config, "pad_token"));
    tokenizer->add_bos = json_is_true(json_object_get(config, "add_bos_token"));
    const char *text = template_of(config);
    if (text && !(tokenizer->chat_template = strdup(text)))
        return no_memory(err);
    return RT_OK;
}

static rt_status read_root(rt_tokenizer *tokenizer, const json_t *root, const json_t *config, rt_error *err)
{
    const json_t *model = json_object_get(root, "model");
    const char *type = json_string_value(json_object_get(model, "type"));
    rt_steps_found found = {0};
    if (!json_is_object(model))
        return rt_error_set(err, RT_CORRUPT, "\"model\" is missing: this is not a tokenizer.json");
    const bool unigram = type ? strcmp(type, "Unigram") == 0 : json_is_array(json_object_get(model, "vocab"));
    if (type && !unigram && strcmp(type, "BPE") != 0)
        return rt_error_set(err, RT_UNSUPPORTED, "the model type is \"%.40s\"; BPE and Unigram are supported",
                            type);
    if (rt_steps_read(&tokenizer->normalizer, &tokenizer->pre, root, &found, err) != RT_OK ||
        read_vocab(tokenizer, root, found.byte_level && !unigram ? RT_SPELLING_BYTES : RT_SPELLING_SPACE,
                   err) != RT_OK)
        return err->status;
    tokenizer->strip_first_space = found.strip_first_space;
    if ((unigram ? read_unigram(tokenizer, model, err) : read_bpe(tokenizer, model, err)) != RT_OK ||
        read_config(tokenizer, config, err) != RT_OK)
        return err->status;
    return rt_tokenizer_finish(tokenizer, "", err);
}

static json_t *parse(const char *text, size_t size, const char *where, rt_error *err)
{
    json_error_t problem;
    json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &problem);
    if (!json)
        (void)rt_error_set(err, RT_CORRUPT, "%.200s: line %d, column %d: %s", where, problem.line,
                           problem.column, problem.text);
    return json;
}

static rt_status from_text(rt_tokenizer **out, const char *json, size_t size, const json_t *config,
                           const char *where, rt_error *err)
{
    *out = NULL;
    json_t *root = parse(json, size, where, err);
    if (!root)
        return err->status;
    rt_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    rt_status status = RT_OK;
    if (!tokenizer || !(tokenizer->source = malloc(size + 1)))
        status = no_memory(err);
    else if ((status = read_root(tokenizer, root, config, err)) != RT_OK)
        (void)rt_error_within(err, where);
    json_decref(root);
    if (status != RT_OK) {
        rt_tokenizer_close(tokenizer);
        return status;
    }
    memcpy(tokenizer->source, json, size);
    tokenizer->source_size = size;
    *out = tokenizer;
    return RT_OK;
}

rt_status rt_tokenizer_from_json(rt_tokenizer **out, const char *json, size_t size, const char *where,
                                 rt_error *err)
{
    return from_text(out, json, size, NULL, where, err);
}

/* A file beside tokenizer.json; NULL and RT_OK when it is not there. */
static rt_status read_beside(json_t **out, const char *dir, const char *name, rt_error *err)
{
    *out = NULL;
    char *path = rt_path_join(dir, name), *text = NULL;
    size_t size;
    if (!path)
        return no_memory(err);
    rt_status status = RT_OK;
    if (rt_path_exists(path)) {
        status = rt_file_read(&text, &size, path, JSON_BYTES_MAX, err);
        if (status == RT_OK && !(*out = parse(text, size, path, err)))
            status = err->status;
    }
    free(text);
    free(path);
    return status;
}

/* The newer place of the template: chat_template.jinja. */
static rt_status read_template_file(rt_tokenizer *tokenizer, const char *dir, rt_error *err)
{
    char *path = rt_path_join(dir, "chat_template.jinja");
    if (!path)
        return no_memory(err);
    size_t size;
    char *text = NULL;
    rt_status status = RT_OK;
    if (rt_path_exists(path) && (status = rt_file_read(&text, &size, path, 16 << 20, err)) == RT_OK) {
        free(tokenizer->chat_template);
        tokenizer->chat_template = text;
    }
    free(path);
    return status;
}

static rt_status open_json(rt_tokenizer **out, const char *path, const char *dir, rt_error *err)
{
    char *text = NULL;
    size_t size;
    json_t *config = NULL;
    rt_status status = rt_file_read(&text, &size, path, JSON_BYTES_MAX, err);
    if (status == RT_OK)
        status = read_beside(&config, dir, "tokenizer_config.json", err);
    if (status == RT_OK)
        status = from_text(out, text, size, config, path, err);
    free(text);
    if (status == RT_OK && (status = read_template_file(*out, dir, err)) != RT_OK) {
        rt_tokenizer_close(*out);
        *out = NULL;
    }
    json_decref(config);
    return status;
}

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

rt_status rt_tokenizer_open(rt_tokenizer **out, const char *path, rt_error *err)
{
    *out = NULL;
    rt_status status;
    if (ends_with(path, ".json")) {
        char *dir = strdup(path);
        if (!dir)
            return no_memory(err);
        char *slash = strrchr(dir, '/');
        if (slash)
            slash[slash == dir] = '\0';
        status = open_json(out, path, slash ? dir : ".", err);
        free(dir);
        return status;
    }
    char *json_path = rt_path_join(path, "tokenizer.json");
    if (!json_path)
        return no_memory(err);
    if (rt_path_is_dir(path) && rt_path_exists(json_path)) {
        status = open_json(out, json_path, path, err);
    } else {
        rt_weights *weights = NULL;
        status = rt_weights_open(&weights, path, err);
        if (status == RT_OK && rt_weights_get_format(weights) != RT_FORMAT_GGUF)
            status =
                rt_error_set(err, RT_NOT_FOUND, "%.300s: has no tokenizer.json beside its weights", path);
        if (status == RT_OK)
            status = rt_tokenizer_from_weights(out, weights, err);
        rt_weights_close(weights);
    }
    free(json_path);
    return status;
}
