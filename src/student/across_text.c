/* student/across_text.c - see across_text.h. */
#include "student/across_text.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"

void rt_across_text_deinit(rt_across_text *text)
{
    rt_documents_deinit(&text->docs);
    free(text->groups);
    free(text->begins);
    *text = (rt_across_text){0};
}

/* ---- borders ---- */

typedef struct side { /* a document's tokens with a loss, as bytes */
    rt_text bytes;
    size_t *ends;
    size_t first, n, ends_capacity; /* first: token of the document */
} side;

static const char end_mark = '\xFF'; /* is in no UTF-8 text */

static bool spell(side *out, const rt_documents *docs, size_t doc, const rt_tokenizer *tokenizer)
{
    const size_t begin = docs->begins[doc], n = docs->begins[doc + 1] - begin;
    out->first = 0;
    while (out->first < n && !docs->mask[begin + out->first])
        out->first++;
    out->n = n - out->first;
    rt_text_clear(&out->bytes);
    if (out->n > out->ends_capacity) {
        size_t *ends = realloc(out->ends, out->n * sizeof *ends);
        if (!ends)
            return false;
        out->ends = ends;
        out->ends_capacity = out->n;
    }
    for (size_t i = 0; i < out->n; i++) {
        const int32_t id = docs->ids[begin + out->first + i];
        size_t size;
        const char *bytes = rt_tokenizer_token_bytes(tokenizer, id, &size);
        if (rt_tokenizer_is_end(tokenizer, id))
            rt_text_append(&out->bytes, &end_mark, 1);
        else
            rt_text_append(&out->bytes, bytes, size);
        out->ends[i] = out->bytes.size;
    }
    return !out->bytes.failed;
}

/* Tokens that end within the first `size` bytes. */
static size_t tokens_within(const side *s, size_t size)
{
    size_t n = s->n;
    while (n > 0 && s->ends[n - 1] > size)
        n--;
    return n;
}

static bool add_group(rt_across_text *text, const rt_aligned *group)
{
    if (text->n_groups == text->groups_capacity) {
        const size_t capacity = 2 * text->groups_capacity + 256;
        rt_aligned *groups = realloc(text->groups, capacity * sizeof *groups);
        if (!groups)
            return false;
        text->groups = groups;
        text->groups_capacity = capacity;
    }
    text->groups[text->n_groups++] = *group;
    return true;
}

static bool align_document(rt_across_text *text, const side *a, const side *b)
{
    const size_t shorter = rt_size_min(a->bytes.size, b->bytes.size);
    size_t same = 0;
    while (same < shorter && a->bytes.data[same] == b->bytes.data[same])
        same++;
    text->n_diverged += same < rt_size_max(a->bytes.size, b->bytes.size);
    const size_t n_a = tokens_within(a, same), n_b = tokens_within(b, same);
    rt_aligned *found = malloc(rt_size_max(rt_size_min(n_a, n_b), 1) * sizeof *found);
    bool ok = found != NULL;
    const size_t n = ok ? rt_align(found, a->ends, n_a, b->ends, n_b) : 0;
    for (size_t i = 0; i < n && ok; i++) {
        const rt_aligned group = {found[i].student_from + a->first, found[i].student_to + a->first,
                                  found[i].teacher_from + b->first, found[i].teacher_to + b->first};
        if (group.student_from == 0 || group.teacher_from == 0 || /* nothing predicts a first token */
            group.student_to - group.student_from > RT_ACROSS_GROUP_MAX)
            continue;
        ok = add_group(text, &group);
        text->n_covered += group.student_to - group.student_from;
    }
    free(found);
    return ok;
}

rt_status rt_across_text_align(rt_across_text *text, const rt_documents *student,
                               const rt_tokenizer *student_tokenizer, const rt_tokenizer *teacher_tokenizer,
                               rt_error *err)
{
    side a = {0}, b = {0};
    assert(student->n_docs == text->docs.n_docs);
    text->begins = malloc((student->n_docs + 1) * sizeof *text->begins);
    bool ok = text->begins != NULL;
    for (size_t doc = 0; doc < student->n_docs && ok; doc++) {
        text->begins[doc] = text->n_groups;
        ok = spell(&a, student, doc, student_tokenizer) && spell(&b, &text->docs, doc, teacher_tokenizer) &&
             align_document(text, &a, &b);
    }
    if (ok)
        text->begins[student->n_docs] = text->n_groups;
    rt_text_deinit(&a.bytes);
    rt_text_deinit(&b.bytes);
    free(a.ends);
    free(b.ends);
    if (!ok)
        return rt_error_set(err, RT_NO_MEMORY, "no memory to align %zu documents", student->n_docs);
    if (text->n_groups == 0)
        return rt_error_set(err, RT_MISMATCH,
                            "the teacher's and the student's tokens have no border in common: one of the two "
                            "tokenizers does not give back the text");
    return RT_OK;
}

/* ---- the map ---- */

/* A special token's namesake, or the token that ends an answer. */
static int32_t map_special(const rt_tokenizer *student, const rt_tokenizer *teacher, int32_t id,
                           rt_token_list *ids, rt_error *err)
{
    size_t size;
    const char *text = rt_tokenizer_token_bytes(teacher, id, &size);
    ids->count = 0;
    if (size && rt_tokenizer_encode(student, text, size, true, ids, err) == RT_OK && ids->count == 1 &&
        rt_tokenizer_is_special(student, ids->ids[0]))
        return ids->ids[0];
    return rt_tokenizer_is_end(teacher, id) ? rt_tokenizer_eos(student) : -1;
}

rt_status rt_across_map(int32_t **out, size_t n_teacher, const rt_tokenizer *student,
                        const rt_tokenizer *teacher, rt_error *err)
{
    rt_token_list ids = {0};
    rt_error inner = {0};
    const size_t real = rt_size_min(n_teacher, rt_tokenizer_real_size(teacher));
    int32_t *map = malloc(rt_size_max(n_teacher, 1) * sizeof *map);
    *out = map;
    if (!map)
        return rt_error_set(err, RT_NO_MEMORY, "no memory to map %zu tokens", n_teacher);
    for (size_t i = 0; i < n_teacher; i++) {
        size_t size = 0, own_size = 0;
        const char *text = i < real ? rt_tokenizer_token_bytes(teacher, (int32_t)i, &size) : "";
        map[i] = -1;
        if (i < real && rt_tokenizer_is_special(teacher, (int32_t)i)) {
            map[i] = map_special(student, teacher, (int32_t)i, &ids, &inner);
            continue;
        }
        ids.count = 0;
        if (!size || rt_tokenizer_encode(student, text, size, false, &ids, &inner) != RT_OK || !ids.count)
            continue;
        const char *own = rt_tokenizer_token_bytes(student, ids.ids[0], &own_size);
        if (own_size <= size && own_size > 0 && memcmp(own, text, own_size) == 0)
            map[i] = ids.ids[0]; /* else the student reads these bytes in another way */
    }
    rt_token_list_deinit(&ids);
    return RT_OK;
}

/* ---- dealing ---- */

rt_status rt_across_deal_init(rt_across_deal *deal, size_t tokens_max, rt_error *err)
{
    *deal = (rt_across_deal){.ids = calloc(tokens_max, sizeof *deal->ids),
                             .segments = calloc(tokens_max, sizeof *deal->segments),
                             .pairs = calloc(tokens_max, sizeof *deal->pairs),
                             .groups = calloc(tokens_max, sizeof *deal->groups),
                             .teacher_rows = calloc(tokens_max, sizeof *deal->teacher_rows),
                             .teacher_labels = calloc(tokens_max, sizeof *deal->teacher_labels)};
    if (deal->ids && deal->segments && deal->pairs && deal->groups && deal->teacher_rows &&
        deal->teacher_labels)
        return RT_OK;
    rt_across_deal_deinit(deal);
    return rt_error_set(err, RT_NO_MEMORY, "no memory for the teacher's side of %zu tokens", tokens_max);
}

void rt_across_deal_deinit(rt_across_deal *deal)
{
    free(deal->ids);
    free(deal->segments);
    free(deal->pairs);
    free(deal->groups);
    free(deal->teacher_rows);
    free(deal->teacher_labels);
    *deal = (rt_across_deal){0};
}

/* The groups of a document whose tokens begin at `at` and `at_teacher` of the batches; *row: the first of the
 * student's rows that may be its. */
static void fill_document(rt_across_deal *deal, const rt_across_text *text, size_t doc, size_t at,
                          size_t at_teacher, const rt_deal *batch, size_t *row)
{
    rt_across_rows *out = &deal->rows;
    const int32_t *labels = text->docs.ids + text->docs.begins[doc];
    for (size_t g = text->begins[doc]; g < text->begins[doc + 1]; g++) {
        const rt_aligned *group = &text->groups[g];
        const size_t predicts = at + group->student_from - 1;
        while (*row < batch->targets.n && batch->rows[*row] < predicts)
            ++*row;
        assert(*row < batch->targets.n && batch->rows[*row] == predicts);
        deal->pairs[*row] = (uint32_t)(at_teacher + group->teacher_from - 1);
        rt_aligned *to = &deal->groups[out->n_groups++];
        *to = (rt_aligned){*row, *row + (group->student_to - group->student_from), out->n_teacher, 0};
        for (size_t t = group->teacher_from; t < group->teacher_to; t++) {
            deal->teacher_rows[out->n_teacher] = (uint32_t)(at_teacher + t - 1);
            deal->teacher_labels[out->n_teacher++] = labels[t];
        }
        to->teacher_to = out->n_teacher;
    }
}

void rt_across_deal_fill(rt_across_deal *deal, const rt_across_text *text, const rt_documents *student,
                         rt_deal *batch)
{
    size_t at = 0, at_teacher = 0, row = 0;
    deal->rows = (rt_across_rows){.batch = {.ids = deal->ids, .segments = deal->segments},
                                  .pairs = deal->pairs,
                                  .groups = deal->groups,
                                  .teacher_rows = deal->teacher_rows,
                                  .teacher_labels = deal->teacher_labels};
    for (size_t i = 0; i < batch->targets.n; i++)
        deal->pairs[i] = RT_ACROSS_ALONE;
    for (size_t i = 0; i < batch->n_documents; i++) {
        const size_t doc = batch->documents[i], begin = text->docs.begins[doc],
                     n = text->docs.begins[doc + 1] - begin;
        memcpy(deal->ids + at_teacher, text->docs.ids + begin, n * sizeof *deal->ids);
        deal->segments[deal->rows.batch.n_segments++] = (rt_segment){.begin = at_teacher, .count = n};
        fill_document(deal, text, doc, at, at_teacher, batch, &row);
        at += student->begins[doc + 1] - student->begins[doc];
        at_teacher += n;
    }
    deal->rows.batch.n_tokens =
        rt_deal_pad(deal->ids, deal->segments, &deal->rows.batch.n_segments, at_teacher);
    batch->targets.across = &deal->rows;
}
