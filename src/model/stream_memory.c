/* model/stream_memory.c - how much memory the process may still take: the least of ulimit -v, the cgroup's
 * bound and what the machine has free. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/size.h"
#include "model/stream.h"

/* The first number of a file, or after `key` in it; SIZE_MAX: no such file or number ("max"). */
static size_t number_in(const char *path, const char *key, size_t unit)
{
    FILE *stream = fopen(path, "re");
    char line[256];
    size_t out = SIZE_MAX;
    while (stream && out == SIZE_MAX && fgets(line, sizeof line, stream)) {
        if (strncmp(line, key, strlen(key)) != 0)
            continue;
        char *end;
        const char *at = line + strlen(key);
        const unsigned long long value = strtoull(at, &end, 10);
        if (end != at && value < SIZE_MAX / unit)
            out = (size_t)value * unit;
        break;
    }
    if (stream)
        (void)fclose(stream);
    return out;
}

static size_t left_of(size_t limit, size_t used)
{
    return limit == SIZE_MAX ? SIZE_MAX : limit > used ? limit - used : 0;
}

static size_t left_of_cgroup(void)
{
    char line[512], limit[640], used[640];
    FILE *stream = fopen("/proc/self/cgroup", "re");
    size_t left = left_of(number_in("/sys/fs/cgroup/memory/memory.limit_in_bytes", "", 1),
                          number_in("/sys/fs/cgroup/memory/memory.usage_in_bytes", "", 1));
    while (stream && fgets(line, sizeof line, stream)) {
        if (strncmp(line, "0::", 3) != 0)
            continue;
        line[strcspn(line, "\n")] = '\0';
        (void)snprintf(limit, sizeof limit, "/sys/fs/cgroup%s/memory.max", line + 3);
        (void)snprintf(used, sizeof used, "/sys/fs/cgroup%s/memory.current", line + 3);
        left = rt_size_min(left, left_of(number_in(limit, "", 1), number_in(used, "", 1)));
    }
    if (stream)
        (void)fclose(stream);
    return left;
}

size_t rt_memory_left(void)
{
    size_t left = number_in("/proc/meminfo", "MemAvailable:", 1024);
    if (left == SIZE_MAX)
        left = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE) / 2;
    struct rlimit limit;
    const size_t pages = number_in("/proc/self/statm", "", (size_t)sysconf(_SC_PAGESIZE));
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && pages != SIZE_MAX)
        left = rt_size_min(left, left_of(limit.rlim_cur, pages));
    return rt_size_min(left, left_of_cgroup());
}
