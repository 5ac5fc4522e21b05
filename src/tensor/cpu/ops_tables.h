/* tensor/cpu/ops_tables.h - the tables that tensor/ops.c chooses from. */
#ifndef RT_TENSOR_CPU_OPS_TABLES_H
#define RT_TENSOR_CPU_OPS_TABLES_H

#include "tensor/ops.h"

extern const rt_ops rt_ops_avx2, rt_ops_avx512;

#endif
