/* cli/cmd_key.c - `retort key ...`: API keys of accounts, and keys of operators.  A secret is shown once. */
#include <stdio.h>
#include <string.h>

#include "account/key.h"
#include "cli/account_db.h"
#include "cli/commands.h"
#include "cli/sub.h"

static const cli_column columns[] = {{"id", "KEY", 9},
                                     {"account", "ACCOUNT", 24},
                                     {"role", "ROLE", 8},
                                     {"created", "CREATED", 11},
                                     {"last_used", "LAST USED", 11},
                                     {"expires", "EXPIRES", 11},
                                     {"revoked", "REVOKED", 11},
                                     {"name", "NAME", 0}};

/* The 8 characters of a key's id, given alone or as "sk-rt-ab12cd34-...". */
static rt_status key_path(const char *key, const char *tail, char path[96], rt_error *err)
{
    if (strncmp(key, "sk-rt-", 6) == 0)
        key += 6;
    if (strncmp(key, "admin-", 6) == 0)
        key += 6;
    const size_t size = strcspn(key, "-");
    if (size != RT_KEY_ID_SIZE - 1 || strspn(key, "abcdefghijklmnopqrstuvwxyz0123456789") < size)
        return rt_error_set(err, RT_INVALID,
                            "a key is named by the 8 characters after sk-rt-: see 'retort key list'");
    (void)snprintf(path, 96, "/admin/v1/keys/%.*s%s", (int)size, key, tail);
    return RT_OK;
}

static int key_create(int argc, char **argv)
{
    cli_account_db db = {0};
    cli_limit_args args = {0};
    const char *account = NULL, *name = NULL, *role = NULL;
    size_t expires_in = 0;
    const cli_option spec[] = {
        {CLI_STRING, "[ACCOUNT]", (void *)&account, "id or name of the account that it belongs to"},
        {CLI_STRING, "--name TEXT", (void *)&name, "what to call it"},
        {CLI_COUNT, "--expires-in SECONDS", &expires_in, "how long it lives (for ever)"},
        {CLI_STRING, "--admin read|support|full", (void *)&role,
         "an operator's key for the admin API instead"},
        CLI_LIMIT_OPTIONS(args),
        CLI_ACCOUNT_DB_OPTIONS(db),
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    json_t *limits = NULL, *out = NULL;
    char id[64], path[128] = "/admin/v1/admins";
    rt_status status = cli_parse(spec, argc, argv, &err);
    if (status == RT_OK && !account == !role)
        status = rt_error_set(&err, RT_INVALID, "give the ACCOUNT, or --admin ROLE for an operator's key");
    if (status == RT_OK)
        status = cli_limits_of(&args, &limits, &err);
    if (status == RT_OK && account) {
        status = cli_account_id(&db, account, id, &err);
        (void)snprintf(path, sizeof path, "/admin/v1/accounts/%s/keys", status == RT_OK ? id : "-");
    }
    if (status == RT_OK) {
        json_t *body = json_pack("{s:s*, s:s*, s:O*, s:o*}", "name", name, "role", role, "limits", limits,
                                 "expires_in", expires_in > 0 ? json_integer((json_int_t)expires_in) : NULL);
        status = body ? cli_admin_call(&db, "POST", path, NULL, body, &out, &err)
                      : rt_error_set(&err, RT_INVALID, "the name is not UTF-8");
    }
    json_decref(limits);
    if (status == RT_OK && !db.as_json)
        (void)fprintf(stderr, "The secret is shown this once; it is not kept.\n");
    return cli_account_finish(&db, status, out, NULL, 0, &err);
}

static int key_list(int argc, char **argv)
{
    cli_account_db db = {0};
    const char *account = NULL;
    const cli_option spec[] = {
        {CLI_STRING, "[ACCOUNT]", (void *)&account, "id or name; without one the operators' keys"},
        CLI_ACCOUNT_DB_OPTIONS(db),
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    json_t *out = NULL;
    char id[64], path[128] = "/admin/v1/admins";
    rt_status status = cli_parse(spec, argc, argv, &err);
    if (status == RT_OK && account) {
        status = cli_account_id(&db, account, id, &err);
        (void)snprintf(path, sizeof path, "/admin/v1/accounts/%s/keys", status == RT_OK ? id : "-");
    }
    if (status == RT_OK)
        status = cli_admin_call(&db, "GET", path, "limit=1000", NULL, &out, &err);
    return cli_account_finish(&db, status, out, columns, sizeof columns / sizeof columns[0], &err);
}

static int key_revoke(int argc, char **argv)
{
    cli_account_db db = {0};
    const char *key = NULL;
    char path[96];
    const cli_option spec[] = {
        {CLI_STRING | CLI_REQUIRED, "KEY", (void *)&key, "its 8 characters, or sk-rt-..."},
        CLI_ACCOUNT_DB_OPTIONS(db),
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    json_t *out = NULL;
    rt_status status = cli_parse(spec, argc, argv, &err);
    if (status == RT_OK)
        status = key_path(key, "", path, &err);
    if (status == RT_OK)
        status = cli_admin_call(&db, "DELETE", path, NULL, NULL, &out, &err);
    return cli_account_finish(&db, status, out, NULL, 0, &err);
}

static int key_rotate(int argc, char **argv)
{
    cli_account_db db = {0};
    const char *key = NULL;
    size_t overlap = 86400;
    char path[96];
    const cli_option spec[] = {
        {CLI_STRING | CLI_REQUIRED, "KEY", (void *)&key, "its 8 characters, or sk-rt-..."},
        {CLI_COUNT, "--overlap SECONDS", &overlap, "how long the old key goes on working (86400)"},
        CLI_ACCOUNT_DB_OPTIONS(db),
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    json_t *out = NULL;
    rt_status status = cli_parse(spec, argc, argv, &err);
    if (status == RT_OK)
        status = key_path(key, "/rotate", path, &err);
    if (status == RT_OK)
        status = cli_admin_call(&db, "POST", path, NULL, json_pack("{s:I}", "overlap", (json_int_t)overlap),
                                &out, &err);
    return cli_account_finish(&db, status, out, NULL, 0, &err);
}

int cmd_key(int argc, char **argv)
{
    static char names[][12] = {"key create", "key list", "key revoke", "key rotate"};
    const cli_sub subs[] = {
        {"create", names[0], "make a key for an account, or for an operator", key_create},
        {"list", names[1], "an account's keys, or the operators'", key_list},
        {"revoke", names[2], "from the next request on it is refused", key_revoke},
        {"rotate", names[3], "a new key; the old one lives on for a while", key_rotate},
    };
    return cli_run_sub(subs, sizeof subs / sizeof subs[0],
                       "  retort key create acme --name laptop --json\n"
                       "  retort key create --admin full --name ops\n"
                       "  retort key rotate ab12cd34 --overlap 3600",
                       argc, argv);
}
