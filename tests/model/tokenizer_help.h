/* tests/model/tokenizer_help.h - shared by the tests of tokenizers and templates: where outside files lie,
 * small files made in memory. */
#ifndef RT_TESTS_TOKENIZER_HELP_H
#define RT_TESTS_TOKENIZER_HELP_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "model/tokenizer.h"

/* "<shared>/<name>" when it is there, else NULL after saying what is missing. */
static inline const char *shared_file(char path[1024], const char *name)
{
    const char *shared = getenv("RETORT_SHARED");
    (void)snprintf(path, 1024, "%s/%s", shared ? shared : RT_TEST_SOURCE_DIR "/../shared", name);
    if (rt_path_exists(path))
        return path;
    printf("skipped: %s of the shared golden files is not there\n", name);
    return NULL;
}

/* The real model, or NULL after saying so. */
static inline const char *model_file(char path[1024])
{
    const char *name = getenv("RETORT_TEST_MODEL"), *home = getenv("RETORT_HOME"), *user = getenv("HOME");
    if (name)
        (void)snprintf(path, 1024, "%s", name);
    else if (home)
        (void)snprintf(path, 1024, "%s/models/SmolLM2-135M-Instruct.Q4_1.gguf", home);
    else
        (void)snprintf(path, 1024, "%s/.cache/retort/models/SmolLM2-135M-Instruct.Q4_1.gguf",
                       user ? user : "");
    if (rt_path_exists(path))
        return path;
    printf("skipped: the model SmolLM2-135M-Instruct.Q4_1.gguf is not there\n");
    return NULL;
}

static inline void put_number(rt_text *t, uint64_t value, size_t bytes) { rt_text_append(t, &value, bytes); }
static inline void put_name(rt_text *t, const char *s)
{
    put_number(t, strlen(s), 8);
    rt_text_puts(t, s);
}

/* GGUF metadata: string (8), u32 (4), array of strings, array of i32 (5) and f32 (6). */
static inline void put_meta_string(rt_text *t, const char *key, const char *value)
{
    put_name(t, key);
    put_number(t, 8, 4);
    put_name(t, value);
}
static inline void put_meta_strings(rt_text *t, const char *key, const char *const *values, size_t count)
{
    put_name(t, key);
    put_number(t, 9, 4);
    put_number(t, 8, 4);
    put_number(t, count, 8);
    for (size_t i = 0; i < count; i++)
        put_name(t, values[i]);
}
static inline void put_meta_words(rt_text *t, const char *key, uint64_t type, const void *values,
                                  size_t count)
{
    put_name(t, key);
    put_number(t, 9, 4);
    put_number(t, type, 4);
    put_number(t, count, 8);
    rt_text_append(t, values, count * 4);
}
static inline void put_gguf_head(rt_text *t, uint64_t n_meta)
{
    rt_text_puts(t, "GGUF");
    put_number(t, 3, 4);
    put_number(t, 0, 8);
    put_number(t, n_meta, 8);
}

#endif
