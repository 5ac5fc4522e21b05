/* fuzz/fuzz_guard_state.c - a guard's state whose accounts somebody has changed and whose checksum holds all
 * the same, and the text of its ladders: refused, or gone on from. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "guard/state.h"
#include "guard/view.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ACCOUNTS = 3, REQUESTS = 60, STATE_BYTES_MAX = 64 << 10 };
static unsigned char state[STATE_BYTES_MAX];
static size_t state_size;
static rt_guard_record record;

static rt_status take(void *context, const void *data, size_t size, rt_error *err)
{
    (void)context;
    (void)err;
    memcpy(state + state_size, data, size);
    state_size += size;
    return RT_OK;
}

/* Three accounts that ask like collectors. */
static void make_state(void)
{
    rt_guard *guard = NULL;
    rt_guard_verdict verdict;
    rt_error err = {0};
    char prompt[] = "Solve this step by step:\nWhat is 17 times 0?", name[] = "a0";
    if (rt_guard_open(&guard, &(rt_guard_options){0}, &err) != RT_OK)
        __builtin_trap();
    for (int i = 0; i < REQUESTS; i++) {
        prompt[sizeof prompt - 3] = (char)('0' + i);
        name[1] = (char)('0' + i % ACCOUNTS);
        const rt_guard_event event = {.ts = 1.8e9 + i,
                                      .account = {name, 2},
                                      .ip = {"10.0.0.1", 8},
                                      .prompt = {prompt, sizeof prompt - 1},
                                      .n = 1};
        if (rt_guard_record_of(guard, &record, &event, &err) != RT_OK ||
            rt_guard_observe_record(guard, &record, &verdict, &err) != RT_OK)
            __builtin_trap();
    }
    (void)rt_guard_write(guard, 9, take, NULL, &err);
    rt_guard_close(guard);
}

/* The input lies over the accounts, xor, from the place that its first two bytes name; the checksum is made
 * anew. */
static void change(unsigned char *out, const uint8_t *data, size_t size)
{
    const size_t accounts = ACCOUNTS * sizeof(rt_guard_account),
                 head = state_size - accounts - sizeof(uint64_t);
    const size_t from = size > 1 ? (size_t)(data[0] | data[1] << 8) % accounts : 0;
    memcpy(out, state, state_size);
    for (size_t i = 2; i < size && from + i - 2 < accounts; i++)
        out[head + from + i - 2] ^= data[i];
    uint64_t hash = rt_hash64(out, head, 0);
    for (size_t i = 0; i < ACCOUNTS; i++)
        hash = rt_hash64(out + head + i * sizeof(rt_guard_account), sizeof(rt_guard_account), hash);
    memcpy(out + state_size - sizeof hash, &hash, sizeof hash);
}

static void go_on(rt_guard *guard, rt_ladders *ladders)
{
    rt_guard_verdict verdict;
    rt_error err = {0};
    for (int i = 0; i < 8; i++) {
        record.account[1] = (char)('0' + i % 4);
        record.ts += 7200;
        (void)rt_ladders_feed_record(ladders, &record, &verdict, &err);
    }
    (void)rt_guard_sweep(guard, record.ts, &err);
    rt_ladders_decide_all(ladders, record.ts);
    json_decref(rt_guard_view_review(guard, ladders, 0.1));
    json_decref(rt_guard_view_clusters(guard));
    for (size_t i = 0; i < rt_guard_count(guard); i++)
        json_decref(rt_guard_view_account(guard, ladders, rt_guard_account_at(guard, i)));
    free(rt_ladders_text(ladders, 1));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static unsigned char changed[STATE_BYTES_MAX];
    static rt_guard_policy_file *policy;
    rt_error err = {0};
    rt_guard *guard = NULL;
    rt_ladders *ladders = NULL;
    int64_t mark = 0;
    if (!state_size)
        make_state();
    if (!policy && rt_guard_policy_open(&policy, NULL, &err) != RT_OK)
        return 0;
    change(changed, data, size);
    if (rt_guard_open(&guard, &(rt_guard_options){0}, &err) != RT_OK ||
        rt_ladders_open(&ladders, guard, rt_guard_policy_of(policy), NULL, &err) != RT_OK)
        __builtin_trap();
    (void)rt_guard_read(guard, &mark, data, size, "input", &err); /* as it is: refused, whatever it says */
    if (rt_guard_read(guard, &mark, changed, state_size, "state", &err) == RT_OK) {
        (void)rt_ladders_read(ladders, &mark, (const char *)data, size, "ladders", &err);
        go_on(guard, ladders);
    }
    rt_ladders_close(ladders);
    rt_guard_close(guard);
    return 0;
}
