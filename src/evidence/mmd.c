/* evidence/mmd.c - see mmd.h.
 *
 * Kernel values exist only between completions of one prompt, so they are kept as one small square a prompt.
 * MMD^2 = A/a - 2 B/b + C/c with sums over the squares; a permutation changes the sums of its own prompt
 * only. */
#include "evidence/mmd.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/size.h"

enum { GRAM_MAX = 5, PER_PROMPT_MAX = 4096 };

typedef struct block { /* one prompt */
    size_t n, n_ones;
    size_t *index; /* [n] into the completions */
    double *k;     /* [n, n] */
    uint8_t *label;
} block;

typedef struct sums {
    double within0, within1, between; /* of kernel values */
} sums;

typedef struct test {
    block *blocks;
    size_t n_blocks;
    double pairs0, pairs1, pairs_between; /* ordered pairs: the same for every permutation */
} test;

static double hamming(const int32_t *a, const int32_t *b, size_t length)
{
    double equal = 0;
    for (size_t i = 0; i < length; i++)
        equal += a[i] == b[i];
    return equal;
}

/* Sum over k <= 5 of the number of pairs of equal k-grams: run lengths of matches count them all. */
static double spectrum(const int32_t *a, const int32_t *b, size_t length)
{
    double sum = 0;
    for (size_t shift = 0; shift < 2 * length - 1; shift++) { /* along each diagonal of the match table */
        size_t i = shift < length ? 0 : shift - length + 1, j = shift < length ? length - 1 - shift : 0,
               run = 0;
        for (; i < length && j < length; i++, j++) {
            run = a[i] == b[j] ? run + 1 : 0;
            sum += (double)rt_size_min(run, GRAM_MAX);
        }
    }
    return sum;
}

static void fill_block(const rt_completions *c, rt_kernel kernel, block *b)
{
    double (*const k)(const int32_t *, const int32_t *, size_t) =
        kernel == RT_KERNEL_HAMMING ? hamming : spectrum;
    for (size_t i = 0; i < b->n; i++)
        for (size_t j = 0; j <= i; j++)
            b->k[i * b->n + j] = b->k[j * b->n + i] =
                k(c->units + b->index[i] * c->length, c->units + b->index[j] * c->length, c->length);
    double diagonal[PER_PROMPT_MAX];
    for (size_t i = 0; i < b->n; i++)
        diagonal[i] = sqrt(b->k[i * b->n + i]);
    for (size_t i = 0; i < b->n; i++)
        for (size_t j = 0; j < b->n; j++)
            b->k[i * b->n + j] /= diagonal[i] * diagonal[j];
}

static sums block_sums(const block *b)
{
    sums s = {0};
    for (size_t i = 0; i < b->n; i++)
        for (size_t j = 0; j < i; j++) {
            const double k = b->k[i * b->n + j];
            if (b->label[i] != b->label[j])
                s.between += k;
            else if (b->label[i])
                s.within1 += 2 * k;
            else
                s.within0 += 2 * k;
        }
    return s;
}

static double mmd2(const test *t, const sums *s)
{
    return s->within0 / t->pairs0 - 2 * s->between / t->pairs_between + s->within1 / t->pairs1;
}

static double all_sums(const test *t)
{
    sums total = {0};
    for (size_t i = 0; i < t->n_blocks; i++) {
        const sums s = block_sums(&t->blocks[i]);
        total.within0 += s.within0;
        total.within1 += s.within1;
        total.between += s.between;
    }
    return mmd2(t, &total);
}

static int by_prompt(const void *a, const void *b, void *context)
{
    const int32_t *prompts = context;
    const size_t x = *(const size_t *)a, y = *(const size_t *)b;
    if (prompts[x] != prompts[y])
        return prompts[x] < prompts[y] ? -1 : 1;
    return (x > y) - (x < y);
}

static void close_test(test *t)
{
    for (size_t i = 0; t->blocks && i < t->n_blocks; i++) {
        free(t->blocks[i].index);
        free(t->blocks[i].k);
        free(t->blocks[i].label);
    }
    free(t->blocks);
}

static rt_status open_test(test *t, const rt_completions *c, rt_kernel kernel, rt_error *err)
{
    *t = (test){0};
    size_t *order = malloc((c->n + 1) * sizeof *order);
    t->blocks = calloc(c->n + 1, sizeof *t->blocks);
    if (!order || !t->blocks) {
        free(order);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu completions", c->n);
    }
    for (size_t i = 0; i < c->n; i++)
        order[i] = i;
    qsort_r(order, c->n, sizeof *order, by_prompt, (void *)(uintptr_t)c->prompts);
    rt_status status = RT_OK;
    for (size_t from = 0, to; status == RT_OK && from < c->n; from = to) {
        for (to = from + 1; to < c->n && c->prompts[order[to]] == c->prompts[order[from]];)
            to++;
        block *b = &t->blocks[t->n_blocks++];
        b->n = to - from;
        if (b->n > PER_PROMPT_MAX) {
            status = rt_error_set(err, RT_INVALID, "a prompt has %zu completions, past the most, %d", b->n,
                                  (int)PER_PROMPT_MAX);
            break;
        }
        b->index = malloc(b->n * sizeof *b->index);
        b->k = malloc(b->n * b->n * sizeof *b->k);
        b->label = malloc(b->n);
        if (!b->index || !b->k || !b->label) {
            status = rt_error_set(err, RT_NO_MEMORY, "no memory for %zu completions of a prompt", b->n);
            break;
        }
        for (size_t i = 0; i < b->n; i++) {
            b->index[i] = order[from + i];
            b->n_ones += b->label[i] = c->labels[order[from + i]] != 0;
        }
        fill_block(c, kernel, b);
        const double ones = (double)b->n_ones, zeros = (double)b->n - ones;
        t->pairs0 += zeros * (zeros - 1);
        t->pairs1 += ones * (ones - 1);
        t->pairs_between += zeros * ones;
    }
    free(order);
    return status;
}

/* The next assignment of labels in lexicographic order; 0 after the last, which is then the first again. */
static int next_labels(uint8_t *label, size_t n)
{
    size_t i = n;
    while (i > 1 && label[i - 2] >= label[i - 1])
        i--;
    if (i > 1) {
        size_t j = n;
        while (label[j - 1] <= label[i - 2])
            j--;
        const uint8_t kept = label[i - 2];
        label[i - 2] = label[j - 1];
        label[j - 1] = kept;
    }
    const int more = i > 1;
    for (size_t a = more ? i - 1 : 0, b = n - 1; a < b; a++, b--) {
        const uint8_t kept = label[a];
        label[a] = label[b];
        label[b] = kept;
    }
    return more;
}

static double combinations(double n, double k)
{
    double c = 1;
    for (double i = 1; i <= k; i++)
        c = c * (n - k + i) / i;
    return round(c);
}

static void enumerate(test *t, double floor, rt_mmd *out)
{
    for (size_t b = 0; b < t->n_blocks; b++) { /* sorted labels come first */
        memset(t->blocks[b].label, 0, t->blocks[b].n - t->blocks[b].n_ones);
        memset(t->blocks[b].label + t->blocks[b].n - t->blocks[b].n_ones, 1, t->blocks[b].n_ones);
    }
    double above = 0;
    for (;;) {
        above += all_sums(t) >= floor;
        out->permutations++;
        size_t b = 0;
        while (b < t->n_blocks && !next_labels(t->blocks[b].label, t->blocks[b].n))
            b++;
        if (b == t->n_blocks)
            break;
    }
    out->exact = 1;
    out->p = above / out->permutations;
}

static void sample(test *t, double floor, size_t draws, uint64_t seed, rt_mmd *out)
{
    rt_rng rng = rt_rng_make(seed, 0x3A3D);
    double above = 0;
    for (size_t d = 0; d < draws; d++) {
        for (size_t b = 0; b < t->n_blocks; b++) {
            uint8_t *label = t->blocks[b].label;
            for (size_t i = t->blocks[b].n; i > 1; i--) {
                const size_t j = rt_rng_below(&rng, i);
                const uint8_t kept = label[i - 1];
                label[i - 1] = label[j];
                label[j] = kept;
            }
        }
        above += all_sums(t) >= floor;
    }
    out->permutations = (double)draws;
    out->p = (1 + above) / ((double)draws + 1);
}

rt_status rt_mmd_test(rt_mmd *out, const rt_completions *c, rt_kernel kernel, size_t exact_max, size_t draws,
                      uint64_t seed, rt_error *err)
{
    *out = (rt_mmd){.p = 1};
    if (c->length == 0)
        return rt_error_set(err, RT_INVALID, "completions of no length cannot be compared");
    test t;
    if (open_test(&t, c, kernel, err) != RT_OK) {
        close_test(&t);
        return err->status;
    }
    if (!(t.pairs0 > 0 && t.pairs1 > 0 && t.pairs_between > 0)) {
        close_test(&t);
        return rt_error_set(err, RT_INVALID,
                            "a two-sample test needs prompts with at least two completions of each speaker");
    }
    out->mmd2 = all_sums(&t);
    const double floor = out->mmd2 - 1e-12;
    double total = 1;
    for (size_t b = 0; b < t.n_blocks; b++)
        total *= combinations((double)t.blocks[b].n, (double)t.blocks[b].n_ones);
    if (total <= (double)exact_max)
        enumerate(&t, floor, out);
    else
        sample(&t, floor, draws, seed, out);
    close_test(&t);
    return RT_OK;
}

rt_status rt_mmd_parts(rt_mmd_part *parts, size_t *count, const rt_completions *c, rt_kernel kernel,
                       rt_error *err)
{
    test t;
    *count = 0;
    rt_status status = c->length
                           ? open_test(&t, c, kernel, err)
                           : rt_error_set(err, RT_INVALID, "completions of no length cannot be compared");
    if (!c->length)
        return status;
    for (size_t b = 0; status == RT_OK && b < t.n_blocks; b++) {
        const sums s = block_sums(&t.blocks[b]);
        const double ones = (double)t.blocks[b].n_ones, zeros = (double)t.blocks[b].n - ones;
        parts[(*count)++] = (rt_mmd_part){c->prompts[t.blocks[b].index[0]],
                                          s.within0,
                                          s.within1,
                                          s.between,
                                          zeros * (zeros - 1),
                                          ones * (ones - 1),
                                          zeros * ones};
    }
    close_test(&t);
    return status;
}

double rt_mmd_of_parts(const rt_mmd_part *parts, size_t count, const double *weights)
{
    rt_mmd_part sum = {0};
    for (size_t i = 0; i < count; i++) {
        const double w = weights ? weights[i] : 1;
        sum.within0 += w * parts[i].within0;
        sum.within1 += w * parts[i].within1;
        sum.between += w * parts[i].between;
        sum.pairs0 += w * parts[i].pairs0;
        sum.pairs1 += w * parts[i].pairs1;
        sum.pairs_between += w * parts[i].pairs_between;
    }
    if (!(sum.pairs0 > 0 && sum.pairs1 > 0 && sum.pairs_between > 0))
        return NAN;
    return sum.within0 / sum.pairs0 - 2 * sum.between / sum.pairs_between + sum.within1 / sum.pairs1;
}
