/* model/tokenizer_steps.c - see tokenizer_steps.h. */
#include "model/tokenizer_steps.h"

#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "model/pretokenizer_regex.h"

enum { NESTING_MAX = 16, PATTERN_MAX = 1 << 16 };

static const char meta[] = "\xE2\x96\x81";

static rt_status no_memory(rt_error *err)
{
    return rt_error_set(err, RT_NO_MEMORY, "no memory for the tokenizer");
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static bool flag_of(const json_t *object, const char *key, bool otherwise)
{
    const json_t *value = json_object_get(object, key);
    return json_is_boolean(value) ? json_is_true(value) : otherwise;
}

static rt_status unknown_step(rt_error *err, const char *what, const char *type)
{
    return rt_error_set(err, RT_UNSUPPORTED, "the %s \"%.40s\" is not supported", what,
                        *type ? type : "(no type)");
}

/* -- normaliser -- */

static rt_status add_simple(rt_normalizer *normalizer, rt_norm_step_kind kind, rt_error *err)
{
    return rt_normalizer_add(normalizer, kind) ? RT_OK : no_memory(err);
}

static rt_status add_replace(rt_normalizer *normalizer, const json_t *step, rt_error *err)
{
    const json_t *pattern = json_object_get(step, "pattern"), *content = json_object_get(step, "content");
    const json_t *string = json_object_get(pattern, "String"), *regex = json_object_get(pattern, "Regex");
    if ((!json_is_string(string) && !json_is_string(regex)) || !json_is_string(content))
        return rt_error_set(err, RT_CORRUPT, "a Replace normaliser lacks its pattern or content");
    const json_t *from = json_is_string(string) ? string : regex;
    if (rt_normalizer_add_replace(normalizer, RT_NORM_REPLACE, json_string_value(from),
                                  json_string_length(from), json_string_value(content),
                                  json_string_length(content), err) != RT_OK)
        return err->status;
    return json_is_string(string) ? RT_OK
                                  : rt_regex_open(&normalizer->steps[normalizer->count - 1].regex,
                                                  json_string_value(regex), err);
}

static rt_status add_charsmap(rt_normalizer *normalizer, const json_t *step, rt_error *err)
{
    const json_t *encoded = json_object_get(step, "precompiled_charsmap");
    const size_t size = json_string_length(encoded);
    if (size == 0)
        return RT_OK;
    unsigned char *data = malloc(size);
    if (!data)
        return no_memory(err);
    size_t n = 0;
    rt_status status;
    if (sodium_base642bin(data, size, json_string_value(encoded), size, "\n", &n, NULL,
                          sodium_base64_VARIANT_ORIGINAL) != 0)
        status = rt_error_set(err, RT_CORRUPT, "precompiled_charsmap is not base64");
    else
        status = rt_normalizer_add_charsmap(normalizer, data, n, err);
    free(data);
    return status;
}

static rt_status read_normalizer(rt_normalizer *normalizer, const json_t *step, size_t depth,
                                 rt_steps_found *found, rt_error *err)
{
    static const struct {
        const char *type;
        rt_norm_step_kind kind;
    } simple[] = {{"NFC", RT_NORM_NFC},
                  {"NFD", RT_NORM_NFD},
                  {"NFKC", RT_NORM_NFKC},
                  {"NFKD", RT_NORM_NFKD},
                  {"Lowercase", RT_NORM_LOWERCASE},
                  {"StripAccents", RT_NORM_STRIP_ACCENTS}};
    if (!step || json_is_null(step))
        return RT_OK;
    if (depth > NESTING_MAX)
        return rt_error_set(err, RT_CORRUPT, "normalisers are nested more than %d deep", NESTING_MAX);
    const char *type = text_of(step, "type");
    for (size_t i = 0; i < sizeof simple / sizeof *simple; i++)
        if (strcmp(type, simple[i].type) == 0)
            return add_simple(normalizer, simple[i].kind, err);
    if (strcmp(type, "Sequence") == 0) {
        size_t index;
        json_t *part;
        json_array_foreach(json_object_get(step, "normalizers"), index, part)
        {
            if (read_normalizer(normalizer, part, depth + 1, found, err) != RT_OK)
                return err->status;
        }
        return RT_OK;
    }
    if (strcmp(type, "Replace") == 0)
        return add_replace(normalizer, step, err);
    if (strcmp(type, "Prepend") == 0) {
        const char *what = text_of(step, "prepend");
        return rt_normalizer_add_replace(normalizer, RT_NORM_PREPEND, "", 0, what, strlen(what), err);
    }
    if (strcmp(type, "Strip") == 0) {
        rt_norm_step *added = rt_normalizer_add(normalizer, RT_NORM_STRIP);
        if (!added)
            return no_memory(err);
        added->left = flag_of(step, "strip_left", true);
        added->right = flag_of(step, "strip_right", true);
        return RT_OK;
    }
    if (strcmp(type, "Precompiled") == 0)
        return add_charsmap(normalizer, step, err);
    if (strcmp(type, "ByteLevel") == 0) { /* the alphabet again, which is not spelled out here */
        found->byte_level = true;
        return RT_OK;
    }
    return unknown_step(err, "normaliser", type);
}

/* -- pre-tokenizer -- */

static rt_split_behaviour behaviour_of(const json_t *step, bool *known)
{
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext",
                                        "Contiguous"};
    const json_t *value = json_object_get(step, "behavior");
    *known = true;
    if (!json_is_string(value))
        return RT_SPLIT_ISOLATED;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(json_string_value(value), names[i]) == 0)
            return (rt_split_behaviour)i;
    *known = false;
    return RT_SPLIT_ISOLATED;
}

/* A string as a pattern that matches it and nothing else. */
static void quote(rt_text *out, const char *text)
{
    for (; *text; text++) {
        const char c = *text;
        if (c > ' ' && c <= '~' && !(c >= '0' && c <= '9') && !(c >= 'A' && c <= 'Z') &&
            !(c >= 'a' && c <= 'z'))
            rt_text_append(out, "\\", 1);
        rt_text_append(out, text, 1);
    }
}

static rt_status add_split(rt_pretokenizer *pre, const json_t *step, rt_error *err)
{
    const json_t *pattern = json_object_get(step, "pattern");
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));
    const char *string = json_string_value(json_object_get(pattern, "String"));
    bool known;
    const rt_split_behaviour behaviour = behaviour_of(step, &known);
    if (!known || (!regex && !string) || (string && strlen(string) > PATTERN_MAX))
        return rt_error_set(err, RT_CORRUPT, "a Split pre-tokenizer lacks its pattern or behaviour");
    const bool invert = flag_of(step, "invert", false);
    rt_text quoted = {0};
    if (!regex)
        quote(&quoted, string);
    const rt_status status = quoted.failed ? no_memory(err)
                                           : rt_pretokenizer_add_regex(pre,
                                                                       regex         ? regex
                                                                       : quoted.data ? quoted.data
                                                                                     : "",
                                                                       behaviour, invert, false, err);
    rt_text_deinit(&quoted);
    return status;
}

static rt_status add_kind(rt_pretokenizer *pre, rt_pre_kind kind, rt_split_behaviour behaviour, size_t limit,
                          rt_error *err)
{
    rt_pre_step *step = rt_pretokenizer_add(pre, kind);
    if (!step)
        return no_memory(err);
    step->behaviour = behaviour;
    step->limit = limit;
    return RT_OK;
}

static rt_status add_byte_level(rt_pretokenizer *pre, const json_t *step, rt_error *err)
{
    if (flag_of(step, "add_prefix_space", true) &&
        add_kind(pre, RT_PRE_PREFIX_SPACE, RT_SPLIT_ISOLATED, 0, err) != RT_OK)
        return err->status;
    return flag_of(step, "use_regex", true) ? add_kind(pre, RT_PRE_GPT2, RT_SPLIT_ISOLATED, 0, err) : RT_OK;
}

static rt_status add_metaspace(rt_pretokenizer *pre, const json_t *json, rt_error *err)
{
    const char *scheme = json_string_value(json_object_get(json, "prepend_scheme"));
    if (strcmp(text_of(json, "replacement"), meta) != 0)
        return rt_error_set(err, RT_UNSUPPORTED,
                            "a Metaspace pre-tokenizer with another character than U+2581 is "
                            "not supported");
    rt_pre_step *step = rt_pretokenizer_add(pre, RT_PRE_METASPACE);
    if (!step)
        return no_memory(err);
    step->split = flag_of(json, "split", true);
    if (scheme)
        step->prepend = strcmp(scheme, "first") == 0   ? RT_PREPEND_FIRST
                        : strcmp(scheme, "never") == 0 ? RT_PREPEND_NEVER
                                                       : RT_PREPEND_ALWAYS;
    else
        step->prepend = flag_of(json, "add_prefix_space", true) ? RT_PREPEND_ALWAYS : RT_PREPEND_NEVER;
    return RT_OK;
}

static rt_status add_punctuation(rt_pretokenizer *pre, const json_t *step, rt_error *err)
{
    bool known;
    const rt_split_behaviour behaviour = behaviour_of(step, &known);
    return known ? add_kind(pre, RT_PRE_PUNCTUATION, behaviour, 0, err)
                 : rt_error_set(err, RT_CORRUPT, "a Punctuation pre-tokenizer has an unknown behaviour");
}

static rt_status read_pre(rt_pretokenizer *pre, const json_t *step, size_t depth, rt_steps_found *found,
                          rt_error *err)
{
    if (!step || json_is_null(step))
        return RT_OK;
    if (depth > NESTING_MAX)
        return rt_error_set(err, RT_CORRUPT, "pre-tokenizers are nested more than %d deep", NESTING_MAX);
    const char *type = text_of(step, "type");
    if (strcmp(type, "Sequence") == 0) {
        size_t index;
        json_t *part;
        json_array_foreach(json_object_get(step, "pretokenizers"), index, part)
        {
            if (read_pre(pre, part, depth + 1, found, err) != RT_OK)
                return err->status;
        }
        return RT_OK;
    }
    if (strcmp(type, "ByteLevel") == 0) {
        found->byte_level = true;
        return add_byte_level(pre, step, err);
    }
    if (strcmp(type, "Split") == 0)
        return add_split(pre, step, err);
    if (strcmp(type, "Digits") == 0)
        return add_kind(pre, RT_PRE_DIGITS, RT_SPLIT_ISOLATED,
                        flag_of(step, "individual_digits", false) ? 1 : 0, err);
    if (strcmp(type, "Metaspace") == 0)
        return add_metaspace(pre, step, err);
    if (strcmp(type, "Punctuation") == 0)
        return add_punctuation(pre, step, err);
    if (strcmp(type, "Whitespace") == 0)
        return add_kind(pre, RT_PRE_WORDS, RT_SPLIT_REMOVED, 0, err);
    if (strcmp(type, "WhitespaceSplit") == 0)
        return add_kind(pre, RT_PRE_BLANKS, RT_SPLIT_REMOVED, 0, err);
    if (strcmp(type, "BertPreTokenizer") == 0)
        return add_kind(pre, RT_PRE_BLANKS, RT_SPLIT_REMOVED, 0, err) == RT_OK
                   ? add_kind(pre, RT_PRE_PUNCTUATION, RT_SPLIT_ISOLATED, 0, err)
                   : err->status;
    return unknown_step(err, "pre-tokenizer", type);
}

/* -- decoder: only what changes the bytes that ids stand for -- */

static void read_decoder(const json_t *step, size_t depth, rt_steps_found *found)
{
    const char *type = text_of(step, "type");
    if (depth > NESTING_MAX)
        return;
    if (strcmp(type, "Sequence") == 0) {
        size_t index;
        json_t *part;
        json_array_foreach(json_object_get(step, "decoders"), index, part)
            read_decoder(part, depth + 1, found);
    } else if (strcmp(type, "ByteLevel") == 0) {
        found->byte_level = true;
    } else if (strcmp(type, "Strip") == 0) {
        if (json_integer_value(json_object_get(step, "start")) > 0)
            found->strip_first_space = true;
    } else if (strcmp(type, "Metaspace") == 0) {
        const char *scheme = json_string_value(json_object_get(step, "prepend_scheme"));
        if (scheme ? strcmp(scheme, "never") != 0 : flag_of(step, "add_prefix_space", true))
            found->strip_first_space = true;
    }
}

rt_status rt_steps_read(rt_normalizer *normalizer, rt_pretokenizer *pre, const json_t *root,
                        rt_steps_found *found, rt_error *err)
{
    if (read_normalizer(normalizer, json_object_get(root, "normalizer"), 0, found, err) != RT_OK ||
        read_pre(pre, json_object_get(root, "pre_tokenizer"), 0, found, err) != RT_OK)
        return err->status;
    read_decoder(json_object_get(root, "decoder"), 0, found);
    return RT_OK;
}
