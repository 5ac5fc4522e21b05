/* tensor/ref/quant_ref.c - the block decoders compiled for the target's baseline. */
#define DECODERS rt_decoders_ref
#include "tensor/quant_body.h"
