/* tensor/qmat_memory.h - memory for packed matrices, in chunks that the kernel can back with huge pages.
 *
 * Decoding reads every matrix once a token; with pages of 4 KiB the address translation alone costs a
 * fifth to a third of the memory's speed, and most of a model's matrices are smaller than one page of
 * 2 MiB.  So they share chunks, one after the other in the order of packing.  Safe from any thread. */
#ifndef RT_TENSOR_QMAT_MEMORY_H
#define RT_TENSOR_QMAT_MEMORY_H

#include <stddef.h>

typedef struct rt_qchunk rt_qchunk;
/* 64-byte aligned memory and the chunk that holds it; NULL when there is none left. */
void *rt_qmemory_acquire(size_t bytes, rt_qchunk **chunk);
/* Gives one piece back; the chunk goes with its last piece. */
void rt_qmemory_release(rt_qchunk *chunk);

#endif
