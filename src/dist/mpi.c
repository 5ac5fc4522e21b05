/* dist/mpi.c - the module retort-mpi.so: rt_ranks by MPI.  It stands alone but for the error type. */
#include <mpi.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "student/ranks.h"

#define EXPORTED __attribute__((visibility("default")))
EXPORTED rt_status rt_mpi_open(rt_ranks *out, rt_error *err);
EXPORTED void rt_mpi_close(rt_ranks *ranks, bool failed);

enum { REQUESTS = 4096, PIECE = 1 << 28, TEXT_BYTES = 128 };

typedef struct world {
    MPI_Request requests[REQUESTS];
    int count, size;
} world;

static rt_status failed_call(const char *what, int code, rt_error *err)
{
    char why[MPI_MAX_ERROR_STRING] = "";
    int n = 0;
    (void)MPI_Error_string(code, why, &n);
    return rt_error_set(err, RT_IO, "MPI: %s failed: %.200s", what, why);
}

static rt_status reduce_begin(void *self, float *data, size_t n, rt_error *err)
{
    world *w = self;
    for (size_t at = 0; at < n; at += PIECE) {
        if (w->count == REQUESTS)
            return rt_error_set(err, RT_UNSUPPORTED, "more than %d sums over the ranks at once",
                                (int)REQUESTS);
        const int count = (int)(n - at < PIECE ? n - at : PIECE);
        const int code = MPI_Iallreduce(MPI_IN_PLACE, data + at, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD,
                                        &w->requests[w->count]);
        if (code != MPI_SUCCESS)
            return failed_call("adding gradients up", code, err);
        w->count++;
    }
    return RT_OK;
}

static void progress(void *self)
{
    world *w = self;
    int done;
    if (w->count)
        (void)MPI_Testall(w->count, w->requests, &done, MPI_STATUSES_IGNORE);
}

static rt_status reduce_end(void *self, rt_error *err)
{
    world *w = self;
    const int code = MPI_Waitall(w->count, w->requests, MPI_STATUSES_IGNORE);
    w->count = 0;
    return code == MPI_SUCCESS ? RT_OK : failed_call("adding gradients up", code, err);
}

static rt_status sum(void *self, double *data, size_t n, rt_error *err)
{
    (void)self;
    const int code = MPI_Allreduce(MPI_IN_PLACE, data, (int)n, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    return code == MPI_SUCCESS ? RT_OK : failed_call("adding figures up", code, err);
}

static rt_status gather(void *self, float *data, const size_t *begins, rt_error *err)
{
    const world *w = self;
    for (int r = 0; r < w->size; r++)
        for (size_t at = begins[r]; at < begins[r + 1]; at += PIECE) {
            const size_t left = begins[r + 1] - at;
            const int code =
                MPI_Bcast(data + at, (int)(left < PIECE ? left : PIECE), MPI_FLOAT, r, MPI_COMM_WORLD);
            if (code != MPI_SUCCESS)
                return failed_call("sharing the parameters", code, err);
        }
    return RT_OK;
}

static rt_status same(void *self, const char *what, const char *text, rt_error *err)
{
    const world *w = self;
    char mine[TEXT_BYTES] = "", *all = malloc((size_t)w->size * TEXT_BYTES);
    (void)snprintf(mine, sizeof mine, "%s", text);
    if (!all)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %d ranks", w->size);
    const int code = MPI_Allgather(mine, TEXT_BYTES, MPI_CHAR, all, TEXT_BYTES, MPI_CHAR, MPI_COMM_WORLD);
    int other = 1;
    while (code == MPI_SUCCESS && other < w->size && strncmp(all, all + other * TEXT_BYTES, TEXT_BYTES) == 0)
        other++;
    free(all);
    if (code != MPI_SUCCESS)
        return failed_call("comparing the ranks", code, err);
    return other == w->size
               ? RT_OK
               : rt_error_set(err, RT_MISMATCH,
                              "rank %d has other %s than rank 0: all ranks must be started alike", other,
                              what);
}

rt_status rt_mpi_open(rt_ranks *out, rt_error *err)
{
    int given, rank, size;
    *out = (rt_ranks){.size = 1};
    int code = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &given);
    if (code != MPI_SUCCESS)
        return failed_call("starting", code, err);
    (void)MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    (void)MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    (void)MPI_Comm_size(MPI_COMM_WORLD, &size);
    world *w = calloc(1, sizeof *w);
    if (!w)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for MPI");
    w->size = size;
    *out = (rt_ranks){(size_t)rank, (size_t)size, w, reduce_begin, progress, reduce_end, sum, gather, same};
    return RT_OK;
}

void rt_mpi_close(rt_ranks *ranks, bool failed)
{
    if (failed)
        (void)MPI_Abort(MPI_COMM_WORLD, 1);
    (void)MPI_Finalize();
    free(ranks->self);
}
