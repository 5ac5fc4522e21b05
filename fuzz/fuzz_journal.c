/* fuzz/fuzz_journal.c - a journal of any bytes opens with its whole records, is cut, and can be added to. */
#include <fcntl.h>
#include <stdio.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "outputs/journal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static rt_status count(void *context, const char *payload, size_t size, rt_error *err)
{
    (void)err;
    if (size && memchr(payload, '\n', size))
        __builtin_trap();
    (*(size_t *)context)++;
    return RT_OK;
}

static void check(bool holds)
{
    if (!holds)
        __builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    rt_journal journal;
    rt_error err = {0};
    size_t before = 0, after = 0;
    (void)snprintf(path, sizeof path, "/tmp/retort-fuzz-journal-%d", (int)getpid());
    const int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    check(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    (void)close(fd);
    check(rt_journal_open(&journal, path, count, &before, &err) == RT_OK);
    rt_journal_add(&journal, "one more", 8);
    check(rt_journal_write(&journal, false, &err) == RT_OK);
    rt_journal_close(&journal);
    check(rt_journal_open(&journal, path, count, &after, &err) == RT_OK);
    check(journal.cut_bytes == 0 && after == before + 1);
    rt_journal_close(&journal);
    (void)unlink(path);
    return 0;
}
