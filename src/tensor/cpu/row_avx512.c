/* tensor/cpu/row_avx512.c - the row passes for AVX-512. */
#if defined(__AVX512F__)
#define ROW_TABLE rt_row_ops_avx512
#include "tensor/cpu/row_body.h"
#else
typedef int rt_row_avx512_is_for_another_machine; /* an empty file is not C */
#endif
