/* tensor/cpu/ops_avx512bf16.c - the row ops compiled for this instruction set, attention of one position by
 * hand. */
#include "tensor/cpu/ops_tables.h"

#define OPS_TABLE rt_ops_avx512bf16
#define OPS_NAME "avx512bf16"
#define OPS_SCORES_BF16 rt_scores_avx512bf16
#define OPS_WEIGH_BF16 rt_weigh_avx512bf16
#include "tensor/cpu/ops_body.h"
