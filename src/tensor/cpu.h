/* tensor/cpu.h - which instruction sets this run uses.
 *
 * Every fast variant of an op asks this one function, so that a single environment variable forces
 * the whole program to one level: RETORT_CPU=ref|avx2|avx512|avx512bf16.  A level that the machine
 * lacks is lowered to the best that it has. */
#ifndef RT_TENSOR_CPU_H
#define RT_TENSOR_CPU_H

#include "retort/error.h"

typedef enum rt_cpu {
    RT_CPU_REF = 0,       /* plain C for the baseline of the target */
    RT_CPU_AVX2 = 1,      /* AVX2, FMA, F16C */
    RT_CPU_AVX512 = 2,    /* and AVX-512 F, BW, DQ, VL */
    RT_CPU_AVX512BF16 = 3 /* and AVX512-VNNI, AVX512-BF16 */
} rt_cpu;

/* min(forced, detected); an unknown word in RETORT_CPU forces nothing.  Safe from any thread. */
unsigned rt_cpu_level(void);
/* Reads RETORT_CPU again: for tests, which change it between cases; no other thread may run. */
void rt_cpu_reset(void);
/* RT_INVALID, naming the word and the valid ones, when RETORT_CPU is set to something else. */
rt_status rt_cpu_check(rt_error *err);
const char *rt_cpu_name(unsigned level); /* "ref", "avx2", "avx512", "avx512bf16" */

#endif
