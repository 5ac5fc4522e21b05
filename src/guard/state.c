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

rt_status rt_guard_state_save(const rt_guard *guard, const rt_ladders *ladders, const char *path,
                              rt_error *err)
{
    char *name = ladder_path(path, err);
    if (!name)
        return err->status;
    rt_status status = rt_guard_save(guard, path, err);
    if (status == RT_OK) {
        json_t *list = rt_ladders_json(ladders);
        char *text = json_dumps(list, JSON_COMPACT | JSON_REAL_PRECISION(17));
        json_decref(list);
        status = text ? rt_file_write(name, text, strlen(text), err)
                      : rt_error_set(err, RT_NO_MEMORY, "%.200s: no memory to write it", name);
        free(text);
    }
    free(name);
    return status;
}

rt_status rt_guard_state_load(rt_guard *guard, rt_ladders *ladders, const char *path, rt_error *err)
{
    json_t *list = NULL;
    if (!rt_path_exists(path))
        return RT_OK;
    char *name = ladder_path(path, err);
    if (!name)
        return err->status;
    rt_status status = rt_guard_load(guard, path, err);
    if (status == RT_OK && rt_path_exists(name))
        status = rt_json_read(&list, name, LADDER_BYTES_MAX, err);
    if (status == RT_OK && list)
        status = rt_ladders_restore(ladders, list, name, err);
    json_decref(list);
    free(name);
    return status;
}
