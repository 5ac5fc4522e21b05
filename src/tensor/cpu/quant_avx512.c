/* tensor/cpu/quant_avx512.c - the block decoders compiled for this instruction set. */
#define DECODERS rt_decoders_avx512
#include "tensor/quant_body.h"
