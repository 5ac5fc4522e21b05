/* cli/cmd_audit.c - `retort audit ...`: the chained and signed trail of what was changed. */
#include <stdio.h>

#include "cli/account_db.h"
#include "cli/commands.h"
#include "cli/sub.h"

static const cli_column columns[] = {{"id", "ROW", 6},           {"at", "AT", 15},
                                     {"actor", "ACTOR", 24},     {"action", "ACTION", 18},
                                     {"subject", "SUBJECT", 25}, {"detail", "DETAIL", 0}};

static int audit_show(int argc, char **argv)
{
    cli_account_db db = {0};
    const char *after = NULL, *actor = NULL, *action = NULL, *subject = NULL, *limit = NULL;
    const cli_option spec[] = {
        {CLI_STRING, "--after ROW", (void *)&after, "go on after this row"},
        {CLI_STRING, "--actor NAME", (void *)&actor, "only what this one did"},
        {CLI_STRING, "--action NAME", (void *)&action, "only these, such as account.suspend"},
        {CLI_STRING, "--subject ID", (void *)&subject, "only what was done to this account, key or case"},
        {CLI_STRING, "--limit N", (void *)&limit, "at most so many (100)"},
        CLI_ACCOUNT_DB_OPTIONS(db),
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    rt_text query = {0};
    json_t *out = NULL;
    rt_status status = cli_parse(spec, argc, argv, &err);
    cli_query_add(&query, "after", after);
    cli_query_add(&query, "actor", actor);
    cli_query_add(&query, "action", action);
    cli_query_add(&query, "subject", subject);
    cli_query_add(&query, "limit", limit);
    if (status == RT_OK)
        status = cli_admin_call(&db, "GET", "/admin/v1/audit", query.data, NULL, &out, &err);
    rt_text_deinit(&query);
    return cli_account_finish(&db, status, out, columns, sizeof columns / sizeof columns[0], &err);
}

static int audit_verify(int argc, char **argv)
{
    cli_account_db db = {0};
    const char *key = NULL, *expect = NULL;
    const cli_option spec[] = {
        {CLI_STRING, "--public-key HEX", (void *)&key,
         "the key that must have signed it (default: the database's)"},
        {CLI_STRING, "--expect HASH", (void *)&expect,
         "a hash noted earlier, which must still be in the chain"},
        CLI_ACCOUNT_DB_OPTIONS(db),
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    rt_text query = {0};
    json_t *out = NULL;
    rt_status status = cli_parse(spec, argc, argv, &err);
    cli_query_add(&query, "public_key", key);
    cli_query_add(&query, "expect", expect);
    if (status == RT_OK)
        status = cli_admin_call(&db, "GET", "/admin/v1/audit/verify", query.data, NULL, &out, &err);
    rt_text_deinit(&query);
    const bool valid = json_is_true(json_object_get(out, "valid"));
    const int code = cli_account_finish(&db, status, out, NULL, 0, &err);
    return status == RT_OK && code == 0 && !valid ? rt_status_exit_code(RT_CHECK_FAILED) : code;
}

int cmd_audit(int argc, char **argv)
{
    static char names[][16] = {"audit show", "audit verify"};
    const cli_sub subs[] = {
        {"show", names[0], "who changed what, and when", audit_show},
        {"verify", names[1], "no row was changed, removed or put in between; exit status 3 otherwise",
         audit_verify},
    };
    return cli_run_sub(subs, sizeof subs / sizeof subs[0],
                       "  retort audit show --action account.suspend\n"
                       "  retort audit verify --json",
                       argc, argv);
}
