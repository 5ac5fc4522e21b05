/* judge/vectors_crossing.c - cases of two tokenizers: sorted logits, alignment, chunks, bytes. */
#include <math.h>
#include <string.h>

#include "judge/vectors_case.h"
#include "student/crossing.h"

static rt_status uld(vec_run *run, rt_error *err)
{
    vec_array z, zt, loss, right;
    float *z_f, *zt_f;
    double *grad;
    unsigned char *work;
    if (vec_input(run, "z", &z, &z_f, err) != RT_OK || vec_input(run, "zt", &zt, &zt_f, err) != RT_OK)
        return err->status;
    if (z.n_dims != 2 || zt.n_dims != 2 || z.n == 0 || zt.n == 0 || z.shape[0] != zt.shape[0])
        return vec_bad(run, err, "z and zt have not the same tokens");
    const size_t n = z.shape[0], vs = z.shape[1], vt = zt.shape[1];
    if (vec_tensor_sized(run, "out", "loss_tok", n, &loss, err) != RT_OK ||
        vec_tensor_sized(run, "out", "grad", z.n, &right, err) != RT_OK ||
        vec_room(run, &grad, vs, sizeof *grad, err) != RT_OK ||
        vec_room(run, &work, rt_uld_work_bytes(vs, vt), 1, err) != RT_OK)
        return err->status;
    for (size_t t = 0; t < n; t++) {
        vec_check(run, rt_uld_row(z_f + t * vs, vs, zt_f + t * vt, vt, grad, work), loss.x[t],
                  vec_tol_double);
        for (size_t i = 0; i < vs; i++)
            vec_check(run, grad[i], right.x[t * vs + i], vec_tol_double);
    }
    return RT_OK;
}

static rt_status ends_of(vec_run *run, const json_t *list, size_t **out, size_t *n, rt_error *err)
{
    *n = json_array_size(list);
    if (vec_room(run, out, *n, sizeof **out, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < *n; i++) {
        const json_int_t end = json_integer_value(json_array_get(list, i));
        if (end < 0)
            return vec_bad(run, err, "an end lies before the text");
        (*out)[i] = (size_t)end;
    }
    return RT_OK;
}

static rt_status align(vec_run *run, rt_error *err)
{
    size_t e;
    json_t *example;
    json_array_foreach(json_object_get(run->entry, "examples"), e, example)
    {
        const json_t *groups = json_object_get(example, "groups");
        size_t *s, *t, n_s, n_t;
        rt_aligned *out;
        if (ends_of(run, json_object_get(example, "student_ends"), &s, &n_s, err) != RT_OK ||
            ends_of(run, json_object_get(example, "teacher_ends"), &t, &n_t, err) != RT_OK ||
            vec_room(run, &out, n_s < n_t ? n_s : n_t, sizeof *out, err) != RT_OK)
            return err->status;
        const size_t n = rt_align(out, s, n_s, t, n_t);
        vec_check_true(run, n == json_array_size(groups));
        for (size_t i = 0; i < n; i++) {
            const json_t *g = json_array_get(groups, i);
            const size_t mine[] = {out[i].student_from, out[i].student_to, out[i].teacher_from,
                                   out[i].teacher_to};
            for (size_t k = 0; k < 4; k++)
                vec_check_true(run, (size_t)json_integer_value(json_array_get(g, k)) == mine[k]);
        }
    }
    return RT_OK;
}

static rt_status chunks(vec_run *run, rt_error *err)
{
    vec_array s, t, loss, grad;
    const double tau = vec_param(run, "tau", 100);
    if (!(tau > 0))
        return vec_bad(run, err, "params.tau is not positive");
    if (vec_tensor(run, "in", "chunk_logp_student", &s, err) != RT_OK ||
        vec_tensor_sized(run, "in", "chunk_logp_teacher", s.n, &t, err) != RT_OK ||
        vec_tensor_sized(run, "out", "loss_chunk", s.n, &loss, err) != RT_OK ||
        vec_tensor_sized(run, "out", "grad", s.n, &grad, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < s.n; i++) {
        double slope;
        vec_check(run, rt_chunk_binary_kl(s.x[i], t.x[i], tau, &slope), loss.x[i], vec_tol_double);
        vec_check(run, slope, grad.x[i], vec_tol_double);
    }
    return RT_OK;
}

typedef struct pieces { /* tokens as bytes */
    char (*bytes)[64];
    size_t *sizes;
} pieces;

static const char *bytes_of(const void *context, size_t id, size_t *size)
{
    const pieces *p = context;
    *size = p->sizes[id];
    return p->bytes[id];
}

static bool unhex(char out[64], size_t *size, const char *text)
{
    static const char digits[] = "0123456789abcdef";
    const size_t n = text ? strlen(text) : 1;
    if (n % 2 || n > 128)
        return false;
    for (size_t i = 0; i < n; i += 2) {
        const char *hi = strchr(digits, text[i]), *lo = strchr(digits, text[i + 1]);
        if (!hi || !lo)
            return false;
        out[i / 2] = (char)((hi - digits) * 16 + (lo - digits));
    }
    *size = n / 2;
    return true;
}

static rt_status byte_marginal(vec_run *run, rt_error *err)
{
    const json_t *tokens = json_object_get(run->entry, "tokens"), *p = json_object_get(run->entry, "p");
    const size_t n = json_array_size(tokens);
    pieces made;
    double *mass;
    if (n == 0 || json_array_size(p) != n)
        return vec_bad(run, err, "has not one probability for each token");
    if (vec_room(run, &made.bytes, n, sizeof *made.bytes, err) != RT_OK ||
        vec_room(run, &made.sizes, n, sizeof *made.sizes, err) != RT_OK ||
        vec_room(run, &mass, n, sizeof *mass, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < n; i++) {
        mass[i] = json_number_value(json_array_get(p, i));
        if (!unhex(made.bytes[i], &made.sizes[i], json_string_value(json_array_get(tokens, i))))
            return vec_bad(run, err, "token %zu is not in hexadecimal", i);
    }
    size_t e;
    json_t *example;
    json_array_foreach(json_object_get(run->entry, "examples"), e, example)
    {
        char prefix[64], byte[64];
        size_t size, one;
        rt_byte_marginal out;
        if (!unhex(prefix, &size, json_string_value(json_object_get(example, "prefix"))))
            return vec_bad(run, err, "a prefix is not in hexadecimal");
        rt_byte_marginal_make(&out, bytes_of, &made, mass, n, prefix, size);
        vec_check(run, out.mass, json_number_value(json_object_get(example, "mass")), vec_tol_double);
        vec_check(run, out.end_mass, json_number_value(json_object_get(example, "end_mass")), vec_tol_double);
        const char *key;
        json_t *value;
        double listed = 0, all = 0;
        json_object_foreach(json_object_get(example, "next"), key, value)
        {
            if (!unhex(byte, &one, key) || one != 1)
                return vec_bad(run, err, "a next byte is not in hexadecimal");
            vec_check(run, out.next[(unsigned char)byte[0]], json_number_value(value), vec_tol_double);
            listed += json_number_value(value);
        }
        for (size_t b = 0; b < 256; b++)
            all += out.next[b];
        vec_check(run, all, listed, vec_tol_double); /* no byte beside the listed ones */
    }
    return RT_OK;
}

rt_status vec_crossing(vec_run *run, bool *covered, rt_error *err)
{
    (void)covered;
    if (strcmp(run->loss, "uld_sorted_l1") == 0)
        return uld(run, err);
    if (strcmp(run->loss, "align") == 0)
        return align(run, err);
    return strcmp(run->loss, "chunk_binary_kl") == 0 ? chunks(run, err) : byte_marginal(run, err);
}
