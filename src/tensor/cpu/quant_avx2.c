/* tensor/cpu/quant_avx2.c - the block decoders compiled for this instruction set. */
#define DECODERS rt_decoders_avx2
#include "tensor/quant_body.h"
