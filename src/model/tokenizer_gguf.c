/* model/tokenizer_gguf.c - a tokenizer from GGUF metadata (the keys tokenizer.*).
 *
 * tokenizer.ggml.model: "gpt2" is byte-level BPE with merges, cut as tokenizer.ggml.pre says; "llama"
 * is SentencePiece BPE from scores; "t5" unigram. */
#include <stdlib.h>
#include <string.h>

#include "model/tokenizer_internal.h"

static rt_status no_memory(rt_error *err)
{
    return rt_error_set(err, RT_NO_MEMORY, "no memory for the tokenizer");
}

static bool meta_bool(const rt_weights *gguf, const char *key, bool otherwise)
{
    bool value;
    return rt_weights_meta_bool(gguf, key, &value) ? value : otherwise;
}

static int32_t meta_id(const rt_weights *gguf, const char *key)
{
    uint64_t value;
    return rt_weights_meta_u64(gguf, key, &value) && value < RT_VOCAB_MAX ? (int32_t)value : -1;
}

static rt_token_type type_of(const rt_weights *gguf, size_t id, bool has_types)
{
    double type = 1.0;
    if (has_types)
        (void)rt_weights_meta_array_f64(gguf, "tokenizer.ggml.token_type", id, &type);
    return type >= 1.0 && type <= 6.0 ? (rt_token_type)(int)type : RT_TOKEN_NORMAL;
}

static rt_status read_added(rt_tokenizer *tokenizer, size_t id, const char *text, size_t size,
                            rt_token_type type, rt_error *err)
{
    if (type != RT_TOKEN_CONTROL && type != RT_TOKEN_USER_DEFINED && type != RT_TOKEN_UNKNOWN)
        return RT_OK;
    const rt_added_token token = {.id = (int32_t)id,
                                  .text = (char *)(size_t)text, /* copied there */
                                  .size = size,
                                  .special = type != RT_TOKEN_USER_DEFINED,
                                  .markup = type != RT_TOKEN_USER_DEFINED || rt_added_is_markup(text, size)};
    return rt_added_push(&tokenizer->added, &token) ? RT_OK : no_memory(err);
}

/* An array that is there must have as many entries as there are tokens. */
static rt_status check_array(const rt_weights *gguf, const char *key, size_t count, bool *present,
                             rt_error *err)
{
    size_t other;
    *present = rt_weights_meta_array(gguf, key, &other);
    if (*present && other != count)
        return rt_error_set(err, RT_CORRUPT, "%s has %zu entries for %zu tokens", key, other, count);
    return RT_OK;
}

static rt_status read_vocab(rt_tokenizer *tokenizer, const rt_weights *gguf, rt_vocab_spelling spelling,
                            rt_error *err)
{
    size_t count;
    bool has_types, has_scores;
    if (!rt_weights_meta_array(gguf, "tokenizer.ggml.tokens", &count))
        return rt_error_set(err, RT_CORRUPT,
                            "tokenizer.ggml.tokens is missing: the file holds no vocabulary");
    if (check_array(gguf, "tokenizer.ggml.token_type", count, &has_types, err) != RT_OK ||
        check_array(gguf, "tokenizer.ggml.scores", count, &has_scores, err) != RT_OK ||
        rt_vocab_init(&tokenizer->vocab, spelling, count, err) != RT_OK)
        return err->status;
    for (size_t id = 0; id < count; id++) {
        const char *text;
        size_t size;
        double score = 0.0;
        if (!rt_weights_meta_array_string(gguf, "tokenizer.ggml.tokens", id, &text, &size))
            return rt_error_set(err, RT_CORRUPT, "tokenizer.ggml.tokens: entry %zu is not a string", id);
        if (has_scores)
            (void)rt_weights_meta_array_f64(gguf, "tokenizer.ggml.scores", id, &score);
        const rt_token_type type = type_of(gguf, id, has_types);
        rt_vocab_set(&tokenizer->vocab, id, text, size, type, (float)score);
        if (read_added(tokenizer, id, text, size, type, err) != RT_OK)
            return err->status;
    }
    return rt_vocab_seal(&tokenizer->vocab, err);
}

static rt_status read_merges(rt_tokenizer *tokenizer, const rt_weights *gguf, rt_error *err)
{
    static const char key[] = "tokenizer.ggml.merges";
    size_t count;
    if (!rt_weights_meta_array(gguf, key, &count))
        return rt_error_set(err, RT_CORRUPT, "%s is missing, without which this vocabulary cannot be used",
                            key);
    if (rt_bpe_init(&tokenizer->bpe, &tokenizer->vocab, count, err) != RT_OK)
        return err->status;
    rt_text scratch = {0};
    rt_status status = RT_OK;
    for (size_t i = 0; i < count && status == RT_OK; i++) {
        const char *text = NULL;
        size_t size = 0;
        (void)rt_weights_meta_array_string(gguf, key, i, &text, &size);
        const char *blank = size > 1 ? memchr(text + 1, ' ', size - 1) : NULL; /* the left part may be one */
        if (!blank)
            status =
                rt_error_set(err, RT_CORRUPT, "%s: entry %zu is not two parts with a blank between", key, i);
        else
            status = rt_bpe_add(&tokenizer->bpe, text, (size_t)(blank - text), blank + 1,
                                size - (size_t)(blank - text) - 1, &scratch, err);
    }
    rt_text_deinit(&scratch);
    return status;
}

static rt_status read_byte_level(rt_tokenizer *tokenizer, const rt_weights *gguf, char variant[64],
                                 rt_error *err)
{
    const char *name = "default";
    size_t size = 7;
    (void)rt_weights_meta_string(gguf, "tokenizer.ggml.pre", &name, &size);
    const rt_pre_name *pre = rt_pretokenizer_find(name, size, err);
    if (!pre)
        return err->status;
    (void)snprintf(variant, 64, "%s", pre->name);
    tokenizer->bpe.byte_level = true;
    tokenizer->bpe.ignore_merges = pre->ignore_merges;
    tokenizer->bpe.unknown_id = -1; /* no byte-level reference uses one: what has no token is dropped */
    if (pre->nfc && !rt_normalizer_add(&tokenizer->normalizer, RT_NORM_NFC))
        return no_memory(err);
    if (read_vocab(tokenizer, gguf, RT_SPELLING_BYTES, err) != RT_OK ||
        rt_pretokenizer_from_name(&tokenizer->pre, pre, err) != RT_OK)
        return err->status;
    return read_merges(tokenizer, gguf, err);
}

static rt_status add_space_rules(rt_tokenizer *tokenizer, bool prefix, rt_error *err)
{
    static const char meta[] = "\xE2\x96\x81";
    tokenizer->strip_first_space = prefix;
    if (prefix &&
        rt_normalizer_add_replace(&tokenizer->normalizer, RT_NORM_PREPEND, "", 0, " ", 1, err) != RT_OK)
        return err->status;
    return rt_normalizer_add_replace(&tokenizer->normalizer, RT_NORM_REPLACE, " ", 1, meta, 3, err);
}

static rt_status read_scored(rt_tokenizer *tokenizer, const rt_weights *gguf, rt_error *err)
{
    tokenizer->bpe.byte_fallback = true;
    if (add_space_rules(tokenizer, meta_bool(gguf, "tokenizer.ggml.add_space_prefix", true), err) != RT_OK ||
        read_vocab(tokenizer, gguf, RT_SPELLING_SPACE, err) != RT_OK ||
        rt_bpe_init(&tokenizer->bpe, &tokenizer->vocab, 0, err) != RT_OK)
        return err->status;
    return rt_bpe_use_scores(&tokenizer->bpe, err);
}

static rt_status read_charsmap(rt_tokenizer *tokenizer, const rt_weights *gguf, rt_error *err)
{
    static const char key[] = "tokenizer.ggml.precompiled_charsmap";
    size_t size;
    if (!rt_weights_meta_array(gguf, key, &size) || size == 0)
        return RT_OK;
    unsigned char *data = malloc(size);
    if (!data)
        return no_memory(err);
    for (size_t i = 0; i < size; i++) {
        double value = 0.0;
        (void)rt_weights_meta_array_f64(gguf, key, i, &value);
        data[i] = (unsigned char)((int)value & 255); /* some files say int8 */
    }
    const rt_status status = rt_normalizer_add_charsmap(&tokenizer->normalizer, data, size, err);
    free(data);
    return status;
}

static rt_status read_unigram(rt_tokenizer *tokenizer, const rt_weights *gguf, rt_error *err)
{
    tokenizer->model = RT_MODEL_UNIGRAM;
    if (read_charsmap(tokenizer, gguf, err) != RT_OK)
        return err->status;
    if (meta_bool(gguf, "tokenizer.ggml.remove_extra_whitespaces", false) &&
        !rt_normalizer_add(&tokenizer->normalizer, RT_NORM_ONE_BLANK))
        return no_memory(err);
    if (add_space_rules(tokenizer, meta_bool(gguf, "tokenizer.ggml.add_space_prefix", true), err) != RT_OK ||
        read_vocab(tokenizer, gguf, RT_SPELLING_SPACE, err) != RT_OK)
        return err->status;
    const int32_t unknown = meta_id(gguf, "tokenizer.ggml.unknown_token_id");
    return rt_unigram_init(&tokenizer->unigram, &tokenizer->vocab, unknown, false, err);
}

static rt_status read_template(rt_tokenizer *tokenizer, const rt_weights *gguf, rt_error *err)
{
    const char *data;
    size_t size;
    if (!rt_weights_meta_string(gguf, "tokenizer.chat_template", &data, &size))
        return RT_OK;
    tokenizer->chat_template = strndup(data, size);
    return tokenizer->chat_template ? RT_OK : no_memory(err);
}

static rt_status read_model(rt_tokenizer *tokenizer, const rt_weights *gguf, rt_error *err)
{
    const char *model = "";
    size_t size = 0;
    char variant[64] = "";
    tokenizer->bos = meta_id(gguf, "tokenizer.ggml.bos_token_id");
    tokenizer->eos = meta_id(gguf, "tokenizer.ggml.eos_token_id");
    tokenizer->pad = meta_id(gguf, "tokenizer.ggml.padding_token_id");
    tokenizer->add_bos = meta_bool(gguf, "tokenizer.ggml.add_bos_token", false);
    tokenizer->bpe.unknown_id = meta_id(gguf, "tokenizer.ggml.unknown_token_id");
    if (!rt_weights_meta_string(gguf, "tokenizer.ggml.model", &model, &size))
        return rt_error_set(err, RT_NOT_FOUND,
                            "tokenizer.ggml.model is missing: the file holds no tokenizer");
    rt_status status;
    if (size == 4 && memcmp(model, "gpt2", 4) == 0)
        status = read_byte_level(tokenizer, gguf, variant, err);
    else if (size == 5 && memcmp(model, "llama", 5) == 0)
        status = read_scored(tokenizer, gguf, err);
    else if (size == 2 && memcmp(model, "t5", 2) == 0)
        status = read_unigram(tokenizer, gguf, err);
    else
        return rt_error_set(
            err, RT_UNSUPPORTED,
            "tokenizer.ggml.model is \"%.*s\"; gpt2 (byte-level BPE), llama (SentencePiece BPE) and "
            "t5 (unigram) are supported",
            (int)(size < 32 ? size : 32), model);
    if (status != RT_OK || read_template(tokenizer, gguf, err) != RT_OK)
        return err->status;
    if (tokenizer->bpe.unknown_id >= (int32_t)tokenizer->vocab.count)
        tokenizer->bpe.unknown_id = -1;
    return rt_tokenizer_finish(tokenizer, variant, err);
}

rt_status rt_tokenizer_from_weights(rt_tokenizer **out, const rt_weights *gguf, rt_error *err)
{
    *out = NULL;
    rt_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (!tokenizer)
        return no_memory(err);
    if (read_model(tokenizer, gguf, err) != RT_OK) {
        rt_tokenizer_close(tokenizer);
        return rt_error_within(err, rt_weights_path(gguf));
    }
    *out = tokenizer;
    return RT_OK;
}
