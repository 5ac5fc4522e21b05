/* fuzz/fuzz_manifest.c - any bytes as the manifest of an outputs store. */
#include <stdint.h>

#include "outputs/folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    rt_error err = {0};
    json_t *manifest;
    if (store_manifest_parse(&manifest, (const char *)data, size, "manifest.json", &err) == RT_OK) {
        (void)store_member_match(manifest, manifest, "logits", "store", &err);
        json_decref(manifest);
    }
    return 0;
}
