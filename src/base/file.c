/* base/file.c - see file.h. */
#include "base/file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/size.h"

static rt_status io_error(rt_error *err, const char *path, const char *what)
{
    const int saved = errno;
    const rt_status status = saved == ENOENT ? RT_NOT_FOUND : RT_IO;
    return rt_error_set(err, status, "%.300s: %s: %s", path, what, strerror(saved));
}

static const unsigned char empty_file[1];

rt_status rt_file_map(rt_file *file, const char *path, rt_error *err)
{
    size_t whole;
    return rt_file_map_head(file, &whole, path, SIZE_MAX, err);
}

rt_status rt_file_read_at(void *out, size_t size, const char *path, size_t offset, rt_error *err)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return io_error(err, path, "cannot open");
    rt_status status = RT_OK;
    for (size_t done = 0; status == RT_OK && done < size;) {
        const ssize_t n = pread(fd, (char *)out + done, size - done, (off_t)(offset + done));
        if (n > 0)
            done += (size_t)n;
        else if (n == 0)
            status = rt_error_set(err, RT_CORRUPT, "%.300s: ends at byte %zu, before the %zu that are needed",
                                  path, offset + done, offset + size);
        else if (errno != EINTR)
            status = io_error(err, path, "cannot read");
    }
    (void)close(fd);
    return status;
}

rt_status rt_file_map_head(rt_file *file, size_t *whole, const char *path, size_t head_max, rt_error *err)
{
    *file = (rt_file){0};
    *whole = 0;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hold us up */
    if (fd < 0)
        return io_error(err, path, "cannot open");
    struct stat info;
    rt_status status = RT_OK;
    if (fstat(fd, &info) != 0) {
        status = io_error(err, path, "cannot stat");
    } else if (!S_ISREG(info.st_mode)) {
        status = rt_error_set(err, RT_INVALID, "%.300s: is not a regular file", path);
    } else if (info.st_size == 0) {
        file->data = empty_file;
    } else {
        const size_t size = rt_size_min((size_t)info.st_size, head_max);
        void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        *whole = (size_t)info.st_size;
        if (data == MAP_FAILED)
            status = io_error(err, path, "cannot map");
        else
            *file = (rt_file){.data = data, .size = size};
    }
    (void)close(fd);
    return status;
}

void rt_file_unmap(rt_file *file)
{
    if (file->size)
        (void)munmap((void *)(size_t)file->data, file->size);
    *file = (rt_file){0};
}

rt_status rt_file_read(char **out, size_t *size, const char *path, size_t size_max, rt_error *err)
{
    *out = NULL;
    rt_file file;
    if (rt_file_map(&file, path, err) != RT_OK)
        return err->status;
    rt_status status = RT_OK;
    if (file.size > size_max) {
        status = rt_error_set(err, RT_INVALID, "%.300s: has %zu bytes, more than the %zu that are read here",
                              path, file.size, size_max);
    } else if (!(*out = malloc(file.size + 1))) {
        status = rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory for %zu bytes", path, file.size);
    } else {
        if (file.size)
            memcpy(*out, file.data, file.size);
        (*out)[file.size] = '\0';
        *size = file.size;
    }
    rt_file_unmap(&file);
    return status;
}

bool rt_path_exists(const char *path) { return access(path, F_OK) == 0; }

bool rt_path_is_dir(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

char *rt_path_join(const char *dir, const char *name)
{
    const size_t n = strlen(dir), m = strlen(name);
    const bool slash = n > 0 && dir[n - 1] != '/';
    char *out = malloc(n + slash + m + 1);
    if (!out)
        return NULL;
    memcpy(out, dir, n);
    if (slash)
        out[n] = '/';
    memcpy(out + n + slash, name, m + 1);
    return out;
}

rt_status rt_dir_make(const char *path, rt_error *err)
{
    char *copy = strdup(path);
    if (!copy)
        return rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory for its name", path);
    rt_status status = RT_OK;
    for (char *p = copy; *p && status == RT_OK; p++) {
        if (*p != '/' || p == copy)
            continue;
        *p = '\0';
        if (mkdir(copy, 0777) != 0 && errno != EEXIST && !rt_path_is_dir(copy))
            status = io_error(err, copy, "cannot make the folder");
        *p = '/';
    }
    if (status == RT_OK && mkdir(copy, 0777) != 0 && !(errno == EEXIST && rt_path_is_dir(copy)))
        status = io_error(err, path, "cannot make the folder");
    free(copy);
    return status;
}

static void writer_free(rt_writer *writer)
{
    free(writer->path);
    free(writer->tmp_path);
    *writer = (rt_writer){0};
}

rt_status rt_writer_open(rt_writer *writer, const char *path, rt_error *err)
{
    *writer = (rt_writer){0};
    const size_t size = strlen(path) + 32;
    writer->path = strdup(path);
    writer->tmp_path = malloc(size);
    if (!writer->path || !writer->tmp_path) {
        writer_free(writer);
        return rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory for its name", path);
    }
    (void)snprintf(writer->tmp_path, size, "%s.tmp-%ld", path, (long)getpid());
    writer->stream = fopen(writer->tmp_path, "wbe");
    if (!writer->stream) {
        const rt_status status = io_error(err, path, "cannot write in its folder");
        writer_free(writer);
        return status;
    }
    return RT_OK;
}

rt_status rt_writer_write(rt_writer *writer, const void *data, size_t size, rt_error *err)
{
    assert(writer->stream);
    if (size && fwrite(data, 1, size, writer->stream) != size)
        return io_error(err, writer->path, "cannot write");
    return RT_OK;
}

void rt_writer_abort(rt_writer *writer)
{
    if (writer->stream)
        (void)fclose(writer->stream);
    if (writer->tmp_path)
        (void)unlink(writer->tmp_path);
    writer_free(writer);
}

static void sync_folder_of(const char *path) /* best effort: some file systems refuse */
{
    char *copy = strdup(path);
    if (!copy)
        return;
    char *slash = strrchr(copy, '/');
    const char *dir = ".";
    if (slash) {
        slash[slash == copy] = '\0';
        dir = copy;
    }
    const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        (void)close(fd);
    }
    free(copy);
}

rt_status rt_writer_commit(rt_writer *writer, rt_error *err)
{
    assert(writer->stream);
    rt_status status = RT_OK;
    if (fflush(writer->stream) != 0 || fsync(fileno(writer->stream)) != 0)
        status = io_error(err, writer->path, "cannot write to the disk");
    if (fclose(writer->stream) != 0 && status == RT_OK)
        status = io_error(err, writer->path, "cannot close");
    writer->stream = NULL;
    if (status == RT_OK && rename(writer->tmp_path, writer->path) != 0)
        status = io_error(err, writer->path, "cannot put the new file in place");
    if (status == RT_OK)
        sync_folder_of(writer->path);
    else
        (void)unlink(writer->tmp_path);
    writer_free(writer);
    return status;
}

rt_status rt_file_write(const char *path, const void *data, size_t size, rt_error *err)
{
    rt_writer writer;
    if (rt_writer_open(&writer, path, err) != RT_OK)
        return err->status;
    if (rt_writer_write(&writer, data, size, err) != RT_OK) {
        rt_writer_abort(&writer);
        return err->status;
    }
    return rt_writer_commit(&writer, err);
}

rt_status rt_lock_acquire(rt_lock *lock, const char *dir, rt_error *err)
{
    *lock = (rt_lock){.fd = -1};
    char *path = rt_path_join(dir, "lock");
    if (!path)
        return rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory for the lock's name", dir);
    rt_status status = RT_OK;
    char pid[32] = {0};
    lock->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (lock->fd < 0) {
        status = io_error(err, path, "cannot open the lock file");
    } else if (flock(lock->fd, LOCK_EX | LOCK_NB) != 0) {
        const ssize_t n = read(lock->fd, pid, sizeof pid - 1);
        status =
            rt_error_set(err, RT_BUSY, "%.300s: in use by process %.*s; wait for it or use another folder",
                         dir, n > 0 ? (int)n : 1, n > 0 ? pid : "?");
        (void)close(lock->fd);
        lock->fd = -1;
    } else {
        const int n = snprintf(pid, sizeof pid, "%ld", (long)getpid());
        if (ftruncate(lock->fd, 0) != 0 || pwrite(lock->fd, pid, (size_t)n, 0) != n)
            status = io_error(err, path, "cannot write the lock file");
        lock->held = true;
    }
    free(path);
    if (status != RT_OK)
        rt_lock_release(lock);
    return status;
}

void rt_lock_release(rt_lock *lock)
{
    if (lock->fd >= 0)
        (void)close(lock->fd); /* closing drops the flock */
    *lock = (rt_lock){.fd = -1};
}
