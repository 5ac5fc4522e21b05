/* tensor/ref/quant_ref.c - the block functions compiled for the target's baseline. */
#define VARIANT rt_quant_ref
#include "tensor/quant_variant_body.h"
