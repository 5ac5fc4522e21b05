/* tensor/qmat_memory.c - see qmat_memory.h. */
#include "tensor/qmat_memory.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/size.h"

#define HUGE_PAGE ((size_t)2 << 20)
#define CHUNK_BYTES ((size_t)32 << 20)

struct rt_qchunk {
    unsigned char *base; /* on a huge page's border */
    size_t size, used, pieces;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static rt_qchunk *current; /* under lock: where the next piece goes, if it fits */

/* Address space only: the kernel gives pages when they are written. */
static unsigned char *map_aligned(size_t size)
{
    unsigned char *raw = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED)
        return NULL;
    const size_t before = (HUGE_PAGE - (uintptr_t)raw % HUGE_PAGE) % HUGE_PAGE, after = HUGE_PAGE - before;
    if (before)
        (void)munmap(raw, before);
    if (after)
        (void)munmap(raw + before + size, after);
    (void)madvise(raw + before, size, MADV_HUGEPAGE); /* a wish: without it the pages are small */
    return raw + before;
}

static rt_qchunk *open_chunk(size_t bytes)
{
    size_t size;
    if (!rt_size_add(rt_size_max(bytes, CHUNK_BYTES), 2 * HUGE_PAGE, &size))
        return NULL;
    size = rt_size_round_up(size - 2 * HUGE_PAGE, HUGE_PAGE);
    rt_qchunk *chunk = calloc(1, sizeof *chunk);
    if (chunk)
        chunk->base = map_aligned(size);
    if (!chunk || !chunk->base) {
        free(chunk);
        return NULL;
    }
    chunk->size = size;
    return chunk;
}

void *rt_qmemory_acquire(size_t bytes, rt_qchunk **chunk)
{
    void *out = NULL;
    *chunk = NULL;
    (void)pthread_mutex_lock(&lock);
    if (!current || bytes > current->size - current->used) {
        rt_qchunk *fresh = open_chunk(bytes); /* the old one lives on by its pieces */
        current = fresh ? fresh : current;
        *chunk = fresh;
    } else {
        *chunk = current;
    }
    if (*chunk) {
        out = (*chunk)->base + (*chunk)->used;
        (*chunk)->used = rt_size_min((*chunk)->size, rt_size_round_up((*chunk)->used + bytes, 64));
        (*chunk)->pieces++;
    }
    (void)pthread_mutex_unlock(&lock);
    return out;
}

void rt_qmemory_release(rt_qchunk *chunk)
{
    if (!chunk)
        return;
    (void)pthread_mutex_lock(&lock);
    if (--chunk->pieces == 0) {
        if (chunk == current)
            current = NULL;
        (void)munmap(chunk->base, chunk->size);
        free(chunk);
    }
    (void)pthread_mutex_unlock(&lock);
}
