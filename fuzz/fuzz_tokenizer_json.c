/* fuzz/fuzz_tokenizer_json.c - any bytes as a tokenizer.json; what opens encodes a text that touches every
 * step, and decodes what came out.  Bytes that begin with "GGUF" are read as GGUF metadata instead. */
#include <string.h>

#include "model/tokenizer.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void use(const rt_tokenizer *tokenizer)
{
    static const char text[] = "a Bb  12 <s>'ll\n\xC3\xA9\xCC\x81\xFF\xE2\x96\x81 ab";
    rt_error err = {0};
    for (int special = 0; special < 2; special++) {
        rt_token_list ids = {0};
        rt_text back = {0};
        if (rt_tokenizer_encode(tokenizer, text, sizeof text - 1, special, &ids, &err) == RT_OK)
            (void)rt_tokenizer_decode(tokenizer, ids.ids, ids.count, special, &back, &err);
        else if (err.text[0] == '\0')
            __builtin_trap(); /* a failure always says why */
        rt_token_list_deinit(&ids);
        rt_text_deinit(&back);
    }
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    rt_error err = {0};
    rt_tokenizer *tokenizer = NULL;
    rt_weights *weights = NULL;
    rt_status status;
    if (size >= 4 && memcmp(data, "GGUF", 4) == 0) {
        status = rt_weights_open_memory(&weights, data, size, "fuzz", &err);
        if (status == RT_OK)
            status = rt_tokenizer_from_weights(&tokenizer, weights, &err);
    } else {
        status = rt_tokenizer_from_json(&tokenizer, (const char *)data, size, "fuzz", &err);
    }
    if (status == RT_OK)
        use(tokenizer);
    else if (err.text[0] == '\0')
        __builtin_trap();
    rt_tokenizer_close(tokenizer);
    rt_weights_close(weights);
    return 0;
}
