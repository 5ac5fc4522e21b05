/* tensor/gemm.c - see gemm.h.
 *
 * oneDNN compiles a kernel for each shape.  The primitive and its three memory objects are kept in a
 * table of the calling thread (a primitive's scratchpad belongs to the thread that made it); oneDNN's own
 * cache makes the second thread's creation cheap.  Shapes come from fixed block sizes, so a table stays
 * small; when it is full it is emptied and filled again. */
#include "tensor/gemm.h"

#include <assert.h>
#include <dnnl.h>
#include <omp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/cpu.h"

enum { SLOTS = 512, SLOTS_USED_MAX = 384 };

typedef struct slot {
    rt_gemm_spec spec; /* m == 0: empty */
    dnnl_primitive_t primitive;
    dnnl_memory_t a, b, c;
} slot;

typedef struct thread_state {
    slot slots[SLOTS];
    size_t used;
    dnnl_stream_t stream;
    float *wide; /* operands widened to float32 */
    size_t wide_count;
} thread_state;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static dnnl_engine_t engine;
static unsigned level;
static _Thread_local thread_state *mine;

static void slots_clear(thread_state *state)
{
    for (size_t i = 0; i < SLOTS; i++) {
        slot *s = &state->slots[i];
        if (!s->spec.m)
            continue;
        (void)dnnl_primitive_destroy(s->primitive);
        (void)dnnl_memory_destroy(s->a);
        (void)dnnl_memory_destroy(s->b);
        (void)dnnl_memory_destroy(s->c);
    }
    memset(state->slots, 0, sizeof state->slots);
    state->used = 0;
}

static void thread_end(void *argument)
{
    thread_state *state = argument;
    slots_clear(state);
    if (state->stream)
        (void)dnnl_stream_destroy(state->stream);
    free(state->wide);
    free(state);
}

static void start(void)
{
    level = rt_cpu_level();
    if (level == (unsigned)RT_CPU_AVX2)
        (void)dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx2);
    else if (level == (unsigned)RT_CPU_AVX512)
        (void)dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx512_core);
    if (level != RT_CPU_REF && dnnl_engine_create(&engine, dnnl_cpu, 0) != dnnl_success)
        level = RT_CPU_REF;
    if (pthread_key_create(&key, thread_end) != 0)
        level = RT_CPU_REF;
}

static thread_state *state_get(void)
{
    if (mine)
        return mine;
    thread_state *state = calloc(1, sizeof *state);
    if (!state)
        return NULL;
    omp_set_num_threads(1); /* of this thread's calls only: oneDNN is serial here */
    if (dnnl_stream_create(&state->stream, engine, dnnl_stream_default_flags) != dnnl_success) {
        free(state);
        return NULL;
    }
    (void)pthread_setspecific(key, state);
    mine = state;
    return state;
}

static bool describe(dnnl_memory_desc_t *out, size_t rows, size_t cols, size_t ld, bool transposed,
                     rt_dtype dtype)
{
    const dnnl_dims_t dims = {(dnnl_dim_t)rows, (dnnl_dim_t)cols};
    const dnnl_dims_t strides = {transposed ? 1 : (dnnl_dim_t)ld, transposed ? (dnnl_dim_t)ld : 1};
    return dnnl_memory_desc_init_by_strides(out, 2, dims, dtype == RT_BF16 ? dnnl_bf16 : dnnl_f32, strides) ==
           dnnl_success;
}

static bool slot_build(slot *out, const rt_gemm_spec *spec)
{
    dnnl_memory_desc_t a, b, c;
    dnnl_matmul_desc_t desc;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t post = NULL;
    dnnl_primitive_desc_t pd = NULL;
    slot s = {.spec = *spec};
    bool ok = describe(&a, spec->m, spec->k, spec->lda, spec->a_transposed, spec->ab) &&
              describe(&b, spec->k, spec->n, spec->ldb, spec->b_transposed, spec->ab) &&
              describe(&c, spec->m, spec->n, spec->ldc, false, spec->c) &&
              dnnl_matmul_desc_init(&desc, &a, &b, NULL, &c) == dnnl_success &&
              dnnl_primitive_attr_create(&attr) == dnnl_success &&
              dnnl_post_ops_create(&post) == dnnl_success;
    if (ok && spec->accumulate)
        ok = dnnl_post_ops_append_sum(post, 1.0f) == dnnl_success &&
             dnnl_primitive_attr_set_post_ops(attr, post) == dnnl_success;
    ok = ok && dnnl_primitive_desc_create(&pd, &desc, attr, engine, NULL) == dnnl_success &&
         dnnl_primitive_create(&s.primitive, pd) == dnnl_success &&
         dnnl_memory_create(&s.a, &a, engine, DNNL_MEMORY_NONE) == dnnl_success &&
         dnnl_memory_create(&s.b, &b, engine, DNNL_MEMORY_NONE) == dnnl_success &&
         dnnl_memory_create(&s.c, &c, engine, DNNL_MEMORY_NONE) == dnnl_success;
    if (pd)
        (void)dnnl_primitive_desc_destroy(pd);
    if (post)
        (void)dnnl_post_ops_destroy(post);
    if (attr)
        (void)dnnl_primitive_attr_destroy(attr);
    if (ok)
        *out = s;
    return ok;
}

static bool spec_equal(const rt_gemm_spec *x, const rt_gemm_spec *y)
{
    return x->m == y->m && x->n == y->n && x->k == y->k && x->lda == y->lda && x->ldb == y->ldb &&
           x->ldc == y->ldc && x->ab == y->ab && x->c == y->c && x->a_transposed == y->a_transposed &&
           x->b_transposed == y->b_transposed && x->accumulate == y->accumulate;
}

static slot *slot_find(thread_state *state, const rt_gemm_spec *spec)
{
    size_t h = spec->m * 0x9E3779B97F4A7C15u;
    h = (h ^ spec->n) * 0x9E3779B97F4A7C15u;
    h = (h ^ spec->k) * 0x9E3779B97F4A7C15u;
    h = (h ^ spec->lda ^ spec->ldb << 20 ^ spec->ldc << 40) * 0x9E3779B97F4A7C15u;
    h ^= (size_t)spec->a_transposed | (size_t)spec->b_transposed << 1 | (size_t)spec->accumulate << 2 |
         (size_t)spec->ab << 3 | (size_t)spec->c << 9;
    h ^= h >> 29;
    for (size_t i = 0;; i++) {
        slot *s = &state->slots[(h + i) % SLOTS];
        if (!s->spec.m || spec_equal(&s->spec, spec))
            return s;
    }
}

static float at(const void *x, rt_dtype dtype, size_t index)
{
    return dtype == RT_BF16 ? rt_bf16_to_f32(((const rt_bf16 *)x)[index]) : ((const float *)x)[index];
}

/* The meaning of the product: every sum in double. */
static void gemm_reference(const rt_gemm_spec *s, const void *a, const void *b, void *c)
{
    for (size_t i = 0; i < s->m; i++) {
        for (size_t j = 0; j < s->n; j++) {
            double sum = 0;
            for (size_t k = 0; k < s->k; k++)
                sum += (double)at(a, s->ab, s->a_transposed ? k * s->lda + i : i * s->lda + k) *
                       (double)at(b, s->ab, s->b_transposed ? j * s->ldb + k : k * s->ldb + j);
            if (s->c == RT_BF16)
                ((rt_bf16 *)c)[i * s->ldc + j] = rt_f32_to_bf16((float)sum);
            else if (s->accumulate)
                ((float *)c)[i * s->ldc + j] += (float)sum;
            else
                ((float *)c)[i * s->ldc + j] = (float)sum;
        }
    }
}

static bool run(thread_state *state, const rt_gemm_spec *spec, const void *a, const void *b, void *c)
{
    slot *s = slot_find(state, spec);
    if (!s->spec.m) {
        if (state->used >= SLOTS_USED_MAX) {
            slots_clear(state);
            s = slot_find(state, spec);
        }
        if (!slot_build(s, spec))
            return false;
        state->used++;
    }
    (void)dnnl_memory_set_data_handle(s->a, (void *)(size_t)a);
    (void)dnnl_memory_set_data_handle(s->b, (void *)(size_t)b);
    (void)dnnl_memory_set_data_handle(s->c, c);
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, s->a}, {DNNL_ARG_WEIGHTS, s->b}, {DNNL_ARG_DST, s->c}};
    return dnnl_primitive_execute(s->primitive, state->stream, 3, args) == dnnl_success &&
           dnnl_stream_wait(state->stream) == dnnl_success;
}

static void widen(float *out, const rt_bf16 *x, size_t rows, size_t cols, size_t ld)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j++)
            out[i * cols + j] = rt_bf16_to_f32(x[i * ld + j]);
}

/* bf16 operands on a machine without bf16 products: the same through float32 copies. */
static bool run_widened(thread_state *state, const rt_gemm_spec *spec, const void *a, const void *b, void *c)
{
    const size_t na = spec->m * spec->k, nb = spec->k * spec->n,
                 nc = spec->c == RT_BF16 ? spec->m * spec->n : 0;
    if (na + nb + nc > state->wide_count) {
        free(state->wide);
        state->wide_count = 0;
        state->wide = aligned_alloc(64, ((na + nb + nc) * sizeof(float) + 63) / 64 * 64);
        if (!state->wide)
            return false;
        state->wide_count = na + nb + nc;
    }
    rt_gemm_spec wide = *spec;
    wide.ab = wide.c = RT_F32;
    wide.lda = spec->a_transposed ? spec->m : spec->k;
    wide.ldb = spec->b_transposed ? spec->k : spec->n;
    float *wa = state->wide, *wb = wa + na, *wc = wb + nb;
    widen(wa, a, na / wide.lda, wide.lda, spec->lda);
    widen(wb, b, nb / wide.ldb, wide.ldb, spec->ldb);
    if (!nc)
        return run(state, &wide, wa, wb, c);
    wide.ldc = spec->n;
    if (!run(state, &wide, wa, wb, wc))
        return false;
    for (size_t i = 0; i < spec->m; i++)
        for (size_t j = 0; j < spec->n; j++)
            ((rt_bf16 *)c)[i * spec->ldc + j] = rt_f32_to_bf16(wc[i * spec->n + j]);
    return true;
}

void rt_gemm(const rt_gemm_spec *spec, const void *a, const void *b, void *c)
{
    assert(spec->c == RT_F32 || (spec->c == RT_BF16 && spec->ab == RT_BF16 && !spec->accumulate));
    if (!spec->m || !spec->n)
        return;
    (void)pthread_once(&once, start);
    thread_state *state = level == RT_CPU_REF ? NULL : state_get();
    const bool narrow = spec->ab == RT_BF16 && level < RT_CPU_AVX512BF16;
    if (!state || !(narrow ? run_widened(state, spec, a, b, c) : run(state, spec, a, b, c)))
        gemm_reference(spec, a, b, c);
}
