/* fuzz/fuzz_evidence_scores.c - lines of what a server scored: any JSON becomes lists that hang together, or
 * is refused with a sentence. */
#include <stdint.h>

#include "base/json.h"
#include "evidence/endpoint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *row = NULL;
    rt_error err = {0};
    rt_scored s;
    if (rt_json_parse(&row, (const char *)data, size, "fuzz", &err) != RT_OK)
        return 0;
    if (rt_scored_parse(&s, row, "fuzz", &err) != RT_OK) {
        if (!err.text[0])
            __builtin_trap();
    } else {
        for (size_t i = 1; i < s.n; i++)
            if (s.begin[i] > s.begin[i + 1])
                __builtin_trap();
        rt_scored_free(&s);
    }
    json_decref(row);
    return 0;
}
