/* cli/upstreams.c - see upstreams.h. */
#include "cli/upstreams.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"

enum { KEY_BYTES_MAX = 4096 };

static rt_status check_key(const char *key, const char *where, rt_error *err)
{
    for (const char *c = key; *c; c++)
        if (*c <= ' ' || *c > '~')
            return rt_error_set(err, RT_INVALID,
                                "serve: %.200s holds no key: a blank or control character is in it", where);
    return *key ? RT_OK : rt_error_set(err, RT_INVALID, "serve: %.200s holds no key: it is empty", where);
}

static rt_status read_key(rt_upstream *up, const char *name, rt_error *err)
{
    up->key = getenv(name);
    if (!up->key || !*up->key)
        return rt_error_set(err, RT_INVALID, "serve: the variable %.80s, for the upstream's key, is not set",
                            name);
    return check_key(up->key, name, err);
}

static rt_status read_key_file(cli_upstreams *all, rt_upstream *up, size_t i, const char *path, rt_error *err)
{
    size_t size;
    if (rt_file_read(&all->keys[i], &size, path, KEY_BYTES_MAX, err) != RT_OK)
        return err->status;
    while (size > 0 && strchr("\r\n", all->keys[i][size - 1]))
        all->keys[i][--size] = '\0';
    up->key = all->keys[i];
    return check_key(up->key, path, err);
}

/* "name" or "name=remote", with commas. */
static rt_status read_models(rt_upstream *up, rt_upstream_model *models, char *text, rt_error *err)
{
    char *state = NULL;
    for (char *word = strtok_r(text, ",", &state); word; word = strtok_r(NULL, ",", &state)) {
        char *equals = strchr(word, '=');
        if (up->n_models == RT_UPSTREAM_MODELS_MAX)
            return rt_error_set(err, RT_INVALID, "serve: an upstream has at most %d models",
                                RT_UPSTREAM_MODELS_MAX);
        if (equals)
            *equals = '\0';
        models[up->n_models++] = (rt_upstream_model){word, equals ? equals + 1 : word};
    }
    up->models = models;
    return RT_OK;
}

static rt_status read_part(cli_upstreams *all, size_t i, char *part, rt_error *err)
{
    rt_upstream *up = &all->items[i];
    char *value = strchr(part, '=');
    size_t weight;
    if (!value)
        return rt_error_set(err, RT_INVALID, "serve: --upstream: '%.60s' is not key=value", part);
    *value++ = '\0';
    if (strcmp(part, "key-env") == 0)
        return read_key(up, value, err);
    if (strcmp(part, "key-file") == 0)
        return read_key_file(all, up, i, value, err);
    if (strcmp(part, "models") == 0)
        return read_models(up, all->models[i], value, err);
    if (strcmp(part, "health") == 0) {
        up->health = strcmp(value, "none") == 0 ? "" : value;
        return *value == '/' || !*up->health
                   ? RT_OK
                   : rt_error_set(err, RT_INVALID, "serve: --upstream: health is none, or a path from '/'");
    }
    if (strcmp(part, "limit") == 0) {
        up->limit = strcmp(value, "none") == 0 ? "" : value;
        return !*up->limit || strcmp(value, "max_tokens") == 0 || strcmp(value, "max_completion_tokens") == 0
                   ? RT_OK
                   : rt_error_set(err, RT_INVALID,
                                  "serve: --upstream: limit is max_tokens, max_completion_tokens or none");
    }
    if (strcmp(part, "weight") != 0)
        return rt_error_set(err, RT_INVALID,
                            "serve: --upstream: '%.60s' is none of key-env, key-file, weight, models, limit, "
                            "health",
                            part);
    if (!rt_parse_count(&weight, value) || weight < 1 || weight > 1000)
        return rt_error_set(err, RT_INVALID, "serve: --upstream: weight is not in 1..1000");
    up->weight = (unsigned)weight;
    return RT_OK;
}

rt_status cli_upstreams_read(cli_upstreams *out, const cli_list *list, const char *key_env, rt_error *err)
{
    for (size_t i = 0; i < list->count; i++) {
        char *state = NULL, *word = out->words[i] = strdup(list->items[i]);
        rt_upstream *up = &out->items[out->count++];
        *up = (rt_upstream){.weight = 1};
        if (!word)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for an upstream");
        up->url = strtok_r(word, " ", &state);
        if (!up->url || (strncmp(up->url, "http://", 7) != 0 && strncmp(up->url, "https://", 8) != 0))
            return rt_error_set(err, RT_INVALID,
                                "serve: --upstream: expected a URL that begins with http:// or https://");
        for (char *part; (part = strtok_r(NULL, " ", &state)) != NULL;)
            if (read_part(out, i, part, err) != RT_OK)
                return err->status;
        if (!up->key && key_env && read_key(up, key_env, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

void cli_upstreams_deinit(cli_upstreams *upstreams)
{
    for (size_t i = 0; i < CLI_LIST_MAX; i++) {
        free(upstreams->words[i]);
        free(upstreams->keys[i]);
    }
}
