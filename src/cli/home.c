/* cli/home.c - see home.h. */
#include "cli/home.h"

#include <stdlib.h>

#include "base/file.h"
#include "base/text.h"

rt_status cli_home_path(char **out, const char *name, rt_error *err)
{
    *out = NULL;
    const char *home = getenv("RETORT_HOME"), *cache = getenv("XDG_CACHE_HOME"), *user = getenv("HOME");
    rt_text dir = {0};
    if (home && *home)
        rt_text_puts(&dir, home);
    else if (cache && *cache)
        rt_text_printf(&dir, "%s/retort", cache);
    else if (user && *user)
        rt_text_printf(&dir, "%s/.cache/retort", user);
    else
        return rt_error_set(err, RT_INVALID,
                            "neither RETORT_HOME nor HOME is set: no place for the model cache");
    *out = dir.failed ? NULL : rt_path_join(dir.data, name);
    rt_text_deinit(&dir);
    return *out ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for the cache's path");
}
