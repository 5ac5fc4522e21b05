/* tensor/cpu/mark_avx2.c - a watermark's loops for AVX2. */
#if defined(__AVX2__)
#define MARK_TABLE rt_mark_ops_avx2
#include "tensor/cpu/mark_body.h"
#else
typedef int rt_mark_avx2_is_for_another_machine; /* an empty file is not C */
#endif
