/* base/hash.c - see hash.h. */
#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

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

/* By pieces: a file may be larger than the memory that the process may map. */
rt_status rt_sha256_file(char out[65], const char *path, rt_error *err)
{
    static const size_t piece = 1 << 20;
    crypto_hash_sha256_state state;
    unsigned char digest[crypto_hash_sha256_BYTES], *data = malloc(piece);
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat info;
    ssize_t n = -1;
    rt_status status = RT_OK;
    (void)crypto_hash_sha256_init(&state);
    if (!data)
        status = rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory to read it", path);
    else if (fd < 0)
        status = rt_error_set(err, errno == ENOENT ? RT_NOT_FOUND : RT_IO, "%.300s: cannot open: %s", path,
                              strerror(errno));
    else if (fstat(fd, &info) == 0 && !S_ISREG(info.st_mode))
        status = rt_error_set(err, RT_INVALID, "%.300s: is not a regular file", path);
    else
        while ((n = read(fd, data, piece)) > 0 || (n < 0 && errno == EINTR))
            if (n > 0)
                (void)crypto_hash_sha256_update(&state, data, (unsigned long long)n);
    if (status == RT_OK && n < 0)
        status = rt_error_set(err, RT_IO, "%.300s: cannot read: %s", path, strerror(errno));
    (void)crypto_hash_sha256_final(&state, digest);
    if (status == RT_OK)
        (void)sodium_bin2hex(out, 65, digest, sizeof digest);
    if (fd >= 0)
        (void)close(fd);
    free(data);
    return status;
}
