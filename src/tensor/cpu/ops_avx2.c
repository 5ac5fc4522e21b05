/* tensor/cpu/ops_avx2.c - the row ops compiled for this instruction set. */
#include "tensor/cpu/ops_tables.h"

#define OPS_TABLE rt_ops_avx2
#define OPS_NAME "avx2"
#include "tensor/cpu/ops_body.h"
