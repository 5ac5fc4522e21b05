/* outputs/append.c - see append.h. */
#include "outputs/append.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

rt_status append_init(append_file *f, const char *path, rt_error *err)
{
    *f = (append_file){.fd = -1, .path = strdup(path)};
    return f->path ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
}

void append_deinit(append_file *f)
{
    if (f->fd >= 0)
        (void)close(f->fd);
    free(f->path);
    *f = (append_file){.fd = -1};
}

static rt_status io_error(const append_file *f, const char *what, rt_error *err)
{
    return rt_error_set(err, RT_IO, "%.300s: %s: %s", f->path, what, strerror(errno));
}

static rt_status write_at(const append_file *f, uint64_t offset, const void *data, size_t size, rt_error *err)
{
    const unsigned char *from = data;
    while (size) {
        const ssize_t n = pwrite(f->fd, from, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            if (n == 0)
                errno = ENOSPC;
            return io_error(f, "cannot write", err);
        }
        from += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return RT_OK;
}

static void sync_folder(const char *path) /* makes the new name durable; some file systems refuse */
{
    char *dir = strdup(path), *slash = dir ? strrchr(dir, '/') : NULL;
    if (slash)
        *slash = '\0';
    const int fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        (void)close(fd);
    }
    free(dir);
}

rt_status append_write(append_file *f, const void *first, size_t first_size, const void *second,
                       size_t second_size, rt_error *err)
{
    const int opened = f->fd;
    if (f->fd < 0)
        f->fd = open(f->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (f->fd < 0)
        return io_error(f, "cannot make the file", err);
    if (opened < 0)
        sync_folder(f->path);
    if (write_at(f, f->size, first, first_size, err) == RT_OK &&
        write_at(f, f->size + first_size, second, second_size, err) == RT_OK) {
        if (fdatasync(f->fd) == 0) {
            f->size += first_size + second_size;
            return RT_OK;
        }
        (void)io_error(f, "cannot write to the disk", err);
    }
    (void)!ftruncate(f->fd, (off_t)f->size);
    return err->status;
}
