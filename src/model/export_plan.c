/* model/export_plan.c - what tensors a file holds, and their bytes.
 *
 * canonical.c read the other way round: the same table of names, fused parts put together, rows
 * permuted again, Conv1D weights turned. */
#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "model/export_parts.h"
#include "model/families.h"
#include "tensor/quant.h"

static rt_export_item *add(rt_export_plan *plan)
{
    if (plan->count == plan->capacity) {
        const size_t capacity = plan->capacity ? 2 * plan->capacity : 64;
        rt_export_item *list = realloc(plan->list, capacity * sizeof *list);
        if (!list)
            return NULL;
        plan->list = list;
        plan->capacity = capacity;
    }
    rt_export_item *item = &plan->list[plan->count++];
    *item = (rt_export_item){.n_parts = 1};
    return item;
}

static bool is_norm(size_t layer, int which)
{
    if (layer == RT_NO_LAYER)
        return which == RT_GLOBAL_NORM;
    return which == RT_ROLE_NORM1 || which == RT_ROLE_NORM2 || which == RT_ROLE_NORM1_POST ||
           which == RT_ROLE_NORM2_POST || which == RT_ROLE_Q_NORM || which == RT_ROLE_K_NORM;
}

/* A folder of the family holds w where the model multiplies by 1 + w; GGUF holds the factor. */
static float norm_shift(const rt_model_config *config, const rt_family *family, bool gguf)
{
    const bool wanted = family->norm_plus_one && !gguf;
    return wanted == config->norm_plus_one ? 0 : wanted ? -1 : 1;
}

static bool add_global(rt_export_plan *plan, const rt_model_config *config, bool gguf, rt_global global)
{
    const rt_family *family = rt_family_of(config);
    size_t rows, cols;
    rt_global_shape(config, global, &rows, &cols);
    if (rows == 0)
        return true;
    rt_export_item *item = add(plan);
    if (!item)
        return false;
    item->layer = RT_NO_LAYER;
    item->which[0] = (int)global;
    item->rows = rows;
    item->cols = cols;
    if (is_norm(item->layer, (int)global))
        item->shift = norm_shift(config, family, gguf);
    if (gguf)
        (void)snprintf(item->name, sizeof item->name, "%s", family->gguf_globals[global]);
    else
        rt_global_hf_name(item->name, config, global);
    return true;
}

static bool is_fused_follower(rt_role role)
{
    return role == RT_ROLE_K || role == RT_ROLE_V || role == RT_ROLE_K_BIAS || role == RT_ROLE_V_BIAS;
}

static bool add_role(rt_export_plan *plan, const rt_model_config *config, bool gguf, size_t layer, int which)
{
    const rt_role role = rt_role_of(which);
    const rt_family *family = rt_family_of(config);
    const bool fused = gguf ? family->gguf_fused_qkv : family->conv1d;
    size_t rows, cols;
    rt_role_shape(config, layer, which, &rows, &cols);
    const bool stacked = gguf && rt_role_is_expert(role);
    if (rows == 0 || (fused && is_fused_follower(role)) || (stacked && rt_role_expert(which) > 0))
        return true;
    rt_export_item *item = add(plan);
    if (!item)
        return false;
    item->layer = layer;
    item->which[0] = which;
    item->rows = rows;
    item->cols = cols;
    item->stacked = stacked;
    if (stacked)
        item->n_parts = config->experts.count;
    if (rt_rope_rows_are_pairs(config, gguf))
        item->pairs = rt_rope_rows_of(config, role);
    item->turned = !gguf && family->conv1d && cols != 0;
    if (fused && (role == RT_ROLE_Q || role == RT_ROLE_Q_BIAS)) {
        const bool bias = role == RT_ROLE_Q_BIAS;
        item->n_parts = 3;
        item->which[1] = bias ? RT_ROLE_K_BIAS : RT_ROLE_K;
        item->which[2] = bias ? RT_ROLE_V_BIAS : RT_ROLE_V;
    }
    if (is_norm(layer, (int)role))
        item->shift = norm_shift(config, family, gguf);
    if (gguf)
        (void)snprintf(item->name, sizeof item->name, "blk.%zu.%s", layer, family->gguf_roles[role]);
    else
        rt_role_hf_name(item->name, config, layer, which);
    return true;
}

rt_status rt_export_plan_build(rt_export_plan *plan, const rt_model_config *config, bool gguf, rt_error *err)
{
    const rt_family *family = rt_family_of(config);
    const char *const *names = gguf ? family->gguf_roles : family->hf_roles;
    bool room = true;
    *plan = (rt_export_plan){0};
    for (size_t layer = 0; layer < config->n_layers; layer++)
        for (int role = 0; role < (int)RT_ROLE_COUNT; role++) {
            size_t rows, cols;
            rt_role_shape(config, layer, role, &rows, &cols);
            if (rows && !names[role])
                return rt_error_set(err, RT_UNSUPPORTED,
                                    "the family %s has no name for a tensor of role %d there", config->family,
                                    role);
        }
    for (rt_global global = 0; global < RT_GLOBAL_NORM; global++)
        room = room && add_global(plan, config, gguf, global);
    for (size_t layer = 0; layer < config->n_layers; layer++)
        for (int which = 0; which < rt_role_span(config); which++)
            if (which < (int)RT_ROLE_COUNT || rt_role_is_expert(rt_role_of(which)))
                room = room && add_role(plan, config, gguf, layer, which);
    for (rt_global global = RT_GLOBAL_NORM; global < RT_GLOBAL_COUNT; global++)
        room = room && add_global(plan, config, gguf, global);
    if (room)
        return RT_OK;
    rt_export_plan_free(plan);
    return rt_error_set(err, RT_NO_MEMORY, "no memory for a list of tensors");
}

void rt_export_plan_free(rt_export_plan *plan)
{
    free(plan->list);
    *plan = (rt_export_plan){0};
}

int rt_export_which(const rt_export_item *item, size_t part)
{
    return item->stacked ? rt_expert_role(rt_role_of(item->which[0]), part) : item->which[part];
}

size_t rt_export_shape(const rt_export_item *item, size_t shape[3])
{
    if (item->stacked) {
        shape[0] = item->n_parts;
        shape[1] = item->rows;
        shape[2] = item->cols;
        return 3;
    }
    const size_t rows = item->rows * item->n_parts;
    if (item->cols == 0) {
        shape[0] = rows;
        return 1;
    }
    shape[0] = item->turned ? item->cols : rows;
    shape[1] = item->turned ? rows : item->cols;
    return 2;
}

void rt_export_note(const rt_export_options *options, const char *fmt, ...)
{
    char text[512];
    va_list args;
    if (!options->note)
        return;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    options->note(options->note_context, text);
}

/* --- bytes --- */

enum { PIECE_FLOATS = 1 << 18 }; /* values converted between two writes: 1 MiB of float32 */

/* A part as rows of equal size: a vector is one row, or, where its values are permuted, a column. */
typedef struct piece {
    const rt_export_item *item;
    const unsigned char *in;
    rt_dtype from;
    size_t rows, cols, in_row_bytes, out_row_bytes;
    size_t begin;       /* first row of the piece */
    unsigned char *out; /* of the piece */
    float *scratch;     /* a row for each thread */
    int failed;         /* 1: not finite, 2: too large for float16 */
} piece;

/* Row of the file's order to row of the canonical order. */
static size_t source_row(const piece *p, size_t row)
{
    return p->item->pairs.count ? rt_rope_rows_of_pair(&p->item->pairs, row) : row;
}

static void check_values(piece *p, const float *x, size_t n)
{
    float largest = 0;
    bool nan = false;
    for (size_t i = 0; i < n; i++) {
        largest = fmaxf(largest, fabsf(x[i]));
        nan |= isnan(x[i]);
    }
    const int failed = nan || isinf(largest) ? 1 : p->item->dtype == RT_F16 && largest > 65504.0f ? 2 : 0;
    if (failed)
        __atomic_store_n(&p->failed, failed, __ATOMIC_RELAXED);
}

static void convert_row(void *context, size_t index, unsigned thread)
{
    piece *p = context;
    const unsigned char *in = p->in + source_row(p, p->begin + index) * p->in_row_bytes;
    unsigned char *out = p->out + index * p->out_row_bytes;
    if (p->from == p->item->dtype && p->item->shift == 0) {
        memcpy(out, in, p->out_row_bytes);
        return;
    }
    float *x = p->scratch + (size_t)thread * p->cols;
    rt_dequantise(x, in, p->from, p->cols);
    for (size_t i = 0; i < p->cols && p->item->shift != 0; i++)
        x[i] += p->item->shift;
    check_values(p, x, p->cols);
    rt_quantise(out, x, p->item->dtype, p->cols);
}

static rt_status why(const piece *p, rt_error *err)
{
    if (p->failed == 2)
        return rt_error_set(err, RT_NOT_FINITE,
                            "the tensor %s holds values above 65504, which F16 cannot; use BF16",
                            p->item->name);
    return rt_error_set(err, RT_NOT_FINITE,
                        "the tensor %s holds values that are not finite; nothing was written", p->item->name);
}

static rt_status emit_rows(piece *p, rt_pool *pool, rt_export_sink sink, void *sink_context, rt_error *err)
{
    const size_t step = rt_size_max(PIECE_FLOATS / p->cols, 1);
    for (p->begin = 0; p->begin < p->rows; p->begin += step) {
        const size_t n = rt_size_min(step, p->rows - p->begin);
        if (pool)
            rt_pool_run(pool, n, convert_row, p);
        for (size_t i = 0; !pool && i < n; i++)
            convert_row(p, i, 0);
        if (p->failed)
            return why(p, err);
        if (sink(sink_context, p->out, n * p->out_row_bytes, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

/* Conv1D: the parts stand side by side, so they are all made float32 first and then written turned. */
static rt_status emit_turned(const rt_export_item *item, const rt_export_source *source, rt_export_sink sink,
                             void *sink_context, rt_error *err)
{
    const size_t rows = item->rows, cols = item->cols, all_rows = rows * item->n_parts;
    const size_t row_bytes = all_rows * rt_dtype_get(item->dtype)->block_bytes;
    float *values = malloc(all_rows * cols * sizeof *values), *row = malloc(all_rows * sizeof *row);
    unsigned char *out = malloc(row_bytes);
    rt_status status =
        values && row && out ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory to turn %s", item->name);
    for (size_t part = 0; part < item->n_parts && status == RT_OK; part++) {
        rt_canonical tensor = {0};
        status = source->tensor(source->context, &tensor, item->layer, item->which[part], err);
        if (status == RT_OK)
            rt_dequantise(values + part * rows * cols, tensor.data, tensor.dtype, rows * cols);
        free(tensor.owned);
    }
    piece p = {.item = item};
    for (size_t c = 0; c < cols && status == RT_OK; c++) {
        for (size_t r = 0; r < all_rows; r++)
            row[r] = values[r * cols + c];
        check_values(&p, row, all_rows);
        rt_quantise(out, row, item->dtype, all_rows);
        status = p.failed ? why(&p, err) : sink(sink_context, out, row_bytes, err);
    }
    free(values);
    free(row);
    free(out);
    return status;
}

static rt_status emit_part(const rt_export_item *item, const rt_canonical *tensor, rt_pool *pool,
                           rt_export_sink sink, void *sink_context, rt_error *err)
{
    piece p = {
        .item = item, .in = tensor->data, .from = tensor->dtype, .rows = item->rows, .cols = item->cols};
    if (p.cols == 0) {
        p.rows = item->pairs.count ? item->rows : 1;
        p.cols = item->pairs.count ? 1 : item->rows;
    }
    if (!rt_dtype_bytes(&p.in_row_bytes, p.from, p.cols) ||
        !rt_dtype_bytes(&p.out_row_bytes, item->dtype, p.cols))
        return rt_error_set(err, RT_INVALID, "the tensor %s: rows of %zu are no whole blocks", item->name,
                            p.cols);
    const size_t n = rt_size_min(rt_size_max(PIECE_FLOATS / p.cols, 1), p.rows);
    const size_t threads = pool ? rt_pool_threads(pool) : 1;
    p.out = malloc(n * p.out_row_bytes);
    p.scratch = malloc(threads * p.cols * sizeof *p.scratch);
    const rt_status status = p.out && p.scratch
                                 ? emit_rows(&p, pool, sink, sink_context, err)
                                 : rt_error_set(err, RT_NO_MEMORY, "no memory to write %s", item->name);
    free(p.out);
    free(p.scratch);
    return status;
}

rt_status rt_export_emit(const rt_export_item *item, const rt_export_source *source, rt_pool *pool,
                         rt_export_sink sink, void *sink_context, rt_error *err)
{
    if (item->turned)
        return emit_turned(item, source, sink, sink_context, err);
    rt_status status = RT_OK;
    for (size_t part = 0; part < item->n_parts && status == RT_OK; part++) {
        rt_canonical tensor = {0};
        status = source->tensor(source->context, &tensor, item->layer, rt_export_which(item, part), err);
        if (status == RT_OK) {
            assert(tensor.rows == item->rows && tensor.cols == item->cols);
            status = emit_part(item, &tensor, pool, sink, sink_context, err);
        }
        free(tensor.owned);
    }
    return status;
}
