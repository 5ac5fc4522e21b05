/* tensor/cpu/qmat_avx512.c - the packed product for AVX-512. */
#if defined(__AVX512BW__)
#define QMAT_TABLE rt_qmat_kernels_avx512
#include "tensor/cpu/qmat_body.h"
#else
typedef int rt_qmat_avx512_is_for_another_machine; /* an empty file is not C */
#endif
