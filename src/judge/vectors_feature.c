/* judge/vectors_feature.c - cases of hidden states and of relations, in double and in float32. */
#include <math.h>
#include <string.h>

#include "judge/vectors_case.h"
#include "student/feature.h"

static rt_status check_both(vec_run *run, const char *role, const double *ref, const float *fast, size_t n,
                            rt_error *err)
{
    vec_array right;
    if (vec_tensor_sized(run, "out", role, n, &right, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < n; i++) {
        vec_check(run, ref[i], right.x[i], vec_tol_double);
        vec_check(run, (double)fast[i], right.x[i], vec_tol_grad);
    }
    return RT_OK;
}

/* Room for n doubles and n floats. */
static rt_status room_for(vec_run *run, double **d, float **f, size_t n, rt_error *err)
{
    if (vec_room(run, d, n, sizeof **d, err) != RT_OK)
        return err->status;
    return vec_room(run, f, n, sizeof **f, err);
}

static rt_status hidden(vec_run *run, bool *covered, rt_error *err)
{
    vec_array hs, ht, w, mask = {0};
    float *hs_f, *ht_f, *w_f, *dhs_f, *dw_f, *room_f;
    double *dhs, *dw, *room, *scales, loss;
    rt_hidden_kind kind;
    *covered = rt_hidden_kind_from_name(&kind, run->loss + strlen("hidden_"));
    if (!*covered)
        return RT_OK;
    if (vec_input(run, "hs", &hs, &hs_f, err) != RT_OK || vec_input(run, "ht", &ht, &ht_f, err) != RT_OK ||
        vec_input(run, "W", &w, &w_f, err) != RT_OK || vec_number(run, "out", "loss", &loss, err) != RT_OK)
        return err->status;
    if (hs.n_dims != 2 || ht.n_dims != 2 || hs.n == 0 || ht.n == 0 || ht.shape[0] != hs.shape[0] ||
        w.n != hs.shape[1] * ht.shape[1])
        return vec_bad(run, err, "hs, ht and W do not fit each other");
    const size_t n = hs.shape[0], d_s = hs.shape[1], d_t = ht.shape[1];
    if (vec_has(run, "in", "mask") && vec_tensor_sized(run, "in", "mask", n, &mask, err) != RT_OK)
        return err->status;
    if (room_for(run, &dhs, &dhs_f, hs.n, err) != RT_OK || room_for(run, &dw, &dw_f, w.n, err) != RT_OK ||
        room_for(run, &room, &room_f, ht.n, err) != RT_OK ||
        vec_room(run, &scales, n, sizeof *scales, err) != RT_OK)
        return err->status;
    double counted = 0;
    for (size_t t = 0; t < n; t++)
        counted += mask.x ? mask.x[t] != 0 : 1;
    for (size_t t = 0; t < n; t++)
        scales[t] = mask.x && mask.x[t] == 0 ? 0 : 1 / counted;
    vec_check(run, rt_hidden_ref(kind, hs.x, ht.x, w.x, scales, n, d_s, d_t, dhs, dw, room), loss,
              vec_tol_double);
    vec_check(run, rt_hidden_block(kind, hs_f, ht_f, w_f, scales, n, d_s, d_t, dhs_f, room_f), loss,
              vec_tol_loss);
    memset(dw_f, 0, w.n * sizeof *dw_f);
    rt_hidden_projection(dw_f, room_f, hs_f, n, d_s, d_t, 0, d_t);
    if (check_both(run, "grad_hs", dhs, dhs_f, hs.n, err) != RT_OK)
        return err->status;
    return check_both(run, "grad_W", dw, dw_f, w.n, err);
}

static rt_status relation(vec_run *run, rt_error *err)
{
    vec_array xs, xt;
    float *xs_f, *xt_f, *dxs_f, *room_f;
    double *dxs, *room, *weights, loss, ref = 0, fast = 0;
    if (vec_input(run, "xs", &xs, &xs_f, err) != RT_OK || vec_input(run, "xt", &xt, &xt_f, err) != RT_OK ||
        vec_number(run, "out", "loss", &loss, err) != RT_OK)
        return err->status;
    if (xs.n_dims != 3 || xt.n_dims != 3 || xs.n == 0 || xt.n == 0 || xs.shape[0] != xt.shape[0] ||
        xs.shape[1] != xt.shape[1])
        return vec_bad(run, err, "xs and xt are not [heads, tokens, width] of the same heads and tokens");
    const size_t heads = xs.shape[0], n = xs.shape[1], d_s = xs.shape[2], d_t = xt.shape[2];
    if (room_for(run, &dxs, &dxs_f, xs.n, err) != RT_OK ||
        room_for(run, &room, &room_f, 2 * n * n, err) != RT_OK ||
        vec_room(run, &weights, n, sizeof *weights, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < n; i++)
        weights[i] = 1 / (double)(heads * n);
    memset(dxs_f, 0, xs.n * sizeof *dxs_f);
    for (size_t h = 0; h < heads; h++) {
        const size_t s = h * n * d_s, t = h * n * d_t;
        const rt_relation_states student = {xs_f + s, d_s, d_s}, teacher = {xt_f + t, d_t, d_t};
        ref += rt_relation_ref(xs.x + s, d_s, xt.x + t, d_t, weights, n, dxs + s, room);
        fast += rt_relation_block(&student, &teacher, weights, n, dxs_f + s, d_s, room_f);
    }
    vec_check(run, ref, loss, vec_tol_double);
    vec_check(run, fast, loss, vec_tol_loss);
    return check_both(run, "grad_xs", dxs, dxs_f, xs.n, err);
}

rt_status vec_feature(vec_run *run, bool *covered, rt_error *err)
{
    return strcmp(run->loss, "minilm_relation") == 0 ? relation(run, err) : hidden(run, covered, err);
}
