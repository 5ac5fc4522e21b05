/* fuzz/fuzz_guard_record.c - the bytes of a request that waits to be judged: what is read is written as the
 * same bytes, and is judged. */
#include <string.h>

#include "guard/ladders.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The five bytes of version and key, then the input. */
static size_t with_head(unsigned char *out, const uint8_t *data, size_t size, uint64_t key)
{
    static rt_guard_record any;
    (void)rt_guard_record_write(&any, key, out);
    const size_t body = size < RT_GUARD_RECORD_BYTES_MAX - 5 ? size : RT_GUARD_RECORD_BYTES_MAX - 5;
    memcpy(out + 5, data, body);
    return body + 5;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static rt_guard *guard;
    rt_error err = {0};
    rt_guard_record record;
    rt_guard_verdict verdict;
    unsigned char bytes[RT_GUARD_RECORD_BYTES_MAX], again[RT_GUARD_RECORD_BYTES_MAX];
    if (size == 0 ||
        (!guard && rt_guard_open(&guard, &(rt_guard_options){.accounts_max = 64}, &err) != RT_OK))
        return 0;
    (void)rt_guard_record_read(&record, rt_guard_key(guard), data, size, &err);
    const size_t n = with_head(bytes, data, size, rt_guard_key(guard));
    if (rt_guard_record_read(&record, rt_guard_key(guard), bytes, n, &err) != RT_OK)
        return 0;
    if (rt_guard_record_write(&record, rt_guard_key(guard), again) != n || memcmp(bytes, again, n) != 0)
        __builtin_trap();
    for (int i = 0; i < 16; i++)
        if (rt_guard_observe_record(guard, &record, &verdict, &err) != RT_OK)
            __builtin_trap();
    (void)rt_guard_sweep(guard, record.ts, &err);
    return 0;
}
