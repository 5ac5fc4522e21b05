/* serve/constrain.c - the mask of tokens under a grammar; see constrain.h. */
#include "serve/constrain.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"

typedef struct entry { /* a token by its bytes */
    const char *bytes;
    uint32_t size, common; /* common: bytes that it shares with the entry before */
    int32_t id;
} entry;

struct rt_constrainer {
    const rt_tokenizer *tokenizer;
    size_t n_vocab;
    entry *all, *marked; /* sorted; marked: those with something that a string does not hold as it is */
    size_t n_all, n_marked;
    int32_t *plain; /* the others */
    size_t n_plain;
    int32_t ends[64];
    size_t n_ends;
    rt_grammar_state *states; /* [longest + 1]: after each byte of the walk's entry */
    uint64_t *allowed;        /* [n_vocab] bits */
};

static int compare_entries(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    const int order = memcmp(x->bytes, y->bytes, rt_size_min(x->size, y->size));
    return order ? order : (x->size > y->size) - (x->size < y->size);
}

static void sort_entries(entry *entries, size_t count)
{
    qsort(entries, count, sizeof *entries, compare_entries);
    for (size_t i = 1; i < count; i++) {
        const size_t most = rt_size_min(entries[i].size, entries[i - 1].size);
        uint32_t common = 0;
        while (common < most && entries[i].bytes[common] == entries[i - 1].bytes[common])
            common++;
        entries[i].common = common;
    }
}

static bool is_plain(const char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)bytes[i] < 0x20 || bytes[i] == '"' || bytes[i] == '\\')
            return false;
    return rt_utf8_valid(bytes, size);
}

static void add_token(rt_constrainer *c, int32_t id, size_t *longest)
{
    if (rt_tokenizer_is_end(c->tokenizer, id) && c->n_ends < sizeof c->ends / sizeof c->ends[0])
        c->ends[c->n_ends++] = id;
    size_t size;
    const char *bytes = rt_tokenizer_token_bytes(c->tokenizer, id, &size);
    if (!bytes || size == 0 || size > UINT32_MAX || rt_tokenizer_is_special(c->tokenizer, id) ||
        rt_tokenizer_is_end(c->tokenizer, id))
        return;
    const entry e = {.bytes = bytes, .size = (uint32_t)size, .id = id};
    c->all[c->n_all++] = e;
    if (is_plain(bytes, size))
        c->plain[c->n_plain++] = id;
    else
        c->marked[c->n_marked++] = e;
    if (size > *longest)
        *longest = size;
}

rt_status rt_constrainer_open(rt_constrainer **out, const rt_tokenizer *tokenizer, size_t n_vocab,
                              rt_error *err)
{
    *out = NULL;
    const size_t n = rt_size_min(rt_tokenizer_size(tokenizer), n_vocab);
    rt_constrainer *c = calloc(1, sizeof *c);
    if (!c)
        return rt_error_set(err, RT_NO_MEMORY, "no room for the constraints of answers");
    *c = (rt_constrainer){.tokenizer = tokenizer, .n_vocab = n_vocab};
    c->all = calloc(n + 1, sizeof *c->all);
    c->marked = calloc(n + 1, sizeof *c->marked);
    c->plain = calloc(n + 1, sizeof *c->plain);
    c->allowed = calloc(n_vocab / 64 + 1, sizeof *c->allowed);
    size_t longest = 0;
    if (c->all && c->marked && c->plain && c->allowed) {
        for (size_t i = 0; i < n; i++)
            add_token(c, (int32_t)i, &longest);
        c->states = calloc(longest + 1, sizeof *c->states);
    }
    if (!c->states) {
        rt_constrainer_close(c);
        return rt_error_set(err, RT_NO_MEMORY, "no room for the constraints of answers over %zu tokens", n);
    }
    sort_entries(c->all, c->n_all);
    sort_entries(c->marked, c->n_marked);
    *out = c;
    return RT_OK;
}

void rt_constrainer_close(rt_constrainer *c)
{
    if (!c)
        return;
    free(c->all);
    free(c->marked);
    free(c->plain);
    free(c->states);
    free(c->allowed);
    free(c);
}

static void allow(rt_constrainer *c, int32_t id) { c->allowed[id / 64] |= UINT64_C(1) << (id % 64); }

/* Allows the entries whose bytes may all come.  states[k] is the state after k bytes of the current entry,
 * good for the first `valid` of them; `failed` bytes of it are known to be too many. */
static size_t walk(rt_constrainer *c, const rt_grammar *grammar, const entry *entries, size_t count)
{
    size_t allowed = 0, valid = 0, failed = SIZE_MAX;
    for (size_t i = 0; i < count; i++) {
        const entry *e = &entries[i];
        if (e->common >= failed)
            continue; /* begins like one that may not come */
        failed = SIZE_MAX;
        valid = rt_size_min(valid, e->common);
        for (size_t k = valid; k < e->size; k++) {
            rt_grammar_copy(&c->states[k + 1], &c->states[k]);
            if (!rt_grammar_step(grammar, &c->states[k + 1], (unsigned char)e->bytes[k])) {
                failed = k + 1;
                break;
            }
            valid = k + 1;
        }
        if (failed == SIZE_MAX) {
            allow(c, e->id);
            allowed++;
        }
    }
    return allowed;
}

size_t rt_constrain(rt_constrainer *c, const rt_grammar *grammar, const rt_grammar_state *state,
                    float *logits)
{
    memset(c->allowed, 0, (c->n_vocab / 64 + 1) * sizeof *c->allowed);
    rt_grammar_copy(&c->states[0], state);
    size_t count = 0;
    if (rt_grammar_in_free_string(state)) {
        for (size_t i = 0; i < c->n_plain; i++)
            allow(c, c->plain[i]);
        count = c->n_plain + walk(c, grammar, c->marked, c->n_marked);
    } else {
        count = walk(c, grammar, c->all, c->n_all);
    }
    if (rt_grammar_complete(grammar, state)) {
        for (size_t i = 0; i < c->n_ends; i++)
            allow(c, c->ends[i]);
        count += c->n_ends;
    }
    if (count == 0)
        return 0;
    for (size_t i = 0; i < c->n_vocab; i++)
        if (!(c->allowed[i / 64] >> (i % 64) & 1))
            logits[i] = -INFINITY;
    return count;
}

bool rt_constrain_accept(const rt_constrainer *c, const rt_grammar *grammar, rt_grammar_state *state,
                         int32_t id)
{
    if (rt_tokenizer_is_end(c->tokenizer, id))
        return rt_grammar_complete(grammar, state);
    size_t size;
    const char *bytes = rt_tokenizer_token_bytes(c->tokenizer, id, &size);
    for (size_t i = 0; bytes && i < size; i++)
        if (!rt_grammar_step(grammar, state, (unsigned char)bytes[i]))
            return false;
    return bytes != NULL && size > 0;
}
