/* evidence/tournament.h - the tournament's closed form in double, the meaning of the fast one in
 * tensor/mark.h (METHODS-evidence section 2.4). */
#ifndef RT_EVIDENCE_TOURNAMENT_H
#define RT_EVIDENCE_TOURNAMENT_H

#include <stddef.h>
#include <stdint.h>

/* p [n], sum 1, becomes the marked distribution: for each layer l, G = sum of p g_l, p(v) *= 1 + g_l(v) - G.
 * bits [n]: layer l in bit l. */
void rt_tournament(double *p, const uint64_t *bits, size_t n, size_t layers);

#endif
