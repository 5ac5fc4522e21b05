/* cli/model_arg.c - see model_arg.h. */
#include "cli/model_arg.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/text.h"
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

static int is_shard(const struct dirent *entry)
{
    const size_t n = strlen(entry->d_name), m = strlen(".safetensors");
    return n > m && strcmp(entry->d_name + n - m, ".safetensors") == 0;
}

static rt_status hash_in(char hex[65], const char *dir, const char *name, rt_error *err)
{
    char *path = rt_path_join(dir, name);
    const rt_status status =
        path ? rt_sha256_file(hex, path, err) : rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
    free(path);
    return status;
}

rt_status cli_model_hash(char hex[65], const char *path, rt_error *err)
{
    struct dirent **names;
    if (!rt_path_is_dir(path))
        return rt_sha256_file(hex, path, err);
    const int n = scandir(path, &names, is_shard, alphasort);
    if (n < 0)
        return rt_error_set(err, RT_IO, "%.300s: cannot be read", path);
    rt_text sums = {0};
    rt_status status = n > 0 ? RT_OK : hash_in(hex, path, "tokenizer.json", err);
    for (int i = 0; i < n; i++) {
        if (status == RT_OK && (status = hash_in(hex, path, names[i]->d_name, err)) == RT_OK)
            rt_text_puts(&sums, hex);
        free(names[i]);
    }
    free(names);
    if (status == RT_OK && sums.failed)
        status = rt_error_set(err, RT_NO_MEMORY, "no memory for the hashes of %.300s", path);
    if (status == RT_OK && n > 0)
        rt_sha256_hex(hex, sums.data, sums.size);
    rt_text_deinit(&sums);
    return status;
}
