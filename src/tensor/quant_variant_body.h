/* tensor/quant_variant_body.h - the table of block functions for one instruction set.
 *
 * Included once by each quant_<isa>.c, which is compiled for that instruction set and defines
 * VARIANT.  Products and sums are rounded one by one (the build forbids contraction), so every
 * instruction set gives the same bits. */
#include "tensor/quant_decode_body.h"
#include "tensor/quant_round_body.h"

const rt_quant_variant VARIANT = {
    .decode =
        {
            [RT_F32] = decode_f32,   [RT_F16] = decode_f16,   [RT_BF16] = decode_bf16,
            [RT_F64] = decode_f64,   [RT_I8] = decode_i8,     [RT_I16] = decode_i16,
            [RT_I32] = decode_i32,   [RT_I64] = decode_i64,   [RT_U8] = decode_u8,
            [RT_BOOL] = decode_u8,   [RT_Q4_0] = decode_q4_0, [RT_Q4_1] = decode_q4_1,
            [RT_Q5_0] = decode_q5_0, [RT_Q5_1] = decode_q5_1, [RT_Q8_0] = decode_q8_0,
            [RT_Q2_K] = decode_q2_k, [RT_Q3_K] = decode_q3_k, [RT_Q4_K] = decode_q4_k,
            [RT_Q5_K] = decode_q5_k, [RT_Q6_K] = decode_q6_k, [RT_F8_E4M3] = decode_f8_e4m3,
        },
    .round =
        {
            [RT_Q4_0] = round_q4_0,
            [RT_Q4_1] = round_q4_1,
            [RT_Q8_0] = round_q8_0,
            [RT_Q4_K] = round_q4_k,
            [RT_Q6_K] = round_q6_k,
        },
};
