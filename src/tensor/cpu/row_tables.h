/* tensor/cpu/row_tables.h - the tables that row_body.h is compiled into, one an instruction set. */
#ifndef RT_TENSOR_CPU_ROW_TABLES_H
#define RT_TENSOR_CPU_ROW_TABLES_H

#include "tensor/row.h"

extern const rt_row_ops rt_row_ops_ref;
extern const rt_row_ops rt_row_ops_avx2;
extern const rt_row_ops rt_row_ops_avx512;

#endif
