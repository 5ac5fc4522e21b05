/* fuzz/fuzz_shortlist.c - shortlists: any JSON ends in ascending ids below the vocabulary, or in a sentence.
 */
#include <stdint.h>

#include "base/json.h"
#include "model/shortlist.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *json = NULL;
    rt_shortlist list;
    rt_error err = {0};
    if (rt_json_parse(&json, (const char *)data, size, "fuzz", &err) != RT_OK)
        return 0;
    if (rt_shortlist_parse(&list, json, "fuzz", &err) == RT_OK) {
        for (size_t i = 0; i < list.n; i++)
            if (list.ids[i] >= list.n_vocab || (i && list.ids[i] <= list.ids[i - 1]))
                __builtin_trap();
        if (list.n == 0)
            __builtin_trap();
        rt_shortlist_deinit(&list);
    } else if (!err.text[0]) {
        __builtin_trap();
    }
    json_decref(json);
    return 0;
}
