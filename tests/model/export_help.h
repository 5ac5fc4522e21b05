/* tests/model/export_help.h - temporary folders that are removed with what is in them, and opened models. */
#ifndef RT_TESTS_EXPORT_HELP_H
#define RT_TESTS_EXPORT_HELP_H

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "model/config.h"

typedef struct opened_model {
    rt_weights *weights;
    rt_model_config config;
} opened_model;

static inline int remove_one(const char *path, const struct stat *info, int flag, struct FTW *walk)
{
    (void)info;
    (void)flag;
    (void)walk;
    return remove(path);
}

static inline int make_work(void **state)
{
    const char *tmp = getenv("TMPDIR");
    char *dir = malloc(256);
    assert_non_null(dir);
    (void)snprintf(dir, 256, "%s/retort-export-%s", tmp ? tmp : "/tmp", "XXXXXX"); /* for mkdtemp */
    assert_non_null(mkdtemp(dir));
    *state = dir;
    return 0;
}

static inline int drop_work(void **state)
{
    (void)nftw(*state, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(*state);
    return 0;
}

static inline const char *golden_path(char out[512], const char *name)
{
    (void)snprintf(out, 512, "%s/tests/golden/engine/%s", RT_TEST_SOURCE_DIR, name);
    return out;
}

static inline const char *work_path(char out[512], void **state, const char *name)
{
    (void)snprintf(out, 512, "%s/%s", (const char *)*state, name);
    return out;
}

/* The standard teacher, in $RETORT_TEST_MODEL or the cache. */
static inline bool find_smollm2(char out[512])
{
    const char *given = getenv("RETORT_TEST_MODEL"), *home = getenv("RETORT_HOME"), *user = getenv("HOME");
    if (given)
        (void)snprintf(out, 512, "%s", given);
    else
        (void)snprintf(out, 512, "%s%s/models/SmolLM2-135M-Instruct.Q4_1.gguf",
                       home   ? home
                       : user ? user
                              : "",
                       home ? "" : "/.cache/retort");
    return access(out, R_OK) == 0;
}

static inline opened_model open_model(const char *path)
{
    opened_model out = {0};
    rt_error err = {0};
    if (rt_weights_open(&out.weights, path, &err) != RT_OK ||
        rt_model_config_read(&out.config, out.weights, &err) != RT_OK)
        fail_msg("%s", err.text);
    return out;
}

#endif
