/* evidence/verify.c - opens the files of vectors, hands each to its checker, keeps the count; and the helpers
 * that the checkers share. */
#include "evidence/verify.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/size.h"
#include "evidence/verify_case.h"

static const size_t file_bytes_max = (size_t)256 << 20, arena_bytes = (size_t)1 << 30;

void ev_within(ev_run *run, const char *what, double x, double ref, double scale, double tolerance)
{
    char name[160];
    (void)snprintf(name, sizeof name, "%s: %s: %s", run->file, run->entry, what);
    const double size = fmax(fabs(ref), scale);
    double error = x == ref ? 0 : fabs(x - ref) / (size > 0 ? size : 1e-3);
    rt_verify_add(run->result, name, error, tolerance);
}

void ev_log10(ev_run *run, const char *what, double x, double ref) { ev_within(run, what, x, ref, 0, 1e-6); }

void ev_real(ev_run *run, const char *what, double x, double ref) { ev_within(run, what, x, ref, 0, 1e-9); }

void ev_saddle(ev_run *run, const char *what, double x, double ref)
{
    char name[160];
    (void)snprintf(name, sizeof name, "%s: %s: %s", run->file, run->entry, what);
    rt_verify_add(run->result, name, fabs(x - ref), 1e-4);
}

void ev_exact(ev_run *run, const char *what, bool equal) { ev_within(run, what, equal ? 0 : 1, 0, 1, 0.5); }

void ev_entry(ev_run *run, const char *kind, size_t index)
{
    (void)snprintf(run->entry, sizeof run->entry, "%.60s %zu", kind, index);
    rt_arena_reset(&run->arena);
}

rt_status ev_bad(const ev_run *run, rt_error *err, const char *fmt, ...)
{
    char what[128];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    return rt_error_set(err, RT_CORRUPT, "%s: %s: %s", run->file, run->entry, what);
}

rt_status ev_get_real(const ev_run *run, const json_t *o, const char *key, double *out, rt_error *err)
{
    const json_t *value = json_object_get(o, key);
    if (!json_is_number(value))
        return ev_bad(run, err, "%s is not a number", key);
    *out = json_number_value(value);
    return RT_OK;
}

rt_status ev_get_size(const ev_run *run, const json_t *o, const char *key, size_t *out, rt_error *err)
{
    double x = 0;
    if (ev_get_real(run, o, key, &x, err) != RT_OK)
        return err->status;
    if (!(x >= 0 && x < 9e15) || x != floor(x))
        return ev_bad(run, err, "%s is not a count", key);
    *out = (size_t)x;
    return RT_OK;
}

rt_status ev_get_text(const ev_run *run, const json_t *o, const char *key, const char **out, rt_error *err)
{
    if (!(*out = json_string_value(json_object_get(o, key))))
        return ev_bad(run, err, "%s is not a text", key);
    return RT_OK;
}

static bool parse_u64(const char *text, uint64_t *out)
{
    char *end;
    *out = strtoull(text, &end, strncmp(text, "0x", 2) == 0 ? 16 : 10);
    return text[0] >= '0' && text[0] <= '9' && *end == '\0';
}

rt_status ev_get_u64(const ev_run *run, const json_t *o, const char *key, uint64_t *out, rt_error *err)
{
    const json_t *value = json_object_get(o, key);
    if (json_is_integer(value) && json_integer_value(value) >= 0)
        *out = (uint64_t)json_integer_value(value);
    else if (!json_is_string(value) || !parse_u64(json_string_value(value), out))
        return ev_bad(run, err, "%s is not a number of 64 bits", key);
    return RT_OK;
}

rt_status ev_room(ev_run *run, void *out_pointer, size_t count, size_t size, rt_error *err)
{
    void *room = rt_arena_push(&run->arena, count + 1, size);
    if (!room)
        return ev_bad(run, err, "%zu values are too many", count);
    memcpy(out_pointer, &room, sizeof room);
    return RT_OK;
}

static rt_status copy_reals(ev_run *run, const json_t *list, const char *key, double *out, rt_error *err)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *value = json_array_get(list, i);
        if (!json_is_number(value))
            return ev_bad(run, err, "%s: value %zu is not a number", key, i);
        out[i] = json_number_value(value);
    }
    return RT_OK;
}

rt_status ev_get_reals(ev_run *run, const json_t *o, const char *key, double **out, size_t *n, rt_error *err)
{
    const json_t *list = json_object_get(o, key);
    if (!json_is_array(list))
        return ev_bad(run, err, "%s is not a list", key);
    *n = json_array_size(list);
    if (ev_room(run, out, *n, sizeof **out, err) != RT_OK)
        return err->status;
    return copy_reals(run, list, key, *out, err);
}

rt_status ev_get_ids(ev_run *run, const json_t *o, const char *key, int32_t **out, size_t *n, rt_error *err)
{
    const json_t *list = json_object_get(o, key);
    if (!json_is_array(list))
        return ev_bad(run, err, "%s is not a list", key);
    *n = json_array_size(list);
    if (ev_room(run, out, *n, sizeof **out, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < *n; i++) {
        const json_t *value = json_array_get(list, i);
        const json_int_t id = json_integer_value(value);
        if (!json_is_integer(value) || id < 0 || id > INT32_MAX)
            return ev_bad(run, err, "%s: value %zu is not a token id", key, i);
        (*out)[i] = (int32_t)id;
    }
    return RT_OK;
}

rt_status ev_get_matrix(ev_run *run, const json_t *o, const char *key, double **out, size_t *n, size_t *m,
                        rt_error *err)
{
    const json_t *rows = json_object_get(o, key);
    *n = json_array_size(rows);
    *m = json_array_size(json_array_get(rows, 0));
    if (*n == 0 || *m == 0)
        return ev_bad(run, err, "%s is not a list of rows", key);
    size_t count;
    if (!rt_size_mul(*n, *m, &count) || ev_room(run, out, count, sizeof **out, err) != RT_OK)
        return ev_bad(run, err, "%s is too large", key);
    for (size_t i = 0; i < *n; i++) {
        if (json_array_size(json_array_get(rows, i)) != *m)
            return ev_bad(run, err, "%s: row %zu has not %zu values", key, i, *m);
        if (copy_reals(run, json_array_get(rows, i), key, *out + i * *m, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

rt_status ev_get_key(const ev_run *run, const json_t *o, const char *key, uint8_t out[16], rt_error *err)
{
    const char *hex;
    if (ev_get_text(run, o, key, &hex, err) != RT_OK)
        return err->status;
    if (strlen(hex) != 32 || strspn(hex, "0123456789abcdefABCDEF") != 32)
        return ev_bad(run, err, "%s is not 16 bytes in hex", key);
    for (size_t i = 0; i < 16; i++) {
        const char byte[3] = {hex[2 * i], hex[2 * i + 1], 0};
        out[i] = (uint8_t)strtoul(byte, NULL, 16);
    }
    return RT_OK;
}

static rt_status read_vectors(json_t **out, const char *dir, const char *file, rt_error *err)
{
    *out = NULL;
    char *path = rt_path_join(dir, file);
    if (!path)
        return rt_error_set(err, RT_NO_MEMORY, "%.200s: no memory for a name", dir);
    const rt_status status = rt_path_exists(path) ? rt_json_read(out, path, file_bytes_max, err) : RT_OK;
    free(path);
    return status;
}

rt_status rt_verify_evidence(rt_verify *result, const char *dir, rt_error *err)
{
    static const struct {
        const char *file;
        ev_handler handler;
    } files[] = {
        {"tails.json", ev_tails},
        {"combine.json", ev_combine},
        {"rank_tests.json", ev_rank_tests},
        {"mmd.json", ev_mmd},
        {"weights.json", ev_weights},
        {"torch_rng.json", ev_torch_rng},
        {"hf_kgw.json", ev_hf_kgw},
        {"hf_synthid.json", ev_hf_synthid},
        {"rt1_prf.json", ev_rt1_prf},
        {"rt1_detect.json", ev_rt1_detect},
        {"rt1_reading.json", ev_rt1_reading},
    };
    assert(result && dir && err);
    *result = (rt_verify){0};
    ev_run run = {.result = result};
    size_t found = 0;
    json_t *prf = NULL;
    if (rt_arena_init(&run.arena, arena_bytes, err) != RT_OK)
        return err->status;
    rt_status status = read_vectors(&prf, dir, "rt1_prf.json", err);
    run.other_keys = json_object_get(prf, "cases");
    for (size_t i = 0; status == RT_OK && i < sizeof files / sizeof *files; i++) {
        json_t *root = NULL;
        run.file = files[i].file;
        ev_entry(&run, "file", 0);
        status = read_vectors(&root, dir, run.file, err);
        if (status == RT_OK && root) {
            found++;
            status = files[i].handler(&run, root, err);
        }
        json_decref(root);
    }
    json_decref(prf);
    rt_arena_deinit(&run.arena);
    if (status == RT_OK && found == 0)
        status =
            rt_error_set(err, RT_INVALID, "holds no vectors of evidence (tails.json, rt1_prf.json, ...)");
    return status == RT_OK ? RT_OK : rt_error_within(err, dir);
}
