/* outputs/instruct.c - tasks that the teacher makes up; see instruct.h. */
#include "outputs/instruct.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/size.h"

enum { SHOWN_SEEDS = 6, SHOWN_MADE = 2, WANTED = 8, BYTES_MIN = 12, BYTES_MAX = 1200 };
static const double ALIKE = 0.7;

void rt_tasks_deinit(rt_tasks *tasks)
{
    for (size_t i = 0; i < tasks->count; i++)
        free(tasks->items[i]);
    free(tasks->items);
    rt_near_deinit(&tasks->near);
    *tasks = (rt_tasks){0};
}

rt_status rt_tasks_add(rt_tasks *tasks, const char *text, size_t size, bool *added, rt_error *err)
{
    uint64_t like = 0;
    if (added)
        *added = false;
    if (rt_near_add(&tasks->near, text, size, ALIKE, tasks->count + 1, &like, err) != RT_OK)
        return err->status;
    if (like)
        return RT_OK;
    if (tasks->count == tasks->capacity) {
        const size_t wanted = rt_size_max(2 * tasks->capacity, 64);
        char **bigger = realloc(tasks->items, wanted * sizeof *bigger);
        if (!bigger)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for the tasks");
        tasks->items = bigger;
        tasks->capacity = wanted;
    }
    char *copy = strndup(text, size);
    if (!copy)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a task");
    tasks->items[tasks->count++] = copy;
    if (added)
        *added = true;
    return RT_OK;
}

/* The end of a list mark such as "12. ", "3) " or "- " at the start of a line; 0: there is none. */
static size_t mark_size(const char *line, size_t size)
{
    size_t at = 0, digits = 0;
    while (at < size && (line[at] == ' ' || line[at] == '\t' || line[at] == '*' || line[at] == '#'))
        at++;
    while (at + digits < size && isdigit((unsigned char)line[at + digits]))
        digits++;
    if (digits && digits < 4 && at + digits < size && strchr(".):", line[at + digits]))
        at += digits + 1;
    else if (!digits && at < size && line[at] == '-')
        at++;
    else
        return 0;
    while (at < size && (line[at] == ' ' || line[at] == '*'))
        at++;
    return at;
}

/* Marks of emphasis, labels and blanks around a task are taken off. */
static void trim(const char **text, size_t *size)
{
    static const char *const labels[] = {"Task:", "Instruction:", "Prompt:"};
    while (*size && strchr(" \t\r\n*\"", (*text)[0]))
        (*text)++, (*size)--;
    for (size_t i = 0; i < sizeof labels / sizeof labels[0]; i++)
        if (*size > strlen(labels[i]) && strncasecmp(*text, labels[i], strlen(labels[i])) == 0) {
            *text += strlen(labels[i]);
            *size -= strlen(labels[i]);
        }
    while (*size && strchr(" \t\r\n*\"", (*text)[0]))
        (*text)++, (*size)--;
    while (*size && strchr(" \t\r\n*\"", (*text)[*size - 1]))
        (*size)--;
}

rt_status rt_tasks_take(rt_tasks *tasks, const char *answer, size_t size, size_t *n, rt_error *err)
{
    *n = 0;
    for (size_t at = 0; at < size;) {
        const char *end = memchr(answer + at, '\n', size - at);
        size_t stop = end ? (size_t)(end - answer) : size;
        const size_t mark = mark_size(answer + at, stop - at);
        if (mark == 0) {
            at = stop + 1;
            continue;
        }
        const size_t start = at + mark;
        for (at = stop + 1; at < size; at = stop + 1) { /* lines that go on with it */
            end = memchr(answer + at, '\n', size - at);
            const size_t next = end ? (size_t)(end - answer) : size;
            if (next == at || mark_size(answer + at, next - at))
                break;
            stop = next;
        }
        const char *text = answer + start;
        size_t length = stop - start;
        bool added = false;
        trim(&text, &length);
        if (length < BYTES_MIN || length > BYTES_MAX || !memchr(text, ' ', length) ||
            !rt_utf8_valid(text, length))
            continue;
        if (rt_tasks_add(tasks, text, length, &added, err) != RT_OK)
            return err->status;
        *n += added;
    }
    return RT_OK;
}

/* Appends up to `n` different tasks of those from `first` on. */
static void show(rt_text *out, const rt_tasks *tasks, size_t first, size_t count, size_t n, rt_rng *rng,
                 size_t *number)
{
    size_t chosen[SHOWN_SEEDS + SHOWN_MADE];
    n = rt_size_min(n, count);
    for (size_t i = 0; i < n;) {
        const size_t which = first + (size_t)rt_rng_below(rng, count);
        bool again = false;
        for (size_t j = 0; j < i; j++)
            again = again || chosen[j] == which;
        if (again)
            continue;
        chosen[i++] = which;
        rt_text_printf(out, "%zu. %s\n", ++*number, tasks->items[which]);
    }
}

void rt_tasks_request(rt_text *out, const rt_tasks *tasks, uint64_t seed, uint64_t round, uint64_t request)
{
    rt_rng rng = rt_rng_make(seed, (round << 32) + request);
    size_t number = 0;
    rt_text_puts(out, "Here are tasks that people gave to an assistant:\n\n");
    show(out, tasks, 0, tasks->n_seeds, SHOWN_SEEDS, &rng, &number);
    show(out, tasks, tasks->n_seeds, tasks->count - tasks->n_seeds, SHOWN_MADE, &rng, &number);
    rt_text_printf(
        out,
        "\nWrite %d further tasks. Let them differ in subject, in form and in length; each must make sense "
        "by "
        "itself, without a picture or a file. Write only the list, numbered from %zu on, one task a number, "
        "and do not solve them.",
        (int)WANTED, number + 1);
}
