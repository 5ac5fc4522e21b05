/* tests/serve/tiny_tokenizer.h - a tokenizer of 97 ids, as many as the small models of tests/golden/engine
 * have: <pad>, <s>, </s>, the characters '!' to '}', and the blank.  Shared with fuzz/fuzz_request.c. */
#ifndef RT_TESTS_TINY_TOKENIZER_H
#define RT_TESTS_TINY_TOKENIZER_H

#include <string.h>

#include "base/text.h"
#include "model/tokenizer.h"

enum { TINY_VOCAB = 97, TINY_BLANK = 96 };

static inline rt_tokenizer *tiny_tokenizer(rt_error *err)
{
    rt_text json = {0};
    rt_tokenizer *out = NULL;
    rt_text_puts(&json, "{\"version\":\"1.0\",\"added_tokens\":[");
    const char *specials[] = {"<pad>", "<s>", "</s>"};
    for (int i = 0; i < 3; i++)
        rt_text_printf(
            &json,
            "%s{\"id\":%d,\"content\":\"%s\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
            "\"normalized\":false,\"special\":true}",
            i ? "," : "", i, specials[i]);
    rt_text_puts(
        &json, "],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
               "\"trim_offsets\":true,\"use_regex\":true},\"post_processor\":null,\"decoder\":{\"type\":"
               "\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,\"vocab\":{");
    for (int i = 0; i < 3; i++)
        rt_text_printf(&json, "\"%s\":%d,", specials[i], i);
    for (int i = 3; i < TINY_BLANK; i++) {
        const char c = (char)(i - 3 + '!');
        rt_text_printf(&json, c == '"' || c == '\\' ? "\"\\%c\":%d," : "\"%c\":%d,", c, i);
    }
    rt_text_printf(&json, "\"\xC4\xA0\":%d},\"merges\":[]}}", TINY_BLANK);
    (void)rt_tokenizer_from_json(&out, json.data, json.size, "tiny", err);
    rt_text_deinit(&json);
    return out;
}

#endif
