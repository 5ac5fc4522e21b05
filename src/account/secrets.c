/* account/secrets.c - see secrets.h. */
#include "account/secrets.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "account/db.h"
#include "base/text.h"

enum { SEED = crypto_sign_SEEDBYTES, FILE_SIZE = SEED + 32 };

/* Made under a name of its own and linked, so that two processes that start at once agree on one file. */
static rt_status make_file(const char *path, rt_error *err)
{
    unsigned char bytes[FILE_SIZE];
    rt_text name = {0};
    rt_text_printf(&name, "%s.tmp-%ld", path, (long)getpid());
    if (name.failed)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
    randombytes_buf(bytes, sizeof bytes);
    const int fd = open(name.data, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool good = fd >= 0 && write(fd, bytes, sizeof bytes) == (ssize_t)sizeof bytes && fsync(fd) == 0;
    if (fd >= 0)
        (void)close(fd);
    good = good && (link(name.data, path) == 0 || errno == EEXIST);
    const int reason = errno;
    (void)unlink(name.data);
    rt_text_deinit(&name);
    sodium_memzero(bytes, sizeof bytes);
    return good ? RT_OK
                : rt_error_set(err, RT_IO, "%s: the file of secrets cannot be written: %s", path,
                               strerror(reason));
}

static rt_status read_file(unsigned char bytes[FILE_SIZE], const char *path, rt_error *err)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat info;
    if (fd < 0)
        return rt_error_set(err, errno == ENOENT ? RT_NOT_FOUND : RT_IO,
                            "%s: the file of secrets cannot be read: %s", path, strerror(errno));
    rt_status status = RT_OK;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size != FILE_SIZE)
        status = rt_error_set(err, RT_CORRUPT, "%s: not a file of secrets (%d bytes)", path, FILE_SIZE);
    else if (info.st_mode & 077)
        status = rt_error_set(err, RT_FORBIDDEN, "%s: others can read the secrets; chmod 600 it", path);
    else if (read(fd, bytes, FILE_SIZE) != FILE_SIZE)
        status = rt_error_set(err, RT_IO, "%s: the file of secrets cannot be read", path);
    (void)close(fd);
    return status;
}

static rt_status open_at(rt_secrets *out, const char *path, rt_error *err)
{
    unsigned char bytes[FILE_SIZE];
    rt_status status = read_file(bytes, path, err);
    if (status == RT_NOT_FOUND) {
        status = make_file(path, err);
        if (status == RT_OK)
            status = read_file(bytes, path, err);
    }
    if (status == RT_OK) {
        (void)crypto_sign_seed_keypair(out->sign_public, out->sign, bytes);
        memcpy(out->seal, bytes + SEED, sizeof out->seal);
    }
    sodium_memzero(bytes, sizeof bytes);
    return status;
}

rt_status rt_secrets_open(rt_secrets *out, const char *path, const char *db, rt_error *err)
{
    if (sodium_init() < 0)
        return rt_error_set(err, RT_INTERNAL, "libsodium cannot be initialised");
    if (path)
        return open_at(out, path, err);
    if (rt_db_url_is_shared(db))
        return rt_error_set(err, RT_INVALID,
                            "a PostgreSQL database needs --secrets FILE, the same file for every server");
    rt_text beside = {0};
    rt_text_printf(&beside, "%s.secrets", db);
    const rt_status status = beside.failed ? rt_error_set(err, RT_NO_MEMORY, "no memory for a path")
                                           : open_at(out, beside.data, err);
    rt_text_deinit(&beside);
    return status;
}

void rt_secrets_wipe(rt_secrets *secrets) { sodium_memzero(secrets, sizeof *secrets); }

void rt_secrets_seal(const rt_secrets *secrets, unsigned char *out, const void *data, size_t size,
                     const char *bound)
{
    const size_t nonce = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES;
    randombytes_buf(out, nonce);
    (void)crypto_aead_xchacha20poly1305_ietf_encrypt(
        out + nonce, NULL, data, size, (const unsigned char *)bound, strlen(bound), NULL, out, secrets->seal);
}

rt_status rt_secrets_unseal(const rt_secrets *secrets, unsigned char *out, const void *sealed, size_t size,
                            const char *bound, rt_error *err)
{
    const size_t nonce = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES;
    const unsigned char *bytes = sealed;
    if (size < RT_SEAL_OVERHEAD ||
        crypto_aead_xchacha20poly1305_ietf_decrypt(out, NULL, NULL, bytes + nonce, size - nonce,
                                                   (const unsigned char *)bound, strlen(bound), bytes,
                                                   secrets->seal) != 0)
        return rt_error_set(err, RT_CORRUPT,
                            "a sealed prompt cannot be opened: other secrets, or changed bytes");
    return RT_OK;
}
