/* cli/collect_check.h - what a server truly supports, and a model file as teacher. */
#ifndef RT_CLI_COLLECT_CHECK_H
#define RT_CLI_COLLECT_CHECK_H

#include "cli/collect_settings.h"

/* `retort collect --check URL`; model and key_env may be NULL.  The exit status. */
int collect_check(const char *url, const char *model, const char *key_env, bool json);

/* Opens settings->teacher.file; *out stays NULL when none is named. */
rt_status collect_teacher_file_open(rt_teacher **out, const collect_settings *settings, rt_error *err);

#endif
