/* cli/cmd_usage.c - `retort usage`: what was used, by time and by account, key or model. */
#include "cli/account_db.h"
#include "cli/commands.h"

#include <stdio.h>

int cmd_usage(int argc, char **argv)
{
    cli_account_db db = {0};
    const char *account = NULL, *key = NULL, *model = NULL, *from = NULL, *to = NULL, *bucket = NULL,
               *group = NULL;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Examples:\n  retort usage --group-by account\n  retort usage --account acme --bucket 1h --from "
         "2026-11-25"},
        {CLI_STRING, "--account ACCOUNT", (void *)&account, "only this account, by id or name"},
        {CLI_STRING, "--key KEY", (void *)&key, "only this key, by its 8 characters"},
        {CLI_STRING, "--model NAME", (void *)&model, "only this model"},
        {CLI_STRING, "--from TIME", (void *)&from, "Unix seconds or 2026-11-25T10:00:00Z"},
        {CLI_STRING, "--to TIME", (void *)&to, "up to and without this moment"},
        {CLI_STRING, "--bucket 1m|1h|1d", (void *)&bucket, "how long each row is (1d)"},
        {CLI_STRING, "--group-by WHAT", (void *)&group, "account, key, model, or several with commas"},
        CLI_ACCOUNT_DB_OPTIONS(db),
        {CLI_END, NULL, NULL, NULL},
    };
    static const cli_column columns[] = {{"start", "START", 11},
                                         {"requests", "REQUESTS", 9},
                                         {"input_tokens", "INPUT", 12},
                                         {"cached_tokens", "CACHED", 10},
                                         {"output_tokens", "OUTPUT", 12},
                                         {"cost", "USD", 12},
                                         {"errors", "ERRORS", 7},
                                         {"limited", "LIMITED", 8},
                                         {"account", "ACCOUNT", 24},
                                         {"key", "KEY", 9},
                                         {"model", "MODEL", 0}};
    rt_error err = {0};
    rt_text query = {0};
    json_t *out = NULL;
    char id[64];
    rt_status status = cli_parse(spec, argc, argv, &err);
    if (status == RT_OK && account)
        status = cli_account_id(&db, account, id, &err);
    cli_query_add(&query, "account", status == RT_OK && account ? id : NULL);
    cli_query_add(&query, "key", key);
    cli_query_add(&query, "model", model);
    cli_query_add(&query, "from", from);
    cli_query_add(&query, "to", to);
    cli_query_add(&query, "bucket", bucket);
    cli_query_add(&query, "group_by", group);
    if (status == RT_OK)
        status = cli_admin_call(&db, "GET", "/admin/v1/usage", query.data, NULL, &out, &err);
    rt_text_deinit(&query);
    return cli_account_finish(&db, status, out, columns, sizeof columns / sizeof columns[0], &err);
}
