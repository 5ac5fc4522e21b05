/* tensor/cpu/adamw_avx512.c - the optimiser's loops for AVX-512. */
#if defined(__AVX512F__)
#define ADAMW_TABLE rt_adamw_ops_avx512
#include "tensor/cpu/adamw_body.h"
#else
typedef int rt_adamw_avx512_is_for_another_machine; /* an empty file is not C */
#endif
