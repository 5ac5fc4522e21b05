/* judge/harvest.c - see harvest.h. */
#include "judge/harvest.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/size.h"

bool rt_text_loops(const char *text, size_t n)
{
    enum { PIECE_MAX = 200, TIMES = 4 };
    for (size_t piece = 1; piece <= PIECE_MAX && piece * TIMES <= n / 3; piece++) {
        const size_t tail = n / 3;
        const char *begin = text + n - tail;
        if (memcmp(begin, begin + piece, tail - piece) == 0)
            return true;
    }
    return false;
}

/* ---- which are kept ---- */

static size_t length_of(const rt_harvest_answer *a) { return a->tokens ? a->tokens : a->n / 4; }

typedef struct entry {
    rt_harvest_answer *answer;
    size_t index;
    rt_keep keep;
} entry;

/* By problem; within one by the order in which they are taken. */
static int in_order(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->answer->problem != y->answer->problem)
        return x->answer->problem < y->answer->problem ? -1 : 1;
    const size_t m = length_of(x->answer), n = length_of(y->answer);
    if (x->keep == RT_KEEP_SHORTEST && m != n)
        return m < n ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static bool same_text(const rt_harvest_answer *a, const rt_harvest_answer *b)
{
    return a->n == b->n && memcmp(a->text, b->text, a->n) == 0;
}

/* Why an answer that is right is not taken; NULL: it may be. */
static size_t *refusal_of(const rt_harvest_answer *a, const rt_harvest_options *options,
                          rt_harvest_counts *counts)
{
    if (!a->stopped)
        return &counts->cut;
    if (options->tokens_max && length_of(a) > options->tokens_max)
        return &counts->long_;
    if (rt_text_loops(a->text, a->n))
        return &counts->looping;
    return NULL;
}

rt_status rt_harvest(rt_harvest_answer *answers, size_t n, const rt_harvest_options *options,
                     rt_harvest_counts *counts, rt_error *err)
{
    *counts = (rt_harvest_counts){0};
    entry *list = calloc(rt_size_max(n, 1), sizeof *list);
    if (!list)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu answers", n);
    size_t right = 0;
    for (size_t i = 0; i < n; i++) {
        answers[i].kept = false;
        if (answers[i].verdict == RT_VERDICT_RIGHT)
            list[right++] = (entry){&answers[i], i, options->keep};
    }
    counts->right = right;
    qsort(list, right, sizeof *list, in_order);
    const size_t most = options->keep == RT_KEEP_ALL ? options->most : options->most ? options->most : 1;
    for (size_t at = 0, end; at < right; at = end) {
        size_t kept = 0;
        for (end = at; end < right && list[end].answer->problem == list[at].answer->problem; end++) {
            rt_harvest_answer *a = list[end].answer;
            size_t *why = refusal_of(a, options, counts);
            for (size_t k = at; k < end && !why; k++)
                if (list[k].answer->kept && same_text(list[k].answer, a))
                    why = &counts->twice;
            if (!why && most && kept >= most)
                why = &counts->beyond;
            a->kept = !why;
            kept += a->kept;
            (*(why ? why : &counts->kept))++;
        }
    }
    free(list);
    return RT_OK;
}

/* ---- shared words ---- */

struct rt_overlap {
    size_t n_words;
    uint64_t *sums; /* open addressing; 0: free */
    size_t capacity, count;
};

rt_status rt_overlap_open(rt_overlap **out, size_t n_words, rt_error *err)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the words of a set");
    (*out)->n_words = rt_size_max(n_words, 1);
    return RT_OK;
}

void rt_overlap_close(rt_overlap *o)
{
    if (!o)
        return;
    free(o->sums);
    free(o);
}

static bool find(const rt_overlap *o, uint64_t sum, size_t *slot)
{
    for (*slot = sum & (o->capacity - 1); o->sums[*slot]; *slot = (*slot + 1) & (o->capacity - 1))
        if (o->sums[*slot] == sum)
            return true;
    return false;
}

static rt_status insert(rt_overlap *o, uint64_t sum, rt_error *err)
{
    size_t slot;
    if (o->count * 2 >= o->capacity) {
        rt_overlap grown = {o->n_words, NULL, o->capacity ? o->capacity * 2 : 1 << 12, 0};
        grown.sums = calloc(grown.capacity, sizeof *grown.sums);
        if (!grown.sums)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for the words of a set");
        for (size_t i = 0; i < o->capacity; i++)
            if (o->sums[i] && !find(&grown, o->sums[i], &slot)) {
                grown.sums[slot] = o->sums[i];
                grown.count++;
            }
        free(o->sums);
        *o = grown;
    }
    if (!find(o, sum, &slot)) {
        o->sums[slot] = sum;
        o->count++;
    }
    return RT_OK;
}

/* The hashes of n words in a row, one after the other. */
typedef struct walk {
    const char *text;
    size_t n, at;
    uint64_t words[64]; /* hashes of the last ones, in a ring */
    size_t count;
} walk;

static bool next_word(walk *w, uint64_t *out)
{
    char word[64];
    size_t n = 0;
    while (w->at < w->n && !isalnum((unsigned char)w->text[w->at]))
        w->at++;
    for (; w->at < w->n && isalnum((unsigned char)w->text[w->at]); w->at++)
        if (n < sizeof word)
            word[n++] = (char)tolower((unsigned char)w->text[w->at]);
    *out = rt_hash64(word, n, 0);
    return n > 0;
}

static bool next_run(walk *w, size_t n_words, uint64_t *out)
{
    uint64_t word, run[64];
    while (next_word(w, &word)) {
        w->words[w->count++ % n_words] = word;
        if (w->count < n_words)
            continue;
        for (size_t i = 0; i < n_words; i++)
            run[i] = w->words[(w->count + i) % n_words];
        *out = rt_hash64(run, n_words * sizeof *run, 1);
        *out += *out == 0;
        return true;
    }
    return false;
}

rt_status rt_overlap_add(rt_overlap *o, const char *text, size_t n, rt_error *err)
{
    walk w = {.text = text, .n = n};
    for (uint64_t run; next_run(&w, rt_size_min(o->n_words, 64), &run);)
        if (insert(o, run, err) != RT_OK)
            return err->status;
    return RT_OK;
}

bool rt_overlap_shares(const rt_overlap *o, const char *text, size_t n)
{
    walk w = {.text = text, .n = n};
    size_t slot;
    for (uint64_t run; o->capacity && next_run(&w, rt_size_min(o->n_words, 64), &run);)
        if (find(o, run, &slot))
            return true;
    return false;
}
