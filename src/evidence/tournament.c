/* evidence/tournament.c - see tournament.h. */
#include "evidence/tournament.h"

void rt_tournament(double *p, const uint64_t *bits, size_t n, size_t layers)
{
    for (size_t l = 0; l < layers; l++) {
        double mass = 0;
        for (size_t v = 0; v < n; v++)
            mass += ((bits[v] >> l) & 1) ? p[v] : 0;
        for (size_t v = 0; v < n; v++) {
            p[v] *= 1 + (double)((bits[v] >> l) & 1) - mass;
            p[v] = p[v] > 0 ? p[v] : 0; /* a rounding below 0 is none */
        }
    }
}
