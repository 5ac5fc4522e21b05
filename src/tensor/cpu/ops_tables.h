/* tensor/cpu/ops_tables.h - the tables that tensor/ops.c chooses from. */
#ifndef RT_TENSOR_CPU_OPS_TABLES_H
#define RT_TENSOR_CPU_OPS_TABLES_H

#include "tensor/ops.h"

extern const rt_ops rt_ops_avx2, rt_ops_avx512, rt_ops_avx512bf16;

/* attend_avx512bf16.c: scores_bf16 and weigh_bf16 of rt_ops. */
void rt_scores_avx512bf16(float *scores, size_t ld_scores, const void *q, size_t group, const void *keys,
                          size_t ld, size_t n, size_t head_dim);
void rt_weigh_avx512bf16(float *out, const float *weights, size_t ld_weights, size_t group,
                         const void *values, size_t ld, size_t n, size_t head_dim);

#endif
