/* report/run.c - see run.h. */
#include "report/run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/size.h"

const char *const rt_run_model_keys[RT_RUN_MODELS] = {"teacher", "untrained", "student", "ce"};
const char *const rt_run_model_names[RT_RUN_MODELS] = {"teacher", "untrained student", "trained student",
                                                       "cross-entropy baseline"};

#define FACTS_BYTES_MAX ((size_t)16 << 20)
#define FIGURES_BYTES_MAX ((size_t)64 << 20)
#define LOG_BYTES_MAX ((size_t)1 << 30)

double rt_number_get(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

rt_figure rt_figure_get(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_object(value))
        return (rt_figure){rt_number_get(object, key), (double)NAN, (double)NAN};
    rt_figure figure = {rt_number_get(value, "value"), rt_number_get(value, "low"),
                        rt_number_get(value, "high")};
    if (!(figure.low <= figure.high)) /* half an interval is none */
        figure.low = figure.high = (double)NAN;
    return figure;
}

const char *rt_string_get(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

const json_t *rt_run_figures(const rt_run_record *run, rt_run_model model)
{
    const json_t *figures = json_object_get(json_object_get(run->eval, "models"), rt_run_model_keys[model]);
    return json_is_object(figures) ? figures : NULL;
}

/* One JSON file; absent leaves *out NULL. */
static rt_status read_json(json_t **out, const char *dir, const char *name, size_t size_max, json_type type,
                           rt_error *err)
{
    char *path = rt_path_join(dir, name);
    rt_status status = RT_OK;
    *out = NULL;
    if (!path)
        status = rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory for a path", name);
    else if (rt_path_exists(path))
        status = rt_json_read(out, path, size_max, err);
    if (*out && json_typeof(*out) != type) {
        status =
            rt_error_set(err, RT_CORRUPT, "%.300s: holds no JSON %s at its top; see docs/report-format.md",
                         path, type == JSON_ARRAY ? "array" : "object");
        json_decref(*out);
        *out = NULL;
    }
    free(path);
    return status;
}

/* While the log is read, neighbouring steps are gathered in bins; when all are in use, each two become
 * one.  So a log of any length is read once, in fixed memory. */
enum { BINS_MAX = RT_CURVE_POINTS_MAX };
typedef struct bin {
    double first_step, step_sum, tokens_sum, loss_sum, kl_sum;
    size_t steps, tokens_count, loss_count, kl_count;
} bin;
typedef struct bins {
    bin items[BINS_MAX];
    size_t count, steps_per_bin;
} bins;

static void bins_halve(bins *all)
{
    for (size_t i = 0; i < BINS_MAX / 2; i++) {
        bin *to = &all->items[i];
        const bin a = all->items[2 * i], b = all->items[2 * i + 1];
        *to = (bin){.first_step = a.first_step,
                    .step_sum = a.step_sum + b.step_sum,
                    .tokens_sum = a.tokens_sum + b.tokens_sum,
                    .loss_sum = a.loss_sum + b.loss_sum,
                    .kl_sum = a.kl_sum + b.kl_sum,
                    .steps = a.steps + b.steps,
                    .tokens_count = a.tokens_count + b.tokens_count,
                    .loss_count = a.loss_count + b.loss_count,
                    .kl_count = a.kl_count + b.kl_count};
    }
    all->count = BINS_MAX / 2;
    all->steps_per_bin *= 2;
}

static void add_finite(double *sum, size_t *count, double value)
{
    if (isfinite(value)) {
        *sum += value;
        ++*count;
    }
}

static void bins_add(bins *all, double step, const json_t *line)
{
    /* A run that was killed goes on from its last checkpoint and logs some steps again: the later ones count.
     */
    while (all->count && all->items[all->count - 1].first_step >= step)
        all->count--;
    if (!all->count || all->items[all->count - 1].steps == all->steps_per_bin) {
        if (all->count == BINS_MAX)
            bins_halve(all);
        all->items[all->count++] = (bin){.first_step = step};
    }
    bin *last = &all->items[all->count - 1];
    last->steps++;
    last->step_sum += step;
    add_finite(&last->tokens_sum, &last->tokens_count, rt_number_get(line, "tokens"));
    add_finite(&last->loss_sum, &last->loss_count, rt_number_get(line, "loss"));
    add_finite(&last->kl_sum, &last->kl_count, rt_number_get(line, "kl"));
}

/* A mean over `half` neighbours on each side, ends included with what they have. */
static void box_mean(double *out, const double *in, size_t count, size_t half)
{
    for (size_t i = 0; i < count; i++) {
        const size_t from = i > half ? i - half : 0, to = rt_size_min(count - 1, i + half);
        double sum = 0;
        size_t n = 0;
        for (size_t k = from; k <= to; k++)
            if (isfinite(in[k])) {
                sum += in[k];
                n++;
            }
        out[i] = n ? sum / (double)n : (double)NAN;
    }
}

/* Twice a box is nearly a bell; a gap stays a gap. */
static void smooth(double *out, const double *in, size_t count, double *work)
{
    const size_t half = rt_size_min(40, rt_size_max(1, count / 50));
    box_mean(work, in, count, half);
    box_mean(out, work, count, half);
    for (size_t i = 0; i < count; i++)
        if (!isfinite(in[i]))
            out[i] = (double)NAN;
}

static double mean_of(double sum, size_t count) { return count ? sum / (double)count : (double)NAN; }

static rt_status curve_from_bins(rt_curve *curve, const bins *all, rt_error *err)
{
    const size_t n = all->count;
    double *memory = calloc(7 * n + 1, sizeof *memory);
    if (!memory)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a curve of %zu points", n);
    curve->step = memory; /* owns all of it */
    curve->tokens = memory + n;
    curve->loss = memory + 2 * n;
    curve->loss_smooth = memory + 3 * n;
    curve->kl = memory + 4 * n;
    curve->kl_smooth = memory + 5 * n;
    curve->count = n;
    for (size_t i = 0; i < n; i++) {
        const bin *b = &all->items[i];
        curve->steps += b->steps;
        curve->step[i] = b->step_sum / (double)b->steps;
        curve->tokens[i] =
            b->tokens_count == b->steps ? mean_of(b->tokens_sum, b->tokens_count) : (double)NAN;
        curve->loss[i] = mean_of(b->loss_sum, b->loss_count);
        curve->kl[i] = mean_of(b->kl_sum, b->kl_count);
    }
    smooth(curve->loss_smooth, curve->loss, n, memory + 6 * n);
    smooth(curve->kl_smooth, curve->kl, n, memory + 6 * n);
    return RT_OK;
}

static void read_lines(bins *all, const rt_file *file, size_t *bad_lines)
{
    const char *data = (const char *)file->data;
    for (size_t i = 0; i < file->size;) {
        const char *end = memchr(data + i, '\n', file->size - i);
        const size_t size = end ? (size_t)(end - data) - i : file->size - i;
        json_t *line = json_loadb(data + i, size, 0, NULL);
        const double step = rt_number_get(line, "step");
        if (isfinite(step))
            bins_add(all, step, line);
        else if (end && size)
            ++*bad_lines;
        json_decref(line);
        i += size + 1;
    }
}

/* The first of the candidates that is there; none of them is an empty curve. */
static rt_status read_log(rt_curve *curve, const char *dir, const char *const *names, size_t count,
                          rt_error *err)
{
    for (size_t i = 0; i < count; i++) {
        char *path = rt_path_join(dir, names[i]);
        bins *all = NULL;
        rt_file file = {0};
        rt_status status = RT_OK;
        bool found = false;
        if (!path) {
            status = rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory for a path", names[i]);
        } else if ((found = rt_path_exists(path)) && (status = rt_file_map(&file, path, err)) == RT_OK) {
            if (file.size > LOG_BYTES_MAX)
                status =
                    rt_error_set(err, RT_INVALID, "%.300s: has %zu bytes, more than the %zu that are read",
                                 path, file.size, LOG_BYTES_MAX);
            else if (!(all = calloc(1, sizeof *all)))
                status = rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory to read the log", path);
        }
        if (all) {
            all->steps_per_bin = 1;
            read_lines(all, &file, &curve->bad_lines);
            status = curve_from_bins(curve, all, err);
        }
        free(all);
        rt_file_unmap(&file);
        free(path);
        if (found || status != RT_OK)
            return status;
    }
    return RT_OK;
}

rt_status rt_run_read(rt_run_record *run, const char *dir, rt_error *err)
{
    static const char *const student_logs[] = {"log.jsonl", "student/log.jsonl"};
    static const char *const ce_logs[] = {"ce/log.jsonl"};
    *run = (rt_run_record){0};
    if (!rt_path_is_dir(dir))
        return rt_error_set(err, RT_NOT_FOUND, "%.300s: is not a directory; give the directory of a run",
                            dir);
    rt_status status = read_json(&run->facts, dir, "run.json", FACTS_BYTES_MAX, JSON_OBJECT, err);
    if (status == RT_OK && !run->facts)
        status = read_json(&run->facts, dir, "student/run.json", FACTS_BYTES_MAX, JSON_OBJECT, err);
    if (status == RT_OK)
        status = read_json(&run->eval, dir, "eval.json", FIGURES_BYTES_MAX, JSON_OBJECT, err);
    if (status == RT_OK)
        status = read_json(&run->samples, dir, "samples.json", FIGURES_BYTES_MAX, JSON_ARRAY, err);
    if (status == RT_OK)
        status = read_log(&run->student, dir, student_logs, 2, err);
    if (status == RT_OK)
        status = read_log(&run->ce, dir, ce_logs, 1, err);
    if (status != RT_OK)
        rt_run_deinit(run);
    return status;
}

void rt_run_deinit(rt_run_record *run)
{
    json_decref(run->facts);
    json_decref(run->eval);
    json_decref(run->samples);
    free(run->student.step);
    free(run->ce.step);
    *run = (rt_run_record){0};
}
