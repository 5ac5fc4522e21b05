/* dist/dist.h - several processes started together by mpirun or Slurm.
 *
 * MPI is in a module of its own, retort-mpi.so beside the program (or in ../lib/retort), which is loaded only
 * where the environment says that there are several: a program that runs alone neither needs nor loads MPI.
 */
#ifndef RT_DIST_DIST_H
#define RT_DIST_DIST_H

#include <stdbool.h>

#include "student/ranks.h"

typedef struct rt_dist {
    rt_ranks ranks; /* size 1: alone */
    void *module;   /* NULL: alone */
    void (*close)(rt_ranks *ranks, bool failed);
} rt_dist;

/* How many processes the environment speaks of (mpirun, PMI, PMIx, Slurm); 1: alone. */
size_t rt_dist_expected(void);
/* RT_UNSUPPORTED: there are several and this build has no MPI. */
rt_status rt_dist_open(rt_dist *out, rt_error *err);
const rt_ranks *rt_dist_ranks(const rt_dist *dist); /* NULL when alone */
/* failed: the others are ended too. */
void rt_dist_close(rt_dist *dist, bool failed);

#endif
