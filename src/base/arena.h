/* base/arena.h - a run of memory with one lifetime, sized up front; not for two threads at once.
 *
 * The pages are reserved at once and touched only when used, so a generous bytes_max costs
 * nothing.  Everything handed out is 64-byte aligned. */
#ifndef RT_BASE_ARENA_H
#define RT_BASE_ARENA_H

#include <stddef.h>

#include "retort/error.h"

typedef struct rt_arena {
    unsigned char *base;
    size_t used, size; /* bytes */
    size_t peak;       /* the largest `used` so far */
} rt_arena;

rt_status rt_arena_init(rt_arena *arena, size_t bytes_max, rt_error *err);
/* For memory that is used here and there: small pages, so that a touched byte costs 4 KiB and not 2 MiB. */
void rt_arena_use_small_pages(rt_arena *arena);
/* count × size bytes, zeroed; NULL when the arena is full or the product overflows. */
void *rt_arena_push(rt_arena *arena, size_t count, size_t size);
/* The same without zeroing: for buffers that are written before they are read. */
void *rt_arena_push_raw(rt_arena *arena, size_t count, size_t size);
size_t rt_arena_mark(const rt_arena *arena);
void rt_arena_rewind(rt_arena *arena, size_t mark); /* drops what was pushed since the mark */
void rt_arena_reset(rt_arena *arena);               /* keeps memory, drops contents */
void rt_arena_deinit(rt_arena *arena);

#endif
