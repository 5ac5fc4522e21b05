/* fuzz/fuzz_guard_row.c - rows of recorded traffic: parsed, and what parses is observed. */
#include "guard/guard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static rt_guard *guard;
    rt_error err = {0};
    rt_guard_row row;
    rt_guard_verdict verdict;
    if (!guard && rt_guard_open(&guard, &(rt_guard_options){.accounts_max = 64}, &err) != RT_OK)
        return 0;
    if (rt_guard_row_parse(&row, (const char *)data, size, "row", &err) != RT_OK)
        return 0;
    for (int i = 0; i < 8; i++)
        (void)rt_guard_observe(guard, &row.event, &verdict, &err);
    (void)rt_guard_sweep(guard, row.event.ts, &err);
    rt_guard_row_deinit(&row);
    return 0;
}
