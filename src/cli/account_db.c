/* cli/account_db.c - see account_db.h. */
#include "cli/account_db.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "account/db.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/home.h"

/* "<retort's folder>/name", and the folder is made. */
static rt_status home_file(char **out, const char *name, rt_error *err)
{
    char *folder = NULL;
    rt_status status = cli_home_path(out, name, err);
    if (status == RT_OK)
        status = cli_home_path(&folder, ".", err);
    if (status == RT_OK)
        status = rt_dir_make(folder, err);
    free(folder);
    return status;
}

static rt_status copy_of(char **out, const char *text, rt_error *err)
{
    *out = strdup(text);
    return *out ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
}

rt_status cli_account_db_path(char **out, const char *option, rt_error *err)
{
    const char *given = option ? option : getenv("RETORT_DB");
    *out = NULL;
    return given && *given ? copy_of(out, given, err) : home_file(out, "accounts.db", err);
}

rt_status cli_account_secrets_path(char **out, const char *option, const char *db, rt_error *err)
{
    const char *given = option ? option : getenv("RETORT_SECRETS");
    *out = NULL;
    if (given && *given)
        return copy_of(out, given, err);
    if (rt_db_url_is_shared(db))
        return home_file(out, "accounts.secrets", err);
    rt_text beside = {0};
    rt_text_printf(&beside, "%s.secrets", db);
    *out = beside.failed ? NULL : beside.data;
    return *out ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
}

static rt_status open_desk(cli_account_db *db, rt_error *err)
{
    char *path = NULL, *secrets = NULL;
    rt_status status = cli_account_db_path(&path, db->db, err);
    if (status == RT_OK)
        status = cli_account_secrets_path(&secrets, db->secrets, path, err);
    if (status == RT_OK)
        status = rt_desk_open(&db->desk, path, secrets, err);
    free(path);
    free(secrets);
    return status;
}

void cli_account_db_close(cli_account_db *db)
{
    rt_desk_close(db->desk);
    db->desk = NULL;
}

static rt_status status_of(int http)
{
    return http == 400   ? RT_INVALID
           : http == 403 ? RT_FORBIDDEN
           : http == 404 ? RT_NOT_FOUND
           : http == 409 ? RT_MISMATCH
                         : RT_IO;
}

rt_status cli_admin_call(cli_account_db *db, const char *method, const char *path, const char *query,
                         json_t *body, json_t **out, rt_error *err)
{
    *out = NULL;
    rt_admin admin = {.role = RT_ROLE_FULL};
    const struct passwd *user = getpwuid(getuid());
    (void)snprintf(admin.name, sizeof admin.name, "cli:%.64s", user ? user->pw_name : "unknown");
    rt_status status = db->desk ? RT_OK : open_desk(db, err);
    if (status == RT_OK) {
        rt_desk_reply reply = rt_admin_call(db->desk, &admin, method, path, query, body);
        const json_t *error = json_object_get(reply.body, "error");
        const char *message = json_string_value(json_object_get(error, "message"));
        if (reply.http < 300) {
            *out = reply.body;
        } else {
            status = rt_error_set(err, status_of(reply.http), "%s", message ? message : "the call failed");
            json_decref(reply.body);
        }
    }
    json_decref(body);
    return status;
}

void cli_query_add(rt_text *query, const char *name, const char *value)
{
    if (!value)
        return;
    rt_text_printf(query, "&%s=", name);
    for (; *value; value++) {
        const unsigned char c = (unsigned char)*value;
        if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || strchr("-_.~,:", c))
            rt_text_append(query, value, 1);
        else
            rt_text_printf(query, "%%%02X", c);
    }
}

rt_status cli_account_id(cli_account_db *db, const char *name, char id[64], rt_error *err)
{
    rt_text query = {0};
    json_t *list = NULL;
    if (strncmp(name, "acc_", 4) == 0 && strlen(name) < 64 && !strchr(name, '/')) {
        (void)snprintf(id, 64, "%s", name);
        return RT_OK;
    }
    cli_query_add(&query, "name", name);
    rt_status status = query.failed
                           ? rt_error_set(err, RT_NO_MEMORY, "no memory for a query")
                           : cli_admin_call(db, "GET", "/admin/v1/accounts", query.data, NULL, &list, err);
    rt_text_deinit(&query);
    const json_t *data = json_object_get(list, "data");
    if (status == RT_OK && json_array_size(data) != 1)
        status =
            json_array_size(data) == 0
                ? rt_error_set(err, RT_NOT_FOUND, "there is no account '%.200s'", name)
                : rt_error_set(err, RT_INVALID, "several accounts are called '%.200s': give the id", name);
    if (status == RT_OK)
        (void)snprintf(id, 64, "%s", json_string_value(json_object_get(json_array_get(data, 0), "id")));
    json_decref(list);
    return status;
}

/* --- printing --- */

static void value_text(const json_t *value, char *out, size_t size)
{
    switch (value ? json_typeof(value) : JSON_NULL) {
    case JSON_STRING:
        (void)snprintf(out, size, "%s", json_string_value(value));
        break;
    case JSON_INTEGER:
        (void)snprintf(out, size, "%lld", (long long)json_integer_value(value));
        break;
    case JSON_REAL:
        (void)snprintf(out, size, "%.15g", json_real_value(value));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        (void)snprintf(out, size, "%s", json_is_true(value) ? "yes" : "no");
        break;
    case JSON_NULL:
        (void)snprintf(out, size, "-");
        break;
    default: {
        char *text = json_dumps(value, JSON_COMPACT);
        (void)snprintf(out, size, "%s", text ? text : "");
        free(text);
    }
    }
}

static const json_t *member_at(const json_t *row, const char *path)
{
    char name[64];
    for (const char *dot; row && (dot = strchr(path, '.')) != NULL; path = dot + 1) {
        (void)snprintf(name, sizeof name, "%.*s", (int)(dot - path), path);
        row = json_object_get(row, name);
    }
    return json_object_get(row, path);
}

void cli_print_rows(const json_t *list, const cli_column *columns, size_t count)
{
    size_t i;
    json_t *row;
    char text[600];
    for (size_t j = 0; j < count; j++)
        (void)printf("%-*s%s", columns[j].width, columns[j].heading, j + 1 < count ? " " : "\n");
    json_array_foreach(json_object_get(list, "data"), i, row)
    {
        for (size_t j = 0; j < count; j++) {
            value_text(member_at(row, columns[j].member), text, sizeof text);
            (void)printf("%-*s%s", columns[j].width, text, j + 1 < count ? " " : "\n");
        }
    }
    if (json_is_true(json_object_get(list, "has_more")))
        (void)printf("(more follow: --after %s)\n", json_string_value(json_object_get(list, "last_id"))
                                                        ? json_string_value(json_object_get(list, "last_id"))
                                                        : "");
}

void cli_print_object(const json_t *object)
{
    const char *key;
    json_t *value;
    char text[2000];
    json_object_foreach((json_t *)object, key, value)
    {
        if (json_is_null(value) || strcmp(key, "object") == 0)
            continue;
        value_text(value, text, sizeof text);
        (void)printf("%-20s %s\n", key, text);
    }
}

int cli_account_finish(cli_account_db *db, rt_status status, json_t *out, const cli_column *columns,
                       size_t count, const rt_error *err)
{
    cli_account_db_close(db);
    if (status != RT_OK) {
        json_decref(out);
        return cli_fail(err);
    }
    if (db->as_json)
        return cli_print_json(out);
    if (columns)
        cli_print_rows(out, columns, count);
    else
        cli_print_object(out);
    json_decref(out);
    return 0;
}

/* --- limits --- */

static rt_status set_count(json_t *limits, const char *key, const char *option, const char *text,
                           rt_error *err)
{
    size_t n;
    if (!text)
        return RT_OK;
    if (strcmp(text, "none") == 0) {
        (void)json_object_set_new(limits, key, json_null());
        return RT_OK;
    }
    if (!rt_parse_count(&n, text) || n > (size_t)RT_LIMIT_MAX)
        return rt_error_set(err, RT_INVALID, "%s: '%.40s' is neither a count nor 'none'", option, text);
    (void)json_object_set_new(limits, key, json_integer((json_int_t)n));
    return RT_OK;
}

static rt_status set_budget(json_t *limits, const cli_limit_args *args, rt_error *err)
{
    const char *text = args->budget_tokens ? args->budget_tokens : args->budget_usd;
    const char *period = args->budget_period ? args->budget_period : "total";
    size_t tokens = 0;
    double usd = 0;
    if (!text && args->budget_period)
        return rt_error_set(err, RT_INVALID, "--budget-period: give --budget-tokens or --budget-usd with it");
    if (!text)
        return RT_OK;
    if (args->budget_tokens && args->budget_usd)
        return rt_error_set(err, RT_INVALID, "a budget is in tokens or in USD, not in both");
    json_t *budget = json_null();
    if (strcmp(text, "none") != 0) {
        if (args->budget_tokens ? !rt_parse_count(&tokens, text) || tokens > (size_t)RT_LIMIT_MAX
                                : !rt_parse_real(&usd, text) || usd < 0)
            return rt_error_set(err, RT_INVALID, "--budget-%s: '%.40s' is no amount",
                                args->budget_tokens ? "tokens" : "usd", text);
        budget = json_pack("{s:o, s:s, s:s}", "amount",
                           args->budget_tokens ? json_integer((json_int_t)tokens) : json_real(usd), "unit",
                           args->budget_tokens ? "tokens" : "usd", "period", period);
    }
    (void)json_object_set_new(limits, "budget", budget);
    return RT_OK;
}

rt_status cli_json_option(json_t **out, const char *option, const char *text, rt_error *err)
{
    return rt_json_parse(out, text, strlen(text), option, err) == RT_OK
               ? RT_OK
               : rt_error_set(err, RT_INVALID, "%s: not JSON", option);
}

rt_status cli_limits_of(const cli_limit_args *args, json_t **out, rt_error *err)
{
    *out = NULL;
    json_t *limits = NULL;
    if (args->limits && cli_json_option(&limits, "--limits", args->limits, err) != RT_OK)
        return err->status;
    if (!limits)
        limits = json_object();
    if (set_count(limits, "rpm", "--rpm", args->rpm, err) != RT_OK ||
        set_count(limits, "tpm", "--tpm", args->tpm, err) != RT_OK ||
        set_count(limits, "tpd", "--tpd", args->tpd, err) != RT_OK ||
        set_count(limits, "concurrency", "--concurrency", args->concurrency, err) != RT_OK ||
        set_count(limits, "max_tokens", "--max-tokens", args->max_tokens, err) != RT_OK ||
        set_count(limits, "top_logprobs", "--top-logprobs", args->top_logprobs, err) != RT_OK ||
        set_budget(limits, args, err) != RT_OK) {
        json_decref(limits);
        return err->status;
    }
    if (json_is_object(limits) && json_object_size(limits) == 0) {
        json_decref(limits);
        return RT_OK;
    }
    *out = limits;
    return RT_OK;
}
