/* tensor/cpu/quant_avx2.c - the block functions compiled for this instruction set. */
#define VARIANT rt_quant_avx2
#include "tensor/quant_variant_body.h"
