/* judge/verify.h - this build against reference vectors. */
#ifndef RT_JUDGE_VERIFY_H
#define RT_JUDGE_VERIFY_H

#include "model/decoder.h"

typedef struct rt_verify {
    size_t passed, failed, not_covered;
    char worst[160]; /* the comparison nearest to, or furthest past, its tolerance */
    double worst_error, worst_tolerance;
} rt_verify;

/* Counts a comparison: error <= tolerance passes; a NaN error fails. */
void rt_verify_add(rt_verify *result, const char *name, double error, double tolerance);

/* A folder of the form of golden/engine: config.json, model.safetensors, vectors.safetensors (ids, mask,
 * logits, hidden.<l>, loss, grad.<name>).  Errors are relative to the largest entry of the reference tensor;
 * the tolerance is 2e-4 in float32 and rt_verify_bf16_tolerance in bf16. */
rt_status rt_verify_model(rt_verify *result, const char *dir, rt_precision precision, rt_pool *pool,
                          rt_error *err);

/* bf16 keeps 8 significant bits: each rounding is off by at most u = 2^-9 relative.  A value that went
 * through n independent roundings is off by about u sqrt(n) (their signs are random); the largest of some
 * thousand entries lies within 4 standard deviations, and norms and softmax pass errors on enlarged by up to
 * about 1.5: tolerance = 6 u sqrt(n),  n = 10 roundings a layer going forward (norm, q k v, rope, weights and
 *   probabilities of attention, its output, residual input, gate and up, activation) + 4 outside; twice that
 * for gradients.  The gradient of the keys' bias nearly cancels; in bf16 its error is relative to the
 * gradient of the keys' weights where that is larger. */
double rt_verify_bf16_tolerance(size_t n_layers, bool gradient);

/* A folder of the form of golden/smollm2 (forward.safetensors, greedy.json) with the model it was made from.
 * float32: log-sum-exp and top-20 logits within 2e-3, loss within 2e-4, rms of the states within 1e-3
 * relative, greedy continuations equal wherever the two best logits are further apart than 2e-3. bf16 and
 * int8 (METHODS of comparison, not of equality): mean distance of log-sum-exp 0.15, loss 0.06, overlap of the
 * top 20 at least 85%, greedy equal up to the first gap below 0.5.  An activation rounded to 8 bits of its
 * group's largest is off by some 0.7% (rms), six times bf16's 0.1%, but at the inputs of products only, a
 * sixth of the roundings: 6 / sqrt(6), so int8 gets 2.5 times bf16's distances. */
rt_status rt_verify_smollm2(rt_verify *result, const char *dir, const rt_model *model, rt_error *err);

/* A reference distillation run (golden/smollm2/kd_curve.json): the same rows, layers and settings in float32,
 * step by step. The loss must follow within 0.5% and the gradient's norm within 1% at each of the first
 * steps_max steps (0: all); after all of them each tensor's norm within 0.5%.  teacher: opened in F32 from
 * `weights`. */
rt_status rt_verify_curve(rt_verify *result, const char *path, const rt_weights *weights,
                          const rt_model *teacher, size_t steps_max, rt_error *err);

#endif
