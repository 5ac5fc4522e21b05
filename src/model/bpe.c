/* model/bpe.c - see bpe.h.
 *
 * Most words of ordinary text are one token, so the word itself is looked up first; whether merging
 * would really give that token is worked out once per token and remembered.  Other short words are
 * merged in place by repeated scans for the lowest rank, which for a dozen symbols beats anything
 * clever; long ones (a megabyte without a blank) go through a heap and stay n log n. */
#include "model/bpe.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/size.h"

enum { SHORT_MAX = 48, CACHE_SLOTS = 4096, CACHED_BYTES = 27, CACHED_IDS = 8 };
static const uint32_t no_rank = UINT32_MAX;

typedef struct rt_bpe_symbol {
    int32_t id; /* -1: a character that the vocabulary lacks */
    uint32_t begin, end;
    int32_t prev, next; /* -1: none; prev -2: merged away */
} rt_bpe_symbol;

typedef struct rt_bpe_candidate {
    uint32_t rank, position, end; /* `end` of the right part: tells whether the pair still stands */
    int32_t merged;
} rt_bpe_candidate;

typedef struct rt_bpe_cached {
    char word[CACHED_BYTES];
    unsigned char size, id_count; /* size 0: free */
    int32_t ids[CACHED_IDS];
} rt_bpe_cached;

static void fill_byte_ids(rt_bpe *bpe)
{
    bpe->all_bytes = true;
    for (int b = 0; b < 256; b++) {
        static const char hex[] = "0123456789ABCDEF";
        const char raw = (char)b, spelled[6] = {'<', '0', 'x', hex[b >> 4], hex[b & 15], '>'};
        bpe->byte_ids[b] = bpe->byte_level ? rt_vocab_find(bpe->vocab, &raw, 1)
                                           : rt_vocab_find(bpe->vocab, spelled, sizeof spelled);
        if (bpe->byte_ids[b] < 0)
            bpe->all_bytes = false;
    }
}

/* Which bytes stand before a U+2581 inside tokens; see safe_cut. */
static void find_cuts(rt_bpe *bpe)
{
    bpe->can_cut = !bpe->byte_level && rt_vocab_find(bpe->vocab, "\xE2\x96\x81", 3) >= 0;
    for (size_t id = 0; bpe->can_cut && id < bpe->vocab->count; id++) {
        size_t size;
        const char *text = rt_vocab_text(bpe->vocab, id, &size);
        for (size_t i = 1; i + 3 <= size; i++)
            if (memcmp(text + i, "\xE2\x96\x81", 3) == 0)
                bpe->before_blank[(unsigned char)text[i - 1]] = true;
    }
}

rt_status rt_bpe_init(rt_bpe *bpe, const rt_vocab *vocab, size_t max_merges, rt_error *err)
{
    bpe->vocab = vocab;
    size_t slots = 16;
    while (slots / 2 < max_merges)
        slots *= 2;
    bpe->merges = calloc(slots, sizeof *bpe->merges);
    bpe->whole = calloc(vocab->count, sizeof *bpe->whole);
    if (!bpe->merges || !bpe->whole)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu merges", max_merges);
    bpe->merge_mask = slots - 1;
    fill_byte_ids(bpe);
    find_cuts(bpe);
    return RT_OK;
}

void rt_bpe_deinit(rt_bpe *bpe)
{
    free(bpe->merges);
    free(bpe->score_ranks);
    free((void *)bpe->whole);
    *bpe = (rt_bpe){0};
}

static size_t pair_slot(const rt_bpe *bpe, uint32_t left, uint32_t right)
{
    uint64_t h = ((uint64_t)left << 32 | right) * UINT64_C(0x9E3779B97F4A7C15);
    h ^= h >> 29;
    return (size_t)(h * UINT64_C(0xBF58476D1CE4E5B9) >> 20) & bpe->merge_mask;
}

static const rt_bpe_merge *find_merge(const rt_bpe *bpe, int32_t left, int32_t right)
{
    const uint32_t l = (uint32_t)left + 1, r = (uint32_t)right + 1;
    for (size_t slot = pair_slot(bpe, l, r);; slot = (slot + 1) & bpe->merge_mask) {
        const rt_bpe_merge *merge = &bpe->merges[slot];
        if (merge->left == 0)
            return NULL;
        if (merge->left == l && merge->right == r)
            return merge;
    }
}

static rt_status bad_merge(rt_error *err, size_t index, const char *what)
{
    return rt_error_set(err, RT_CORRUPT, "merge %zu: %s is not in the vocabulary; the tokenizer is damaged",
                        index, what);
}

/* The key of a part as the file spells it, appended. */
static void append_key(const rt_bpe *bpe, const char *text, size_t size, rt_text *out)
{
    if (!bpe->byte_level || !rt_alphabet_to_bytes(text, size, out))
        rt_text_append(out, text, size);
}

rt_status rt_bpe_add(rt_bpe *bpe, const char *left, size_t left_size, const char *right, size_t right_size,
                     rt_text *scratch, rt_error *err)
{
    const size_t index = bpe->merge_count++;
    assert(index <= bpe->merge_mask / 2 + 1);
    rt_text_clear(scratch);
    append_key(bpe, left, left_size, scratch);
    const size_t cut = scratch->size;
    append_key(bpe, right, right_size, scratch);
    if (scratch->failed)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for merge %zu", index);
    if (scratch->size == cut || cut == 0)
        return bad_merge(err, index, "an empty part");
    const int32_t l = rt_vocab_find(bpe->vocab, scratch->data, cut);
    const int32_t r = rt_vocab_find(bpe->vocab, scratch->data + cut, scratch->size - cut);
    const int32_t merged = rt_vocab_find(bpe->vocab, scratch->data, scratch->size);
    if (l < 0 || r < 0 || merged < 0)
        return bad_merge(err, index, l < 0 ? "its left part" : r < 0 ? "its right part" : "its result");
    const uint32_t l1 = (uint32_t)l + 1, r1 = (uint32_t)r + 1;
    size_t slot = pair_slot(bpe, l1, r1);
    while (bpe->merges[slot].left && !(bpe->merges[slot].left == l1 && bpe->merges[slot].right == r1))
        slot = (slot + 1) & bpe->merge_mask;
    if (!bpe->merges[slot].left)
        bpe->merges[slot] = (rt_bpe_merge){l1, r1, (uint32_t)index, merged};
    return RT_OK;
}

typedef struct scored {
    float score;
    uint32_t id;
} scored;

static int by_score(const void *a, const void *b)
{
    const float x = ((const scored *)a)->score, y = ((const scored *)b)->score;
    return (x < y) - (x > y);
}

rt_status rt_bpe_use_scores(rt_bpe *bpe, rt_error *err)
{
    const size_t count = bpe->vocab->count;
    scored *order = malloc(count * sizeof *order);
    bpe->score_ranks = malloc(count * sizeof *bpe->score_ranks);
    if (!order || !bpe->score_ranks) {
        free(order);
        return rt_error_set(err, RT_NO_MEMORY, "no memory to sort %zu scores", count);
    }
    for (size_t i = 0; i < count; i++)
        order[i] = (scored){bpe->vocab->tokens[i].score, (uint32_t)i};
    qsort(order, count, sizeof *order, by_score);
    uint32_t rank = 0;
    for (size_t i = 0; i < count; i++) {
        if (i && order[i].score < order[i - 1].score)
            rank = (uint32_t)i;
        const unsigned char type = bpe->vocab->tokens[order[i].id].type;
        bpe->score_ranks[order[i].id] =
            type == RT_TOKEN_NORMAL || type == RT_TOKEN_USER_DEFINED ? rank : no_rank;
    }
    free(order);
    return RT_OK;
}

static int by_rank(const void *a, const void *b)
{
    const rt_bpe_merge *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    if (x->left != y->left)
        return x->left < y->left ? -1 : 1;
    return (x->right > y->right) - (x->right < y->right);
}

rt_bpe_merge *rt_bpe_merges_in_order(const rt_bpe *bpe, size_t *count)
{
    rt_bpe_merge *merges = calloc(bpe->merge_count + 1, sizeof *merges);
    *count = 0;
    for (size_t i = 0; merges && i <= bpe->merge_mask; i++)
        if (bpe->merges[i].left)
            merges[bpe->merges[i].rank] = bpe->merges[i];
    for (size_t i = 0; merges && i < bpe->merge_count; i++)
        if (merges[i].left) /* a pair that the file held twice leaves a gap */
            merges[(*count)++] = merges[i];
    return merges;
}

static bool can_merge(const rt_bpe *bpe, int32_t id) { return id >= 0 && bpe->score_ranks[id] != no_rank; }

rt_bpe_merge *rt_bpe_merges_of_scores(const rt_bpe *bpe, size_t *count)
{
    size_t capacity = bpe->vocab->count * 8;
    rt_bpe_merge *merges = malloc(capacity * sizeof *merges);
    *count = 0;
    for (size_t id = 0; merges && id < bpe->vocab->count; id++) {
        size_t size;
        const char *text = rt_vocab_text(bpe->vocab, id, &size);
        for (size_t cut = 1; can_merge(bpe, (int32_t)id) && cut < size; cut++) {
            const int32_t left = rt_vocab_find(bpe->vocab, text, cut);
            const int32_t right = rt_vocab_find(bpe->vocab, text + cut, size - cut);
            if (!can_merge(bpe, left) || !can_merge(bpe, right))
                continue;
            if (*count == capacity) {
                rt_bpe_merge *more = realloc(merges, 2 * capacity * sizeof *merges);
                if (!more) {
                    free(merges);
                    return NULL;
                }
                merges = more;
                capacity *= 2;
            }
            merges[(*count)++] =
                (rt_bpe_merge){(uint32_t)left + 1, (uint32_t)right + 1, bpe->score_ranks[id], (int32_t)id};
        }
    }
    if (merges)
        qsort(merges, *count, sizeof *merges, by_rank);
    return merges;
}

bool rt_token_list_grow(rt_token_list *list)
{
    size_t capacity, bytes;
    if (!rt_size_mul(list->capacity + 32, 2, &capacity) || !rt_size_mul(capacity, sizeof *list->ids, &bytes))
        return false;
    int32_t *ids = realloc(list->ids, bytes);
    if (!ids)
        return false;
    list->ids = ids;
    list->capacity = capacity;
    return true;
}

static rt_status no_memory(rt_error *err)
{
    return rt_error_set(err, RT_NO_MEMORY, "no memory to tokenize the text");
}

static bool reserve_symbols(rt_bpe_scratch *scratch, size_t count)
{
    if (count <= scratch->symbol_capacity)
        return true;
    const size_t capacity = count + count / 2;
    rt_bpe_symbol *symbols = realloc(scratch->symbols, capacity * sizeof *symbols);
    if (!symbols)
        return false;
    scratch->symbols = symbols;
    scratch->symbol_capacity = capacity;
    return true;
}

/* -- the heap of candidate pairs: lowest rank first, then the leftmost -- */

static bool candidate_before(const rt_bpe_candidate *a, const rt_bpe_candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->position < b->position;
}

static bool heap_push(rt_bpe_scratch *scratch, rt_bpe_candidate candidate)
{
    if (scratch->heap_count == scratch->heap_capacity) {
        const size_t capacity = scratch->heap_capacity * 2 + 256;
        rt_bpe_candidate *heap = realloc(scratch->heap, capacity * sizeof *heap);
        if (!heap)
            return false;
        scratch->heap = heap;
        scratch->heap_capacity = capacity;
    }
    size_t i = scratch->heap_count++;
    for (; i && candidate_before(&candidate, &scratch->heap[(i - 1) / 2]); i = (i - 1) / 2)
        scratch->heap[i] = scratch->heap[(i - 1) / 2];
    scratch->heap[i] = candidate;
    return true;
}

static rt_bpe_candidate heap_pop(rt_bpe_scratch *scratch)
{
    rt_bpe_candidate *heap = scratch->heap;
    const rt_bpe_candidate top = heap[0], last = heap[--scratch->heap_count];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < scratch->heap_count; i = child) {
        if (child + 1 < scratch->heap_count && candidate_before(&heap[child + 1], &heap[child]))
            child++;
        if (!candidate_before(&heap[child], &last))
            break;
        heap[i] = heap[child];
    }
    heap[i] = last;
    return top;
}

static bool offer_pair(const rt_bpe *bpe, rt_bpe_scratch *scratch, const char *word, int32_t left)
{
    const rt_bpe_symbol *a = &scratch->symbols[left];
    if (a->next < 0)
        return true;
    const rt_bpe_symbol *b = &scratch->symbols[a->next];
    rt_bpe_candidate candidate = {no_rank, (uint32_t)left, b->end, -1};
    if (bpe->score_ranks) {
        candidate.merged = rt_vocab_find(bpe->vocab, word + a->begin, b->end - a->begin);
        if (candidate.merged >= 0)
            candidate.rank = bpe->score_ranks[candidate.merged];
    } else if (a->id >= 0 && b->id >= 0) {
        const rt_bpe_merge *merge = find_merge(bpe, a->id, b->id);
        if (merge) {
            candidate.rank = merge->rank;
            candidate.merged = merge->merged;
        }
    }
    return candidate.rank == no_rank || heap_push(scratch, candidate);
}

static bool merge_long(const rt_bpe *bpe, rt_bpe_scratch *scratch, const char *word, size_t count)
{
    rt_bpe_symbol *symbols = scratch->symbols;
    scratch->heap_count = 0;
    for (size_t i = 0; i + 1 < count; i++)
        if (!offer_pair(bpe, scratch, word, (int32_t)i))
            return false;
    while (scratch->heap_count) {
        const rt_bpe_candidate best = heap_pop(scratch);
        rt_bpe_symbol *left = &symbols[best.position];
        if (left->prev == -2 || left->next < 0 || symbols[left->next].end != best.end)
            continue; /* one of the two was merged with another in the meantime */
        rt_bpe_symbol *right = &symbols[left->next];
        left->id = best.merged;
        left->end = right->end;
        left->next = right->next;
        right->prev = -2;
        if (left->next >= 0)
            symbols[left->next].prev = (int32_t)best.position;
        if (!offer_pair(bpe, scratch, word, (int32_t)best.position) ||
            (left->prev >= 0 && !offer_pair(bpe, scratch, word, left->prev)))
            return false;
    }
    return true;
}

/* Merges ids[0..count) in place; returns how many are left. */
static size_t merge_short(const rt_bpe *bpe, int32_t *ids, size_t count)
{
    const rt_bpe_merge *found[SHORT_MAX];
    for (size_t i = 0; i + 1 < count; i++)
        found[i] = find_merge(bpe, ids[i], ids[i + 1]);
    while (count > 1) {
        size_t best = count;
        uint32_t rank = no_rank;
        for (size_t i = 0; i + 1 < count; i++)
            if (found[i] && found[i]->rank < rank) {
                rank = found[i]->rank;
                best = i;
            }
        if (best == count)
            break;
        ids[best] = found[best]->merged;
        memmove(ids + best + 1, ids + best + 2, (count - best - 2) * sizeof *ids);
        if (count - best > 3)
            memmove(found + best + 1, found + best + 2, (count - best - 3) * sizeof(const rt_bpe_merge *));
        count--;
        if (best)
            found[best - 1] = find_merge(bpe, ids[best - 1], ids[best]);
        if (best + 1 < count)
            found[best] = find_merge(bpe, ids[best], ids[best + 1]);
    }
    return count;
}

static rt_status push_symbol_ids(const rt_bpe *bpe, const rt_bpe_symbol *symbol, const char *word,
                                 bool *after_unknown, rt_token_list *out, rt_error *err)
{
    if (symbol->id >= 0) {
        const bool unknown = symbol->id == bpe->unknown_id;
        const bool skip = unknown && bpe->fuse_unknown && *after_unknown;
        *after_unknown = unknown;
        return skip || rt_token_list_push(out, symbol->id) ? RT_OK : no_memory(err);
    }
    const bool spelled = bpe->byte_fallback || bpe->byte_level;
    bool all = spelled;
    for (uint32_t i = symbol->begin; i < symbol->end && all; i++)
        all = bpe->byte_ids[(unsigned char)word[i]] >= 0;
    if (!all) {
        if (bpe->unknown_id < 0)
            return RT_OK; /* dropped, as the reference tokenizers do */
        if (!(bpe->fuse_unknown && *after_unknown) && !rt_token_list_push(out, bpe->unknown_id))
            return no_memory(err);
        *after_unknown = true;
        return RT_OK;
    }
    *after_unknown = false;
    for (uint32_t i = symbol->begin; i < symbol->end; i++)
        if (!rt_token_list_push(out, bpe->byte_ids[(unsigned char)word[i]]))
            return no_memory(err);
    return RT_OK;
}

/* One symbol a byte, or one a character. */
static size_t make_symbols(const rt_bpe *bpe, rt_bpe_symbol *symbols, const char *word, size_t size)
{
    size_t count = 0;
    for (size_t i = 0, n; i < size; i += n, count++) {
        n = 1;
        int32_t id;
        if (bpe->byte_level) {
            id = bpe->byte_ids[(unsigned char)word[i]];
        } else {
            (void)rt_utf8_decode(word + i, size - i, &n);
            id = rt_vocab_find(bpe->vocab, word + i, n);
            if (id >= 0 && bpe->vocab->tokens[id].type == RT_TOKEN_BYTE)
                id = -1;
        }
        symbols[count] =
            (rt_bpe_symbol){id, (uint32_t)i, (uint32_t)(i + n), (int32_t)count - 1, (int32_t)count + 1};
    }
    symbols[count - 1].next = -1;
    return count;
}

static rt_status encode_long(const rt_bpe *bpe, rt_bpe_scratch *scratch, const char *word, size_t size,
                             rt_token_list *out, rt_error *err)
{
    if (size > INT32_MAX)
        return rt_error_set(err, RT_INVALID, "a text of %zu bytes without a break is too long to tokenize",
                            size);
    if (!reserve_symbols(scratch, size))
        return no_memory(err);
    const size_t count = make_symbols(bpe, scratch->symbols, word, size);
    if (!merge_long(bpe, scratch, word, count))
        return no_memory(err);
    bool after_unknown = false;
    for (int32_t i = 0; i >= 0; i = scratch->symbols[i].next)
        if (push_symbol_ids(bpe, &scratch->symbols[i], word, &after_unknown, out, err) != RT_OK)
            return err->status;
    return RT_OK;
}

static rt_status merge_word(const rt_bpe *bpe, rt_bpe_scratch *scratch, const char *word, size_t size,
                            rt_token_list *out, rt_error *err)
{
    if (!bpe->byte_level || size > SHORT_MAX)
        return encode_long(bpe, scratch, word, size, out, err);
    int32_t ids[SHORT_MAX];
    for (size_t i = 0; i < size; i++)
        if ((ids[i] = bpe->byte_ids[(unsigned char)word[i]]) < 0)
            return encode_long(bpe, scratch, word, size, out, err);
    const size_t count = merge_short(bpe, ids, size);
    for (size_t i = 0; i < count; i++)
        if (!rt_token_list_push(out, ids[i]))
            return no_memory(err);
    return RT_OK;
}

/* Is the token's own spelling, merged, that token alone? */
static bool is_whole(const rt_bpe *bpe, rt_bpe_scratch *scratch, int32_t id, const char *word, size_t size)
{
    unsigned char known = atomic_load_explicit(&bpe->whole[id], memory_order_relaxed);
    if (!known) {
        rt_token_list list = {0};
        rt_error ignored = {0};
        const rt_status status = merge_word(bpe, scratch, word, size, &list, &ignored);
        known = status == RT_OK && list.count == 1 && list.ids[0] == id ? 1 : 2;
        rt_token_list_deinit(&list);
        if (status == RT_OK)
            atomic_store_explicit(&bpe->whole[id], known, memory_order_relaxed);
    }
    return known == 1;
}

static rt_bpe_cached *cache_slot(rt_bpe_scratch *scratch, const char *word, size_t size)
{
    if (!scratch->use_cache || size > CACHED_BYTES)
        return NULL;
    if (!scratch->cache && !(scratch->cache = calloc(CACHE_SLOTS, sizeof *scratch->cache)))
        return NULL; /* slower, and right all the same */
    return &scratch->cache[rt_hash64(word, size, 0) % CACHE_SLOTS];
}

static rt_status encode_cached(const rt_bpe *bpe, rt_bpe_scratch *scratch, const char *word, size_t size,
                               rt_token_list *out, rt_error *err)
{
    const int32_t id = rt_vocab_find(bpe->vocab, word, size);
    if (id >= 0 && ((bpe->ignore_merges && bpe->vocab->tokens[id].type == RT_TOKEN_NORMAL) ||
                    is_whole(bpe, scratch, id, word, size)))
        return rt_token_list_push(out, id) ? RT_OK : no_memory(err);
    rt_bpe_cached *cached = cache_slot(scratch, word, size);
    if (cached && cached->size == size && memcmp(cached->word, word, size) == 0) {
        for (size_t i = 0; i < cached->id_count; i++)
            if (!rt_token_list_push(out, cached->ids[i]))
                return no_memory(err);
        return RT_OK;
    }
    const size_t before = out->count;
    if (merge_word(bpe, scratch, word, size, out, err) != RT_OK)
        return err->status;
    const size_t added = out->count - before;
    if (cached && added <= CACHED_IDS) {
        cached->size = (unsigned char)size;
        cached->id_count = (unsigned char)added;
        memcpy(cached->word, word, size);
        memcpy(cached->ids, out->ids + before, added * sizeof *out->ids);
    }
    return RT_OK;
}

/* Where a text without pre-tokenizer may be cut for certain: in front of a U+2581 behind a byte that no
 * token has there.  No merge can reach across, for its result would be such a token. */
static size_t safe_cut(const rt_bpe *bpe, const char *text, size_t at, size_t size)
{
    for (size_t i = at + 1; i + 3 <= size; i++)
        if (text[i] == '\xE2' && memcmp(text + i, "\xE2\x96\x81", 3) == 0 &&
            !bpe->before_blank[(unsigned char)text[i - 1]])
            return i;
    return size;
}

rt_status rt_bpe_encode(const rt_bpe *bpe, rt_bpe_scratch *scratch, const char *word, size_t size,
                        rt_token_list *out, rt_error *err)
{
    if (size == 0)
        return RT_OK;
    if (bpe->byte_level || bpe->ignore_merges)
        return encode_cached(bpe, scratch, word, size, out, err);
    for (size_t at = 0, end; at < size; at = end) {
        end = bpe->can_cut ? safe_cut(bpe, word, at, size) : size;
        if (encode_cached(bpe, scratch, word + at, end - at, out, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

void rt_bpe_scratch_deinit(rt_bpe_scratch *scratch)
{
    free(scratch->symbols);
    free(scratch->heap);
    free(scratch->cache);
    *scratch = (rt_bpe_scratch){0};
}
