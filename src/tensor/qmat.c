/* tensor/qmat.c - see qmat.h; the layout is described in tensor/cpu/qmat_format.h.
 *
 * The product walks the strips of 16 matrix rows and, for each strip, the tiles of activation rows:
 * a strip (6 to 26 KB for a model's usual widths) stays in the first-level cache while tiles pass, and
 * activations are taken in blocks that stay in the second level.  With one activation row the walk is
 * one sequential read of the matrix. */
#include "tensor/qmat.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "tensor/cpu.h"
#include "tensor/cpu/qmat_format.h"
#include "tensor/qmat_memory.h"

enum { ROWS = RT_QSTRIP_ROWS, GROUP = RT_QGROUP, TILE = RT_QTILE_ROWS, ACT_BLOCK_BYTES = 256 * 1024 };

struct rt_qmat {
    const rt_qformat *format;
    rt_qformat_id id;
    size_t rows, cols, groups, strips;
    size_t scales_at, supers_at, strip_bytes; /* within a strip */
    uint8_t *data;                            /* [strips] */
    rt_qchunk *chunk;                         /* holds data */
};

static const rt_qformat formats[RT_QFORMATS] = {
#define FORMAT_ROW(name, bits, halves, offset, k, shift) {RT_##name, bits, halves, offset, k, shift},
    RT_QFORMAT_MAP(FORMAT_ROW)
#undef FORMAT_ROW
};

static bool find_format(rt_qformat_id *out, rt_dtype dtype)
{
    for (int i = 0; i < RT_QFORMATS; i++) {
        if (formats[i].dtype == dtype) {
            *out = (rt_qformat_id)i;
            return true;
        }
    }
    return false;
}

static const rt_qmat_kernels *kernels(void)
{
#if defined(__x86_64__)
    switch (rt_cpu_level()) {
    case RT_CPU_AVX512BF16:
        return &rt_qmat_kernels_avx512bf16;
    case RT_CPU_AVX512:
        return &rt_qmat_kernels_avx512;
    case RT_CPU_AVX2:
        return &rt_qmat_kernels_avx2;
    default:
        break;
    }
#endif
    return &rt_qmat_kernels_ref;
}

/* Sizes of a matrix; false when they do not fit a size_t or the shape is not whole blocks. */
static bool plan(rt_qmat *mat, size_t *bytes, rt_dtype dtype, size_t rows, size_t cols)
{
    rt_qformat_id id;
    size_t file_bytes;
    if (!find_format(&id, dtype) || rows == 0 || cols == 0 ||
        cols % rt_dtype_get(dtype)->block_elements != 0 || cols > SIZE_MAX / 64 || rows > SIZE_MAX - ROWS)
        return false;
    const rt_qformat *f = &formats[id];
    const size_t groups = cols / GROUP, strips = rt_size_ceil_div(rows, ROWS);
    const size_t scales_at = groups * rt_qcode_bytes(f), supers_at = scales_at + groups * rt_qscale_bytes(f);
    const size_t supers = f->k ? rt_size_ceil_div(groups, RT_QSUPER_GROUPS) * rt_qsuper_bytes(f) : 0;
    const size_t strip_bytes = rt_size_round_up(supers_at + supers, 64);
    *mat = (rt_qmat){f, id, rows, cols, groups, strips, scales_at, supers_at, strip_bytes, NULL, NULL};
    return rt_size_mul(rows, cols, &file_bytes) && rt_size_mul(strips, strip_bytes, bytes);
}

bool rt_qmat_can_pack(rt_dtype dtype, size_t rows, size_t cols)
{
    rt_qmat mat;
    size_t bytes;
    return plan(&mat, &bytes, dtype, rows, cols);
}

size_t rt_qmat_packed_bytes(rt_dtype dtype, size_t rows, size_t cols)
{
    rt_qmat mat;
    size_t bytes;
    return plan(&mat, &bytes, dtype, rows, cols) ? bytes : 0;
}

typedef struct pack_job {
    const rt_qmat *mat;
    const uint8_t *blocks;
    size_t row_bytes, strips_a_task;
} pack_job;

static void pack_task(void *context, size_t index, unsigned thread)
{
    (void)thread;
    const pack_job *job = context;
    const rt_qmat *mat = job->mat;
    const size_t end = rt_size_min(mat->strips, (index + 1) * job->strips_a_task);
    for (size_t s = index * job->strips_a_task; s < end; s++) {
        uint8_t *strip = mat->data + s * mat->strip_bytes;
        const size_t n_rows = rt_size_min(ROWS, mat->rows - s * ROWS);
        if (n_rows < ROWS)
            memset(strip, 0, mat->strip_bytes);
        rt_qstrip_pack(strip, strip + mat->scales_at, strip + mat->supers_at, mat->format,
                       job->blocks + s * ROWS * job->row_bytes, job->row_bytes, n_rows, mat->groups);
    }
}

rt_status rt_qmat_pack_into(rt_qmat **out, void *room, const void *blocks, rt_dtype dtype, size_t rows,
                            size_t cols, rt_pool *pool, rt_error *err)
{
    *out = NULL;
    rt_qmat planned;
    size_t bytes;
    if (!plan(&planned, &bytes, dtype, rows, cols))
        return rt_error_set(err, RT_UNSUPPORTED,
                            "a %zu x %zu matrix of type %s cannot be packed for integer products", rows, cols,
                            rt_dtype_get(dtype)->name);
    rt_qmat *mat = malloc(sizeof *mat);
    planned.data = room ? room : rt_qmemory_acquire(bytes, &planned.chunk);
    if (!mat || !planned.data) {
        free(mat);
        rt_qmemory_release(planned.chunk);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a packed matrix of %zu bytes", bytes);
    }
    *mat = planned;
    pack_job job = {.mat = mat, .blocks = blocks, .strips_a_task = 1 + (256 * 1024) / mat->strip_bytes};
    (void)rt_dtype_bytes(&job.row_bytes, dtype, cols);
    rt_pool_run(pool, rt_size_ceil_div(mat->strips, job.strips_a_task), pack_task, &job);
    *out = mat;
    return RT_OK;
}

rt_status rt_qmat_pack(rt_qmat **out, const void *blocks, rt_dtype dtype, size_t rows, size_t cols,
                       rt_pool *pool, rt_error *err)
{
    return rt_qmat_pack_into(out, NULL, blocks, dtype, rows, cols, pool, err);
}

void rt_qmat_free(rt_qmat *mat)
{
    if (!mat)
        return;
    rt_qmemory_release(mat->chunk);
    free(mat);
}

size_t rt_qmat_rows(const rt_qmat *mat) { return mat->rows; }
size_t rt_qmat_cols(const rt_qmat *mat) { return mat->cols; }
size_t rt_qmat_bytes(const rt_qmat *mat) { return mat->strips * mat->strip_bytes; }

static rt_qstrip strip_of(const rt_qmat *mat, size_t index)
{
    const uint8_t *data = mat->data + index * mat->strip_bytes;
    return (rt_qstrip){data, data + mat->scales_at, data + mat->supers_at, mat->groups, false};
}

void rt_qmat_row(const rt_qmat *mat, size_t row, float *out)
{
    assert(row < mat->rows);
    const rt_qstrip strip = strip_of(mat, row / ROWS);
    rt_qstrip_row(out, &strip, mat->format, row % ROWS);
}

/* How many rows the tile that begins at row i has: 16, then 8, then the rest in one. */
static size_t tile_rows(size_t i, size_t m)
{
    const size_t left = m - i;
    return left >= TILE ? TILE : left >= TILE / 2 ? TILE / 2 : left;
}

/* The planes of m x groups activations, at the tile that begins at row i.  Codes come last: the others
 * have 4 bytes an entry, so all are aligned when qact is. */
static rt_qact_out act_at(void *qact, size_t m, size_t groups, size_t i)
{
    const size_t entries = m * groups, at = i * groups;
    uint8_t *base = qact;
    return (rt_qact_out){(int8_t *)(base + 16 * entries + GROUP * at), (float *)(void *)base + at,
                         (float *)(void *)(base + 4 * entries) + at,
                         (int32_t *)(void *)(base + 8 * entries) + at,
                         (int32_t *)(void *)(base + 12 * entries) + at};
}

size_t rt_qact_bytes(size_t m, size_t cols)
{
    return rt_size_round_up(m * (cols / GROUP) * (GROUP + 16), 64);
}

void rt_qact_quantise_rows(void *qact, const float *x, size_t ldx, size_t m, size_t cols, size_t row_begin,
                           size_t row_end)
{
    assert(row_begin % TILE == 0 && (row_end % TILE == 0 || row_end == m));
    const rt_qmat_kernels *k = kernels();
    const size_t groups = cols / GROUP;
    for (size_t i = row_begin; i < row_end;) {
        const size_t rows = tile_rows(i, m);
        rt_qact_out out = act_at(qact, m, groups, i);
        for (size_t r = 0; r < rows; r++, i++) {
            k->quantise_row(&out, rows, x + i * ldx, groups);
            out.codes += GROUP;
            out.scales++, out.scaled_sums++, out.neg_sums++, out.neg_half_sums++;
        }
    }
}

void rt_qact_quantise(void *qact, const float *x, size_t ldx, size_t m, size_t cols)
{
    rt_qact_quantise_rows(qact, x, ldx, m, cols, 0, m);
}

typedef struct product {
    float *y;
    size_t ldy, m;
    const rt_qmat *mat;
    void *qact;
    rt_qtile_fn tile;
    bool add;
} product;

/* The last strip when it has fewer than 16 rows: through a buffer, so that kernels store whole vectors. */
static void tail_tile(const product *p, size_t row, const rt_qstrip *strip, const rt_qact_tile *tile,
                      size_t i)
{
    float sums[TILE * ROWS];
    p->tile(sums, ROWS, strip, tile, false);
    for (size_t t = 0; t < tile->rows; t++) {
        float *y = p->y + (i + t) * p->ldy + row;
        for (size_t r = 0; r < p->mat->rows - row; r++)
            y[r] = p->add ? y[r] + sums[t * ROWS + r] : sums[t * ROWS + r];
    }
}

/* One strip with the activation rows [i, end). */
static void strip_product(const product *p, size_t row, size_t i, size_t end)
{
    rt_qstrip strip = strip_of(p->mat, row / ROWS);
    strip.prefetch = true;
    while (i < end) {
        const rt_qact_out at = act_at(p->qact, p->m, p->mat->groups, i);
        const rt_qact_tile tile = {at.codes,    at.scales,        at.scaled_sums,
                                   at.neg_sums, at.neg_half_sums, tile_rows(i, p->m)};
        if (row + ROWS <= p->mat->rows)
            p->tile(p->y + i * p->ldy + row, p->ldy, &strip, &tile, p->add);
        else
            tail_tile(p, row, &strip, &tile, i);
        i += tile.rows;
        strip.prefetch = false;
    }
}

void rt_qmat_mul(float *y, size_t ldy, const rt_qmat *mat, size_t row_begin, size_t row_end, const void *qact,
                 size_t m, bool add)
{
    assert(row_begin % ROWS == 0 && row_end <= mat->rows && (row_end % ROWS == 0 || row_end == mat->rows));
    /* the planes are only read here; act_at serves the writer too */
    const product p = {y, ldy, m, mat, (void *)(uintptr_t)qact, kernels()->tile[mat->id], add};
    const size_t block = rt_size_max(TILE, ACT_BLOCK_BYTES / (mat->groups * (GROUP + 12)) / TILE * TILE);
    for (size_t i = 0; i < m; i += block) {
        for (size_t row = row_begin; row < row_end; row += ROWS)
            strip_product(&p, row, i, rt_size_min(m, i + block));
    }
}
