/* judge/vectors_blocks.c - cases of the decoder's building blocks, run through the ops of this run's
 * instruction set. */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "judge/vectors_case.h"
#include "model/rope.h"
#include "tensor/gemm.h"
#include "tensor/ops.h"

enum { POSITIONS_MAX = 131072 };

rt_status vec_input(vec_run *run, const char *role, vec_array *array, float **x, rt_error *err)
{
    if (vec_tensor(run, "in", role, array, err) != RT_OK)
        return err->status;
    return vec_floats(run, array, x, err);
}

rt_status vec_output(vec_run *run, const char *role, const float *x, size_t n, double tolerance,
                     rt_error *err)
{
    vec_array ref;
    if (vec_tensor_sized(run, "out", role, n, &ref, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < n; i++)
        vec_check(run, (double)x[i], ref.x[i], tolerance);
    return RT_OK;
}

static rt_status rms_norm(vec_run *run, rt_error *err)
{
    vec_array ax, aw, au;
    float *x, *w, *up, *out, *dx, *dw;
    if (vec_input(run, "x", &ax, &x, err) != RT_OK || vec_input(run, "w", &aw, &w, err) != RT_OK ||
        vec_input(run, "upstream", &au, &up, err) != RT_OK ||
        vec_room(run, &out, ax.n, sizeof *out, err) != RT_OK ||
        vec_room(run, &dx, ax.n, sizeof *dx, err) != RT_OK ||
        vec_room(run, &dw, aw.n, sizeof *dw, err) != RT_OK)
        return err->status;
    const size_t n = aw.n, rows = n ? ax.n / n : 0;
    if (rows * n != ax.n || au.n != ax.n || n == 0)
        return vec_bad(run, err, "shapes of x, w and upstream do not fit");
    for (size_t i = 0; i < rows; i++) {
        const float r =
            rt_ops_get()->rms_norm(out + i * n, x + i * n, w, n, (float)vec_param(run, "eps", 1e-5));
        rt_ops_get()->rms_norm_backward(dx + i * n, dw, up + i * n, x + i * n, w, r, n);
    }
    if (vec_output(run, "out", out, ax.n, vec_tol_loss, err) != RT_OK ||
        vec_output(run, "grad_x", dx, ax.n, vec_tol_grad, err) != RT_OK)
        return err->status;
    return vec_output(run, "grad_w", dw, n, vec_tol_grad, err);
}

/* c [m, n] = a [m, k] b, with b stored [n, k] (transposed) or [k, n]; or aᵀ b with a stored [k, m]. */
static void product(float *c, const float *a, bool a_transposed, const float *b, bool b_transposed, size_t m,
                    size_t n, size_t k, bool add)
{
    const rt_gemm_spec spec = {.m = m,
                               .n = n,
                               .k = k,
                               .lda = a_transposed ? m : k,
                               .ldb = b_transposed ? k : n,
                               .ldc = n,
                               .ab = RT_F32,
                               .c = RT_F32,
                               .a_transposed = a_transposed,
                               .b_transposed = b_transposed,
                               .accumulate = add};
    rt_gemm(&spec, a, b, c);
}

typedef struct mlp { /* x [rows, d], wg wu [ff, d], wd [d, ff]; gate, up, act and their gradients [rows, ff]
                      */
    size_t rows, d, ff;
    float *x, *wg, *wu, *wd, *upstream;
    float *gate, *up, *act, *dgate, *dup, *dact, *out, *dx, *dwg, *dwu, *dwd;
} mlp;

static rt_status load_mlp(vec_run *run, mlp *s, rt_error *err)
{
    vec_array x, wg, wu, wd, upstream;
    if (vec_input(run, "x", &x, &s->x, err) != RT_OK || vec_input(run, "wg", &wg, &s->wg, err) != RT_OK ||
        vec_input(run, "wu", &wu, &s->wu, err) != RT_OK || vec_input(run, "wd", &wd, &s->wd, err) != RT_OK ||
        vec_input(run, "upstream", &upstream, &s->upstream, err) != RT_OK)
        return err->status;
    if (x.n_dims != 2 || wg.n_dims != 2 || x.n == 0 || wg.n == 0 || wg.shape[1] != x.shape[1] ||
        wu.n != wg.n || wd.n != wg.n || upstream.n != x.n)
        return vec_bad(run, err, "shapes of x, wg, wu, wd and upstream do not fit");
    s->rows = x.shape[0];
    s->d = x.shape[1];
    s->ff = wg.shape[0];
    float **const wide[] = {&s->gate, &s->up, &s->act, &s->dgate, &s->dup, &s->dact};
    float **const weights[] = {&s->dwg, &s->dwu, &s->dwd};
    size_t wide_n;
    if (!rt_size_mul(s->rows, s->ff, &wide_n))
        return vec_bad(run, err, "is too large");
    for (size_t i = 0; i < 6; i++)
        if (vec_room(run, wide[i], wide_n, sizeof(float), err) != RT_OK)
            return err->status;
    for (size_t i = 0; i < 3; i++)
        if (vec_room(run, weights[i], wg.n, sizeof(float), err) != RT_OK)
            return err->status;
    if (vec_room(run, &s->out, x.n, sizeof(float), err) != RT_OK)
        return err->status;
    return vec_room(run, &s->dx, x.n, sizeof(float), err);
}

static rt_status swiglu(vec_run *run, rt_error *err)
{
    mlp s;
    if (load_mlp(run, &s, err) != RT_OK)
        return err->status;
    const rt_ops *ops = rt_ops_get();
    const size_t n = s.rows, d = s.d, ff = s.ff;
    product(s.gate, s.x, false, s.wg, true, n, ff, d, false);
    product(s.up, s.x, false, s.wu, true, n, ff, d, false);
    ops->silu_gate(s.act, s.gate, s.up, n * ff);
    product(s.out, s.act, false, s.wd, true, n, d, ff, false);

    product(s.dact, s.upstream, false, s.wd, false, n, ff, d, false);
    product(s.dwd, s.upstream, true, s.act, false, d, ff, n, false);
    ops->silu_gate_backward(s.dgate, s.dup, s.dact, s.gate, s.up, n * ff);
    product(s.dwg, s.dgate, true, s.x, false, ff, d, n, false);
    product(s.dwu, s.dup, true, s.x, false, ff, d, n, false);
    product(s.dx, s.dgate, false, s.wg, false, n, d, ff, false);
    product(s.dx, s.dup, false, s.wu, false, n, d, ff, true);
    const struct {
        const char *role;
        const float *x;
        size_t n;
    } outputs[] = {{"grad_x", s.dx, n * d},
                   {"grad_wg", s.dwg, ff * d},
                   {"grad_wu", s.dwu, ff * d},
                   {"grad_wd", s.dwd, ff * d}};
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs; i++)
        if (vec_output(run, outputs[i].role, outputs[i].x, outputs[i].n, vec_tol_grad, err) != RT_OK)
            return err->status;
    return vec_output(run, "out", s.out, n * d, vec_tol_loss, err);
}

static bool rope_config(const vec_run *run, rt_rope_config *c)
{
    const char *scaling = vec_param_text(run, "scaling");
    const double context = vec_param(run, "original_max_position", 8192);
    *c = (rt_rope_config){.theta = vec_param(run, "theta", 1e4),
                          .factor = vec_param(run, "factor", 1),
                          .low_freq_factor = vec_param(run, "low_freq_factor", 1),
                          .high_freq_factor = vec_param(run, "high_freq_factor", 4),
                          .beta_fast = vec_param(run, "beta_fast", 32),
                          .beta_slow = vec_param(run, "beta_slow", 1),
                          .attention_factor = vec_param(run, "attention_factor", 0)};
    if (!(context >= 1 && context < 1e9 && c->theta > 1 && c->factor > 0))
        return false;
    c->original_context = (size_t)context;
    if (!scaling)
        return true;
    c->scaling = strcmp(scaling, "llama3") == 0   ? RT_ROPE_LLAMA3
                 : strcmp(scaling, "yarn") == 0   ? RT_ROPE_YARN
                 : strcmp(scaling, "linear") == 0 ? RT_ROPE_LINEAR
                                                  : RT_ROPE_PLAIN;
    return c->scaling != RT_ROPE_PLAIN;
}

typedef struct rotation { /* x and upstream [n_positions, heads, 2 half] */
    vec_array x, upstream, positions;
    float *turned, *back; /* copies that are rotated in place */
    size_t half, last;    /* last: the largest position */
} rotation;

static rt_status load_rotation(vec_run *run, rotation *r, rt_error *err)
{
    if (vec_input(run, "x", &r->x, &r->turned, err) != RT_OK ||
        vec_input(run, "upstream", &r->upstream, &r->back, err) != RT_OK)
        return err->status;
    if (r->x.n_dims != 3 || r->x.n == 0 || r->x.shape[2] % 2 != 0 || r->upstream.n != r->x.n ||
        (double)r->x.shape[2] != vec_param(run, "head_dim", 0))
        return vec_bad(run, err, "in.x is not [positions, heads, head_dim], or upstream does not fit");
    r->half = r->x.shape[2] / 2;
    r->last = 0;
    if (vec_tensor_sized(run, "in", "pos", r->x.shape[0], &r->positions, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < r->positions.n; i++) {
        if (!(r->positions.x[i] >= 0 && r->positions.x[i] < POSITIONS_MAX))
            return vec_bad(run, err, "position %zu is out of range", i);
        r->last = rt_size_max(r->last, (size_t)r->positions.x[i]);
    }
    return RT_OK;
}

static rt_status check_rotation(vec_run *run, const rotation *r, const rt_rope *rope, rt_error *err)
{
    vec_array frequency;
    if (vec_tensor_sized(run, "in", "inv_freq", r->half, &frequency, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < r->half; i++)
        vec_check(run, rope->frequency[i], frequency.x[i], vec_tol_double);
    const size_t heads = r->x.shape[1];
    for (size_t i = 0; i < r->positions.n * heads; i++) {
        const size_t at = (size_t)r->positions.x[i / heads] * r->half;
        rt_ops_get()->rope(r->turned + i * 2 * r->half, rope->cosines + at, rope->sines + at, r->half, 1);
        rt_ops_get()->rope(r->back + i * 2 * r->half, rope->cosines + at, rope->sines + at, r->half, -1);
    }
    if (vec_output(run, "out", r->turned, r->x.n, vec_tol_loss, err) != RT_OK)
        return err->status;
    return vec_output(run, "grad_x", r->back, r->x.n, vec_tol_grad, err);
}

static rt_status rotary(vec_run *run, bool *covered, rt_error *err)
{
    rotation r;
    rt_rope rope;
    rt_rope_config config;
    const char *style = vec_param_text(run, "style");
    *covered = (!style || strcmp(style, "rotate_half") == 0) && rope_config(run, &config);
    if (!*covered)
        return RT_OK;
    if (load_rotation(run, &r, err) != RT_OK ||
        rt_rope_init(&rope, &config, 2 * r.half, r.last + 1, err) != RT_OK)
        return err->status;
    rt_rope_prepare(&rope, r.last + 1);
    const rt_status status = check_rotation(run, &r, &rope, err);
    rt_rope_deinit(&rope);
    return status;
}

rt_status vec_blocks(vec_run *run, bool *covered, rt_error *err)
{
    if (strcmp(run->loss, "rmsnorm") == 0)
        return rms_norm(run, err);
    if (strcmp(run->loss, "swiglu") == 0)
        return swiglu(run, err);
    return rotary(run, covered, err);
}
