/* tensor/cpu/row_body.h - the row passes of row.h, written once over rt_vf.
 *
 * row_<isa>.c includes it with ROW_TABLE set to the table's name.  A pass runs in blocks of
 * RT_ROW_BLOCK values with float accumulators in the lanes, which are added to doubles at the block's
 * end.  The last n % lanes values are copied to a padded vector: pads lie so far below the
 * maximum that their exp is 0, and far from infinity so that 0 times their difference is 0. */
#include <math.h>

#include "tensor/cpu/row_tables.h"
#include "tensor/cpu/vexp.h"

static const float pad = -1e30f;

static inline rt_vf load_tail(const float *x, size_t n)
{
    rt_vf v = rt_vset(pad);
    memcpy(&v, x, n * sizeof *x);
    return v;
}

static inline double lanes_sum(rt_vf v)
{
    float x[RT_LANES];
    double sum = 0;
    rt_vstore(x, v);
    for (int i = 0; i < RT_LANES; i++)
        sum += (double)x[i];
    return sum;
}

static inline float lanes_max(rt_vf v)
{
    float x[RT_LANES];
    rt_vstore(x, v);
    float max = x[0];
    for (int i = 1; i < RT_LANES; i++)
        max = x[i] > max ? x[i] : max;
    return max;
}

/* *zero stays 0 while every value is finite. */
static float block_max(const float *x, size_t n, float *zero)
{
    const rt_vf none = {0};
    rt_vf m0 = rt_vset(-INFINITY), m1 = m0, z0 = none, z1 = none;
    size_t i = 0;
    for (; i + 2 * RT_LANES <= n; i += 2 * RT_LANES) {
        const rt_vf a = rt_vload(x + i), b = rt_vload(x + i + RT_LANES);
        m0 = rt_vmax(a, m0);
        m1 = rt_vmax(b, m1);
        z0 = rt_vfma(a, none, z0);
        z1 = rt_vfma(b, none, z1);
    }
    float max = lanes_max(rt_vmax(m0, m1));
    *zero += (float)lanes_sum(z0 + z1);
    for (; i < n; i++) {
        max = x[i] > max ? x[i] : max;
        *zero += x[i] * 0.0f;
    }
    return max;
}

static bool row_argmax(const float *x, size_t n, float *max, size_t *index)
{
    float best = -INFINITY, zero = 0;
    size_t start = 0;
    for (size_t i = 0; i < n; i += RT_ROW_BLOCK) {
        const float m = block_max(x + i, n - i < RT_ROW_BLOCK ? n - i : RT_ROW_BLOCK, &zero);
        if (m > best) {
            best = m;
            start = i;
        }
    }
    while (start + 1 < n && x[start] != best) /* in the first block that holds it */
        start++;
    *max = best;
    *index = x[start] == best ? start : 0; /* 0: nothing but NaN */
    return zero == 0;
}

typedef struct side { /* what turns logits into x or log p */
    rt_vf max, inv_tau, minus_log_sum;
} side;

static inline side make_side(rt_row_side s, float inv_tau)
{
    return (side){.max = rt_vset(s.max), .inv_tau = rt_vset(inv_tau), .minus_log_sum = rt_vset(-s.log_sum)};
}

RT_VINLINE rt_vf log_prob(rt_vf z, side s) { return rt_vfma(z - s.max, s.inv_tau, s.minus_log_sum); }

typedef struct sums {
    rt_vf s, t, sx, ty;
} sums;

RT_VINLINE void add_sums(sums *a, rt_vf z, rt_vf zt, rt_vf max_s, rt_vf max_t, rt_vf inv_tau, bool teacher)
{
    const rt_vf x = (z - max_s) * inv_tau, ex = rt_vexp(x);
    a->s += ex;
    if (!teacher)
        return;
    const rt_vf y = (zt - max_t) * inv_tau, ey = rt_vexp(y), d = x - y;
    a->t += ey;
    a->sx = rt_vfma(ex, d, a->sx);
    a->ty = rt_vfma(ey, -d, a->ty);
}

static void flush_sums(rt_row_sums *out, const sums *a, bool teacher)
{
    out->s += lanes_sum(a->s);
    if (!teacher)
        return;
    out->t += lanes_sum(a->t);
    out->sx += lanes_sum(a->sx);
    out->ty += lanes_sum(a->ty);
}

RT_VINLINE void sums_pass(const float *z, const float *zt, size_t n, float max_s, float max_t, float inv_tau,
                          rt_row_sums *out, bool teacher)
{
    const rt_vf ms = rt_vset(max_s), mt = rt_vset(max_t), it = rt_vset(inv_tau);
    *out = (rt_row_sums){0};
    for (size_t i = 0; i < n;) {
        const size_t end = n - i < RT_ROW_BLOCK ? n : i + RT_ROW_BLOCK;
        sums a = {{0}, {0}, {0}, {0}}, b = a;
        for (; i + 2 * RT_LANES <= end; i += 2 * RT_LANES) {
            add_sums(&a, rt_vload(z + i), teacher ? rt_vload(zt + i) : ms, ms, mt, it, teacher);
            add_sums(&b, rt_vload(z + i + RT_LANES), teacher ? rt_vload(zt + i + RT_LANES) : ms, ms, mt, it,
                     teacher);
        }
        for (; i < end; i += RT_LANES) {
            const size_t rest = end - i < RT_LANES ? end - i : RT_LANES;
            add_sums(&a, load_tail(z + i, rest), teacher ? load_tail(zt + i, rest) : ms, ms, mt, it, teacher);
        }
        i = end;
        flush_sums(out, &a, teacher);
        flush_sums(out, &b, teacher);
    }
}

static void row_sums(const float *z, const float *zt, size_t n, float max_s, float max_t, float inv_tau,
                     rt_row_sums *out)
{
    if (zt)
        sums_pass(z, zt, n, max_s, max_t, inv_tau, out, true);
    else
        sums_pass(z, NULL, n, max_s, max_t, inv_tau, out, false);
}

/* log(p/m) and log(q/m), m = beta q + (1-beta) p, from the larger side and the ratio e = e^-|d| <= 1:
 * m = larger (1 - w (1 - e)), w the weight of the smaller side.  Equal sides give exactly 0. */
RT_VINLINE void log_over_mix(rt_vf lp, rt_vf lq, rt_vf beta, rt_vf *p_over, rt_vf *q_over)
{
    const rt_vf d = lp - lq, one = rt_vset(1.0f), zero = {0};
    const rt_vf e = rt_vexp(-rt_vabs(d));
    const rt_vi p_larger = d > zero;
    const rt_vf w = rt_vkeep(p_larger, beta) + rt_vkeep(~p_larger, one - beta);
    const rt_vf larger = -rt_vlog(rt_vfma(e - one, w, one)); /* log(larger/m) */
    *p_over = larger + rt_vkeep(~p_larger, d);
    *q_over = larger - rt_vkeep(p_larger, d);
}

static void row_jsd(const float *z, const float *zt, size_t n, const rt_row_grad *c, rt_row_jsd *out)
{
    const side s = make_side(c->student, c->inv_tau), t = make_side(c->teacher, c->inv_tau);
    const rt_vf beta = rt_vset(c->beta);
    *out = (rt_row_jsd){0};
    for (size_t i = 0; i < n;) {
        const size_t end = n - i < RT_ROW_BLOCK ? n : i + RT_ROW_BLOCK;
        rt_vf s_sum = {0}, t_sum = {0};
        for (; i < end; i += RT_LANES) {
            const size_t rest = end - i;
            const rt_vf lp = log_prob(rest < RT_LANES ? load_tail(z + i, rest) : rt_vload(z + i), s);
            const rt_vf lq = log_prob(rest < RT_LANES ? load_tail(zt + i, rest) : rt_vload(zt + i), t);
            rt_vf p_over, q_over;
            log_over_mix(lp, lq, beta, &p_over, &q_over);
            s_sum = rt_vfma(rt_vexp(lp), p_over, s_sum);
            t_sum = rt_vfma(rt_vexp(lq), q_over, t_sum);
        }
        i = end;
        out->s_sum += lanes_sum(s_sum);
        out->t_sum += lanes_sum(t_sum);
    }
}

static double row_l1(const float *z, const float *zt, size_t n, const rt_row_grad *c)
{
    const side s = make_side(c->student, c->inv_tau), t = make_side(c->teacher, c->inv_tau);
    double out = 0;
    for (size_t i = 0; i < n;) {
        const size_t end = n - i < RT_ROW_BLOCK ? n : i + RT_ROW_BLOCK;
        rt_vf sum = {0};
        for (; i < end; i += RT_LANES) {
            const size_t rest = end - i;
            const rt_vf lp = log_prob(rest < RT_LANES ? load_tail(z + i, rest) : rt_vload(z + i), s);
            const rt_vf lq = log_prob(rest < RT_LANES ? load_tail(zt + i, rest) : rt_vload(zt + i), t);
            sum += rt_vabs(rt_vexp(lp) - rt_vexp(lq));
        }
        i = end;
        out += lanes_sum(sum);
    }
    return out;
}

typedef struct grad_vectors {
    side s, t;
    rt_vf a, b, c, r, j, rkl, jsd_centre, beta;
} grad_vectors;

RT_VINLINE rt_vf grad_at(rt_vf z, rt_vf zt, const grad_vectors *v, bool teacher, bool reverse, bool jsd)
{
    const rt_vf lp = log_prob(z, v->s), p = rt_vexp(lp);
    rt_vf k = v->a;
    if (!teacher)
        return rt_vfma(p, k, -v->c);
    const rt_vf lq = log_prob(zt, v->t);
    if (reverse)
        k = rt_vfma(lp - lq - v->rkl, v->r, k);
    if (jsd) {
        rt_vf p_over, q_over;
        log_over_mix(lp, lq, v->beta, &p_over, &q_over);
        k = rt_vfma(p_over - v->jsd_centre, v->j, k);
    }
    return rt_vfma(p, k, -rt_vfma(rt_vexp(lq), v->b, v->c));
}

RT_VINLINE void grad_pass(float *g, const float *z, const float *zt, size_t n, const rt_row_grad *c, bool add,
                          bool teacher, bool reverse, bool jsd)
{
    const grad_vectors v = {.s = make_side(c->student, c->inv_tau),
                            .t = make_side(c->teacher, c->inv_tau),
                            .a = rt_vset(c->a),
                            .b = rt_vset(c->b),
                            .c = rt_vset(c->c),
                            .r = rt_vset(c->r),
                            .j = rt_vset(c->j),
                            .rkl = rt_vset(c->rkl),
                            .jsd_centre = rt_vset(c->jsd_centre),
                            .beta = rt_vset(c->beta)};
    size_t i = 0;
    for (; i + RT_LANES <= n; i += RT_LANES) {
        rt_vf x = grad_at(rt_vload(z + i), teacher ? rt_vload(zt + i) : v.a, &v, teacher, reverse, jsd);
        if (add)
            x += rt_vload(g + i);
        rt_vstore(g + i, x);
    }
    if (i < n) {
        float x[RT_LANES];
        rt_vstore(x, grad_at(load_tail(z + i, n - i), teacher ? load_tail(zt + i, n - i) : v.a, &v, teacher,
                             reverse, jsd));
        for (size_t k = 0; i + k < n; k++)
            g[i + k] = add ? g[i + k] + x[k] : x[k];
    }
}

static void row_grad(float *g, const float *z, const float *zt, size_t n, const rt_row_grad *c, bool add)
{
    const bool reverse = c->r != 0, jsd = c->j != 0;
    if (!reverse && !jsd && c->b == 0)
        grad_pass(g, z, zt, n, c, add, false, false, false);
    else if (!reverse && !jsd)
        grad_pass(g, z, zt, n, c, add, true, false, false);
    else if (!jsd)
        grad_pass(g, z, zt, n, c, add, true, true, false);
    else
        grad_pass(g, z, zt, n, c, add, true, true, true); /* r may be 0: one shape less to compile */
}

/* One vector of exps(): sums as in sums(), and the exps themselves. */
RT_VINLINE void add_exps(sums *a, rt_vf *z, rt_vf *zt, rt_vf max_s, rt_vf max_t, rt_vf inv_tau, bool teacher)
{
    const rt_vf x = (*z - max_s) * inv_tau;
    *z = rt_vexp(x);
    a->s += *z;
    if (!teacher)
        return;
    const rt_vf y = (*zt - max_t) * inv_tau, d = x - y;
    *zt = rt_vexp(y);
    a->t += *zt;
    a->sx = rt_vfma(*z, d, a->sx);
    a->ty = rt_vfma(*zt, -d, a->ty);
}

RT_VINLINE void exps_pass(float *z, float *zt, size_t n, float max_s, float max_t, float inv_tau,
                          rt_row_sums *out, bool teacher)
{
    const rt_vf ms = rt_vset(max_s), mt = rt_vset(max_t), it = rt_vset(inv_tau);
    *out = (rt_row_sums){0};
    for (size_t i = 0; i < n;) {
        const size_t end = n - i < RT_ROW_BLOCK ? n : i + RT_ROW_BLOCK;
        sums a = {{0}, {0}, {0}, {0}}, b = a;
        for (; i + 2 * RT_LANES <= end; i += 2 * RT_LANES) {
            rt_vf z0 = rt_vload(z + i), z1 = rt_vload(z + i + RT_LANES), t0 = ms, t1 = ms;
            if (teacher) {
                t0 = rt_vload(zt + i);
                t1 = rt_vload(zt + i + RT_LANES);
            }
            add_exps(&a, &z0, &t0, ms, mt, it, teacher);
            add_exps(&b, &z1, &t1, ms, mt, it, teacher);
            rt_vstore(z + i, z0);
            rt_vstore(z + i + RT_LANES, z1);
            if (teacher) {
                rt_vstore(zt + i, t0);
                rt_vstore(zt + i + RT_LANES, t1);
            }
        }
        for (; i < end; i += RT_LANES) {
            const size_t rest = end - i < RT_LANES ? end - i : RT_LANES;
            rt_vf z0 = load_tail(z + i, rest), t0 = teacher ? load_tail(zt + i, rest) : ms;
            add_exps(&a, &z0, &t0, ms, mt, it, teacher);
            memcpy(z + i, &z0, rest * sizeof *z);
            if (teacher)
                memcpy(zt + i, &t0, rest * sizeof *zt);
        }
        i = end;
        flush_sums(out, &a, teacher);
        flush_sums(out, &b, teacher);
    }
}

static void row_exps(float *z, float *zt, size_t n, float max_s, float max_t, float inv_tau, rt_row_sums *out)
{
    if (zt)
        exps_pass(z, zt, n, max_s, max_t, inv_tau, out, true);
    else
        exps_pass(z, NULL, n, max_s, max_t, inv_tau, out, false);
}

RT_VINLINE rt_vh to_bf16(rt_vf x)
{
    const rt_vu u = (rt_vu)x;
    return __builtin_convertvector((u + 0x7FFF + (u >> 16 & 1)) >> 16, rt_vh);
}

/* bf16 results never reach a value that is still to be read: they take half its offset. */
RT_VINLINE void blend_pass(float *ex, const float *ey, size_t n, float a, float b, float c, bool bf16)
{
    const rt_vf va = rt_vset(a), vb = rt_vset(-b), vc = rt_vset(-c);
    unsigned char *out = (unsigned char *)ex;
    size_t i = 0;
    for (; i + RT_LANES <= n; i += RT_LANES) {
        const rt_vf base = ey ? rt_vfma(rt_vload(ey + i), vb, vc) : vc;
        const rt_vf g = rt_vfma(rt_vload(ex + i), va, base);
        const rt_vh h = to_bf16(g);
        if (bf16)
            memcpy(out + i * sizeof(rt_bf16), &h, sizeof h);
        else
            memcpy(out + i * sizeof(float), &g, sizeof g);
    }
    for (; i < n; i++) {
        float x;
        memcpy(&x, out + i * sizeof x, sizeof x);
        const float g = x * a - ((ey ? ey[i] * b : 0.0f) + c);
        const rt_bf16 h = rt_f32_to_bf16(g);
        if (bf16)
            memcpy(out + i * sizeof h, &h, sizeof h);
        else
            memcpy(out + i * sizeof g, &g, sizeof g);
    }
}

static void row_blend(float *ex, const float *ey, size_t n, float a, float b, float c, bool bf16)
{
    const float *teacher = b == 0 ? NULL : ey;
    if (teacher && bf16)
        blend_pass(ex, teacher, n, a, b, c, true);
    else if (teacher)
        blend_pass(ex, teacher, n, a, b, c, false);
    else
        blend_pass(ex, NULL, n, a, 0, c, bf16);
}

static void row_to_bf16(rt_bf16 *out, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + RT_LANES <= n; i += RT_LANES) {
        const rt_vh h = to_bf16(rt_vload(x + i));
        memcpy(out + i, &h, sizeof h);
    }
    for (; i < n; i++)
        out[i] = rt_f32_to_bf16(x[i]);
}

static void row_exp(float *out, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += RT_LANES) {
        const size_t rest = n - i < RT_LANES ? n - i : RT_LANES;
        const rt_vf v = rt_vexp(load_tail(x + i, rest));
        memcpy(out + i, &v, rest * sizeof *out);
    }
}

const rt_row_ops ROW_TABLE = {.argmax = row_argmax,
                              .sums = row_sums,
                              .jsd = row_jsd,
                              .l1 = row_l1,
                              .grad = row_grad,
                              .exps = row_exps,
                              .blend = row_blend,
                              .to_bf16 = row_to_bf16,
                              .exp = row_exp};
