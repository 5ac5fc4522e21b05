/* base/file.h - files: mapping them, reading small ones whole, writing them so that a crash at
 * any moment leaves either the old file or the new one. */
#ifndef RT_BASE_FILE_H
#define RT_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "retort/error.h"

typedef struct rt_file { /* a read-only map of a whole file */
    const unsigned char *data;
    size_t size;
} rt_file;

/* Maps a regular file; an empty one gives size 0 and a non-NULL data. */
rt_status rt_file_map(rt_file *file, const char *path, rt_error *err);
void rt_file_unmap(rt_file *file);
/* Maps at most the first head_max bytes; *whole: the file's size. */
rt_status rt_file_map_head(rt_file *file, size_t *whole, const char *path, size_t head_max, rt_error *err);
/* Reads exactly `size` bytes from `offset` on. */
rt_status rt_file_read_at(void *out, size_t size, const char *path, size_t offset, rt_error *err);

/* Reads a whole file of at most size_max bytes into malloc'd memory with a NUL after it. */
rt_status rt_file_read(char **out, size_t *size, const char *path, size_t size_max, rt_error *err);

bool rt_path_exists(const char *path);
bool rt_path_is_dir(const char *path);
/* "dir/name" in malloc'd memory; NULL when out of memory. */
char *rt_path_join(const char *dir, const char *name);
/* Makes a folder and its parents; one that is there already is fine. */
rt_status rt_dir_make(const char *path, rt_error *err);

/* Atomic writing: opens "<path>.tmp-<pid>", and commit flushes, fsyncs, renames and fsyncs the folder. */
typedef struct rt_writer {
    FILE *stream;
    char *path, *tmp_path;
} rt_writer;
rt_status rt_writer_open(rt_writer *writer, const char *path, rt_error *err);
rt_status rt_writer_write(rt_writer *writer, const void *data, size_t size, rt_error *err);
rt_status rt_writer_commit(rt_writer *writer, rt_error *err); /* closes, on failure too */
void rt_writer_abort(rt_writer *writer); /* after a failed write; safe on a closed or zeroed writer */
/* The three steps in one, for data that is in memory. */
rt_status rt_file_write(const char *path, const void *data, size_t size, rt_error *err);

/* An exclusive lock on a folder (a file "lock" in it), held until released or the process ends.
 * RT_BUSY with the other's pid when somebody holds it. */
typedef struct rt_lock {
    int fd;
    bool held;
} rt_lock;
rt_status rt_lock_acquire(rt_lock *lock, const char *dir, rt_error *err);
void rt_lock_release(rt_lock *lock);

#endif
