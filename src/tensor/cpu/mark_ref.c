/* tensor/cpu/mark_ref.c - a watermark's loops for the baseline of the target. */
#define MARK_TABLE rt_mark_ops_ref
#include "tensor/cpu/mark_body.h"
