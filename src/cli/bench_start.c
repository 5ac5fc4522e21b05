/* cli/bench_start.c - from starting `retort generate` to the first byte of its answer. */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/bench.h"

extern char **environ;

/* Starts this program again with its standard output in a pipe, whose reading end is returned. */
static int start_generate(pid_t *pid, const bench_options *options)
{
    char threads[32];
    (void)snprintf(threads, sizeof threads, "%zu", options->threads);
    const char *const arguments[] = {
        "retort", "generate",    options->model,     "--prompt",  "Hi",    "--tokens-max",
        "1",      "--precision", options->precision, "--threads", threads, NULL};
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return -1;
    posix_spawn_file_actions_t actions;
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    (void)posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    /* posix_spawn does not change the strings */
    const int failed = posix_spawn(pid, "/proc/self/exe", &actions, NULL, (char *const *)arguments, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)close(ends[1]);
    if (failed) {
        (void)close(ends[0]);
        errno = failed;
        return -1;
    }
    return ends[0];
}

static rt_status time_one(double *seconds, const bench_options *options, rt_error *err)
{
    pid_t pid;
    const double from = rt_clock_seconds();
    const int fd = start_generate(&pid, options);
    if (fd < 0)
        return rt_error_set(err, RT_IO, "retort cannot be started again: %s", strerror(errno));
    char first, rest[256];
    ssize_t n;
    do
        n = read(fd, &first, 1);
    while (n < 0 && errno == EINTR);
    *seconds = rt_clock_seconds() - from;
    while (n == 1 && read(fd, rest, sizeof rest) > 0)
        continue;
    (void)close(fd);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (n != 1 || status != 0)
        return rt_error_set(err, RT_INTERNAL, "'retort generate %.200s' gave no answer", options->model);
    return RT_OK;
}

rt_status bench_start(bench *b, rt_error *err)
{
    double *times = calloc(b->options.runs + 1, sizeof *times);
    if (!times)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu runs", b->options.runs);
    rt_status status = RT_OK;
    for (size_t run = 0; run <= b->options.runs && status == RT_OK; run++) /* the first one warms the cache */
        status = time_one(&times[run], &b->options, err);
    if (status == RT_OK)
        bench_add(b, &(bench_row){.name = "start to the first token",
                                  .unit = "s",
                                  .value = bench_median(times + 1, b->options.runs),
                                  .bar = BENCH_AT_MOST,
                                  .must = 0.3,
                                  .aim = 0.1});
    free(times);
    return status;
}
