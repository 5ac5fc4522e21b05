/* model/unigram.c - see unigram.h.
 *
 * best[i] is the score of the best cut of the first i bytes.  A character that no piece covers costs
 * 10 nats more than the worst piece; neighbours of this kind become one unknown token, or their bytes
 * where the vocabulary spells bytes. */
#include "model/unigram.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "model/bpe.h"

typedef struct node {
    double best;
    uint32_t from;
    int32_t id; /* -1: unknown */
} node;

static const double unknown_penalty = 10.0;

rt_status rt_unigram_init(rt_unigram *unigram, const rt_vocab *vocab, int32_t unknown_id, bool byte_fallback,
                          rt_error *err)
{
    *unigram = (rt_unigram){.vocab = vocab, .unknown_id = unknown_id, .byte_fallback = byte_fallback};
    rt_prefix_entry *entries = malloc(vocab->count * sizeof *entries);
    if (!entries)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu pieces", vocab->count);
    size_t count = 0;
    double worst = 0.0;
    for (int b = 0; b < 256; b++)
        unigram->byte_ids[b] = -1;
    for (size_t id = 0; id < vocab->count; id++) {
        size_t size;
        const unsigned char type = vocab->tokens[id].type;
        if (type == RT_TOKEN_BYTE)
            unigram->byte_ids[(unsigned char)rt_vocab_bytes(vocab, id, &size)[0]] = (int32_t)id;
        if ((type != RT_TOKEN_NORMAL && type != RT_TOKEN_USER_DEFINED) || vocab->tokens[id].outside)
            continue;
        const char *text = rt_vocab_text(vocab, id, &size);
        entries[count++] = (rt_prefix_entry){text, (uint32_t)size, (int32_t)id};
        if (type == RT_TOKEN_NORMAL && (double)vocab->tokens[id].score < worst)
            worst = (double)vocab->tokens[id].score;
    }
    unigram->unknown_score = worst - unknown_penalty;
    return rt_prefix_init(&unigram->pieces, entries, count, err);
}

void rt_unigram_deinit(rt_unigram *unigram) { rt_prefix_deinit(&unigram->pieces); }

static void offer(node *to, double score, size_t from, int32_t id)
{
    if (score > to->best)
        *to = (node){score, (uint32_t)from, id};
}

static void extend(const rt_unigram *unigram, node *nodes, const char *text, size_t size, size_t at)
{
    size_t length;
    (void)rt_utf8_decode(text + at, size - at, &length);
    const double base = nodes[at].best;
    bool covered = false;
    rt_prefix_walk walk;
    if (rt_prefix_start(&unigram->pieces, &walk, text[at])) {
        do {
            const int32_t id = rt_prefix_value(&unigram->pieces, &walk);
            if (id < 0)
                continue;
            offer(&nodes[at + walk.depth], base + (double)unigram->vocab->tokens[id].score, at, id);
            covered |= walk.depth == length;
        } while (at + walk.depth < size && rt_prefix_step(&unigram->pieces, &walk, text[at + walk.depth]));
    }
    if (!covered)
        offer(&nodes[at + length], base + unigram->unknown_score, at, -1);
}

static bool push_unknown(const rt_unigram *unigram, const char *text, size_t size, rt_token_list *out)
{
    bool spelled = unigram->byte_fallback;
    for (size_t i = 0; i < size && spelled; i++)
        spelled = unigram->byte_ids[(unsigned char)text[i]] >= 0;
    if (!spelled)
        return unigram->unknown_id < 0 || rt_token_list_push(out, unigram->unknown_id);
    for (size_t i = 0; i < size; i++)
        if (!rt_token_list_push(out, unigram->byte_ids[(unsigned char)text[i]]))
            return false;
    return true;
}

/* Turns the chain of `from` around so that it can be read from the left: next[at] in nodes[at].from. */
static void turn_around(node *nodes, size_t size)
{
    size_t at = size;
    node last = nodes[at];
    while (at > 0) {
        const size_t from = last.from;
        const node kept = nodes[from];
        nodes[from].from = (uint32_t)at;
        nodes[from].id = last.id;
        last = kept;
        at = from;
    }
}

rt_status rt_unigram_encode(const rt_unigram *unigram, const char *text, size_t size, rt_token_list *out,
                            rt_error *err)
{
    if (size >= INT32_MAX)
        return rt_error_set(err, RT_INVALID, "a text of %zu bytes without a break is too long to tokenize",
                            size);
    node *nodes = malloc((size + 1) * sizeof *nodes);
    if (!nodes)
        return rt_error_set(err, RT_NO_MEMORY, "no memory to tokenize %zu bytes", size);
    for (size_t i = 0; i <= size; i++)
        nodes[i] = (node){-HUGE_VAL, 0, -1};
    nodes[0].best = 0.0;
    for (size_t at = 0; at < size; at++)
        if (nodes[at].best > -HUGE_VAL)
            extend(unigram, nodes, text, size, at);
    turn_around(nodes, size);
    bool ok = true;
    for (size_t at = 0, end; at < size && ok; at = end) {
        end = nodes[at].from;
        if (nodes[at].id >= 0) {
            ok = rt_token_list_push(out, nodes[at].id);
            continue;
        }
        while (end < size && nodes[end].id < 0)
            end = nodes[end].from;
        ok = push_unknown(unigram, text + at, end - at, out);
    }
    free(nodes);
    return ok ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory to tokenize the text");
}
