/* tensor/cpu/quant_avx512.c - the block functions compiled for this instruction set. */
#define VARIANT rt_quant_avx512
#include "tensor/quant_variant_body.h"
