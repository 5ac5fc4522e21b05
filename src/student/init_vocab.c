/* student/init_vocab.c - see init_vocab.h. */
#include "student/init_vocab.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "tensor/quant.h"

typedef struct pieces { /* of every token of the new vocabulary, end to end */
    int32_t *ids;
    size_t *begins; /* [n + 1] */
    size_t n;
} pieces;

static rt_status cut(rt_token_list *out, const rt_tokenizer *tokenizer, int32_t id,
                     const rt_tokenizer *file_tokenizer, rt_error *err)
{
    size_t size;
    const char *text = rt_tokenizer_token_bytes(tokenizer, id, &size);
    const size_t before = out->count;
    const bool special = rt_tokenizer_is_special(tokenizer, id);
    if (rt_tokenizer_encode(file_tokenizer, text, size, special, out, err) != RT_OK)
        return err->status;
    const bool namesake =
        out->count == before + 1 && rt_tokenizer_is_special(file_tokenizer, out->ids[before]);
    if (special && !namesake && rt_tokenizer_is_end(tokenizer, id) && rt_tokenizer_eos(file_tokenizer) >= 0) {
        out->ids[before] = rt_tokenizer_eos(file_tokenizer); /* ends an answer, under another name */
        out->count = before + 1;
    }
    return RT_OK;
}

static rt_status cut_all(pieces *out, size_t n, const rt_tokenizer *tokenizer,
                         const rt_tokenizer *file_tokenizer, rt_error *err)
{
    rt_token_list ids = {0};
    rt_status status = RT_OK;
    *out = (pieces){.n = n, .begins = calloc(n + 1, sizeof *out->begins)};
    if (!out->begins)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the pieces of %zu tokens", n);
    for (size_t i = 0; i < n && status == RT_OK; i++) {
        if (i < rt_tokenizer_real_size(tokenizer))
            status = cut(&ids, tokenizer, (int32_t)i, file_tokenizer, err);
        out->begins[i + 1] = ids.count;
    }
    out->ids = ids.ids;
    return status;
}

/* out [cols] += the row's values. */
static void add_row(double *out, const float *rows, size_t row, size_t cols)
{
    for (size_t i = 0; i < cols; i++)
        out[i] += (double)rows[row * cols + i];
}

static void fill_rows(float *out, const pieces *p, const float *rows, size_t n_rows, size_t cols,
                      double *mean, double *sum)
{
    memset(mean, 0, cols * sizeof *mean);
    for (size_t r = 0; r < n_rows; r++)
        add_row(mean, rows, r, cols);
    for (size_t i = 0; i < cols; i++)
        mean[i] /= (double)n_rows;
    for (size_t t = 0; t < p->n; t++) {
        size_t n = 0;
        memset(sum, 0, cols * sizeof *sum);
        for (size_t k = p->begins[t]; k < p->begins[t + 1]; k++) {
            if (p->ids[k] < 0 || (size_t)p->ids[k] >= n_rows)
                continue;
            add_row(sum, rows, (size_t)p->ids[k], cols);
            n++;
        }
        for (size_t i = 0; i < cols; i++)
            out[t * cols + i] = (float)(n ? sum[i] / (double)n : mean[i]);
    }
}

static rt_status fill_global(float *values, const rt_param *param, const pieces *p, const rt_weights *weights,
                             const rt_model_config *file_config, rt_global global, rt_error *err)
{
    rt_canonical tensor;
    if (rt_canonical_global(&tensor, weights, file_config, global, err) != RT_OK)
        return err->status;
    size_t count = 0;
    const bool fits = tensor.cols == param->cols && rt_size_mul(tensor.rows, tensor.cols, &count) &&
                      count <= SIZE_MAX / sizeof(float);
    float *rows = fits ? malloc(count * sizeof *rows) : NULL;
    double *sums = calloc(2 * rt_size_max(param->cols, 1), sizeof *sums);
    rt_status status = RT_OK;
    if (!fits)
        status = rt_error_set(err, RT_MISMATCH, "%s: the embedding's rows are %zu wide, the student's %zu",
                              rt_weights_path(weights), tensor.cols, param->cols);
    else if (!rows || !sums)
        status = rt_error_set(err, RT_NO_MEMORY, "no memory for an embedding of %zu rows", tensor.rows);
    if (status == RT_OK) {
        float *out = values + param->offset;
        bool finite = true;
        rt_dequantise(rows, tensor.data, tensor.dtype, count);
        fill_rows(out, p, rows, tensor.rows, tensor.cols, sums, sums + param->cols);
        for (size_t i = 0; i < param->count; i++)
            finite = finite && isfinite(out[i]);
        if (!finite)
            status = rt_error_set(err, RT_NOT_FINITE, "%s: the embedding holds a NaN or an infinity",
                                  rt_weights_path(weights));
    }
    free(rows);
    free(sums);
    free(tensor.owned);
    return status;
}

rt_status rt_vocab_start(float *values, const rt_layout *layout, const rt_tokenizer *tokenizer,
                         const rt_weights *weights, const rt_model_config *file_config,
                         const rt_tokenizer *file_tokenizer, rt_error *err)
{
    static const rt_global globals[] = {RT_GLOBAL_EMBED, RT_GLOBAL_HEAD};
    pieces p = {0};
    const rt_param *embed = rt_layout_global(layout, RT_GLOBAL_EMBED);
    rt_status status = cut_all(&p, embed->rows, tokenizer, file_tokenizer, err);
    for (size_t g = 0; g < 2 && status == RT_OK; g++) {
        const rt_param *param = rt_layout_global(layout, globals[g]);
        if (param)
            status = fill_global(values, param, &p, weights, file_config, globals[g], err);
    }
    free(p.ids);
    free(p.begins);
    return status;
}
