/* judge/vectors.h - this build's losses, optimiser, metrics and blocks against reference vectors.
 *
 * A folder holds index.json, which lists cases, and the safetensors files that they name (tests/golden/losses
 * and its README).  Losses are checked twice: the reference in double to 1e-11, and the code that trains, in
 * float32, to 5e-6 for losses and 2e-6 for gradients, in the form |x - ref| <= tolerance (1 + |ref|).  Cases
 * of a kind that this build does not have are counted as not covered. */
#ifndef RT_JUDGE_VECTORS_H
#define RT_JUDGE_VECTORS_H

#include <stddef.h>

#include "retort/error.h"

enum { RT_VECTORS_NAME_MAX = 96, RT_VECTORS_LIST_MAX = 32 };

typedef struct rt_vectors_report {
    size_t passed, failed, not_covered; /* cases */
    struct {
        char name[RT_VECTORS_NAME_MAX]; /* of the case; empty when nothing was compared */
        double error, tolerance;        /* |x - ref| / (1 + |ref|); the pair with the largest quotient */
    } worst;
    char not_covered_kinds[RT_VECTORS_LIST_MAX][RT_VECTORS_NAME_MAX]; /* first part of the case's id */
    size_t n_not_covered_kinds;
    char failures[RT_VECTORS_LIST_MAX][RT_VECTORS_NAME_MAX]; /* the first ones' ids */
    size_t n_failures;
} rt_vectors_report;

/* A wrong value is a failed case; an error is for a folder that cannot be read or is malformed. */
rt_status rt_vectors_losses(rt_vectors_report *report, const char *dir, rt_error *err);

#endif
