/* tensor/cpu/ops_avx512.c - the row ops compiled for this instruction set. */
#include "tensor/cpu/ops_tables.h"

#define OPS_TABLE rt_ops_avx512
#define OPS_NAME "avx512"
#include "tensor/cpu/ops_body.h"
