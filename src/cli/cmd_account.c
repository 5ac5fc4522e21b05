/* cli/cmd_account.c - `retort account ...`: who may use the server, and how much. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/account_db.h"
#include "cli/commands.h"
#include "cli/sub.h"

static const cli_column columns[] = {{"id", "ACCOUNT", 24},     {"state", "STATE", 10},
                                     {"tier", "TIER", 10},      {"limits.rpm", "RPM", 8},
                                     {"limits.tpm", "TPM", 10}, {"name", "NAME", 0}};
enum { N_COLUMNS = sizeof columns / sizeof columns[0] };

static rt_status account_path(cli_account_db *db, const char *account, const char *tail, char path[128],
                              rt_error *err)
{
    char id[64];
    const rt_status status = cli_account_id(db, account, id, err);
    if (status == RT_OK)
        (void)snprintf(path, 128, "/admin/v1/accounts/%s%s", id, tail);
    return status;
}

typedef struct settings_args {
    cli_limit_args limits;
    const char *contact, *tier, *permissions, *prices, *prompts, *terms;
} settings_args;

#define SETTINGS_OPTIONS(args)                                                                               \
    {CLI_STRING, "--contact TEXT", (void *)&(args).contact, "how to reach the holder"},                      \
        {CLI_STRING, "--tier NAME", (void *)&(args).tier, "a name of your own for a group of accounts"},     \
        CLI_LIMIT_OPTIONS((args).limits),                                                                    \
        {CLI_STRING, "--permissions JSON", (void *)&(args).permissions,                                      \
         "such as {\"models\": [\"m\"], \"score\": true}; models null: all"},                                \
        {CLI_STRING, "--prices JSON", (void *)&(args).prices,                                                \
         "USD per million tokens, by model or \"default\""},                                                 \
    {                                                                                                        \
        CLI_STRING, "--prompts JSON", (void *)&(args).prompts,                                               \
            "{\"keep\": \"none\"|\"hash\"|\"full\", \"days\": N}"                                            \
    }

/* The options as the body of a call. */
static rt_status settings_body(const settings_args *args, json_t **out, rt_error *err)
{
    json_t *body = json_object(), *limits = NULL;
    const struct {
        const char *key, *option, *text;
        bool is_json;
    } items[] = {{"contact", "--contact", args->contact, false},
                 {"tier", "--tier", args->tier, false},
                 {"terms_accepted", "--accept-terms", args->terms, false},
                 {"permissions", "--permissions", args->permissions, true},
                 {"prices", "--prices", args->prices, true},
                 {"prompts", "--prompts", args->prompts, true}};
    rt_status status = cli_limits_of(&args->limits, &limits, err);
    if (limits)
        (void)json_object_set_new(body, "limits", limits);
    for (size_t i = 0; i < sizeof items / sizeof items[0] && status == RT_OK; i++) {
        json_t *value = NULL;
        if (!items[i].text)
            continue;
        if (items[i].is_json)
            status = cli_json_option(&value, items[i].option, items[i].text, err);
        else if ((value = json_string(items[i].text)) == NULL)
            status = rt_error_set(err, RT_INVALID, "%s: not UTF-8", items[i].option);
        if (value)
            (void)json_object_set_new(body, items[i].key, value);
    }
    if (status != RT_OK) {
        json_decref(body);
        return status;
    }
    *out = body;
    return RT_OK;
}

static int account_create(int argc, char **argv)
{
    cli_account_db db = {0};
    settings_args args = {0};
    const char *name = NULL;
    const cli_option spec[] = {
        {CLI_STRING | CLI_REQUIRED, "NAME", (void *)&name, "what to call it"},
        SETTINGS_OPTIONS(args),
        CLI_ACCOUNT_DB_OPTIONS(db),
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    json_t *body = NULL, *out = NULL;
    rt_status status = cli_parse(spec, argc, argv, &err);
    if (status == RT_OK)
        status = settings_body(&args, &body, &err);
    if (status == RT_OK && json_object_set_new(body, "name", json_string(name)) != 0) {
        json_decref(body);
        status = rt_error_set(&err, RT_INVALID, "the name is not UTF-8");
    } else if (status == RT_OK) {
        status = cli_admin_call(&db, "POST", "/admin/v1/accounts", NULL, body, &out, &err);
    }
    return cli_account_finish(&db, status, out, NULL, 0, &err);
}

static int account_list(int argc, char **argv)
{
    cli_account_db db = {0};
    const char *state = NULL, *after = NULL, *limit = NULL;
    const cli_option spec[] = {
        {CLI_STRING, "--state active|watched|throttled|suspended|closed", (void *)&state, "only those"},
        {CLI_STRING, "--after ACCOUNT", (void *)&after, "go on after this one"},
        {CLI_STRING, "--limit N", (void *)&limit, "at most so many (100)"},
        CLI_ACCOUNT_DB_OPTIONS(db),
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    rt_text query = {0};
    json_t *out = NULL;
    rt_status status = cli_parse(spec, argc, argv, &err);
    cli_query_add(&query, "state", state);
    cli_query_add(&query, "after", after);
    cli_query_add(&query, "limit", limit);
    if (status == RT_OK)
        status = cli_admin_call(&db, "GET", "/admin/v1/accounts", query.data, NULL, &out, &err);
    rt_text_deinit(&query);
    return cli_account_finish(&db, status, out, columns, N_COLUMNS, &err);
}

static int account_show(int argc, char **argv)
{
    cli_account_db db = {0};
    const char *account = NULL;
    char path[128];
    const cli_option spec[] = {
        {CLI_STRING | CLI_REQUIRED, "ACCOUNT", (void *)&account, "id or name"},
        CLI_ACCOUNT_DB_OPTIONS(db),
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    json_t *out = NULL;
    rt_status status = cli_parse(spec, argc, argv, &err);
    if (status == RT_OK)
        status = account_path(&db, account, "", path, &err);
    if (status == RT_OK)
        status = cli_admin_call(&db, "GET", path, NULL, NULL, &out, &err);
    return cli_account_finish(&db, status, out, NULL, 0, &err);
}

static int account_limit(int argc, char **argv)
{
    cli_account_db db = {0};
    settings_args args = {0};
    const char *account = NULL;
    char path[128];
    const cli_option spec[] = {
        {CLI_STRING | CLI_REQUIRED, "ACCOUNT", (void *)&account, "id or name"},
        SETTINGS_OPTIONS(args),
        {CLI_STRING, "--accept-terms VERSION", (void *)&args.terms,
         "record that the holder has accepted the terms"},
        CLI_ACCOUNT_DB_OPTIONS(db),
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    json_t *body = NULL, *out = NULL;
    rt_status status = cli_parse(spec, argc, argv, &err);
    if (status == RT_OK)
        status = settings_body(&args, &body, &err);
    if (status == RT_OK && json_object_size(body) == 0)
        status = rt_error_set(&err, RT_INVALID, "nothing to change: give a limit, such as --rpm 60");
    if (status == RT_OK)
        status = account_path(&db, account, "", path, &err);
    if (status == RT_OK)
        status = cli_admin_call(&db, "PATCH", path, NULL, json_incref(body), &out, &err);
    json_decref(body);
    return cli_account_finish(&db, status, out, NULL, 0, &err);
}

/* suspend, throttle, watch, close, reinstate: a state and its reason. */
static int change_state(int argc, char **argv, const char *tail)
{
    cli_account_db db = {0};
    const char *account = NULL, *reason = NULL, *public_reason = NULL;
    size_t until = 0;
    char path[128];
    const bool reinstate = strcmp(tail, "/reinstate") == 0;
    const cli_option with_reason[] = {
        {CLI_STRING | CLI_REQUIRED, "ACCOUNT", (void *)&account, "id or name"},
        {CLI_STRING, "--reason TEXT", (void *)&reason, "why, for operators"},
        {CLI_STRING, "--public-reason TEXT", (void *)&public_reason, "why, as the holder reads it"},
        {CLI_COUNT, "--until UNIX-SECONDS", &until, "it ends by itself then"},
        CLI_ACCOUNT_DB_OPTIONS(db),
        {CLI_END, NULL, NULL, NULL},
    };
    const cli_option with_note[] = {
        {CLI_STRING | CLI_REQUIRED, "ACCOUNT", (void *)&account, "id or name"},
        {CLI_STRING, "--note TEXT", (void *)&reason, "why"},
        CLI_ACCOUNT_DB_OPTIONS(db),
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    json_t *out = NULL;
    rt_status status = cli_parse(reinstate ? with_note : with_reason, argc, argv, &err);
    if (status == RT_OK)
        status = account_path(&db, account, tail, path, &err);
    if (status == RT_OK) {
        json_t *body = json_pack("{s:s*, s:s*, s:o*}", reinstate ? "note" : "reason", reason, "public_reason",
                                 public_reason, "until", until > 0 ? json_integer((json_int_t)until) : NULL);
        status = body ? cli_admin_call(&db, "POST", path, NULL, body, &out, &err)
                      : rt_error_set(&err, RT_INVALID, "the reason is not UTF-8");
    }
    return cli_account_finish(&db, status, out, NULL, 0, &err);
}

static int account_suspend(int argc, char **argv) { return change_state(argc, argv, "/suspend"); }
static int account_throttle(int argc, char **argv) { return change_state(argc, argv, "/throttle"); }
static int account_watch(int argc, char **argv) { return change_state(argc, argv, "/watch"); }
static int account_reinstate(int argc, char **argv) { return change_state(argc, argv, "/reinstate"); }
static int account_close(int argc, char **argv) { return change_state(argc, argv, "/close"); }

int cmd_account(int argc, char **argv)
{
    static char names[][20] = {"account create",   "account list",      "account show",
                               "account limit",    "account suspend",   "account watch",
                               "account throttle", "account reinstate", "account close"};
    const cli_sub subs[] = {
        {"create", names[0], "make an account", account_create},
        {"list", names[1], "all accounts, or those of a state", account_list},
        {"show", names[2], "one account", account_show},
        {"limit", names[3], "change limits, permissions, prices", account_limit},
        {"suspend", names[4], "end its service; opens a case that it may appeal against", account_suspend},
        {"watch", names[5], "serve it and look closer", account_watch},
        {"throttle", names[6], "serve it at a quarter of its rates", account_throttle},
        {"reinstate", names[7], "make it active again", account_reinstate},
        {"close", names[8], "end it", account_close},
    };
    return cli_run_sub(
        subs, sizeof subs / sizeof subs[0],
        "  retort account create acme --rpm 60 --budget-tokens 5M --budget-period month\n"
        "  retort account suspend acme --reason 'bulk collection' --public-reason 'terms, section 4'\n"
        "  retort account list --state suspended --json",
        argc, argv);
}
