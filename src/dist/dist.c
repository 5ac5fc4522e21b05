/* dist/dist.c - see dist.h. */
#include "dist/dist.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

size_t rt_dist_expected(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *text = getenv(names[i]);
        const long n = text ? strtol(text, NULL, 10) : 0;
        if (n > 0)
            return (size_t)n;
    }
    const char *tasks = getenv("SLURM_NTASKS");
    if (getenv("PMIX_RANK") && tasks) /* srun --mpi=pmix */
        return (size_t)strtoul(tasks, NULL, 10);
    return 1;
}

/* Beside the program, or where it is installed. */
static void *open_module(void)
{
    static const char *const places[] = {"retort-mpi.so", "../lib/retort/retort-mpi.so"};
    char self[512], path[600];
    const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0)
        return NULL;
    self[n] = '\0';
    char *slash = strrchr(self, '/');
    if (!slash)
        return NULL;
    slash[1] = '\0';
    void *module = NULL;
    for (size_t i = 0; i < 2 && !module; i++) {
        (void)snprintf(path, sizeof path, "%s%s", self, places[i]);
        if (access(path, R_OK) == 0)
            module = dlopen(path, RTLD_NOW | RTLD_GLOBAL); /* Open MPI's own parts look for its names */
    }
    return module;
}

rt_status rt_dist_open(rt_dist *out, rt_error *err)
{
    *out = (rt_dist){.ranks = {.size = 1}};
    const size_t expected = rt_dist_expected();
    if (expected < 2)
        return RT_OK;
    out->module = open_module();
    if (!out->module)
        return rt_error_set(
            err, RT_UNSUPPORTED,
            "started as one of %zu processes, and this build has no MPI; install libopenmpi-dev and build "
            "again, or start one process",
            expected);
    rt_status (*open)(rt_ranks *, rt_error *);
    *(void **)&open = dlsym(out->module, "rt_mpi_open");
    *(void **)&out->close = dlsym(out->module, "rt_mpi_close");
    if (!open || !out->close)
        return rt_error_set(err, RT_MISMATCH, "retort-mpi.so is of another version than the program");
    return open(&out->ranks, err);
}

const rt_ranks *rt_dist_ranks(const rt_dist *dist) { return dist->ranks.size > 1 ? &dist->ranks : NULL; }

void rt_dist_close(rt_dist *dist, bool failed)
{
    if (dist->close && dist->ranks.self)
        dist->close(&dist->ranks, failed);
    *dist = (rt_dist){.ranks = {.size = 1}}; /* the module stays loaded: MPI has handlers in it */
}
