/* model/tokenizer_write.c - tokenizer.json, tokenizer_config.json and special_tokens_map.json, as the
 * transformers library reads them.
 *
 * A tokenizer that was read from a tokenizer.json is written as that file was.  One from GGUF is
 * spelled out: every id in the vocabulary, pre-tokenizer patterns as Split steps, and for SentencePiece
 * scores the merges that they imply (the file format knows no scores for BPE). */
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "base/file.h"
#include "model/tokenizer_internal.h"

static json_t *text_json(const rt_vocab *vocab, int32_t id)
{
    size_t size;
    const char *text = rt_vocab_text(vocab, (size_t)id, &size);
    return json_stringn(text, size);
}

static json_t *vocab_object(const rt_vocab *vocab)
{
    json_t *out = json_object();
    for (size_t id = 0; out && id < vocab->count; id++) {
        size_t size;
        const char *text = rt_vocab_text(vocab, id, &size);
        if (vocab->tokens[id].type == RT_TOKEN_ABSENT || json_object_getn(out, text, size))
            continue;
        if (json_object_setn_new(out, text, size, json_integer((json_int_t)id)) != 0) {
            json_decref(out);
            return NULL;
        }
    }
    return out;
}

static json_t *vocab_array(const rt_vocab *vocab)
{
    json_t *out = json_array();
    for (size_t id = 0; id < vocab->count; id++)
        (void)json_array_append_new(
            out, json_pack("[o, f]", text_json(vocab, (int32_t)id), (double)vocab->tokens[id].score));
    return out;
}

static json_t *merges_array(const rt_bpe *bpe)
{
    size_t count;
    rt_bpe_merge *merges =
        bpe->score_ranks ? rt_bpe_merges_of_scores(bpe, &count) : rt_bpe_merges_in_order(bpe, &count);
    json_t *out = merges ? json_array() : NULL;
    for (size_t i = 0; out && i < count; i++)
        (void)json_array_append_new(out,
                                    json_pack("[o, o]", text_json(bpe->vocab, (int32_t)merges[i].left - 1),
                                              text_json(bpe->vocab, (int32_t)merges[i].right - 1)));
    free(merges);
    return out;
}

static json_t *model_json(const rt_tokenizer *tokenizer)
{
    const rt_bpe *bpe = &tokenizer->bpe;
    if (tokenizer->model == RT_MODEL_UNIGRAM)
        return json_pack(
            "{s:s, s:o, s:o, s:b}", "type", "Unigram", "unk_id",
            tokenizer->unigram.unknown_id < 0 ? json_null() : json_integer(tokenizer->unigram.unknown_id),
            "vocab", vocab_array(&tokenizer->vocab), "byte_fallback", tokenizer->unigram.byte_fallback);
    return json_pack("{s:s, s:n, s:o, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout",
                     "unk_token", bpe->unknown_id < 0 ? json_null() : text_json(bpe->vocab, bpe->unknown_id),
                     "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                     bpe->fuse_unknown || bpe->score_ranks, "byte_fallback", bpe->byte_fallback,
                     "ignore_merges", bpe->ignore_merges, "vocab", vocab_object(bpe->vocab), "merges",
                     merges_array(bpe));
}

static json_t *added_json(const rt_tokenizer *tokenizer)
{
    json_t *out = json_array();
    for (size_t i = 0; i < tokenizer->added.count; i++) {
        const rt_added_token *token = &tokenizer->added.tokens[i];
        if (rt_tokenizer_is_padding(tokenizer, (size_t)token->id))
            continue;
        (void)json_array_append_new(
            out, json_pack("{s:i, s:o, s:b, s:b, s:b, s:b, s:b}", "id", (int)token->id, "content",
                           json_stringn(token->text, token->size), "single_word", token->single_word,
                           "lstrip", token->lstrip, "rstrip", token->rstrip, "normalized", token->normalized,
                           "special", token->special));
    }
    return out;
}

static json_t *replace_json(const char *kind, const char *from, const char *to)
{
    return json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", kind, from, "content", to);
}

static json_t *charsmap_json(const rt_norm_step *step)
{
    const size_t size = sodium_base64_ENCODED_LEN(step->charsmap_size, sodium_base64_VARIANT_ORIGINAL);
    char *encoded = malloc(size);
    if (!encoded)
        return NULL;
    (void)sodium_bin2base64(encoded, size, step->charsmap, step->charsmap_size,
                            sodium_base64_VARIANT_ORIGINAL);
    json_t *out = json_pack("{s:s, s:s}", "type", "Precompiled", "precompiled_charsmap", encoded);
    free(encoded);
    return out;
}

/* Only the kinds that a GGUF file leads to. */
static void append_normalizer(json_t *list, const rt_norm_step *step)
{
    if (step->kind == RT_NORM_NFC)
        (void)json_array_append_new(list, json_pack("{s:s}", "type", "NFC"));
    else if (step->kind == RT_NORM_PREPEND)
        (void)json_array_append_new(list, json_pack("{s:s, s:s}", "type", "Prepend", "prepend", step->to));
    else if (step->kind == RT_NORM_REPLACE)
        (void)json_array_append_new(list, replace_json("String", step->from, step->to));
    else if (step->kind == RT_NORM_CHARSMAP)
        (void)json_array_append_new(list, charsmap_json(step));
    else if (step->kind == RT_NORM_ONE_BLANK) {
        (void)json_array_append_new(list, replace_json("Regex", " {2,}", " "));
        (void)json_array_append_new(list, replace_json("Regex", "^ | $", ""));
    }
}

static json_t *normalizer_json(const rt_normalizer *normalizer)
{
    if (normalizer->count == 0)
        return json_null();
    json_t *list = json_array();
    for (size_t i = 0; i < normalizer->count; i++)
        append_normalizer(list, &normalizer->steps[i]);
    return json_pack("{s:s, s:o}", "type", "Sequence", "normalizers", list);
}

static json_t *byte_level_json(void)
{
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1,
                     "use_regex", 0);
}

static json_t *pre_tokenizer_json(const rt_tokenizer *tokenizer)
{
    if (!tokenizer->bpe.byte_level)
        return json_null();
    json_t *steps = rt_pretokenizer_to_json(&tokenizer->pre);
    (void)json_array_append_new(steps, byte_level_json());
    return json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", steps);
}

static json_t *decoder_json(const rt_tokenizer *tokenizer)
{
    if (tokenizer->bpe.byte_level)
        return byte_level_json();
    json_t *steps = json_pack("[o, {s:s}, {s:s}]", replace_json("String", "\xE2\x96\x81", " "), "type",
                              "ByteFallback", "type", "Fuse");
    if (tokenizer->strip_first_space)
        (void)json_array_append_new(
            steps, json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip", "content", " ", "start", 1, "stop", 0));
    return json_pack("{s:s, s:o}", "type", "Sequence", "decoders", steps);
}

/* Puts BOS in front, where the model wants it, for callers of transformers. */
static json_t *post_processor_json(const rt_tokenizer *tokenizer)
{
    if (!tokenizer->add_bos || tokenizer->bos < 0)
        return json_null();
    json_t *name = text_json(&tokenizer->vocab, tokenizer->bos), *special = json_object();
    (void)json_object_set_new(
        special, json_string_value(name) ? json_string_value(name) : "",
        json_pack("{s:O, s:[i], s:[O]}", "id", name, "ids", (int)tokenizer->bos, "tokens", name));
    json_t *bos = json_pack("{s:{s:O, s:i}}", "SpecialToken", "id", name, "type_id", 0);
    json_t *out =
        json_pack("{s:s, s:[O, {s:{s:s, s:i}}], s:[O, {s:{s:s, s:i}}, {s:{s:O, s:i}}, {s:{s:s, s:i}}], s:o}",
                  "type", "TemplateProcessing", "single", bos, "Sequence", "id", "A", "type_id", 0, "pair",
                  bos, "Sequence", "id", "A", "type_id", 0, "SpecialToken", "id", name, "type_id", 1,
                  "Sequence", "id", "B", "type_id", 1, "special_tokens", special);
    json_decref(bos);
    json_decref(name);
    return out;
}

static json_t *tokenizer_json(const rt_tokenizer *tokenizer)
{
    return json_pack("{s:s, s:n, s:n, s:o, s:o, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation",
                     "padding", "added_tokens", added_json(tokenizer), "normalizer",
                     normalizer_json(&tokenizer->normalizer), "pre_tokenizer", pre_tokenizer_json(tokenizer),
                     "post_processor", post_processor_json(tokenizer), "decoder", decoder_json(tokenizer),
                     "model", model_json(tokenizer));
}

static void set_token(json_t *object, const char *key, const rt_tokenizer *tokenizer, int32_t id)
{
    if (object && id >= 0)
        (void)json_object_set_new(object, key, text_json(&tokenizer->vocab, id));
}

static json_t *special_json(const rt_tokenizer *tokenizer)
{
    const int32_t unknown =
        tokenizer->model == RT_MODEL_UNIGRAM ? tokenizer->unigram.unknown_id : tokenizer->bpe.unknown_id;
    json_t *out = json_object();
    set_token(out, "bos_token", tokenizer, tokenizer->bos);
    set_token(out, "eos_token", tokenizer, tokenizer->eos);
    set_token(out, "pad_token", tokenizer, tokenizer->pad);
    set_token(out, "unk_token", tokenizer, unknown);
    return out;
}

static rt_status write_json(const char *dir, const char *name, json_t *json, rt_error *err)
{
    char *path = rt_path_join(dir, name);
    char *text = json ? json_dumps(json, JSON_INDENT(1)) : NULL;
    json_decref(json);
    const rt_status status = path && text
                                 ? rt_file_write(path, text, strlen(text), err)
                                 : rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory for %s", dir, name);
    free(text);
    free(path);
    return status;
}

static rt_status write_main(const rt_tokenizer *tokenizer, const char *dir, rt_error *err)
{
    if (!tokenizer->source)
        return write_json(dir, "tokenizer.json", tokenizer_json(tokenizer), err);
    char *path = rt_path_join(dir, "tokenizer.json");
    if (!path)
        return rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory for tokenizer.json", dir);
    const rt_status status = rt_file_write(path, tokenizer->source, tokenizer->source_size, err);
    free(path);
    return status;
}

rt_status rt_tokenizer_write_hf(const rt_tokenizer *tokenizer, const char *dir, rt_error *err)
{
    json_t *config = special_json(tokenizer);
    if (config) {
        (void)json_object_set_new(config, "tokenizer_class", json_string("PreTrainedTokenizerFast"));
        (void)json_object_set_new(config, "clean_up_tokenization_spaces", json_false());
        (void)json_object_set_new(config, "add_bos_token", json_boolean(tokenizer->add_bos));
        if (tokenizer->chat_template)
            (void)json_object_set_new(config, "chat_template", json_string(tokenizer->chat_template));
    }
    rt_status status = rt_dir_make(dir, err);
    if (status == RT_OK)
        status = write_main(tokenizer, dir, err);
    if (status != RT_OK) {
        json_decref(config);
        return status;
    }
    if (write_json(dir, "tokenizer_config.json", config, err) != RT_OK)
        return err->status;
    return write_json(dir, "special_tokens_map.json", special_json(tokenizer), err);
}
