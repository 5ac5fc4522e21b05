/* tensor/cpu/row_avx2.c - the row passes for AVX2 and FMA. */
#if defined(__AVX2__)
#define ROW_TABLE rt_row_ops_avx2
#include "tensor/cpu/row_body.h"
#else
typedef int rt_row_avx2_is_for_another_machine; /* an empty file is not C */
#endif
