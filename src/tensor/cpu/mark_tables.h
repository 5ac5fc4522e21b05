/* tensor/cpu/mark_tables.h - the tables that mark_body.h is compiled into, one an instruction set. */
#ifndef RT_TENSOR_CPU_MARK_TABLES_H
#define RT_TENSOR_CPU_MARK_TABLES_H

#include "tensor/mark.h"

extern const rt_mark_ops rt_mark_ops_ref;
extern const rt_mark_ops rt_mark_ops_avx2;
extern const rt_mark_ops rt_mark_ops_avx512;

#endif
