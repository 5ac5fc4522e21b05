/* guard/partition.c - see partition.h. */
#include "guard/partition.h"

#include <math.h>
#include <stdlib.h>

typedef struct holding {
    uint32_t task, account;
} holding;

static int by_task(const void *a, const void *b)
{
    const holding *x = a, *y = b;
    if (x->task != y->task)
        return x->task < y->task ? -1 : 1;
    return (x->account > y->account) - (x->account < y->account);
}

/* What is known of an account: all its tasks with a hash up to `limit`, `rate` of them to a unit of hashes.
 */
static double limit_of(const rt_hash_sample *s)
{
    return s->count == RT_SAMPLE_ITEMS ? s->items[RT_SAMPLE_ITEMS - 1] : UINT32_MAX;
}

static double rate_of(const rt_hash_sample *s) { return s->count / (limit_of(s) + 1); }

/* The chance that a pair of holders of this task, one of them a member, is two members. */
static double chance_inside(uint32_t task, const rt_hash_sample *const *samples, size_t members, size_t n)
{
    double in = 0, squares = 0, out = 0;
    for (size_t i = 0; i < n; i++) {
        if (limit_of(samples[i]) < task)
            continue;
        const double rate = rate_of(samples[i]);
        if (i < members) {
            in += rate;
            squares += rate * rate;
        } else
            out += rate;
    }
    const double pairs = (in * in - squares) / 2;
    return pairs + in * out > 0 ? fmax(0, pairs) / (fmax(0, pairs) + in * out) : 0;
}

/* One pair of all its holders is drawn by the task's hash: two members, one, or none?  Drawing among the
 * pairs with a member only would favour outsiders where a task has many holders. */
static int members_drawn(uint32_t task, uint64_t in, uint64_t out)
{
    const uint64_t inside = in * (in - 1) / 2, all = (in + out) * (in + out - 1) / 2;
    const uint64_t draw = rt_guard_mix(task, 0x70617274ULL) % all;
    return draw < inside ? 2 : draw < inside + in * out ? 1 : 0;
}

/* Deviation of logit(chance): rates come from samples, a full one of k items is known to 1 / sqrt(k). */
static double unsure(const rt_hash_sample *const *samples, size_t members, size_t n)
{
    double sum[2] = {0}, variance[2] = {0};
    for (size_t i = 0; i < n; i++) {
        const double rate = rate_of(samples[i]);
        sum[i >= members] += rate;
        if (samples[i]->count == RT_SAMPLE_ITEMS)
            variance[i >= members] += rate * rate / RT_SAMPLE_ITEMS;
    }
    double total = 0;
    for (size_t k = 0; k < 2; k++)
        total += sum[k] > 0 ? variance[k] / (sum[k] * sum[k]) : 0;
    return sqrt(total);
}

/* P(at most k of n independent trials succeed); chances[n]; tail[k + 1] is room. */
static double lower_tail(const double *chances, size_t n, size_t k, double shift, double *tail)
{
    const double odds = exp(shift);
    for (size_t j = 0; j <= k; j++)
        tail[j] = j == 0;
    for (size_t i = 0; i < n; i++) {
        const double q = chances[i] * odds / (1 - chances[i] + chances[i] * odds);
        for (size_t j = k + 1; j-- > 0;)
            tail[j] = tail[j] * (1 - q) + (j ? tail[j - 1] * q : 0);
    }
    double sum = 0;
    for (size_t j = 0; j <= k; j++)
        sum += tail[j];
    return fmin(1, sum);
}

/* The tail, averaged over what the chances may be: five points of Gauss and Hermite's rule. */
static double mean_tail(const double *chances, size_t n, size_t k, double deviation, double *tail)
{
    static const double nodes[5] = {-2.8569700138728, -1.3556261799743, 0, 1.3556261799743, 2.8569700138728},
                        weights[5] = {0.0112574113277, 0.2220759220056, 0.5333333333333, 0.2220759220056,
                                      0.0112574113277};
    double sum = 0;
    for (size_t i = 0; i < 5; i++)
        sum += weights[i] * lower_tail(chances, n, k, deviation * nodes[i], tail);
    return fmin(1, sum);
}

rt_status rt_guard_partition_test(rt_guard_partition *out, const rt_hash_sample *const *samples,
                                  size_t members, size_t n, rt_error *err)
{
    holding *held = calloc(n * RT_SAMPLE_ITEMS + 1, sizeof *held);
    double *chances = calloc(n * RT_SAMPLE_ITEMS + 1, sizeof *chances),
           *tail = calloc(n * RT_SAMPLE_ITEMS + 2, sizeof *tail);
    size_t count = 0;
    *out = (rt_guard_partition){.p = 1};
    if (!held || !chances || !tail) {
        free(held);
        free(chances);
        free(tail);
        return rt_error_set(err, RT_NO_MEMORY, "guard: no memory to compare the tasks of %zu accounts", n);
    }
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < samples[i]->count; k++)
            held[count++] = (holding){samples[i]->items[k], (uint32_t)i};
    if (count)
        qsort(held, count, sizeof *held, by_task);
    for (size_t i = 0, end; i < count; i = end) {
        uint64_t in = 0;
        for (end = i; end < count && held[end].task == held[i].task; end++)
            in += held[end].account < members;
        if (!in || end - i < 2)
            continue;
        const double chance = chance_inside(held[i].task, samples, members, n);
        const int drawn = members_drawn(held[i].task, in, end - i - in);
        if (!drawn)
            continue;
        out->inside += drawn == 2;
        out->expected += chance;
        chances[out->shared++] = chance;
    }
    if (out->shared)
        out->p = mean_tail(chances, out->shared, out->inside, unsure(samples, members, n), tail);
    free(held);
    free(chances);
    free(tail);
    return RT_OK;
}
