/* cli/home.h - the folder in which models that were pulled are kept. */
#ifndef RT_CLI_HOME_H
#define RT_CLI_HOME_H

#include "retort/error.h"

/* "$RETORT_HOME/<name>", else "~/.cache/retort/<name>" ($XDG_CACHE_HOME is honoured), in malloc'd memory. */
rt_status cli_home_path(char **out, const char *name, rt_error *err);

#endif
