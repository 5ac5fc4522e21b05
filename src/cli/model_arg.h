/* cli/model_arg.h - a MODEL on the command line: a path, or the name of a model that was pulled. */
#ifndef RT_CLI_MODEL_ARG_H
#define RT_CLI_MODEL_ARG_H

#include "retort/error.h"

/* The path in malloc'd memory.  RT_NOT_FOUND says what to pull, or names the nearest known model. */
rt_status cli_model_path(char **out, const char *model, rt_error *err);
/* SHA-256 of a model at a path: of its file, or of the hashes of a folder's weight files in the order of
 * their names; a folder without any (a tokenizer's) is its tokenizer.json. */
rt_status cli_model_hash(char hex[65], const char *path, rt_error *err);

#endif
