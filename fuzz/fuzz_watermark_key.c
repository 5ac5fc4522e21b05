/* fuzz/fuzz_watermark_key.c - key files: any JSON ends in a key that can be scored with, or in a sentence; a
 * key that is read shows nothing of its secret. */
#include <stdint.h>

#include "base/json.h"
#include "evidence/keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *json = NULL;
    rt_mark_key key;
    rt_error err = {0};
    if (rt_json_parse(&json, (const char *)data, size, "fuzz", &err) != RT_OK)
        return 0;
    if (rt_mark_key_parse(&key, json, "fuzz", &err) == RT_OK) {
        json_t *shown = rt_mark_key_public(&key);
        if (json_object_get(shown, "key") || json_object_get(shown, "keys") ||
            json_object_get(shown, "hashing_key"))
            __builtin_trap();
        json_decref(shown);
        (void)rt_mark_key_is_public(&key.mark);
    } else if (!err.text[0]) {
        __builtin_trap();
    }
    json_decref(json);
    return 0;
}
