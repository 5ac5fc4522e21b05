/* judge/vectors_case.h - what the files vectors_*.c share: the case at hand, its tensors, its comparisons. */
#ifndef RT_JUDGE_VECTORS_CASE_H
#define RT_JUDGE_VECTORS_CASE_H

#include <jansson.h>

#include "base/arena.h"
#include "judge/vectors.h"
#include "model/weights.h"

enum { VEC_FILES_MAX = 32 };

static const double vec_tol_double = 1e-11, vec_tol_loss = 5e-6, vec_tol_grad = 2e-6,
                    vec_tol_stored_f32 = 2e-7;

typedef struct vec_run {
    const char *dir;
    json_t *cases;
    struct {
        char name[RT_VECTORS_NAME_MAX];
        rt_weights *weights;
    } files[VEC_FILES_MAX];
    size_t n_files;
    rt_arena arena; /* of the case at hand */
    rt_vectors_report *report;
    const json_t *entry;
    const char *id, *loss;
    size_t compared;
    double error, tolerance; /* the case's worst */
} vec_run;

typedef struct vec_array { /* a tensor as doubles, in the case's arena */
    double *x;
    size_t n, n_dims, shape[RT_DIMS_MAX];
    rt_dtype dtype; /* in the file */
} vec_array;

/* RT_CORRUPT with the case's name. */
rt_status vec_bad(const vec_run *run, rt_error *err, const char *fmt, ...) RT_PRINTF(3, 4);
/* Room in the arena for count elements of `size` bytes. */
rt_status vec_room(vec_run *run, void *out_pointer, size_t count, size_t size, rt_error *err);
/* group: "in" or "out". */
bool vec_has(const vec_run *run, const char *group, const char *role);
rt_status vec_tensor(vec_run *run, const char *group, const char *role, vec_array *out, rt_error *err);
rt_status vec_tensor_sized(vec_run *run, const char *group, const char *role, size_t n, vec_array *out,
                           rt_error *err);
rt_status vec_number(const vec_run *run, const char *group, const char *role, double *out, rt_error *err);
double vec_param(const vec_run *run, const char *name, double otherwise);
const char *vec_param_text(const vec_run *run, const char *name); /* NULL: not there */
/* A tensor's values as floats; they were made to fit. */
rt_status vec_floats(vec_run *run, const vec_array *array, float **out, rt_error *err);

/* Records a comparison; equal infinities agree, a NaN never does. */
void vec_check(vec_run *run, double x, double ref, double tolerance);
void vec_check_true(vec_run *run, bool holds);

/* A tensor and its floats; a result against the tensor out.<role>. */
rt_status vec_input(vec_run *run, const char *role, vec_array *array, float **x, rt_error *err);
rt_status vec_output(vec_run *run, const char *role, const float *x, size_t n, double tolerance,
                     rt_error *err);

/* Handlers.  *covered false: this build has no such thing. */
typedef rt_status (*vec_handler)(vec_run *run, bool *covered, rt_error *err);
rt_status vec_rows(vec_run *run, bool *covered,
                   rt_error *err); /* a row loss, by token or reduced; "combined"; "*" */
rt_status vec_kept(vec_run *run, bool *covered, rt_error *err); /* truncated teachers, rskd */
rt_status vec_policy(vec_run *run, bool *covered,
                     rt_error *err); /* policy_*, kl_estimators, minillm, distillm2 */
rt_status vec_feature(vec_run *run, bool *covered, rt_error *err); /* hidden_*, minilm_relation */
rt_status vec_crossing(vec_run *run, bool *covered,
                       rt_error *err); /* uld_sorted_l1, align, chunk_binary_kl, byte_marginal */
rt_status vec_training(vec_run *run, bool *covered, rt_error *err); /* adamw, clip, schedule, taid_schedule */
rt_status vec_judging(vec_run *run, bool *covered, rt_error *err);  /* eval, spec, stats */
rt_status vec_blocks(vec_run *run, bool *covered, rt_error *err);   /* rmsnorm, swiglu, rope */
rt_status vec_plan(vec_run *run, bool *covered,
                   rt_error *err); /* svd, activation_importance, scaling, flops, cost */
rt_status vec_attention(vec_run *run, bool *covered, rt_error *err); /* attention, head_<loss> */

#endif
