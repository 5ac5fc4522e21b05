/* tensor/cpu/row_ref.c - the row passes for the baseline of the target. */
#define ROW_TABLE rt_row_ops_ref
#include "tensor/cpu/row_body.h"
