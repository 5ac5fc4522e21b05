/* bench/bench_guard.c - what the guard costs: a request, an account, a sweep for links.
 *
 * Prompts of 400 characters over many accounts in random order, so that each request finds its account cold;
 * then a sweep over all accounts, of which some share addresses, payers and hours of creation as operators'
 * accounts do. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "guard/guard.h"

enum { ACCOUNTS = 100000, TIMED = 200000, PROMPT = 400 };

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static size_t make_prompt(char *out, rt_rng *rng)
{
    size_t n = 0;
    while (n < PROMPT) {
        const size_t letters = 2 + (size_t)rt_rng_below(rng, 8);
        for (size_t i = 0; i < letters; i++)
            out[n++] = (char)('a' + rt_rng_below(rng, 26));
        out[n++] = ' ';
    }
    return PROMPT;
}

int main(void)
{
    rt_error err = {0};
    rt_guard *guard;
    if (rt_guard_open(&guard, &(rt_guard_options){0}, &err) != RT_OK)
        return puts(err.text), 1;
    double *seconds = calloc(TIMED, sizeof *seconds);
    rt_rng rng = rt_rng_make(5, 0);
    char prompt[PROMPT + 16], name[32], ip[32], pay[32];
    for (size_t i = 0; seconds && i < ACCOUNTS * 2 + TIMED; i++) {
        const uint64_t account = i < ACCOUNTS * 2 ? i / 2 : rt_rng_below(&rng, ACCOUNTS);
        rt_guard_event event = {
            .ts = 1.7e9 + (double)i, .created = 1.6e9 + (double)(account * 997), .temperature = 1, .n = 1};
        event.prompt = (rt_guard_span){prompt, make_prompt(prompt, &rng)};
        event.account = (rt_guard_span){
            name, (size_t)snprintf(name, sizeof name, "account-%llu", (unsigned long long)account)};
        /* one account in ten shares its exits with nine others */
        const unsigned long long exit = account % 10 ? account : account / 100 * 100 + 1000000000;
        event.ip = (rt_guard_span){ip, (size_t)snprintf(ip, sizeof ip, "exit-%llu", exit)};
        event.pay_hash = (rt_guard_span){
            pay, (size_t)snprintf(pay, sizeof pay, "payer-%llu", (unsigned long long)account)};
        event.user_agent = (rt_guard_span){"client/1.0", 10};
        rt_guard_verdict verdict;
        const double start = rt_clock_seconds();
        if (rt_guard_observe(guard, &event, &verdict, &err) != RT_OK)
            return puts(err.text), 1;
        if (i >= ACCOUNTS * 2)
            seconds[i - ACCOUNTS * 2] = rt_clock_seconds() - start;
    }
    qsort(seconds, TIMED, sizeof *seconds, by_value);
    printf("a request of 400 characters: p50 %.2f us, p95 %.2f us, p99 %.2f us\n", seconds[TIMED / 2] * 1e6,
           seconds[TIMED * 95 / 100] * 1e6, seconds[TIMED * 99 / 100] * 1e6);
    printf("an account: %zu bytes\n", sizeof(rt_guard_account));
    const double start = rt_clock_seconds();
    if (rt_guard_sweep(guard, 1.8e9, &err) != RT_OK)
        return puts(err.text), 1;
    printf("a sweep over %d accounts: %.3f s\n", ACCOUNTS, rt_clock_seconds() - start);
    free(seconds);
    rt_guard_close(guard);
    return 0;
}
