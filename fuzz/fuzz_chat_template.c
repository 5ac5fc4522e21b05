/* fuzz/fuzz_chat_template.c - any bytes as a chat template, run on a conversation with tools. */
#include <stdlib.h>
#include <string.h>

#include "model/chat_template.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static const char conversation[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\" Be kind. \"},{\"role\":\"user\",\"content\":\"Hi "
    "\\u00e9\"},"
    "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{"
    "\"a\":1.5}}}]},"
    "{\"role\":\"tool\",\"content\":\"x\"}],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]"
    ","
    "\"add_generation_prompt\":true,\"bos_token\":\"<s>\",\"eos_token\":\"</s>\"}";

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    rt_error err = {0};
    rt_chat_template *chat = NULL;
    char *source = strndup((const char *)data, size);
    if (source && rt_chat_template_parse(&chat, source, &err) == RT_OK) {
        json_t *variables = json_loads(conversation, 0, NULL);
        rt_text out = {.size_max = (size_t)64 << 20};
        if (rt_chat_template_render(chat, variables, &out, &err) != RT_OK && err.text[0] == '\0')
            __builtin_trap(); /* a failure always says why */
        rt_text_deinit(&out);
        json_decref(variables);
    }
    rt_chat_template_free(chat);
    free(source);
    return 0;
}
