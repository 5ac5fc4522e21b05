/* base/size.h - arithmetic on sizes that come from outside: false instead of wrapping. */
#ifndef RT_BASE_SIZE_H
#define RT_BASE_SIZE_H

#include <stdbool.h>
#include <stddef.h>

static inline bool rt_size_add(size_t a, size_t b, size_t *out) { return !__builtin_add_overflow(a, b, out); }
static inline bool rt_size_mul(size_t a, size_t b, size_t *out) { return !__builtin_mul_overflow(a, b, out); }
static inline size_t rt_size_min(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t rt_size_max(size_t a, size_t b) { return a > b ? a : b; }
static inline size_t rt_size_ceil_div(size_t a, size_t b) { return a / b + (a % b != 0); }
/* Rounds up to a multiple of `step`, a power of two; the caller knows that it fits. */
static inline size_t rt_size_round_up(size_t n, size_t step) { return (n + step - 1) & ~(step - 1); }

#endif
