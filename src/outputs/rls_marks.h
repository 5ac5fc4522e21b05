/* outputs/rls_marks.h - the 32 bytes that begin a block, an index, and that end a file.  Internal to rls_*.c.
 */
#ifndef RT_OUTPUTS_RLS_MARKS_H
#define RT_OUTPUTS_RLS_MARKS_H

#include "outputs/rls_file.h"

/* 0x89 R L, then what it is. */
#define RLS_MARK_BLOCK 0x424c5289u /* B */
#define RLS_MARK_INDEX 0x494c5289u /* I */
#define RLS_MARK_END 0x454c5289u   /* E: `bytes` is the index's offset */

void rls_mark_write(unsigned char out[RLS_BLOCK_HEADER], uint32_t magic, uint32_t count, uint64_t bytes,
                    uint64_t check);
rt_status rls_index_add(rls_index *index, rls_entry entry, rt_error *err);

#endif
