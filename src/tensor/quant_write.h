/* tensor/quant_write.h - what quant_write.c and quant_write_k.c share. */
#ifndef RT_TENSOR_QUANT_WRITE_H
#define RT_TENSOR_QUANT_WRITE_H

#include <stdint.h>

enum { RT_BLOCK_ELEMENTS_MAX = 256 };

uint16_t rt_half_of_scale(float scale);                           /* nearest f16, at most 65504 either way */
void rt_round_q4_k(unsigned char block[144], const float x[256]); /* x is finite */
void rt_round_q6_k(unsigned char block[210], const float x[256]);

#endif
