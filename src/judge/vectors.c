/* judge/vectors.c - reads index.json and the tensors it names, gives each case to its handler, keeps the
 * counts. */
#include "judge/vectors.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/size.h"
#include "judge/vectors_case.h"
#include "student/loss.h"
#include "tensor/quant.h"

enum { INDEX_BYTES_MAX = 64 << 20, CASES_MAX = 100000 };

rt_status vec_bad(const vec_run *run, rt_error *err, const char *fmt, ...)
{
    char text[256];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return rt_error_set(err, RT_CORRUPT, "case %.80s: %s", run->id, text);
}

rt_status vec_room(vec_run *run, void *out_pointer, size_t count, size_t size, rt_error *err)
{
    void *room = rt_arena_push(&run->arena, count ? count : 1, size);
    if (!room)
        return rt_error_set(err, RT_NO_MEMORY, "case %.80s: no memory for %zu values", run->id, count);
    memcpy(out_pointer, &room, sizeof room);
    return RT_OK;
}

bool vec_has(const vec_run *run, const char *group, const char *role)
{
    return json_object_get(json_object_get(run->entry, group), role) != NULL;
}

double vec_param(const vec_run *run, const char *name, double otherwise)
{
    const json_t *value = json_object_get(json_object_get(run->entry, "params"), name);
    return json_is_number(value) ? json_number_value(value) : otherwise;
}

const char *vec_param_text(const vec_run *run, const char *name)
{
    return json_string_value(json_object_get(json_object_get(run->entry, "params"), name));
}

rt_status vec_number(const vec_run *run, const char *group, const char *role, double *out, rt_error *err)
{
    const json_t *value = json_object_get(json_object_get(run->entry, group), role);
    const char *text = json_string_value(value);
    if (text && strcmp(text, "inf") == 0)
        *out = HUGE_VAL;
    else if (text && strcmp(text, "-inf") == 0)
        *out = -HUGE_VAL;
    else if (json_is_number(value))
        *out = json_number_value(value);
    else
        return vec_bad(run, err, "%s.%s is not a number", group, role);
    return RT_OK;
}

static rt_status file_of_case(vec_run *run, rt_weights **out, rt_error *err)
{
    const char *name = json_string_value(json_object_get(run->entry, "file"));
    if (!name || strlen(name) >= RT_VECTORS_NAME_MAX || strchr(name, '/'))
        return vec_bad(run, err, "names no file of its folder");
    for (size_t i = 0; i < run->n_files; i++) {
        if (strcmp(run->files[i].name, name) == 0) {
            *out = run->files[i].weights;
            return RT_OK;
        }
    }
    if (run->n_files == VEC_FILES_MAX)
        return vec_bad(run, err, "the folder has more than %d files", (int)VEC_FILES_MAX);
    char *path = rt_path_join(run->dir, name);
    if (!path)
        return rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory for a name", run->dir);
    rt_weights *weights = NULL;
    const rt_status status = rt_weights_open(&weights, path, err);
    free(path);
    if (status != RT_OK)
        return status;
    (void)snprintf(run->files[run->n_files].name, RT_VECTORS_NAME_MAX, "%s", name);
    *out = run->files[run->n_files++].weights = weights;
    return RT_OK;
}

static double element(const rt_weight *w, size_t i)
{
    const unsigned char *at = (const unsigned char *)w->data + i * rt_dtype_get(w->dtype)->block_bytes;
    double d;
    float f;
    int64_t l;
    int32_t n;
    uint16_t h;
    switch (w->dtype) {
    case RT_F64:
        memcpy(&d, at, sizeof d);
        return d;
    case RT_F32:
        memcpy(&f, at, sizeof f);
        return (double)f;
    case RT_BF16:
        memcpy(&h, at, sizeof h);
        return (double)rt_bf16_to_f32(h);
    case RT_I64:
        memcpy(&l, at, sizeof l);
        return (double)l;
    case RT_I32:
        memcpy(&n, at, sizeof n);
        return (double)n;
    default: /* U8, BOOL */
        return (double)*at;
    }
}

static bool readable(rt_dtype t)
{
    return t == RT_F64 || t == RT_F32 || t == RT_BF16 || t == RT_I64 || t == RT_I32 || t == RT_U8 ||
           t == RT_BOOL;
}

rt_status vec_tensor(vec_run *run, const char *group, const char *role, vec_array *out, rt_error *err)
{
    const char *name = json_string_value(json_object_get(json_object_get(run->entry, group), role));
    rt_weights *file = NULL;
    if (!name)
        return vec_bad(run, err, "%s.%s names no tensor", group, role);
    if (file_of_case(run, &file, err) != RT_OK)
        return err->status;
    const rt_weight *w = rt_weights_find(file, name);
    if (!w || !readable(w->dtype))
        return vec_bad(run, err, "%.80s is %s", name,
                       w ? "of a type that is not read here" : "not in its file");
    *out = (vec_array){.n = 1, .n_dims = w->n_dims, .dtype = w->dtype};
    for (size_t i = 0; i < w->n_dims; i++) {
        out->shape[i] = w->shape[i];
        out->n *= w->shape[i]; /* the reader has checked the product against the file's size */
    }
    if (vec_room(run, &out->x, out->n, sizeof(double), err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < out->n; i++)
        out->x[i] = element(w, i);
    return RT_OK;
}

rt_status vec_tensor_sized(vec_run *run, const char *group, const char *role, size_t n, vec_array *out,
                           rt_error *err)
{
    if (vec_tensor(run, group, role, out, err) != RT_OK)
        return err->status;
    if (out->n != n)
        return vec_bad(run, err, "%s.%s has %zu values, not %zu", group, role, out->n, n);
    return RT_OK;
}

rt_status vec_floats(vec_run *run, const vec_array *array, float **out, rt_error *err)
{
    if (vec_room(run, out, array->n, sizeof(float), err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < array->n; i++)
        (*out)[i] = (float)array->x[i];
    return RT_OK;
}

void vec_check(vec_run *run, double x, double ref, double tolerance)
{
    double error = isinf(ref) ? (x == ref ? 0 : HUGE_VAL) : fabs(x - ref) / (1 + fabs(ref));
    if (isnan(error))
        error = HUGE_VAL;
    if (run->compared++ == 0 || error / tolerance > run->error / run->tolerance) {
        run->error = error;
        run->tolerance = tolerance;
    }
}

void vec_check_true(vec_run *run, bool holds) { vec_check(run, holds ? 0 : HUGE_VAL, 0, 1); }

static vec_handler handler_of(const vec_run *run)
{
    static const struct {
        const char *loss;
        vec_handler handler;
    } table[] = {
        {"combined", vec_rows},
        {"*", vec_rows},
        {"adamw", vec_training},
        {"clip", vec_training},
        {"schedule", vec_training},
        {"taid_schedule", vec_training},
        {"eval", vec_judging},
        {"spec", vec_judging},
        {"stats", vec_judging},
        {"rmsnorm", vec_blocks},
        {"swiglu", vec_blocks},
        {"rope", vec_blocks},
        {"attention", vec_attention},
        {"svd", vec_plan},
        {"activation_importance", vec_plan},
        {"scaling", vec_plan},
        {"flops", vec_plan},
        {"cost", vec_plan},
        {"rskd", vec_kept},
        {"policy_is", vec_policy},
        {"policy_clip", vec_policy},
        {"minillm", vec_policy},
        {"policy_truncated_is", vec_policy},
        {"distillm2", vec_policy},
        {"kl_estimators", vec_policy},
        {"align", vec_crossing},
        {"uld_sorted_l1", vec_crossing},
        {"hidden_mse", vec_feature},
        {"hidden_mse_normalised", vec_feature},
        {"byte_marginal", vec_crossing},
        {"hidden_cosine", vec_feature},
        {"chunk_binary_kl", vec_crossing},
        {"minilm_relation", vec_feature},
    };
    rt_loss_kind kind;
    if (strcmp(run->loss, "rskd") != 0 && vec_param_text(run, "mode"))
        return vec_kept;
    if (rt_loss_kind_from_name(&kind, run->loss) && kind != RT_LOSS_RSKD)
        return vec_rows;
    if (strncmp(run->loss, "head_", 5) == 0)
        return vec_attention;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(table[i].loss, run->loss) == 0)
            return table[i].handler;
    return NULL;
}

static void list_add(char list[][RT_VECTORS_NAME_MAX], size_t *count, const char *text, size_t length)
{
    char name[RT_VECTORS_NAME_MAX];
    (void)snprintf(name, sizeof name, "%.*s", (int)rt_size_min(length, sizeof name - 1), text);
    for (size_t i = 0; i < *count; i++)
        if (strcmp(list[i], name) == 0)
            return;
    if (*count < RT_VECTORS_LIST_MAX)
        memcpy(list[(*count)++], name, sizeof name);
}

static void count_case(vec_run *run, bool covered)
{
    rt_vectors_report *report = run->report;
    if (!covered) {
        report->not_covered++;
        list_add(report->not_covered_kinds, &report->n_not_covered_kinds, run->id, strcspn(run->id, "/"));
        return;
    }
    const double quotient = run->error / run->tolerance;
    if (run->compared > 0 && quotient <= 1) {
        report->passed++;
    } else {
        report->failed++;
        list_add(report->failures, &report->n_failures, run->id, strlen(run->id));
    }
    if (run->compared == 0)
        return;
    if (!report->worst.name[0] || quotient > report->worst.error / report->worst.tolerance) {
        (void)snprintf(report->worst.name, sizeof report->worst.name, "%.95s", run->id);
        report->worst.error = run->error;
        report->worst.tolerance = run->tolerance;
    }
}

static rt_status run_case(vec_run *run, const json_t *entry, rt_error *err)
{
    run->entry = entry;
    run->id = json_string_value(json_object_get(entry, "id"));
    run->loss = json_string_value(json_object_get(entry, "loss"));
    if (!run->id || !run->loss)
        return rt_error_set(err, RT_CORRUPT, "index.json: a case has no id or no loss");
    run->compared = 0;
    run->error = 0;
    run->tolerance = 1;
    rt_arena_reset(&run->arena);
    bool covered = true;
    const vec_handler handler = handler_of(run);
    if (!handler)
        covered = false;
    else if (handler(run, &covered, err) != RT_OK)
        return err->status;
    count_case(run, covered);
    return RT_OK;
}

static rt_status load_index(json_t **out, const char *dir, rt_error *err)
{
    char *path = rt_path_join(dir, "index.json"), *text = NULL;
    size_t size;
    if (!path)
        return rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory for a name", dir);
    rt_status status = rt_file_read(&text, &size, path, INDEX_BYTES_MAX, err);
    json_error_t json_err;
    if (status == RT_OK && !(*out = json_loadb(text, size, 0, &json_err)))
        status = rt_error_set(err, RT_CORRUPT, "%.300s: line %d: %s", path, json_err.line, json_err.text);
    free(text);
    free(path);
    return status;
}

rt_status rt_vectors_losses(rt_vectors_report *report, const char *dir, rt_error *err)
{
    assert(report && dir && err);
    *report = (rt_vectors_report){0};
    json_t *index = NULL;
    vec_run run = {.dir = dir, .report = report};
    rt_status status = load_index(&index, dir, err);
    if (status == RT_OK) {
        run.cases = json_object_get(index, "cases");
        if (!json_is_array(run.cases) || json_array_size(run.cases) > CASES_MAX)
            status =
                rt_error_set(err, RT_CORRUPT, "index.json: has no list of at most %d cases", (int)CASES_MAX);
    }
    if (status == RT_OK)
        status = rt_arena_init(&run.arena, (size_t)1 << 30, err);
    for (size_t i = 0; status == RT_OK && i < json_array_size(run.cases); i++)
        status = run_case(&run, json_array_get(run.cases, i), err);
    for (size_t i = 0; i < run.n_files; i++)
        rt_weights_close(run.files[i].weights);
    rt_arena_deinit(&run.arena);
    json_decref(index);
    return status == RT_OK ? RT_OK : rt_error_within(err, dir);
}
