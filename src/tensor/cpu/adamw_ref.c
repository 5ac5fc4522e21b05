/* tensor/cpu/adamw_ref.c - the optimiser's loops for the baseline of the target. */
#define ADAMW_TABLE rt_adamw_ops_ref
#include "tensor/cpu/adamw_body.h"
