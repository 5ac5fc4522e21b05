/* base/arena.c - see arena.h.  mmap gives zero pages, huge ones where the kernel offers them. */
#include "base/arena.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

#include "base/size.h"

enum { ARENA_ALIGN = 64 };

rt_status rt_arena_init(rt_arena *arena, size_t bytes_max, rt_error *err)
{
    *arena = (rt_arena){0};
    if (bytes_max > ((size_t)1 << 46))
        return rt_error_set(err, RT_NO_MEMORY, "cannot reserve %zu bytes: the size is absurd", bytes_max);
    const size_t size = rt_size_round_up(rt_size_max(bytes_max, 1), 4096);
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return rt_error_set(err, RT_NO_MEMORY,
                            "cannot reserve %zu MiB of memory; close other programs or use a smaller batch",
                            size >> 20);
    (void)madvise(base, size, MADV_HUGEPAGE);
    arena->base = base;
    arena->size = size;
    return RT_OK;
}

void rt_arena_use_small_pages(rt_arena *arena) { (void)madvise(arena->base, arena->size, MADV_NOHUGEPAGE); }

void *rt_arena_push_raw(rt_arena *arena, size_t count, size_t size)
{
    size_t bytes;
    if (!rt_size_mul(count, size, &bytes) || bytes > arena->size - arena->used)
        return NULL;
    void *out = arena->base + arena->used;
    arena->used = rt_size_min(rt_size_round_up(arena->used + bytes, ARENA_ALIGN), arena->size);
    arena->peak = rt_size_max(arena->peak, arena->used);
    return out;
}

void *rt_arena_push(rt_arena *arena, size_t count, size_t size)
{
    void *out = rt_arena_push_raw(arena, count, size);
    if (out)
        memset(out, 0, count * size);
    return out;
}

size_t rt_arena_mark(const rt_arena *arena) { return arena->used; }

void rt_arena_rewind(rt_arena *arena, size_t mark)
{
    assert(mark <= arena->used);
    arena->used = mark;
}

void rt_arena_reset(rt_arena *arena) { arena->used = 0; }

void rt_arena_deinit(rt_arena *arena)
{
    if (arena->base)
        (void)munmap(arena->base, arena->size);
    *arena = (rt_arena){0};
}
