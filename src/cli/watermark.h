/* cli/watermark.h - watermark keys on the command line: KEY is a key file, or the id of one in the key folder
 * ("$RETORT_HOME/keys/<id>.json"). */
#ifndef RT_CLI_WATERMARK_H
#define RT_CLI_WATERMARK_H

#include "evidence/keys.h"
#include "evidence/marker.h"
#include "model/tokenizer.h"

/* The values of every --scheme option. */
#define CLI_SCHEMES "tournament|kgw|gumbel|unigram|hf-kgw|hf-synthid"

rt_status cli_key_dir(char **out, rt_error *err);
rt_status cli_key_path(char **out, const char *name, rt_error *err);
/* scheme NULL: the key's own; else a key derived for it.  n_vocab: of the model's config, for hf-kgw keys
 * that do not say it; 0: not known. */
rt_status cli_key_open(rt_mark_key *out, const char *name, const char *scheme, size_t n_vocab, rt_error *err);

/* The options of a command that generates. */
typedef struct cli_mark_options {
    const char *key, *scheme, *account;
    double alpha;
    bool skip_repeated;
} cli_mark_options;

#define CLI_MARK_ROWS(m)                                                                                     \
    {CLI_STRING, "--watermark KEY", &(m).key,                                                                \
     "mark answers: a key file or id ('retort watermark key new')"},                                         \
        {CLI_STRING, "--watermark-scheme " CLI_SCHEMES, &(m).scheme,                                         \
         "another scheme than the key's own, under a key derived for it"},                                   \
        {CLI_REAL, "--watermark-alpha X", &(m).alpha,                                                        \
         "share of the tokens under an account's own key (default 0.3)"},                                    \
    {                                                                                                        \
        CLI_FLAG, "--watermark-skip-repeated", &(m).skip_repeated,                                           \
            "green lists too leave repeated contexts unmarked (the others always do)"                        \
    }

/* *mark stays NULL when no key was given.  *key: the common one.  json: what a record may say of it (scheme,
 * key id, h, tokenizer), NULL when none. */
rt_status cli_mark_open(rt_mark **mark, rt_mark_key *key, json_t **json, const cli_mark_options *options,
                        size_t n_vocab, const rt_tokenizer *tokenizer, rt_error *err);

int watermark_key(int argc, char **argv);
int watermark_detect(int argc, char **argv);

#endif
