/* tensor/cpu/adamw_tables.h - the tables that adamw_body.h is compiled into, one an instruction set. */
#ifndef RT_TENSOR_CPU_ADAMW_TABLES_H
#define RT_TENSOR_CPU_ADAMW_TABLES_H

#include "tensor/adamw.h"

extern const rt_adamw_ops rt_adamw_ops_ref;
extern const rt_adamw_ops rt_adamw_ops_avx2;
extern const rt_adamw_ops rt_adamw_ops_avx512;

#endif
