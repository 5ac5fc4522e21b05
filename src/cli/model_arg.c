/* cli/model_arg.c - see model_arg.h. */
#include "cli/model_arg.h"

#include <stdlib.h>

#include "cli/home.h"
#include "model/known.h"

rt_status cli_model_path(char **out, const char *model, rt_error *err)
{
    char *dir = NULL;
    *out = NULL;
    rt_status status = cli_home_path(&dir, "models", err);
    if (status == RT_OK)
        status = rt_known_resolve(out, model, dir, err);
    free(dir);
    return status;
}
