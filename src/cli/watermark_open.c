/* cli/watermark_open.c - keys and marks from the command line; see watermark.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/home.h"
#include "cli/watermark.h"

rt_status cli_key_dir(char **out, rt_error *err) { return cli_home_path(out, "keys", err); }

rt_status cli_key_path(char **out, const char *name, rt_error *err)
{
    *out = NULL;
    if (strchr(name, '/') || rt_path_exists(name)) {
        *out = strdup(name);
        return *out ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for a name");
    }
    if (!rt_mark_key_id_valid(name))
        return rt_error_set(err, RT_INVALID, "'%.60s' is no key file and no key's id", name);
    char *dir, file[RT_MARK_KEY_ID_MAX + 8];
    if (cli_key_dir(&dir, err) != RT_OK)
        return err->status;
    (void)snprintf(file, sizeof file, "%s.json", name);
    *out = rt_path_join(dir, file);
    free(dir);
    return *out ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for a name");
}

rt_status cli_key_open(rt_mark_key *out, const char *name, const char *scheme, size_t n_vocab, rt_error *err)
{
    char *path;
    if (cli_key_path(&path, name, err) != RT_OK)
        return err->status;
    rt_status status = rt_mark_key_read(out, path, err);
    free(path);
    if (status != RT_OK)
        return status;
    if (out->mark.n_vocab == 0)
        out->mark.n_vocab = n_vocab;
    if (scheme) {
        const rt_watermark master = out->mark;
        status = rt_mark_key_for_scheme(&out->mark, &master, (rt_scheme)rt_scheme_from_word(scheme), err);
    }
    if (status == RT_OK && out->mark.scheme == RT_SCHEME_HF_KGW && n_vocab && out->mark.n_vocab != n_vocab)
        return rt_error_set(err, RT_MISMATCH,
                            "the lists of key %s are drawn from %zu ids, the model's config has %zu (the "
                            "padded vocabulary counts, not the tokenizer's)",
                            out->id, out->mark.n_vocab, n_vocab);
    return status == RT_OK ? rt_watermark_check(&out->mark, err) : status;
}

static json_t *record(const rt_mark_key *key, const cli_mark_options *options, const rt_tokenizer *tokenizer)
{
    json_t *json =
        json_pack("{s:s,s:s,s:I,s:s}", "scheme", rt_scheme_word(key->mark.scheme), "key", key->id, "h",
                  (json_int_t)rt_watermark_context(&key->mark), "tokenizer", rt_tokenizer_hash(tokenizer));
    if (options->account)
        (void)json_object_update_new(
            json, json_pack("{s:s,s:f}", "account", options->account, "alpha", options->alpha));
    return json;
}

rt_status cli_mark_open(rt_mark **mark, rt_mark_key *key, json_t **json, const cli_mark_options *options,
                        size_t n_vocab, const rt_tokenizer *tokenizer, rt_error *err)
{
    rt_watermark second;
    *mark = NULL;
    *json = NULL;
    if (!options->key)
        return options->scheme || options->account
                   ? rt_error_set(err, RT_INVALID, "--watermark-scheme and -account need --watermark KEY")
                   : RT_OK;
    if (cli_key_open(key, options->key, options->scheme, n_vocab, err) != RT_OK)
        return err->status;
    if (key->tokenizer[0] && strcmp(key->tokenizer, rt_tokenizer_hash(tokenizer)) != 0)
        return rt_error_set(err, RT_MISMATCH,
                            "key %s belongs to tokenizer %.12s, and the model has %.12s: a key for each",
                            key->id, key->tokenizer, rt_tokenizer_hash(tokenizer));
    if (key->mark.scheme == RT_SCHEME_UNIGRAM)
        (void)fprintf(stderr,
                      "retort: warning: unigram marks with one fixed list, which anybody can read from "
                      "token counts; it is no scheme for a service\n");
    if (rt_mark_key_is_public(&key->mark))
        (void)fprintf(stderr,
                      "retort: warning: key %s is in public code: anybody can make or remove such a mark\n",
                      key->id);
    if (options->account && rt_mark_key_for_account(&second, &key->mark, options->account, err) != RT_OK)
        return err->status;
    if (rt_mark_open(mark, &key->mark, options->account ? &second : NULL, options->alpha,
                     options->skip_repeated, err) != RT_OK)
        return err->status;
    *json = record(key, options, tokenizer);
    return RT_OK;
}
