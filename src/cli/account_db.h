/* cli/account_db.h - what the commands on accounts share: the database, calls of the admin API on it,
 * printing. */
#ifndef RT_CLI_ACCOUNT_DB_H
#define RT_CLI_ACCOUNT_DB_H

#include "account/admin.h"
#include "base/text.h"
#include "cli/cli.h"

typedef struct cli_account_db { /* the options; NULL: $RETORT_DB, $RETORT_SECRETS, else the defaults */
    const char *db, *secrets;
    bool as_json;
    rt_desk *desk;
} cli_account_db;

/* The rows of an option table for them. */
#define CLI_ACCOUNT_DB_OPTIONS(target)                                                                       \
    {CLI_STRING, "--db PATH", (void *)&(target).db,                                                          \
     "the account database: a file, or postgres://USER@HOST/NAME"},                                          \
        {CLI_STRING, "--secrets FILE", (void *)&(target).secrets,                                            \
         "its keys (default: beside the database's file)"},                                                  \
    {                                                                                                        \
        CLI_FLAG, "--json", &(target).as_json, "print the result as JSON"                                    \
    }

/* Where the database is: the option, $RETORT_DB, or accounts.db in retort's folder.  malloc'd. */
rt_status cli_account_db_path(char **out, const char *option, rt_error *err);
/* Where its secrets are: the option, $RETORT_SECRETS, beside a file, or for PostgreSQL accounts.secrets in
 * retort's folder (several servers need the same file).  malloc'd. */
rt_status cli_account_secrets_path(char **out, const char *option, const char *db, rt_error *err);
/* One call with the rights of whoever may write the database; opens it at the first one.  Takes the reference
 * to body.  *out: the answer's body. */
rt_status cli_admin_call(cli_account_db *db, const char *method, const char *path, const char *query,
                         json_t *body, json_t **out, rt_error *err);
void cli_account_db_close(cli_account_db *db);

/* The id of an account given by id or by name. */
rt_status cli_account_id(cli_account_db *db, const char *name, char id[64], rt_error *err);
/* Appends "&name=value", percent-encoded, when value is not NULL. */
void cli_query_add(rt_text *query, const char *name, const char *value);

/* Columns of a table: members of the rows, "a.b" for one inside of another. */
typedef struct cli_column {
    const char *member, *heading;
    int width; /* 0: the last one, as wide as it is */
} cli_column;
void cli_print_rows(const json_t *list, const cli_column *columns, size_t count);
/* "name  value" lines, one for each member that is not null. */
void cli_print_object(const json_t *object);
/* Prints what a call gave, in the form asked for, closes the database, and returns the exit status. */
int cli_account_finish(cli_account_db *db, rt_status status, json_t *out, const cli_column *columns,
                       size_t count, const rt_error *err);

/* Limits as options. */
typedef struct cli_limit_args {
    const char *rpm, *tpm, *tpd, *concurrency, *budget_tokens, *budget_usd, *budget_period, *max_tokens,
        *top_logprobs;
    const char *limits, *permissions; /* as JSON */
} cli_limit_args;
#define CLI_LIMIT_OPTIONS(args)                                                                              \
    {CLI_STRING, "--rpm N", (void *)&(args).rpm, "requests a minute; 'none' lifts a limit"},                 \
        {CLI_STRING, "--tpm N", (void *)&(args).tpm, "tokens a minute"},                                     \
        {CLI_STRING, "--tpd N", (void *)&(args).tpd, "tokens a day (UTC)"},                                  \
        {CLI_STRING, "--concurrency N", (void *)&(args).concurrency, "requests at once"},                    \
        {CLI_STRING, "--budget-tokens N", (void *)&(args).budget_tokens, "tokens a period"},                 \
        {CLI_STRING, "--budget-usd USD", (void *)&(args).budget_usd, "money a period, by the price table"},  \
        {CLI_STRING, "--budget-period day|month|total", (void *)&(args).budget_period,                       \
         "the period (total)"},                                                                              \
        {CLI_STRING, "--max-tokens N", (void *)&(args).max_tokens, "tokens of one answer"},                  \
        {CLI_STRING, "--top-logprobs N", (void *)&(args).top_logprobs,                                       \
         "most alternatives shown a token, 0 to 20"},                                                        \
    {                                                                                                        \
        CLI_STRING, "--limits JSON", (void *)&(args).limits, "limits as the admin API takes them"            \
    }
/* The limits object, or NULL in *out when no option was given. */
rt_status cli_limits_of(const cli_limit_args *args, json_t **out, rt_error *err);
/* A JSON text of the command line. */
rt_status cli_json_option(json_t **out, const char *option, const char *text, rt_error *err);

#endif
