/* tensor/cpu/vexp.h - a vector of floats of the width that this file is compiled for, its exp and log.
 *
 * GNU vector extensions, so gcc and clang make one source into SSE2, AVX2 or AVX-512 (or another
 * machine's) code; only fused multiply-add needs an intrinsic.  The polynomials are least-maximum
 * fits of this project: the relative error of exp is 3e-9 before rounding, that of log 3e-8. */
#ifndef RT_TENSOR_CPU_VEXP_H
#define RT_TENSOR_CPU_VEXP_H

#include <stdint.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define RT_VEC_BYTES 64
#elif defined(__AVX2__)
#define RT_VEC_BYTES 32
#else
#define RT_VEC_BYTES 16
#endif
enum { RT_LANES = RT_VEC_BYTES / 4 };

typedef float rt_vf __attribute__((vector_size(RT_VEC_BYTES)));
typedef int32_t rt_vi __attribute__((vector_size(RT_VEC_BYTES)));
typedef uint32_t rt_vu __attribute__((vector_size(RT_VEC_BYTES)));
typedef uint16_t rt_vh __attribute__((vector_size(RT_VEC_BYTES / 2)));

#define RT_VINLINE static inline __attribute__((always_inline))

RT_VINLINE rt_vf rt_vload(const float *x)
{
    rt_vf v;
    memcpy(&v, x, sizeof v);
    return v;
}

RT_VINLINE void rt_vstore(float *x, rt_vf v) { memcpy(x, &v, sizeof v); }

RT_VINLINE rt_vf rt_vset(float x)
{
    rt_vf zero = {0};
    return zero + x;
}

RT_VINLINE rt_vf rt_vfma(rt_vf a, rt_vf b, rt_vf c) /* a b + c */
{
#if defined(__AVX512F__)
    return (rt_vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    return (rt_vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

/* a > b ? a : b in each lane: b where either is NaN */
RT_VINLINE rt_vf rt_vmax(rt_vf a, rt_vf b)
{
#if defined(__AVX512F__)
    return (rt_vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (rt_vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    const rt_vi m = a > b;
    return (rt_vf)((m & (rt_vi)a) | (~m & (rt_vi)b));
#endif
}

RT_VINLINE rt_vf rt_vabs(rt_vf a) { return (rt_vf)((rt_vi)a & 0x7FFFFFFF); }

/* mask ? a : 0, mask of whole lanes */
RT_VINLINE rt_vf rt_vkeep(rt_vi mask, rt_vf a) { return (rt_vf)(mask & (rt_vi)a); }

/* x - n ln 2.  With a fused multiply-add one constant is enough: it is off by 2e-9 of n. */
RT_VINLINE rt_vf rt_vreduce(rt_vf x, rt_vf n)
{
#if defined(__FMA__)
    return rt_vfma(n, rt_vset(-0.693147182f), x);
#else
    return (x - n * 0.693359375f) + n * 2.12194440e-4f; /* the first product is exact */
#endif
}

/* e^x for x <= 88; 0 for x < -87 (no subnormals: they are slow); NaN stays NaN. */
RT_VINLINE rt_vf rt_vexp(rt_vf x)
{
    const rt_vf bias = rt_vset(12583039.0f); /* 1.5 * 2^23 + 127: rounds, and its low bits are the exponent */
    const rt_vf c = rt_vmax(rt_vset(-87.0f), x); /* this order keeps a NaN */
    const rt_vf t = rt_vfma(c, rt_vset(1.44269504f), bias), r = rt_vreduce(c, t - bias);
    const rt_vf scale = (rt_vf)((rt_vu)t << 23);
    rt_vf p = rt_vfma(r, rt_vset(0.0013814318f), rt_vset(0.0083688516f));
    p = rt_vfma(p, r, rt_vset(0.0416684002f));
    p = rt_vfma(p, r, rt_vset(0.1666651964f));
    p = rt_vfma(p, r, rt_vset(0.4999999404f));
    p = rt_vfma(p, r, rt_vset(1.0f));
    p = rt_vfma(p, r, rt_vset(1.0f));
    return rt_vkeep(~(x < rt_vset(-87.0f)), p * scale);
}

/* log x for normal x > 0. */
RT_VINLINE rt_vf rt_vlog(rt_vf x)
{
    const rt_vi offset = (rt_vi)x - 0x3F3504F3;                       /* bits of sqrt(1/2) */
    const rt_vi e = offset >> 23;                                     /* so that the fraction is in */
    const rt_vf f = (rt_vf)((offset & 0x7FFFFF) + 0x3F3504F3) - 1.0f; /* [sqrt(1/2), sqrt 2) */
    const rt_vf k = __builtin_convertvector(e, rt_vf);
    rt_vf p = rt_vfma(f, rt_vset(0.0871128961f), rt_vset(-0.1428408027f));
    p = rt_vfma(p, f, rt_vset(0.1491843611f));
    p = rt_vfma(p, f, rt_vset(-0.1657583117f));
    p = rt_vfma(p, f, rt_vset(0.1996259391f));
    p = rt_vfma(p, f, rt_vset(-0.2500137985f));
    p = rt_vfma(p, f, rt_vset(0.3333392143f));
    const rt_vf f2 = f * f;
    p = rt_vfma(p * f, f2, f2 * -0.5f) + f;
    return rt_vfma(k, rt_vset(0.693147182f), p);
}

#endif
