/* tensor/cpu.c - see cpu.h. */
#include "tensor/cpu.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

static const char *const names[] = {"ref", "avx2", "avx512", "avx512bf16"};
enum { LEVELS = sizeof names / sizeof *names };

#if defined(__x86_64__)
static bool have_f16c(void) /* clang 14's __builtin_cpu_supports does not know it */
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

static unsigned detect(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !have_f16c())
        return RT_CPU_REF;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
        return RT_CPU_AVX2;
    if (!__builtin_cpu_supports("avx512vnni") || !__builtin_cpu_supports("avx512bf16"))
        return RT_CPU_AVX512;
    return RT_CPU_AVX512BF16;
#else
    return RT_CPU_REF;
#endif
}

/* The level that RETORT_CPU names; false for an unknown word.  Not set, or empty: the highest. */
static bool forced(unsigned *level)
{
    const char *word = getenv("RETORT_CPU");
    *level = LEVELS - 1;
    if (!word || !*word)
        return true;
    for (unsigned i = 0; i < LEVELS; i++) {
        if (strcmp(word, names[i]) == 0) {
            *level = i;
            return true;
        }
    }
    return false;
}

static atomic_int cached = -1;

unsigned rt_cpu_level(void)
{
    int level = atomic_load_explicit(&cached, memory_order_relaxed);
    if (level < 0) { /* two threads may both come here; they find the same */
        unsigned limit;
        (void)forced(&limit);
        const unsigned have = detect();
        level = (int)(have < limit ? have : limit);
        atomic_store_explicit(&cached, level, memory_order_relaxed);
    }
    return (unsigned)level;
}

void rt_cpu_reset(void) { atomic_store_explicit(&cached, -1, memory_order_relaxed); }

rt_status rt_cpu_check(rt_error *err)
{
    unsigned level;
    if (forced(&level))
        return RT_OK;
    return rt_error_set(
        err, RT_INVALID,
        "RETORT_CPU=%.60s: is no instruction set that is known here; use ref, avx2, avx512 or "
        "avx512bf16, or unset it",
        getenv("RETORT_CPU"));
}

const char *rt_cpu_name(unsigned level) { return level < LEVELS ? names[level] : "unknown"; }
