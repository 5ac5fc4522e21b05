/* cli/answers.c - see answers.h. */
#include "cli/answers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"

static const size_t answers_file_max = (size_t)4 << 30; /* bytes */

static rt_status io_failure(const cli_answers *answers, const char *what, rt_error *err)
{
    return rt_error_set(err, RT_IO, "%.300s: %s: %s", answers->path ? answers->path : "standard output", what,
                        strerror(errno));
}

static rt_status take_row(cli_answers *answers, const cli_prompts *prompts, const char *data, size_t size,
                          size_t line, rt_error *err)
{
    char where[320];
    json_t *row;
    (void)snprintf(where, sizeof where, "%.280s:%zu", answers->path, line);
    if (rt_json_parse(&row, data, size, where, err) != RT_OK)
        return err->status;
    const json_t *index = json_object_get(row, "index");
    const json_int_t i = json_integer_value(index);
    rt_status status = RT_OK;
    if (!json_is_integer(index) || i < 0 || (size_t)i >= prompts->count ||
        !json_equal(json_object_get(row, prompts->list[i].key), prompts->list[i].value))
        status = rt_error_set(err, RT_MISMATCH,
                              "%.280s is not an answer to these prompts; write to another file, or give the "
                              "prompts that it was begun with",
                              where);
    else if (!answers->done[i]) {
        answers->done[i] = true;
        answers->n_done++;
    }
    json_decref(row);
    return status;
}

/* Reads the whole rows and cuts off what follows the last one. */
static rt_status read_rows(cli_answers *answers, const cli_prompts *prompts, rt_error *err)
{
    char *data;
    size_t size, line = 0, whole = 0;
    if (rt_file_read(&data, &size, answers->path, answers_file_max, err) != RT_OK)
        return err->status;
    rt_status status = RT_OK;
    while (whole < size && status == RT_OK) {
        const char *newline = memchr(data + whole, '\n', size - whole);
        if (!newline)
            break;
        const size_t length = (size_t)(newline - (data + whole));
        status = take_row(answers, prompts, data + whole, length, ++line, err);
        whole += length + 1;
    }
    free(data);
    if (status == RT_OK && whole < size && ftruncate(fileno(answers->stream), (off_t)whole) != 0)
        return io_failure(answers, "a half-written last line cannot be cut off", err);
    return status;
}

rt_status cli_answers_open(cli_answers *answers, const char *path, bool resume, const cli_prompts *prompts,
                           rt_error *err)
{
    *answers = (cli_answers){.stream = stdout, .path = path};
    answers->done = calloc(prompts->count, sizeof *answers->done);
    if (!answers->done)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu prompts", prompts->count);
    if (!path)
        return RT_OK;
    const int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | (resume ? 0 : O_EXCL), 0666);
    answers->stream = fd >= 0 ? fdopen(fd, "a") : NULL;
    if (!answers->stream) {
        const bool there = errno == EEXIST;
        if (fd >= 0)
            (void)close(fd);
        return there
                   ? rt_error_set(err, RT_INVALID,
                                  "%.300s is there already: --resume goes on with it, or give another --out",
                                  path)
                   : io_failure(answers, "cannot be written", err);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0)
        return rt_error_set(err, RT_BUSY, "%.300s: another process is writing it", path);
    return read_rows(answers, prompts, err);
}

rt_status cli_answers_append(cli_answers *answers, json_t *row, rt_error *err)
{
    char *text = row ? json_dumps(row, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(row);
    if (!text)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for an answer");
    const bool ok = fputs(text, answers->stream) >= 0 && fputc('\n', answers->stream) != EOF &&
                    fflush(answers->stream) == 0;
    free(text);
    return ok ? RT_OK : io_failure(answers, "an answer cannot be written", err);
}

rt_status cli_answers_close(cli_answers *answers, rt_error *err)
{
    rt_status status = RT_OK;
    if (answers->stream && answers->path && fclose(answers->stream) != 0)
        status = io_failure(answers, "cannot be written", err);
    free(answers->done);
    *answers = (cli_answers){0};
    return status;
}
