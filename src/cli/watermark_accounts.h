/* cli/watermark_accounts.h - whose key is it: one text under the keys of all accounts
 * (METHODS-evidence 2.0.7). */
#ifndef RT_CLI_WATERMARK_ACCOUNTS_H
#define RT_CLI_WATERMARK_ACCOUNTS_H

#include <jansson.h>

#include "base/pool.h"
#include "evidence/keys.h"

typedef struct cli_accounts { /* keys and whose they are */
    char **names;
    uint8_t (*keys)[RT_PRF_KEY_BYTES];
    size_t count, capacity;
    rt_watermark mark; /* the settings that all share */
} cli_accounts;

/* path: a file with an account a line, whose keys are derived from `master`; or a folder of key files
 * (*.json), whose scheme and settings must be one, and then master may be NULL.  An account that is named
 * twice is RT_CORRUPT. */
rt_status cli_accounts_open(cli_accounts *out, const char *path, const rt_mark_key *master, rt_error *err);
void cli_accounts_close(cli_accounts *accounts);

/* {accounts, named, words, best: [{account, z, log10_p, log10_p_corrected}], null: {ks_p, below_1e_2, ...}}:
 * p of each, times their number; named: those whose corrected p is 1e-5 or less.  The caller owns it; NULL:
 * *err says why. */
json_t *cli_accounts_json(const cli_accounts *accounts, const rt_pairs *pairs, rt_pool *pool, rt_error *err);
void cli_accounts_print(const json_t *result);

#endif
