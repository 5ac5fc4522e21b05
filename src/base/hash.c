/* base/hash.c - see hash.h. */
#include "base/hash.h"

#include <sodium.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/file.h"

uint64_t rt_hash64(const void *data, size_t size, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, size, seed);
}

void rt_sha256_hex(char out[65], const void *data, size_t size)
{
    unsigned char digest[crypto_hash_sha256_BYTES];
    (void)crypto_hash_sha256(digest, data, size);
    (void)sodium_bin2hex(out, 65, digest, sizeof digest);
}

rt_status rt_sha256_file(char out[65], const char *path, rt_error *err)
{
    rt_file file;
    if (rt_file_map(&file, path, err) != RT_OK)
        return err->status;
    rt_sha256_hex(out, file.data, file.size);
    rt_file_unmap(&file);
    return RT_OK;
}
