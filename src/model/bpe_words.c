/* model/bpe_words.c - see bpe_words.h.
 *
 * A large text is cut into pieces between an ASCII letter and a line feed.  Every pattern in use ends a word
 * there and none looks back, and a line feed composes with nothing, so the pieces' words are the text's. */
#include "model/bpe_words.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/size.h"

enum { PIECE_BYTES = 1 << 18, SLOTS_MIN = 1024 };

void rt_bpe_words_deinit(rt_bpe_words *words)
{
    free(words->list);
    free(words->slots);
    rt_text_deinit(&words->store);
    *words = (rt_bpe_words){0};
}

size_t rt_bpe_words_bytes(const rt_bpe_words *words)
{
    return words->capacity * sizeof *words->list + words->store.capacity +
           (words->slots ? (words->slot_mask + 1) * sizeof *words->slots : 0);
}

static rt_status full(const rt_bpe_words *words, rt_error *err)
{
    return rt_error_set(err, RT_NO_MEMORY,
                        "the text's %zu different words take more memory than is allowed; give less text, or "
                        "raise the bound",
                        words->count);
}

static const char *text_of(const rt_bpe_words *words, const rt_bpe_word *word)
{
    return words->store.data + word->at;
}

static rt_status grow(rt_bpe_words *words, rt_error *err)
{
    const size_t slots = words->slots ? 2 * (words->slot_mask + 1) : SLOTS_MIN;
    const size_t more = slots * sizeof *words->slots + slots / 2 * sizeof *words->list;
    if (words->count >= UINT32_MAX / 4 ||
        (words->bytes_max && rt_bpe_words_bytes(words) + more > words->bytes_max))
        return full(words, err);
    uint32_t *fresh = calloc(slots, sizeof *fresh);
    rt_bpe_word *list = realloc(words->list, slots / 2 * sizeof *list);
    if (list) {
        words->list = list;
        words->capacity = slots / 2;
    }
    if (!fresh || !list) {
        free(fresh);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu different words", slots / 2);
    }
    for (size_t i = 0; i < words->count; i++) {
        size_t slot = rt_hash64(text_of(words, &list[i]), list[i].size, 0) & (slots - 1);
        while (fresh[slot])
            slot = (slot + 1) & (slots - 1);
        fresh[slot] = (uint32_t)i + 1;
    }
    free(words->slots);
    words->slots = fresh;
    words->slot_mask = slots - 1;
    return RT_OK;
}

static rt_status count_part(rt_bpe_words *words, const char *word, size_t size, uint64_t count, rt_error *err)
{
    if ((!words->slots || words->count >= words->capacity) && grow(words, err) != RT_OK)
        return err->status;
    size_t slot = rt_hash64(word, size, 0) & words->slot_mask;
    for (; words->slots[slot]; slot = (slot + 1) & words->slot_mask) {
        rt_bpe_word *there = &words->list[words->slots[slot] - 1];
        if (there->size == size && memcmp(text_of(words, there), word, size) == 0) {
            there->count += count;
            return RT_OK;
        }
    }
    words->store.size_max = words->bytes_max ? words->bytes_max : SIZE_MAX / 2;
    if (words->bytes_max && rt_bpe_words_bytes(words) + size > words->bytes_max)
        return full(words, err);
    const size_t at = words->store.size;
    rt_text_append(&words->store, word, size);
    if (words->store.failed)
        return full(words, err);
    words->list[words->count++] = (rt_bpe_word){at, (uint32_t)size, count};
    words->slots[slot] = (uint32_t)words->count;
    return RT_OK;
}

rt_status rt_bpe_words_count(rt_bpe_words *words, const char *word, size_t size, uint64_t count,
                             rt_error *err)
{
    for (size_t at = 0; at < size; at += RT_BPE_WORD_MAX)
        if (count_part(words, word + at, rt_size_min(size - at, RT_BPE_WORD_MAX), count, err) != RT_OK)
            return err->status;
    return RT_OK;
}

/* ---- cutting ---- */

static unsigned threads_of(const rt_bpe_cutter *cutter)
{
    return cutter->pool ? rt_pool_threads(cutter->pool) : 1;
}

rt_status rt_bpe_cutter_init(rt_bpe_cutter *cutter, const rt_pretokenizer *pre,
                             const rt_normalizer *normalizer, size_t bytes_max, rt_pool *pool, rt_error *err)
{
    *cutter = (rt_bpe_cutter){.pre = pre, .normalizer = normalizer, .pool = pool};
    const unsigned threads = threads_of(cutter);
    cutter->parts = calloc(threads, sizeof *cutter->parts);
    if (!cutter->parts)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the tables of %u threads", threads);
    for (unsigned t = 0; t < threads; t++)
        cutter->parts[t].bytes_max = bytes_max ? rt_size_max(bytes_max / threads, 1) : 0;
    return RT_OK;
}

void rt_bpe_cutter_deinit(rt_bpe_cutter *cutter)
{
    for (unsigned t = 0; cutter->parts && t < threads_of(cutter); t++)
        rt_bpe_words_deinit(&cutter->parts[t]);
    free(cutter->parts);
    *cutter = (rt_bpe_cutter){0};
}

typedef struct piece {
    size_t from, size;
    rt_status status;
    rt_error err;
} piece;

typedef struct cutting {
    rt_bpe_cutter *cutter;
    const char *text;
    piece *pieces;
} cutting;

static rt_status count_word(void *context, const char *word, size_t size, rt_error *err)
{
    return rt_bpe_words_count(context, word, size, 1, err);
}

static rt_status cut_piece(const rt_bpe_cutter *cutter, const char *text, size_t size, bool first,
                           rt_bpe_words *words, rt_error *err)
{
    rt_text normal = {.size_max = SIZE_MAX / 2};
    rt_status status = RT_OK;
    const bool normalise = cutter->normalizer && cutter->normalizer->count;
    if (normalise)
        status = rt_normalizer_run(cutter->normalizer, text, size, &normal, err);
    const char *data = !normalise ? text : normal.data ? normal.data : "";
    const size_t data_size = normalise ? normal.size : size;
    if (status == RT_OK)
        status = rt_pretokenizer_run(cutter->pre, data, data_size, first, count_word, words, err);
    words->seen += data_size;
    rt_text_deinit(&normal);
    return status;
}

static void cut_task(void *context, size_t index, unsigned thread)
{
    const cutting *c = context;
    piece *p = &c->pieces[index];
    p->status =
        cut_piece(c->cutter, c->text + p->from, p->size, p->from == 0, &c->cutter->parts[thread], &p->err);
}

static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/* Where the piece that begins at `from` ends. */
static size_t piece_end(const char *text, size_t size, size_t from)
{
    for (size_t at = from + PIECE_BYTES; at < size; at++) {
        const char *line = memchr(text + at, '\n', size - at);
        if (!line)
            break;
        at = (size_t)(line - text);
        if (is_letter(text[at - 1]))
            return at;
    }
    return size;
}

rt_status rt_bpe_cutter_add(rt_bpe_cutter *cutter, const char *text, size_t size, rt_error *err)
{
    if (size <= PIECE_BYTES)
        return cut_piece(cutter, text, size, true, &cutter->parts[0], err);
    const size_t pieces_max = size / PIECE_BYTES + 1;
    cutting c = {cutter, text, calloc(pieces_max, sizeof(piece))};
    if (!c.pieces)
        return rt_error_set(err, RT_NO_MEMORY, "no memory to cut a text of %zu bytes", size);
    size_t count = 0;
    for (size_t at = 0; at < size; at += c.pieces[count++].size)
        c.pieces[count] = (piece){.from = at, .size = piece_end(text, size, at) - at};
    rt_pool_run(cutter->pool, count, cut_task, &c);
    rt_status status = RT_OK;
    for (size_t i = 0; i < count && status == RT_OK; i++)
        if ((status = c.pieces[i].status) != RT_OK)
            *err = c.pieces[i].err;
    free(c.pieces);
    return status;
}

rt_status rt_bpe_cutter_finish(rt_bpe_cutter *cutter, rt_bpe_words *out, rt_error *err)
{
    *out = cutter->parts[0];
    out->bytes_max *= threads_of(cutter);
    cutter->parts[0] = (rt_bpe_words){.bytes_max = cutter->parts[0].bytes_max};
    for (unsigned t = 1; t < threads_of(cutter); t++) {
        rt_bpe_words *part = &cutter->parts[t];
        for (size_t i = 0; i < part->count; i++)
            if (rt_bpe_words_count(out, text_of(part, &part->list[i]), part->list[i].size,
                                   part->list[i].count, err) != RT_OK)
                return err->status;
        out->seen += part->seen;
        const size_t bytes_max = part->bytes_max;
        rt_bpe_words_deinit(part);
        part->bytes_max = bytes_max;
    }
    return RT_OK;
}
