/* fuzz/fuzz_prompts.c - rows of prompts: any line ends in a request or a sentence. */
#include <stddef.h>
#include <stdint.h>

#include "outputs/prompts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (int i = 0; i < 4; i++) {
        const rt_prompt_options options = {.system = i & 1 ? "be brief" : NULL, .completions = i & 2};
        rt_prompt_row row;
        rt_error err = {0};
        const rt_status status =
            rt_prompt_row_parse(&row, (const char *)data, size, &options, "fuzz:1", &err);
        if (status == RT_OK ? !json_is_object(row.body) : !err.text[0])
            __builtin_trap();
        if (status == RT_OK)
            rt_prompt_row_deinit(&row);
    }
    return 0;
}
