/* base/hash.h - XXH3 for tables and checks against accidents, SHA-256 for identity. */
#ifndef RT_BASE_HASH_H
#define RT_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "retort/error.h"

uint64_t rt_hash64(const void *data, size_t size, uint64_t seed); /* XXH3 */
/* Lower-case hex of the SHA-256 of data. */
void rt_sha256_hex(char out[65], const void *data, size_t size);
rt_status rt_sha256_file(char out[65], const char *path, rt_error *err);

#endif
