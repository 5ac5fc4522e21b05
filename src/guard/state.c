/* guard/state.c - see state.h. */
#include "guard/state.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/text.h"

enum { LADDER_BYTES_MAX = 256 << 20 };

static char *ladder_path(const char *path, rt_error *err)
{
    rt_text name = {0};
    rt_text_printf(&name, "%s.ladder", path);
    if (name.failed)
        (void)rt_error_set(err, RT_NO_MEMORY, "%.200s: no memory for the guard's state", path);
    return name.failed ? NULL : name.data;
}

char *rt_ladders_text(const rt_ladders *ladders, int64_t mark)
{
    json_t *all = json_pack("{s:I, s:o}", "mark", (json_int_t)mark, "accounts", rt_ladders_json(ladders));
    char *text = all ? json_dumps(all, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(all);
    return text;
}

rt_status rt_ladders_read(rt_ladders *ladders, int64_t *mark, const char *text, size_t size,
                          const char *where, rt_error *err)
{
    json_t *all = NULL;
    if (rt_json_parse(&all, text, size, where, err) != RT_OK)
        return err->status;
    const rt_status status = rt_ladders_restore(ladders, json_object_get(all, "accounts"), where, err);
    *mark = json_integer_value(json_object_get(all, "mark"));
    json_decref(all);
    return status;
}

rt_status rt_guard_state_save(const rt_guard *guard, const rt_ladders *ladders, int64_t mark,
                              const char *path, rt_error *err)
{
    char *name = ladder_path(path, err);
    if (!name)
        return err->status;
    char *text = rt_ladders_text(ladders, mark);
    rt_status status = text ? rt_file_write(name, text, strlen(text), err)
                            : rt_error_set(err, RT_NO_MEMORY, "%.200s: no memory to write it", name);
    if (status == RT_OK)
        status = rt_guard_save(guard, mark, path, err);
    free(text);
    free(name);
    return status;
}

rt_status rt_guard_state_load(rt_guard *guard, rt_ladders *ladders, rt_guard_marks *marks, const char *path,
                              rt_error *err)
{
    char *text = NULL;
    size_t size = 0;
    *marks = (rt_guard_marks){0};
    if (!rt_path_exists(path))
        return RT_OK;
    char *name = ladder_path(path, err);
    if (!name)
        return err->status;
    rt_status status = rt_guard_load(guard, &marks->guard, path, err);
    if (status == RT_OK && rt_path_exists(name))
        status = rt_file_read(&text, &size, name, LADDER_BYTES_MAX, err);
    if (status == RT_OK && text)
        status = rt_ladders_read(ladders, &marks->ladders, text, size, name, err);
    free(text);
    free(name);
    return status;
}
