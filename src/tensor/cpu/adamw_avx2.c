/* tensor/cpu/adamw_avx2.c - the optimiser's loops for AVX2 and FMA. */
#if defined(__AVX2__)
#define ADAMW_TABLE rt_adamw_ops_avx2
#include "tensor/cpu/adamw_body.h"
#else
typedef int rt_adamw_avx2_is_for_another_machine; /* an empty file is not C */
#endif
