/* cli/model_arg.h - a MODEL on the command line: a path, or the name of a model that was pulled. */
#ifndef RT_CLI_MODEL_ARG_H
#define RT_CLI_MODEL_ARG_H

#include "retort/error.h"

/* The path in malloc'd memory.  RT_NOT_FOUND says what to pull, or names the nearest known model. */
rt_status cli_model_path(char **out, const char *model, rt_error *err);

#endif
