/* tensor/cpu/qmat_avx512bf16.c - the packed product for AVX-512 with its byte dot products (VNNI). */
#if defined(__AVX512VNNI__)
#define QMAT_TABLE rt_qmat_kernels_avx512bf16
#include "tensor/cpu/qmat_body.h"
#else
typedef int rt_qmat_avx512bf16_is_for_another_machine; /* an empty file is not C */
#endif
