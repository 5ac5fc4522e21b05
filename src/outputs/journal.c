/* outputs/journal.c - records with checksums in a file that only grows; see journal.h. */
#include "outputs/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"

enum { HEAD = 9, READ_BYTES = 1 << 16, RECORD_BYTES_MAX = 1 << 20 };

static void checksum(char out[HEAD + 1], const char *payload, size_t size)
{
    (void)snprintf(out, HEAD + 1, "%08x ", (unsigned)(rt_hash64(payload, size, 0) & 0xFFFFFFFF));
}

rt_status rt_fd_write(int fd, const void *data, size_t size, const char *path, rt_error *err)
{
    const char *at = data;
    while (size) {
        const ssize_t n = write(fd, at, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return rt_error_set(err, RT_IO, "%.300s cannot be written: %s", path, strerror(errno));
        at += n;
        size -= (size_t)n;
    }
    return RT_OK;
}

static bool record_is_whole(const char *line, size_t size)
{
    char head[HEAD + 1];
    if (size < HEAD)
        return false;
    checksum(head, line + HEAD, size - HEAD);
    return memcmp(head, line, HEAD) == 0;
}

/* Hands out records until the first that is not whole; *kept: bytes up to there. */
static rt_status replay(rt_journal *journal, rt_journal_record record, void *context, size_t *kept,
                        rt_error *err)
{
    rt_text buffer = {.size_max = RECORD_BYTES_MAX + READ_BYTES};
    char *chunk = malloc(READ_BYTES);
    rt_status status = chunk ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for the journal");
    bool good = true;
    *kept = 0;
    while (status == RT_OK && good) {
        const ssize_t n = read(journal->fd, chunk, READ_BYTES);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            status = rt_error_set(err, RT_IO, "%.300s cannot be read: %s", journal->path, strerror(errno));
        if (n <= 0)
            break;
        rt_text_append(&buffer, chunk, (size_t)n);
        if (buffer.failed)
            break; /* a record longer than any that is written */
        size_t at = 0;
        for (char *end;
             status == RT_OK && good && (end = memchr(buffer.data + at, '\n', buffer.size - at));) {
            const size_t size = (size_t)(end - buffer.data) - at;
            good = record_is_whole(buffer.data + at, size);
            if (good && record)
                status = record(context, buffer.data + at + HEAD, size - HEAD, err);
            if (good) {
                at += size + 1;
                *kept += size + 1;
            }
        }
        memmove(buffer.data, buffer.data + at, buffer.size - at);
        buffer.size -= at;
    }
    free(chunk);
    rt_text_deinit(&buffer);
    return status;
}

rt_status rt_journal_open(rt_journal *journal, const char *path, rt_journal_record record, void *context,
                          rt_error *err)
{
    *journal = (rt_journal){.fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644), .path = strdup(path)};
    if (journal->fd < 0 || !journal->path) {
        rt_error_set(err, journal->path ? RT_IO : RT_NO_MEMORY, "%.300s cannot be opened: %s", path,
                     strerror(errno));
        rt_journal_close(journal);
        return err->status;
    }
    struct stat info = {0};
    size_t kept = 0;
    rt_status status = RT_OK;
    if (flock(journal->fd, LOCK_EX | LOCK_NB) != 0)
        status = rt_error_set(err, RT_BUSY, "%.300s: another process collects into the same output", path);
    if (status == RT_OK && fstat(journal->fd, &info) != 0)
        status = rt_error_set(err, RT_IO, "%.300s cannot be read: %s", path, strerror(errno));
    if (status == RT_OK)
        status = replay(journal, record, context, &kept, err);
    if (status == RT_OK && kept < (size_t)info.st_size) {
        journal->cut_bytes = (size_t)info.st_size - kept;
        if (ftruncate(journal->fd, (off_t)kept) != 0)
            status = rt_error_set(err, RT_IO, "%.300s cannot be cut: %s", path, strerror(errno));
    }
    if (status == RT_OK && lseek(journal->fd, (off_t)kept, SEEK_SET) < 0)
        status = rt_error_set(err, RT_IO, "%.300s: %s", path, strerror(errno));
    if (status != RT_OK)
        rt_journal_close(journal);
    return status;
}

void rt_journal_add(rt_journal *journal, const char *payload, size_t size)
{
    char head[HEAD + 1];
    checksum(head, payload, size);
    rt_text_append(&journal->pending, head, HEAD);
    rt_text_append(&journal->pending, payload, size);
    rt_text_append(&journal->pending, "\n", 1);
}

rt_status rt_journal_write(rt_journal *journal, bool sync, rt_error *err)
{
    if (journal->pending.failed)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the journal");
    if (journal->pending.size &&
        rt_fd_write(journal->fd, journal->pending.data, journal->pending.size, journal->path, err) != RT_OK)
        return err->status;
    rt_text_clear(&journal->pending);
    if (sync && fdatasync(journal->fd) != 0)
        return rt_error_set(err, RT_IO, "%.300s cannot be flushed: %s", journal->path, strerror(errno));
    return RT_OK;
}

rt_status rt_journal_clear(rt_journal *journal, rt_error *err)
{
    rt_text_clear(&journal->pending);
    if (ftruncate(journal->fd, 0) != 0 || lseek(journal->fd, 0, SEEK_SET) < 0)
        return rt_error_set(err, RT_IO, "%.300s cannot be emptied: %s", journal->path, strerror(errno));
    return RT_OK;
}

void rt_journal_close(rt_journal *journal)
{
    if (journal->path && journal->fd >= 0)
        (void)close(journal->fd);
    free(journal->path);
    rt_text_deinit(&journal->pending);
    *journal = (rt_journal){.fd = -1};
}
