/* cli/watermark_key.c - `retort watermark key new|list|show`. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/size.h"
#include "cli/cli.h"
#include "cli/open_model.h"
#include "cli/sub.h"
#include "cli/watermark.h"

typedef struct settings {
    const char *name, *out, *scheme, *seeding, *model, *secret;
    size_t h, layers, width, n_vocab, ngram_len;
    double gamma, delta;
    bool json;
} settings;

/* A secret that comes from elsewhere: to test text that another program marked. */
static rt_status import_secret(rt_watermark *m, const char *text, rt_error *err)
{
    if (m->scheme == RT_SCHEME_HF_KGW) {
        char *end;
        const unsigned long long key = strtoull(text, &end, 10);
        if (!text[0] || *end || key > INT64_MAX)
            return rt_error_set(err, RT_INVALID, "--secret of hf-kgw is its hashing_key, a number");
        m->hashing_key = key;
        return RT_OK;
    }
    if (m->scheme == RT_SCHEME_HF_SYNTHID) {
        m->n_keys = 0;
        for (const char *at = text; *at && m->n_keys < RT_PRF_LAYERS_MAX;) {
            char *end;
            m->keys[m->n_keys++] = strtoll(at, &end, 10);
            if (end == at || (*end && *end != ','))
                return rt_error_set(err, RT_INVALID, "--secret of hf-synthid is its keys: 654,400,...");
            at = *end ? end + 1 : end;
        }
        return RT_OK;
    }
    if (strlen(text) != 32 || strspn(text, "0123456789abcdefABCDEF") != 32)
        return rt_error_set(err, RT_INVALID, "--secret is 16 bytes in hex");
    for (size_t i = 0; i < 16; i++) {
        const char byte[3] = {text[2 * i], text[2 * i + 1], 0};
        m->key[i] = (uint8_t)strtoul(byte, NULL, 16);
    }
    return RT_OK;
}

/* The model that a key belongs to: its tokenizer, and the size of its padded vocabulary. */
static rt_status bind_model(rt_mark_key *key, const settings *s, rt_error *err)
{
    rt_pool *pool;
    cli_model model;
    if (!s->model)
        return RT_OK;
    if (rt_pool_open(&pool, 1, err) != RT_OK)
        return err->status;
    const rt_status status =
        cli_model_open(&model, s->model, RT_PRECISION_INT8, CLI_MODEL_NO_TEMPLATE, pool, err);
    if (status == RT_OK) {
        (void)snprintf(key->tokenizer, sizeof key->tokenizer, "%s", rt_tokenizer_hash(model.tokenizer));
        key->mark.n_vocab = s->n_vocab ? s->n_vocab : model.model->config.n_vocab;
        cli_model_close(&model);
    }
    rt_pool_close(pool);
    return status;
}

static rt_status place_of(char **path, const settings *s, const rt_mark_key *key, rt_error *err)
{
    char *dir;
    if (s->out) {
        *path = strdup(s->out);
        return *path ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for a name");
    }
    *path = NULL;
    if (cli_key_dir(&dir, err) != RT_OK)
        return err->status;
    rt_status status = rt_dir_make(dir, err);
    if (status == RT_OK && chmod(dir, 0700) != 0)
        status = rt_error_set(err, RT_IO, "%.300s: the key folder cannot be closed to others", dir);
    char file[RT_MARK_KEY_ID_MAX + 8];
    (void)snprintf(file, sizeof file, "%s.json", key->id);
    *path = status == RT_OK ? rt_path_join(dir, file) : NULL;
    free(dir);
    return *path || status != RT_OK ? status : rt_error_set(err, RT_NO_MEMORY, "no memory for a name");
}

static rt_status make_key(rt_mark_key *key, char **path, const settings *s, rt_error *err)
{
    rt_watermark mark = rt_watermark_default((rt_scheme)rt_scheme_from_word(s->scheme));
    mark.h = mark.scheme == RT_SCHEME_UNIGRAM ? 0 : s->h;
    mark.layers = s->layers;
    mark.gamma = s->gamma;
    mark.delta = s->delta;
    mark.context_width = s->width;
    mark.selfhash = strcmp(s->seeding, "selfhash") == 0;
    mark.n_vocab = s->n_vocab;
    mark.ngram_len = s->ngram_len;
    mark.n_keys = mark.scheme == RT_SCHEME_HF_SYNTHID ? s->layers : 0;
    if (mark.scheme == RT_SCHEME_HF_KGW && !s->n_vocab && !s->model)
        return rt_error_set(err, RT_INVALID,
                            "hf-kgw draws its lists from the padded vocabulary: give --vocab-size (the "
                            "config's vocab_size) or --model");
    if (mark.scheme == RT_SCHEME_HF_KGW && !s->n_vocab)
        mark.n_vocab = 1; /* bind_model says it */
    if (rt_mark_key_new(key, s->name ? s->name : "", &mark, rt_clock_unix_seconds(), err) != RT_OK ||
        bind_model(key, s, err) != RT_OK ||
        (s->secret && import_secret(&key->mark, s->secret, err) != RT_OK) ||
        rt_watermark_check(&key->mark, err) != RT_OK || place_of(path, s, key, err) != RT_OK)
        return err->status;
    return rt_mark_key_write(key, *path, err);
}

static int key_new(int argc, char **argv)
{
    settings s = {.scheme = "tournament",
                  .seeding = "lefthash",
                  .h = 2,
                  .layers = 30,
                  .width = 1,
                  .ngram_len = 5,
                  .gamma = 0.25,
                  .delta = 2};
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "A random key from libsodium, in a file of mode 0600 that is never overwritten.  Its commitment,\n"
         "BLAKE2b(key || nonce), may be published: it proves nothing now and binds the key for later.\n"
         "tournament  no change of text quality; the default\n"
         "kgw         green lists; works at temperature 0; costs some quality\n"
         "gumbel      strongest, but the same answer to the same prompt again and again\n"
         "unigram     one fixed list: readable by anybody who counts tokens; not for a service\n"
         "hf-kgw, hf-synthid  bit for bit those of transformers on the CPU (text that it marked on a GPU "
         "has\n"
         "            other lists for hf-kgw and is not found)\n\n"
         "Examples:\n  retort watermark key new served-2026\n"
         "  retort watermark key new --scheme kgw --delta 1 --out k.json\n"
         "  retort watermark key new hf --scheme hf-kgw --secret 987654321 --model smollm2-135m-instruct"},
        {CLI_STRING, "[NAME]", &s.name, "the key's id (default: a random one)"},
        {CLI_STRING, "--scheme " CLI_SCHEMES, &s.scheme, "what the key is for (default tournament)"},
        {CLI_STRING, "--out FILE", &s.out, "where the key goes (default: the key folder)"},
        {CLI_COUNT, "--h N", &s.h, "ids of context (default 2: learnable; 4 is not)"},
        {CLI_COUNT, "--layers N", &s.layers, "of the tournament (default 30)"},
        {CLI_REAL, "--gamma X", &s.gamma, "share of green ids (default 0.25)"},
        {CLI_REAL, "--delta X", &s.delta, "added to green logits (default 2)"},
        {CLI_STRING, "--model MODEL", &s.model, "bind the key to this model's tokenizer"},
        {CLI_STRING, "--seeding lefthash|selfhash", &s.seeding, "hf-kgw (default lefthash)"},
        {CLI_COUNT, "--context-width N", &s.width, "hf-kgw (default 1)"},
        {CLI_COUNT, "--vocab-size N", &s.n_vocab, "hf-kgw: vocab_size of the model's config"},
        {CLI_COUNT, "--ngram-len N", &s.ngram_len, "hf-synthid (default 5)"},
        {CLI_STRING, "--secret TEXT", &s.secret,
         "a secret from elsewhere: 32 hex digits, hashing_key, or keys with commas"},
        {CLI_FLAG, "--json", &s.json, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    rt_mark_key key;
    char *path = NULL;
    if (cli_parse(spec, argc, argv, &err) != RT_OK || make_key(&key, &path, &s, &err) != RT_OK) {
        free(path);
        return cli_fail(&err);
    }
    if (key.mark.scheme == RT_SCHEME_UNIGRAM)
        (void)fprintf(stderr,
                      "retort: warning: unigram marks with one fixed list, which anybody can read from "
                      "token counts; it is no scheme for a service\n");
    if (rt_mark_key_is_public(&key.mark))
        (void)fprintf(stderr, "retort: warning: this secret is in public code: no evidence can rest on it\n");
    json_t *json = rt_mark_key_public(&key);
    (void)json_object_set_new(json, "file", json_string(path));
    int status = 0;
    if (s.json)
        status = cli_print_json(json_incref(json));
    else
        (void)printf("key %s (%s) in %s\ncommitment %s\n", key.id, rt_scheme_word(key.mark.scheme), path,
                     json_string_value(json_object_get(json, "commitment")));
    json_decref(json);
    free(path);
    return status;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Ids of the key folder's files, sorted. */
static rt_status list_ids(char ***out, size_t *n, const char *dir, rt_error *err)
{
    *out = NULL;
    *n = 0;
    DIR *folder = opendir(dir);
    if (!folder)
        return RT_OK; /* no key was made yet */
    rt_status status = RT_OK;
    for (struct dirent *e; status == RT_OK && (e = readdir(folder));) {
        const size_t length = strlen(e->d_name);
        if (length < 6 || strcmp(e->d_name + length - 5, ".json") != 0)
            continue;
        char **more = realloc(*out, (*n + 1) * sizeof *more);
        char *name = strndup(e->d_name, length - 5);
        if (more)
            *out = more;
        if (more && name)
            more[(*n)++] = name;
        else {
            free(name);
            status = rt_error_set(err, RT_NO_MEMORY, "no memory for the keys' names");
        }
    }
    (void)closedir(folder);
    if (*n)
        qsort(*out, *n, sizeof **out, by_name);
    return status;
}

static int key_list(int argc, char **argv)
{
    bool json = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Id, scheme and commitment of the keys in the key folder; never a key.\n\n"
         "Examples:\n  retort watermark key list --json"},
        {CLI_FLAG, "--json", &json, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    char *dir = NULL, **ids = NULL;
    size_t n = 0;
    if (cli_parse(spec, argc, argv, &err) != RT_OK || cli_key_dir(&dir, &err) != RT_OK)
        return cli_fail(&err);
    rt_status status = list_ids(&ids, &n, dir, &err);
    json_t *keys = json_array();
    for (size_t i = 0; i < n; i++) {
        rt_mark_key key;
        if (status == RT_OK && cli_key_open(&key, ids[i], NULL, 1, &err) == RT_OK) {
            (void)json_array_append_new(keys, rt_mark_key_public(&key));
        } else if (status == RT_OK && err.status != RT_MISMATCH) {
            (void)fprintf(stderr, "retort: warning: %s\n", err.text);
        } else if (status == RT_OK) {
            (void)json_array_append_new(keys, rt_mark_key_public(&key));
        }
        err = (rt_error){0};
        free(ids[i]);
    }
    free(ids);
    free(dir);
    if (status != RT_OK) {
        json_decref(keys);
        return cli_fail(&err);
    }
    if (json)
        return cli_print_json(json_pack("{s:o}", "keys", keys));
    size_t i;
    const json_t *key;
    json_array_foreach(keys, i, key)
    {
        (void)printf("%-24s %-12s %s\n", json_string_value(json_object_get(key, "id")),
                     json_string_value(json_object_get(key, "scheme")),
                     json_string_value(json_object_get(key, "commitment")));
    }
    json_decref(keys);
    return 0;
}

static int key_show(int argc, char **argv)
{
    const char *name = NULL;
    bool json = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "The public part of a key: scheme, settings, commitment; never the key.\n\n"
         "Examples:\n  retort watermark key show served-2026 --json"},
        {CLI_STRING | CLI_REQUIRED, "KEY", &name, "key file, or id"},
        {CLI_FLAG, "--json", &json, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    rt_mark_key key;
    char *path = NULL;
    if (cli_parse(spec, argc, argv, &err) != RT_OK || cli_key_path(&path, name, &err) != RT_OK)
        return cli_fail(&err);
    const rt_status status = rt_mark_key_read(&key, path, &err);
    free(path);
    if (status != RT_OK)
        return cli_fail(&err);
    json_t *shown = rt_mark_key_public(&key);
    if (json)
        return cli_print_json(shown);
    const char *field;
    json_t *value;
    json_object_foreach(shown, field, value)
    {
        char *text = json_dumps(value, JSON_ENCODE_ANY);
        (void)printf("%-22s %s\n", field, json_is_string(value) ? json_string_value(value) : text);
        free(text);
    }
    json_decref(shown);
    return 0;
}

int watermark_key(int argc, char **argv)
{
    const cli_sub subs[] = {
        {"new", (char[]){"watermark key new"}, "a new key in a secret file", key_new},
        {"list", (char[]){"watermark key list"}, "the keys of the key folder", key_list},
        {"show", (char[]){"watermark key show"}, "a key's public part", key_show},
    };
    return cli_run_sub(subs, sizeof subs / sizeof *subs,
                       "  retort watermark key new served-2026\n  retort watermark key list", argc, argv);
}
