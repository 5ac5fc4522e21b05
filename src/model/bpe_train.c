/* model/bpe_train.c - see bpe_train.h.
 *
 * All words lie end to end in one array of symbols that are linked within their word; a merge writes the new
 * token at the left symbol's place and takes the right one out of the list.  Each pair knows the places where
 * it was made; whether it still stands there is seen when it is merged. The heap's entries may be out of date
 * as well: the one on top is put back with its pair's count until they agree, which counts only ever fall
 * below. */
#include "model/bpe_train.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/size.h"
#include "model/tokenizer_vocab.h"

enum { NONE = UINT32_MAX, PAIR_SLOTS = 4096 };

typedef struct symbol {
    uint32_t id, prev, next; /* id NONE: merged away */
    uint32_t word;
} symbol;

typedef struct pair {
    uint32_t left, right;
    int64_t count;
    uint32_t *places; /* of left symbols, nearly in order */
    uint32_t n_places, capacity;
    bool in_heap_anew; /* made or grown by the merge under way */
    bool merged;       /* has its place among the merges */
} pair;

typedef struct entry {
    int64_t count;
    uint32_t left, right, pair;
} entry;

typedef struct trainer {
    const rt_bpe_words *words;
    const rt_bpe_train_options *options;
    rt_bpe_learnt *out;
    symbol *symbols;
    pair *pairs;
    size_t n_pairs, pairs_capacity;
    uint32_t *slots; /* pair + 1 */
    size_t slot_mask;
    entry *heap;
    size_t heap_count, heap_capacity;
    uint32_t *anew; /* pairs of the merge under way */
    size_t n_anew, anew_capacity;
    uint32_t *spelled; /* merged token + 1 by its bytes */
    size_t spelled_mask;
    rt_text joined;
    uint32_t byte_ids[256];
    size_t bytes; /* taken, as far as the bound counts it */
} trainer;

static rt_status no_memory(const trainer *t, rt_error *err)
{
    return rt_error_set(err, RT_NO_MEMORY,
                        "%zu different words with %zu pairs take more memory than is allowed; give less "
                        "text, or raise the bound",
                        t->words->count, t->n_pairs);
}

/* Makes room for one more; counts what is taken against the bound. */
static bool room(trainer *t, void **data, size_t *capacity, size_t count, size_t size)
{
    if (count < *capacity)
        return true;
    const size_t wanted = rt_size_max(*capacity * 2, 4), more = (wanted - *capacity) * size;
    if (t->options->bytes_max && t->bytes + more > t->options->bytes_max)
        return false;
    void *grown = realloc(*data, wanted * size);
    if (!grown)
        return false;
    *data = grown;
    *capacity = wanted;
    t->bytes += more;
    return true;
}

/* ---- the heap: the most frequent pair on top, then the smaller ids ---- */

static bool before(const entry *a, const entry *b)
{
    if (a->count != b->count)
        return a->count > b->count;
    return a->left != b->left ? a->left < b->left : a->right < b->right;
}

static bool push(trainer *t, uint32_t index)
{
    const pair *p = &t->pairs[index];
    void *heap = t->heap;
    if (!room(t, &heap, &t->heap_capacity, t->heap_count, sizeof *t->heap))
        return false;
    t->heap = heap;
    const entry e = {p->count, p->left, p->right, index};
    size_t at = t->heap_count++;
    for (; at && before(&e, &t->heap[(at - 1) / 2]); at = (at - 1) / 2)
        t->heap[at] = t->heap[(at - 1) / 2];
    t->heap[at] = e;
    return true;
}

/* Lets `e` sink from the top. */
static void sink(trainer *t, entry e)
{
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < t->heap_count; at = child) {
        if (child + 1 < t->heap_count && before(&t->heap[child + 1], &t->heap[child]))
            child++;
        if (!before(&t->heap[child], &e))
            break;
        t->heap[at] = t->heap[child];
    }
    t->heap[at] = e;
}

/* The most frequent pair; NONE when no pair is frequent enough. */
static uint32_t pop(trainer *t)
{
    const int64_t least = (int64_t)rt_size_max(t->options->min_count, 1);
    while (t->heap_count) {
        entry top = t->heap[0];
        const int64_t count = t->pairs[top.pair].count;
        if (top.count != count && count >= least) {
            top.count = count;
            sink(t, top);
            continue;
        }
        const entry last = t->heap[--t->heap_count];
        if (t->heap_count)
            sink(t, last);
        if (count >= least)
            return top.pair;
    }
    return NONE;
}

/* ---- pairs ---- */

static size_t pair_hash(uint32_t left, uint32_t right)
{
    uint64_t h = ((uint64_t)left << 32 | right) * UINT64_C(0x9E3779B97F4A7C15);
    h ^= h >> 29;
    return (size_t)(h * UINT64_C(0xBF58476D1CE4E5B9) >> 20);
}

static bool grow_slots(trainer *t)
{
    const size_t slots = t->slots ? 2 * (t->slot_mask + 1) : PAIR_SLOTS;
    if (t->options->bytes_max && t->bytes + slots * sizeof *t->slots > t->options->bytes_max)
        return false;
    uint32_t *fresh = calloc(slots, sizeof *fresh);
    if (!fresh)
        return false;
    for (size_t i = 0; i < t->n_pairs; i++) {
        size_t slot = pair_hash(t->pairs[i].left, t->pairs[i].right) & (slots - 1);
        while (fresh[slot])
            slot = (slot + 1) & (slots - 1);
        fresh[slot] = (uint32_t)i + 1;
    }
    t->bytes += slots * sizeof *fresh / (t->slots ? 2 : 1);
    free(t->slots);
    t->slots = fresh;
    t->slot_mask = slots - 1;
    return true;
}

/* The pair, made when there is none; NULL: no memory.  Holds until the next call. */
static pair *pair_of(trainer *t, uint32_t left, uint32_t right)
{
    if ((!t->slots || t->n_pairs * 2 >= t->slot_mask) && !grow_slots(t))
        return NULL;
    size_t slot = pair_hash(left, right) & t->slot_mask;
    for (; t->slots[slot]; slot = (slot + 1) & t->slot_mask) {
        pair *p = &t->pairs[t->slots[slot] - 1];
        if (p->left == left && p->right == right)
            return p;
    }
    void *pairs = t->pairs;
    if (t->n_pairs >= NONE / 2 || !room(t, &pairs, &t->pairs_capacity, t->n_pairs, sizeof *t->pairs))
        return NULL;
    t->pairs = pairs;
    t->pairs[t->n_pairs] = (pair){.left = left, .right = right};
    t->slots[slot] = (uint32_t)++t->n_pairs;
    return &t->pairs[t->n_pairs - 1];
}

/* Two symbols have come to stand side by side, the left one at `place`. */
static bool add_place(trainer *t, uint32_t place)
{
    const symbol *s = &t->symbols[place];
    pair *p = pair_of(t, s->id, t->symbols[s->next].id);
    if (!p)
        return false;
    void *places = p->places;
    size_t capacity = p->capacity;
    if (p->n_places >= NONE / 4 || !room(t, &places, &capacity, p->n_places, sizeof *p->places))
        return false;
    p->places = places;
    p->capacity = (uint32_t)capacity;
    p->places[p->n_places++] = place;
    p->count += (int64_t)t->words->list[s->word].count;
    if (p->in_heap_anew)
        return true;
    p->in_heap_anew = true;
    void *anew = t->anew;
    if (!room(t, &anew, &t->anew_capacity, t->n_anew, sizeof *t->anew))
        return false;
    t->anew = anew;
    t->anew[t->n_anew++] = (uint32_t)(p - t->pairs);
    return true;
}

/* Two symbols stand side by side no more. */
static void drop_place(trainer *t, uint32_t left)
{
    const symbol *s = &t->symbols[left];
    pair *p = pair_of(t, s->id, t->symbols[s->next].id); /* it is there, nothing is made */
    assert(p);
    p->count -= (int64_t)t->words->list[s->word].count;
}

static bool push_anew(trainer *t)
{
    bool ok = true;
    for (size_t i = 0; i < t->n_anew; i++) {
        t->pairs[t->anew[i]].in_heap_anew = false;
        ok = ok && push(t, t->anew[i]);
    }
    t->n_anew = 0;
    return ok;
}

/* ---- merging ---- */

static int by_place(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static bool merge_at(trainer *t, uint32_t place, uint32_t left, uint32_t right, uint32_t id)
{
    symbol *l = &t->symbols[place];
    if (l->id != left || l->next == NONE || t->symbols[l->next].id != right)
        return true; /* it was taken by a merge in the meantime */
    symbol *r = &t->symbols[l->next];
    drop_place(t, place);
    if (l->prev != NONE)
        drop_place(t, l->prev);
    if (r->next != NONE)
        drop_place(t, l->next);
    l->next = r->next;
    if (r->next != NONE)
        t->symbols[r->next].prev = place;
    r->id = NONE;
    l->id = id;
    return (l->prev == NONE || add_place(t, l->prev)) && (l->next == NONE || add_place(t, place));
}

static bool merge_all(trainer *t, uint32_t index, uint32_t id)
{
    pair *p = &t->pairs[index];
    uint32_t *places = p->places;
    const uint32_t left = p->left, right = p->right, n = p->n_places, capacity = p->capacity;
    p->places = NULL;
    p->n_places = p->capacity = 0;
    bool sorted = true, ok = true;
    for (uint32_t i = 1; i < n && sorted; i++)
        sorted = places[i - 1] <= places[i];
    if (!sorted) /* runs of one symbol are merged from the left */
        qsort(places, n, sizeof *places, by_place);
    for (uint32_t i = 0; i < n && ok; i++)
        ok = merge_at(t, places[i], left, right, id);
    free(places);
    t->bytes -= capacity * sizeof *places;
    return ok && push_anew(t);
}

/* ---- tokens ---- */

static const char *bytes_of(const trainer *t, uint32_t id, size_t *size, char one[1])
{
    const rt_bpe_learnt *out = t->out;
    if (id < out->first_merged) {
        one[0] = (char)rt_bpe_byte_at(id - out->first_byte);
        *size = 1;
        return one;
    }
    const size_t i = id - out->first_merged;
    *size = out->begins[i + 1] - out->begins[i];
    return out->bytes.data + out->begins[i];
}

static bool is_special(const trainer *t, const char *text, size_t size)
{
    bool found = false;
    for (size_t i = 0; i < t->options->n_special && !found; i++)
        found = strlen(t->options->special[i]) == size && memcmp(t->options->special[i], text, size) == 0;
    return found;
}

static bool add_rule(trainer *t, pair *p, uint32_t result)
{
    rt_bpe_learnt *out = t->out;
    void *merges = out->merges;
    if (p->merged) /* it came up again around a token that two rules make */
        return true;
    if (!room(t, &merges, &out->merges_capacity, out->n_merges, sizeof *out->merges))
        return false;
    out->merges = merges;
    out->merges[out->n_merges++] = (rt_bpe_rule){p->left, p->right, result};
    p->merged = true;
    return true;
}

/* The token that a pair becomes: one that another rule made already, or a new one. NONE: a special token is
 * spelled so.  False: no memory. */
static bool join(trainer *t, pair *p, uint32_t *id)
{
    rt_bpe_learnt *out = t->out;
    rt_text *joined = &t->joined;
    const uint32_t parts[] = {p->left, p->right};
    rt_text_clear(joined);
    for (size_t i = 0; i < 2; i++) {
        char one[1];
        size_t size;
        const char *part = bytes_of(t, parts[i], &size, one);
        rt_text_append(joined, part, size);
    }
    *id = NONE;
    if (joined->failed)
        return false;
    if (is_special(t, joined->data, joined->size))
        return true;
    size_t slot = rt_hash64(joined->data, joined->size, 0) & t->spelled_mask;
    for (; t->spelled[slot]; slot = (slot + 1) & t->spelled_mask) {
        const size_t other = t->spelled[slot] - 1, begin = out->begins[other];
        if (out->begins[other + 1] - begin == joined->size &&
            memcmp(out->bytes.data + begin, joined->data, joined->size) == 0)
            break;
    }
    if (!t->spelled[slot]) {
        rt_text_append(&out->bytes, joined->data, joined->size);
        out->begins[++out->n_merged] = out->bytes.size;
        t->spelled[slot] = (uint32_t)out->n_merged;
    }
    *id = (uint32_t)(out->first_merged + t->spelled[slot] - 1);
    return !out->bytes.failed && add_rule(t, p, *id);
}

unsigned char rt_bpe_byte_at(size_t place)
{
    /* printable bytes stand for themselves; the others, in order, for U+0100 and on: behind them */
    static const struct {
        unsigned char first, last;
    } runs[] = {{'!', '~'}, {0xA1, 0xAC}, {0xAE, 0xFF}, {0, ' '}, {0x7F, 0xA0}, {0xAD, 0xAD}};
    size_t at = place;
    for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
        const size_t n = (size_t)runs[i].last - runs[i].first + 1;
        if (at < n)
            return (unsigned char)(runs[i].first + at);
        at -= n;
    }
    return 0;
}

/* ---- the whole ---- */

static rt_status lay_out(trainer *t, rt_error *err)
{
    const rt_bpe_words *words = t->words;
    size_t at = 0, bytes;
    for (size_t i = 0; i < words->count; i++)
        at += words->list[i].size;
    if (at >= NONE || !rt_size_mul(at, sizeof *t->symbols, &bytes) ||
        (t->options->bytes_max && bytes > t->options->bytes_max))
        return no_memory(t, err);
    t->symbols = malloc(bytes ? bytes : 1);
    if (!t->symbols)
        return no_memory(t, err);
    t->bytes = bytes;
    for (size_t place = 0; place < 256; place++)
        t->byte_ids[rt_bpe_byte_at(place)] = (uint32_t)(t->out->first_byte + place);
    at = 0;
    for (size_t i = 0; i < words->count; i++) {
        const size_t n = words->list[i].size;
        const char *text = words->store.data + words->list[i].at;
        for (size_t k = 0; k < n; k++)
            t->symbols[at + k] = (symbol){.id = t->byte_ids[(unsigned char)text[k]],
                                          .prev = k ? (uint32_t)(at + k - 1) : NONE,
                                          .next = k + 1 < n ? (uint32_t)(at + k + 1) : NONE,
                                          .word = (uint32_t)i};
        at += n;
    }
    for (size_t i = 0; i < at; i++)
        if (t->symbols[i].next != NONE && !add_place(t, (uint32_t)i))
            return no_memory(t, err);
    return push_anew(t) ? RT_OK : no_memory(t, err);
}

static rt_status take_tables(trainer *t, rt_error *err)
{
    const size_t wanted = t->options->vocab - t->out->first_merged;
    size_t slots = 64;
    while (slots / 2 < wanted)
        slots *= 2;
    t->spelled = calloc(slots, sizeof *t->spelled);
    t->spelled_mask = slots - 1;
    t->out->begins = calloc(wanted + 1, sizeof *t->out->begins);
    if (t->spelled && t->out->begins)
        return RT_OK;
    return rt_error_set(err, RT_NO_MEMORY, "no memory for a vocabulary of %zu tokens", t->options->vocab);
}

static rt_status learn(trainer *t, rt_error *err)
{
    const size_t wanted = t->options->vocab - t->out->first_merged;
    while (t->out->n_merged < wanted) {
        const uint32_t index = pop(t);
        uint32_t id;
        if (index == NONE) {
            t->out->exhausted = true;
            return RT_OK;
        }
        if (!join(t, &t->pairs[index], &id))
            return no_memory(t, err);
        if (id == NONE)
            continue; /* its entry has left the heap */
        if (!merge_all(t, index, id))
            return no_memory(t, err);
    }
    return RT_OK;
}

static void trainer_deinit(trainer *t)
{
    for (size_t i = 0; i < t->n_pairs; i++)
        free(t->pairs[i].places);
    free(t->pairs);
    free(t->slots);
    free(t->heap);
    free(t->anew);
    free(t->spelled);
    free(t->symbols);
    rt_text_deinit(&t->joined);
}

rt_status rt_bpe_train(rt_bpe_learnt *out, const rt_bpe_words *words, const rt_bpe_train_options *options,
                       rt_error *err)
{
    *out = (rt_bpe_learnt){.first_byte = options->n_special, .first_merged = options->n_special + 256};
    if (options->vocab < out->first_merged || options->vocab > RT_VOCAB_MAX)
        return rt_error_set(err, RT_INVALID,
                            "a vocabulary of %zu tokens: %zu (256 bytes and %zu special tokens) to %d are "
                            "possible",
                            options->vocab, out->first_merged, options->n_special, (int)RT_VOCAB_MAX);
    trainer t = {.words = words, .options = options, .out = out};
    rt_status status = take_tables(&t, err);
    if (status == RT_OK)
        status = lay_out(&t, err);
    if (status == RT_OK)
        status = learn(&t, err);
    trainer_deinit(&t);
    if (status != RT_OK)
        rt_bpe_learnt_deinit(out);
    return status;
}

void rt_bpe_learnt_deinit(rt_bpe_learnt *learnt)
{
    free(learnt->merges);
    free(learnt->begins);
    rt_text_deinit(&learnt->bytes);
    *learnt = (rt_bpe_learnt){0};
}
