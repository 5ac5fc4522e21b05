/* model/stream_read.c - see stream_read.h.
 *
 * O_DIRECT where the file system has it: nothing is copied, and a file larger than memory does not push
 * everything else out of the page cache.  Elsewhere ordinary reads, after which the pages are given back. */
#include "model/stream_read.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/size.h"
#include "model/stream.h"

enum { PIECE_BYTES = 8 << 20 };

typedef struct read_file {
    int fd;
    bool direct;
    char *path;
} read_file;

struct rt_read_files {
    read_file *list;
    size_t count;
    bool all_direct;
};

rt_status rt_read_files_open(rt_read_files **out, const char *const *paths, size_t n, rt_error *err)
{
    *out = NULL;
    rt_read_files *files = calloc(1, sizeof *files);
    if (!files || !(files->list = calloc(n ? n : 1, sizeof *files->list))) {
        free(files);
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a list of files");
    }
    files->all_direct = true;
    rt_status status = RT_OK;
    for (size_t i = 0; status == RT_OK && i < n; i++) {
        read_file *f = &files->list[files->count++];
        *f = (read_file){
            .fd = open(paths[i], O_RDONLY | O_CLOEXEC | O_DIRECT), .direct = true, .path = strdup(paths[i])};
        if (f->fd < 0) {
            f->fd = open(paths[i], O_RDONLY | O_CLOEXEC);
            f->direct = files->all_direct = false;
        }
        if (!f->path)
            status = rt_error_set(err, RT_NO_MEMORY, "no memory for a list of files");
        else if (f->fd < 0)
            status = rt_error_set(err, RT_IO, "%.300s: cannot open: %s", paths[i], strerror(errno));
    }
    if (status == RT_OK)
        *out = files;
    else
        rt_read_files_close(files);
    return status;
}

void rt_read_files_close(rt_read_files *files)
{
    if (!files)
        return;
    for (size_t i = 0; i < files->count; i++) {
        if (files->list[i].fd >= 0)
            (void)close(files->list[i].fd);
        free(files->list[i].path);
    }
    free(files->list);
    free(files);
}

bool rt_read_files_direct(const rt_read_files *files) { return files->all_direct; }

/* The file system said no to O_DIRECT only when it was read. */
static bool fall_back(rt_read_files *files, read_file *f)
{
    const int fd = open(f->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    (void)close(f->fd);
    f->fd = fd;
    f->direct = files->all_direct = false;
    return true;
}

rt_status rt_read_span(rt_read_files *files, const rt_span *span, void *out, size_t *got, rt_error *err)
{
    read_file *f = &files->list[span->file];
    size_t done = 0;
    while (done < span->size) {
        const size_t want = rt_size_min(PIECE_BYTES, span->size - done);
        const ssize_t n = pread(f->fd, (char *)out + done, want, (off_t)(span->begin + done));
        if (n == 0)
            break;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EINVAL && f->direct && fall_back(files, f))
            continue;
        if (n < 0)
            return rt_error_set(err, RT_IO, "%.300s: cannot read: %s", f->path, strerror(errno));
        done += (size_t)n;
        if (f->direct && done % RT_READ_ALIGN != 0) /* only the end of the file is not aligned */
            break;
    }
    if (!f->direct)
        (void)posix_fadvise(f->fd, (off_t)span->begin, (off_t)span->size, POSIX_FADV_DONTNEED);
    *got = done;
    return RT_OK;
}

rt_status rt_stream_measure_disk(double *bytes_per_s, const char *path, double seconds, rt_error *err)
{
    rt_read_files *files = NULL;
    rt_arena arena = {0};
    rt_status status = rt_read_files_open(&files, &path, 1, err);
    if (status == RT_OK)
        status = rt_arena_init(&arena, PIECE_BYTES + 2 * RT_READ_ALIGN, err);
    unsigned char *raw = status == RT_OK ? rt_arena_push_raw(&arena, PIECE_BYTES + RT_READ_ALIGN, 1) : NULL;
    if (raw)
        raw += (RT_READ_ALIGN - (uintptr_t)raw % RT_READ_ALIGN) % RT_READ_ALIGN;
    size_t total = 0, at = 0, got = 0;
    const double from = rt_clock_seconds();
    double now = from;
    while (status == RT_OK && now - from < seconds) {
        const rt_span span = {0, at, PIECE_BYTES};
        status = rt_read_span(files, &span, raw, &got, err);
        total += got;
        if (got < PIECE_BYTES && at == 0 && got < PIECE_BYTES / 8)
            status = rt_error_set(err, RT_INVALID, "%.300s: too small to measure the disk with", path);
        at = got < PIECE_BYTES ? 0 : at + PIECE_BYTES;
        now = rt_clock_seconds();
    }
    if (status == RT_OK)
        *bytes_per_s = (double)total / (now - from);
    rt_arena_deinit(&arena);
    rt_read_files_close(files);
    return status;
}
