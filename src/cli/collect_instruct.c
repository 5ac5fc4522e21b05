/* cli/collect_instruct.c - self-instruct in rounds, each a collection of its own; see collect_instruct.h. */
#include "cli/collect_instruct.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/size.h"
#include "cli/cli.h"
#include "outputs/instruct.h"
#include "outputs/lines.h"

enum { ROUNDS_MAX = 50, REQUESTS_MAX = 500, TASKS_AN_ANSWER = 4 };

static rt_status read_seeds(rt_tasks *tasks, const rt_collect_options *options, rt_error *err)
{
    rt_prompt_reader *reader = NULL;
    rt_prompt_row row = {0};
    bool more = true;
    rt_status status = rt_prompt_reader_open(&reader, &options->inputs, &options->prompts, err);
    while (status == RT_OK) {
        status = rt_prompt_reader_next(reader, &row, &more, err);
        if (status != RT_OK || !more)
            break;
        const json_t *messages = json_object_get(row.body, "messages");
        const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
        const json_t *text =
            messages ? json_object_get(last, "content") : json_object_get(row.body, "prompt");
        if (json_is_string(text))
            status = rt_tasks_add(tasks, json_string_value(text), json_string_length(text), NULL, err);
        rt_prompt_row_deinit(&row);
    }
    rt_prompt_reader_close(reader);
    tasks->n_seeds = tasks->count;
    if (status == RT_OK && tasks->count == 0)
        status = rt_error_set(err, RT_INVALID, "there is no seed task to begin with");
    return status;
}

static char *name_of(const char *out, const char *what, size_t round)
{
    rt_text name = {0};
    rt_text_printf(&name, "%.*s.%s-%zu.jsonl", (int)(strlen(out) - 6), out, what, round);
    return name.failed ? NULL : name.data;
}

static rt_status write_requests(const char *path, const rt_tasks *tasks, uint64_t seed, size_t round,
                                size_t n, rt_error *err)
{
    rt_text file = {0}, request = {0};
    for (size_t i = 0; i < n; i++) {
        rt_text_clear(&request);
        rt_tasks_request(&request, tasks, seed, round, i);
        rt_text_puts(&file, "{\"prompt\":");
        if (request.data)
            rt_row_string(&file, request.data, request.size);
        rt_text_puts(&file, "}\n");
    }
    const rt_status status = file.failed || request.failed
                                 ? rt_error_set(err, RT_NO_MEMORY, "no memory for a round")
                                 : rt_file_write(path, file.data, file.size, err);
    rt_text_deinit(&file);
    rt_text_deinit(&request);
    return status;
}

/* The tasks of a round's answers, in the order of its requests. */
static rt_status take_answers(rt_tasks *tasks, const char *path, size_t *fresh, rt_error *err)
{
    rt_lines *lines = NULL;
    *fresh = 0;
    if (rt_lines_open(&lines, path, err) != RT_OK)
        return err->status;
    rt_status status = RT_OK;
    for (;;) {
        const char *line;
        size_t size = 0, n = 0;
        bool whole;
        status = rt_lines_next(lines, &line, &size, &whole, err);
        if (status != RT_OK || !line)
            break;
        json_t *row = json_loadb(line, size, JSON_ALLOW_NUL, NULL);
        const json_t *response = json_object_get(row, "response");
        if (json_is_string(response))
            status = rt_tasks_take(tasks, json_string_value(response), json_string_length(response), &n, err);
        json_decref(row);
        if (status != RT_OK)
            break;
        *fresh += n;
    }
    rt_lines_close(lines);
    return status;
}

static rt_status run_round(rt_tasks *tasks, rt_teacher *teacher, const rt_collect_options *options,
                           size_t round, size_t n, size_t *fresh, rt_collect_report *report, rt_error *err)
{
    char *asked = name_of(options->out, "asked", round), *answers = name_of(options->out, "answers", round);
    rt_status status = asked && answers ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for a name");
    if (status == RT_OK)
        status = write_requests(asked, tasks,
                                (uint64_t)json_integer_value(json_object_get(options->params, "seed")), round,
                                n, err);
    if (status == RT_OK) {
        const char *inputs[] = {asked};
        rt_collect_options one = *options;
        one.inputs = (rt_strings){inputs, 1};
        one.prompts = (rt_prompt_options){.completions = options->prompts.completions};
        one.out = answers;
        one.ordered = true;
        one.near = 0;
        one.rows_max = 0;
        status = rt_collect(teacher, &one, report, err);
    }
    if (status == RT_OK)
        status = take_answers(tasks, answers, fresh, err);
    free(asked);
    free(answers);
    return status;
}

static rt_status write_prompts(const rt_tasks *tasks, const char *out, size_t wanted, size_t *made,
                               rt_error *err)
{
    rt_text file = {0};
    *made = rt_size_min(tasks->count - tasks->n_seeds, wanted);
    for (size_t i = 0; i < *made; i++) {
        const char *text = tasks->items[tasks->n_seeds + i];
        rt_text_puts(&file, "{\"prompt\":");
        rt_row_string(&file, text, strlen(text));
        rt_text_puts(&file, ",\"made_by\":\"self-instruct\"}\n");
    }
    const rt_status status = file.failed ? rt_error_set(err, RT_NO_MEMORY, "no memory for the prompts")
                                         : rt_file_write(out, file.data ? file.data : "", file.size, err);
    rt_text_deinit(&file);
    return status;
}

rt_status collect_instruct(rt_teacher *teacher, const rt_collect_options *options, size_t wanted,
                           size_t *made, rt_collect_report *report, rt_error *err)
{
    rt_tasks tasks = {0};
    *made = 0;
    if (!rt_collect_out_is_file(options->out) || options->batch)
        return rt_error_set(err, RT_INVALID,
                            "--self-instruct writes prompts: --out FILE.jsonl, and no --format batch");
    rt_status status = read_seeds(&tasks, options, err);
    size_t fresh = 1;
    for (size_t round = 0;
         status == RT_OK && fresh && round < ROUNDS_MAX && tasks.count - tasks.n_seeds < wanted; round++) {
        const size_t left = wanted - (tasks.count - tasks.n_seeds);
        const size_t n = rt_size_min(rt_size_ceil_div(left, TASKS_AN_ANSWER), REQUESTS_MAX);
        status = run_round(&tasks, teacher, options, round, n, &fresh, report, err);
    }
    if (status == RT_OK)
        status = write_prompts(&tasks, options->out, wanted, made, err);
    rt_tasks_deinit(&tasks);
    return status;
}
