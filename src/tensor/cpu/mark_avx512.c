/* tensor/cpu/mark_avx512.c - a watermark's loops for AVX-512. */
#if defined(__AVX512F__)
#define MARK_TABLE rt_mark_ops_avx512
#include "tensor/cpu/mark_body.h"
#else
typedef int rt_mark_avx512_is_for_another_machine; /* an empty file is not C */
#endif
