/* model/shortlist.c - see shortlist.h. */
#include "model/shortlist.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/size.h"
#include "base/text.h"
#include "model/load_parts.h"
#include "model/pass.h"

enum { SHORTLIST_BYTES_MAX = 16 << 20 };

/* ---- which ids ---- */

typedef struct counted {
    uint64_t count;
    uint32_t id;
} counted;

static int by_count(const void *a, const void *b)
{
    const counted *x = a, *y = b;
    if (x->count != y->count)
        return x->count < y->count ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

static int by_id(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

rt_status rt_shortlist_count(rt_shortlist *out, const int32_t *ids, const uint8_t *mask, size_t n,
                             size_t n_vocab, size_t most, rt_error *err)
{
    *out = (rt_shortlist){0};
    if (most == 0 || most > n_vocab)
        return rt_error_set(err, RT_INVALID,
                            "a shortlist of %zu ids is not within 1 and the %zu that there are", most,
                            n_vocab);
    counted *all = calloc(n_vocab, sizeof *all);
    uint32_t *kept = calloc(most, sizeof *kept);
    rt_status status =
        all && kept ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for a shortlist of %zu ids", most);
    for (size_t i = 0; i < n_vocab && status == RT_OK; i++)
        all[i].id = (uint32_t)i;
    for (size_t i = 0; i < n && status == RT_OK; i++) {
        if (ids[i] < 0 || (size_t)ids[i] >= n_vocab)
            status = rt_error_set(err, RT_INVALID, "token %zu is id %d, and there are %zu", i, (int)ids[i],
                                  n_vocab);
        else if (!mask || mask[i])
            all[ids[i]].count++;
    }
    if (status == RT_OK) {
        qsort(all, n_vocab, sizeof *all, by_count);
        for (size_t i = 0; i < most; i++)
            kept[i] = all[i].id;
        qsort(kept, most, sizeof *kept, by_id);
        *out = (rt_shortlist){kept, most, n_vocab};
        kept = NULL;
    }
    free(all);
    free(kept);
    return status;
}

void rt_shortlist_deinit(rt_shortlist *list)
{
    free(list->ids);
    *list = (rt_shortlist){0};
}

/* ---- its file ---- */

rt_status rt_shortlist_write(const rt_shortlist *list, const char *path, rt_error *err)
{
    rt_text text = {0};
    rt_text_printf(&text,
                   "{\"format\": \"retort-shortlist\", \"version\": 1, \"vocabulary\": %zu, \"ids\": [",
                   list->n_vocab);
    for (size_t i = 0; i < list->n; i++)
        rt_text_printf(&text, i ? ", %u" : "%u", (unsigned)list->ids[i]);
    rt_text_puts(&text, "]}\n");
    const rt_status status = text.failed
                                 ? rt_error_set(err, RT_NO_MEMORY, "%.200s: no memory to write it", path)
                                 : rt_file_write(path, text.data, text.size, err);
    rt_text_deinit(&text);
    return status;
}

static rt_status take(rt_shortlist *out, const json_t *root, const char *path, rt_error *err)
{
    const char *format = json_string_value(json_object_get(root, "format"));
    const json_t *ids = json_object_get(root, "ids"), *id;
    const json_int_t vocabulary = json_integer_value(json_object_get(root, "vocabulary"));
    const size_t n = json_array_size(ids);
    if (!format || strcmp(format, "retort-shortlist") != 0 ||
        json_integer_value(json_object_get(root, "version")) != 1)
        return rt_error_set(err, RT_CORRUPT, "%.200s: not a shortlist of version 1 ('retort shortlist')",
                            path);
    if (n == 0 || vocabulary <= 0 || vocabulary > INT32_MAX || n > (size_t)vocabulary)
        return rt_error_set(err, RT_CORRUPT, "%.200s: %zu ids of a vocabulary of %lld", path, n,
                            (long long)vocabulary);
    *out = (rt_shortlist){calloc(n, sizeof *out->ids), n, (size_t)vocabulary};
    if (!out->ids)
        return rt_error_set(err, RT_NO_MEMORY, "%.200s: no memory for %zu ids", path, n);
    size_t i;
    json_int_t before = -1;
    json_array_foreach(ids, i, id)
    {
        const json_int_t value = json_is_integer(id) ? json_integer_value(id) : -1;
        if (value <= before || value >= vocabulary)
            return rt_error_set(err, RT_CORRUPT,
                                "%.200s: ids[%zu] is not an id above the one before it and below %lld", path,
                                i, (long long)vocabulary);
        out->ids[i] = (uint32_t)value;
        before = value;
    }
    return RT_OK;
}

rt_status rt_shortlist_parse(rt_shortlist *out, const json_t *json, const char *path, rt_error *err)
{
    *out = (rt_shortlist){0};
    const rt_status status = take(out, json, path, err);
    if (status != RT_OK)
        rt_shortlist_deinit(out);
    return status;
}

rt_status rt_shortlist_read(rt_shortlist *out, const char *path, rt_error *err)
{
    *out = (rt_shortlist){0};
    json_t *root;
    if (rt_json_read(&root, path, SHORTLIST_BYTES_MAX, err) != RT_OK)
        return err->status;
    const rt_status status = rt_shortlist_parse(out, root, path, err);
    json_decref(root);
    return status;
}

/* ---- the head ---- */

/* Rows of the file's matrix one below the other, as blocks. */
static rt_status pack_rows(rt_proj *out, rt_model *model, const rt_canonical *from, const rt_shortlist *list,
                           rt_error *err)
{
    size_t row_bytes;
    rt_qmat *mat;
    (void)rt_dtype_bytes(&row_bytes, from->dtype, from->cols);
    unsigned char *rows = malloc(list->n * row_bytes);
    if (!rows)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a head of %zu rows", list->n);
    for (size_t i = 0; i < list->n; i++)
        memcpy(rows + i * row_bytes, (const unsigned char *)from->data + list->ids[i] * row_bytes, row_bytes);
    rt_status status = rt_qmat_pack(&mat, rows, from->dtype, list->n, from->cols, model->pool, err);
    free(rows);
    if (status == RT_OK && (status = rt_model_own(model, mat, err)) == RT_OK) {
        out->packed[0] = mat;
        out->n_packed = 1;
    }
    return status;
}

/* The arena's bound is twice what all parameters take, so there is room for a part of them again. */
static rt_status copy_rows(rt_proj *out, rt_model *model, const rt_shortlist *list, rt_error *err)
{
    const size_t row_bytes = model->head.cols * rt_dtype_get(model->act)->block_bytes;
    unsigned char *w = rt_arena_push_raw(&model->arena, list->n, row_bytes);
    if (!w)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a head of %zu rows", list->n);
    for (size_t i = 0; i < list->n; i++)
        memcpy(w + i * row_bytes, (const unsigned char *)model->head.w + list->ids[i] * row_bytes, row_bytes);
    out->w = w;
    return RT_OK;
}

rt_status rt_shortlist_fits(const rt_shortlist *list, const rt_model *model, rt_error *err)
{
    const size_t n_vocab = model->config.n_vocab;
    if (list->n_vocab != n_vocab)
        return rt_error_set(
            err, RT_MISMATCH,
            "the shortlist is of a vocabulary of %zu ids and the draft has %zu: make it for this "
            "draft",
            list->n_vocab, n_vocab);
    return RT_OK;
}

rt_status rt_model_shorten_head(rt_model *model, const rt_weights *weights, const rt_shortlist *list,
                                rt_error *err)
{
    assert(!model->head_ids && !model->stream);
    if (rt_shortlist_fits(list, model, err) != RT_OK)
        return err->status;
    rt_proj head = {.rows = list->n, .cols = model->head.cols};
    rt_canonical from = {0};
    rt_status status;
    if (rt_proj_is_packed(&model->head)) {
        status = rt_canonical_global(&from, weights, &model->config,
                                     model->config.tied ? RT_GLOBAL_EMBED : RT_GLOBAL_HEAD, err);
        if (status == RT_OK)
            status = pack_rows(&head, model, &from, list, err);
        free(from.owned);
    } else {
        status = copy_rows(&head, model, list, err);
    }
    if (status != RT_OK)
        return status;
    model->head_ids = malloc(list->n * sizeof *model->head_ids);
    if (!model->head_ids)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a head of %zu rows", list->n);
    memcpy(model->head_ids, list->ids, list->n * sizeof *list->ids);
    model->head = head;
    return RT_OK;
}
