/* cli/bench_guard.c - what the guard costs: a request, an account, a sweep for links.
 *
 * Prompts of 400 characters over many accounts in random order, so that each request finds its account cold;
 * then a sweep over all accounts, of which some share exits, payers and hours of creation as operators'
 * accounts do. */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/rng.h"
#include "cli/bench.h"
#include "guard/guard.h"

enum { ACCOUNTS = 100000, WARM = 2 * ACCOUNTS, TIMED = 100000, PROMPT = 400 };

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Made-up words, PROMPT bytes. */
static void make_prompt(char out[PROMPT + 16], rt_rng *rng)
{
    for (size_t n = 0; n < PROMPT;) {
        const size_t letters = 2 + (size_t)rt_rng_below(rng, 8);
        for (size_t i = 0; i < letters; i++)
            out[n++] = (char)('a' + rt_rng_below(rng, 26));
        out[n++] = ' ';
    }
}

static rt_guard_span name_in(char text[48], const char *kind, uint64_t number)
{
    const int size = snprintf(text, 48, "%s-%llu", kind, (unsigned long long)number);
    return (rt_guard_span){text, (size_t)size};
}

static rt_status send(rt_guard *guard, size_t i, rt_rng *rng, double *seconds, rt_error *err)
{
    char prompt[PROMPT + 16], name[48], exit_name[48], payer[48];
    const uint64_t account = i < WARM ? i / 2 : rt_rng_below(rng, ACCOUNTS);
    /* one account in ten shares its exits with nine others */
    const uint64_t exit_number = account % 10 ? account : account / 100 * 100 + 1000000000;
    rt_guard_verdict verdict;
    make_prompt(prompt, rng);
    const rt_guard_event event = {.ts = 1.7e9 + (double)i,
                                  .created = 1.6e9 + (double)(account * 997),
                                  .account = name_in(name, "account", account),
                                  .ip = name_in(exit_name, "exit", exit_number),
                                  .pay_hash = name_in(payer, "payer", account),
                                  .user_agent = {"client/1.0", 10},
                                  .prompt = {prompt, PROMPT},
                                  .temperature = 1,
                                  .n = 1};
    const double start = rt_clock_seconds();
    const rt_status status = rt_guard_observe(guard, &event, &verdict, err);
    *seconds = rt_clock_seconds() - start;
    return status;
}

rt_status bench_guard(bench *b, rt_error *err)
{
    rt_guard *guard = NULL;
    double *seconds = calloc(TIMED, sizeof *seconds), ignored;
    rt_rng rng = rt_rng_make(5, 0);
    rt_status status = seconds ? rt_guard_open(&guard, &(rt_guard_options){0}, err)
                               : rt_error_set(err, RT_NO_MEMORY, "bench guard: no memory");
    for (size_t i = 0; status == RT_OK && i < WARM + TIMED; i++)
        status = send(guard, i, &rng, i < WARM ? &ignored : &seconds[i - WARM], err);
    if (status == RT_OK) {
        const double start = rt_clock_seconds();
        status = rt_guard_sweep(guard, 1.8e9, err);
        const double sweep = rt_clock_seconds() - start;
        qsort(seconds, TIMED, sizeof *seconds, by_value);
        bench_add(
            b, &(bench_row){"guard: a request, p50", "us", seconds[TIMED / 2] * 1e6, 0, BENCH_AT_MOST, 8, 4});
        bench_add(b, &(bench_row){"guard: a request, p99", "us", seconds[TIMED / 100 * 99] * 1e6, 0,
                                  BENCH_AT_MOST, 60, 30});
        bench_add(b, &(bench_row){"guard: an account", "bytes", (double)sizeof(rt_guard_account), 0,
                                  BENCH_AT_MOST, 4096, 3072});
        bench_add(b,
                  &(bench_row){"guard: a sweep over 100,000 accounts", "s", sweep, 0, BENCH_AT_MOST, 1, 0.3});
    }
    rt_guard_close(guard);
    free(seconds);
    return status;
}
