/* cli/cmd_appeal.c - `retort appeal ...`: objections of account holders, and what is decided on them. */
#include <stdio.h>
#include <string.h>

#include "cli/account_db.h"
#include "cli/commands.h"
#include "cli/sub.h"

static const cli_column columns[] = {{"id", "APPEAL", 27},       {"case", "CASE", 25},
                                     {"account", "ACCOUNT", 24}, {"state", "STATE", 8},
                                     {"outcome", "OUTCOME", 9},  {"statement", "STATEMENT", 0}};

static int appeal_list(int argc, char **argv)
{
    cli_account_db db = {0};
    const char *account = NULL, *state = NULL;
    const cli_option spec[] = {
        {CLI_STRING, "--account ACCOUNT", (void *)&account, "only this account's, by id or name"},
        {CLI_STRING, "--state open|decided", (void *)&state, "only those"},
        CLI_ACCOUNT_DB_OPTIONS(db),
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    rt_text query = {0};
    json_t *out = NULL;
    char id[64];
    rt_status status = cli_parse(spec, argc, argv, &err);
    if (status == RT_OK && account)
        status = cli_account_id(&db, account, id, &err);
    cli_query_add(&query, "account", status == RT_OK && account ? id : NULL);
    cli_query_add(&query, "state", state);
    cli_query_add(&query, "limit", "1000");
    if (status == RT_OK)
        status = cli_admin_call(&db, "GET", "/admin/v1/appeals", query.data, NULL, &out, &err);
    rt_text_deinit(&query);
    return cli_account_finish(&db, status, out, columns, sizeof columns / sizeof columns[0], &err);
}

/* The case that an appeal is against. */
static rt_status case_of(cli_account_db *db, const char *appeal, char id[64], rt_error *err)
{
    json_t *list = NULL, *row;
    size_t i;
    if (strncmp(appeal, "case_", 5) == 0 && strlen(appeal) < 64 && !strchr(appeal, '/')) {
        (void)snprintf(id, 64, "%s", appeal);
        return RT_OK;
    }
    if (cli_admin_call(db, "GET", "/admin/v1/appeals", "limit=1000&state=open", NULL, &list, err) != RT_OK)
        return err->status;
    rt_status status = rt_error_set(err, RT_NOT_FOUND, "there is no open appeal '%.60s'", appeal);
    json_array_foreach(json_object_get(list, "data"), i, row)
    {
        if (strcmp(json_string_value(json_object_get(row, "id")), appeal) == 0) {
            (void)snprintf(id, 64, "%s", json_string_value(json_object_get(row, "case")));
            status = RT_OK;
        }
    }
    json_decref(list);
    return status;
}

static int appeal_decide(int argc, char **argv)
{
    cli_account_db db = {0};
    const char *appeal = NULL, *outcome = NULL, *note = NULL;
    char id[64], path[128];
    const cli_option spec[] = {
        {CLI_STRING | CLI_REQUIRED, "APPEAL", (void *)&appeal, "the appeal, or its case"},
        {CLI_STRING | CLI_REQUIRED, "uphold|reinstate|reduce", (void *)&outcome,
         "the state stays, ends, or goes one step down"},
        {CLI_STRING, "--note TEXT", (void *)&note, "why; the holder reads it"},
        CLI_ACCOUNT_DB_OPTIONS(db),
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    json_t *out = NULL;
    rt_status status = cli_parse(spec, argc, argv, &err);
    if (status == RT_OK)
        status = case_of(&db, appeal, id, &err);
    if (status == RT_OK) {
        (void)snprintf(path, sizeof path, "/admin/v1/cases/%s/decide", id);
        json_t *body = json_pack("{s:s, s:s*}", "outcome", outcome, "note", note);
        status = body ? cli_admin_call(&db, "POST", path, NULL, body, &out, &err)
                      : rt_error_set(&err, RT_INVALID, "the note is not UTF-8");
    }
    return cli_account_finish(&db, status, out, NULL, 0, &err);
}

int cmd_appeal(int argc, char **argv)
{
    static char names[][16] = {"appeal list", "appeal decide"};
    const cli_sub subs[] = {
        {"list", names[0], "objections against suspensions", appeal_list},
        {"decide", names[1], "uphold the case, reinstate the account, or reduce", appeal_decide},
    };
    return cli_run_sub(
        subs, sizeof subs / sizeof subs[0],
        "  retort appeal list --state open\n"
        "  retort appeal decide case_0123456789abcdefghij reinstate --note 'a benchmark, as it said'",
        argc, argv);
}
