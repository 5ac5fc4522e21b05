/* tensor/cpu/qmat_avx2.c - the packed product for AVX2. */
#if defined(__AVX2__)
#define QMAT_TABLE rt_qmat_kernels_avx2
#include "tensor/cpu/qmat_body.h"
#else
typedef int rt_qmat_avx2_is_for_another_machine; /* an empty file is not C */
#endif
