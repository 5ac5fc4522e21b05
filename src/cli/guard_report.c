/* cli/guard_report.c - `retort guard report`: the record of what was found and decided, as one page. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "cli/account_db.h"
#include "cli/guard.h"
#include "guard/result.h"
#include "guard/state.h"
#include "guard/view.h"
#include "report/guard_page.h"

enum { PEOPLE_MAX = 200, CLUSTERS_MAX = 50 };

static json_t *people_of(const guard_run *run, const json_t *review)
{
    json_t *list = json_array();
    const json_t *item, *row;
    size_t i, k;
    json_array_foreach(json_object_get(review, "items"), i, item)
        json_array_foreach(json_object_get(item, "accounts"), k, row)
    {
        const rt_guard_account *account =
            rt_guard_find(run->guard, json_string_value(json_object_get(row, "account")));
        if (!account || json_array_size(list) == PEOPLE_MAX)
            continue;
        json_t *one = rt_guard_view_row(run->guard, run->ladders, account),
               *explained = rt_guard_view_explain(run->guard, account);
        const rt_ladder_entry *entry = rt_ladders_find(run->ladders, account);
        (void)json_object_update_missing(one, explained);
        json_decref(explained);
        if (entry && entry->history)
            (void)json_object_set_new(one, "history", rt_guard_history_json(entry->history));
        (void)json_array_append_new(list, one);
    }
    return list;
}

static json_t *clusters_of(const guard_run *run)
{
    json_t *all = rt_guard_view_clusters(run->guard), *list = json_array();
    const json_t *c;
    size_t i;
    json_array_foreach(json_object_get(all, "clusters"), i,
                       c) if (json_is_true(json_object_get(c, "accused")) &&
                              json_array_size(list) < CLUSTERS_MAX)(void)
        json_array_append_new(
            list, rt_guard_view_cluster(run->guard, run->ladders,
                                        (uint32_t)json_integer_value(json_object_get(c, "cluster"))));
    json_decref(all);
    return list;
}

/* Rows of the trail that are about accounts, cases and appeals. */
static rt_status trail_of(json_t **out, cli_account_db *db, rt_error *err)
{
    json_t *rows = NULL, *check = NULL, *kept = json_array();
    const json_t *row;
    size_t i;
    *out = NULL;
    rt_status status = cli_admin_call(db, "GET", "/admin/v1/audit", "limit=10000", NULL, &rows, err);
    if (status == RT_OK)
        status = cli_admin_call(db, "GET", "/admin/v1/audit/verify", NULL, NULL, &check, err);
    json_array_foreach(json_object_get(rows, "data"), i, row)
    {
        const char *action = json_string_value(json_object_get(row, "action"));
        if (action &&
            (strncmp(action, "account.", 8) == 0 || strncmp(action, "case.", 5) == 0 ||
             strncmp(action, "appeal.", 7) == 0) &&
            strcmp(action, "account.create") != 0)
            (void)json_array_append(kept, (json_t *)row);
    }
    if (status == RT_OK)
        *out = json_pack("{s:O, s:O?, s:O}", "valid", json_object_get(check, "valid"), "fault",
                         json_object_get(check, "fault"), "rows", kept);
    json_decref(kept);
    json_decref(rows);
    json_decref(check);
    return status;
}

static json_t *record_of(const guard_run *run, json_t *trail)
{
    char made[32] = "";
    struct tm tm;
    const time_t now = time(NULL);
    if (gmtime_r(&now, &tm))
        (void)strftime(made, sizeof made, "%Y-%m-%d %H:%M UTC", &tm);
    rt_text policy = {0};
    rt_guard_policy_print(run->policy, &policy);
    json_t *review = rt_guard_view_review(run->guard, run->ladders, 0.1);
    json_t *record =
        json_pack("{s:s, s:s, s:I, s:o, s:o, s:o, s:o, s:s, s:o}", "source", run->path, "made", made,
                  "accounts", (json_int_t)rt_guard_count(run->guard), "people", people_of(run, review),
                  "review", review, "clusters", clusters_of(run), "calibration",
                  rt_guard_view_calibration(run->guard, rt_guard_policy_of(run->policy)), "policy",
                  policy.data ? policy.data : "", "trail", trail ? trail : json_null());
    rt_text_deinit(&policy);
    return record;
}

int guard_report(int argc, char **argv)
{
    guard_run run = {0};
    cli_account_db db = {0};
    const char *out = "guard.html";
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Writes what was found, why, and what was decided as one page that fetches nothing and holds no "
         "prompt: for the\n"
         "record, and for who judges an appeal.  With --db also the decisions with their hashes in the audit "
         "trail.\n\n"
         "examples:\n"
         "  retort guard report guard.state --db accounts.db --out guard.html\n"
         "  retort guard report traffic.jsonl.zst --asn asn.json"},
        {CLI_STRING, "FILE", &run.path,
         "recorded traffic, or the state that a server or 'guard replay --state' wrote"},
        {CLI_STRING, "--out FILE", &out, "where the page goes (guard.html)"},
        {CLI_STRING, "--asn FILE", &run.asn, "network classes"},
        {CLI_STRING, "--policy FILE", &run.policy_path, "the ladder's policy (YAML)"},
        {CLI_STRING, "--reference FILE", &run.reference_path, "another reference than the built-in one"},
        CLI_ACCOUNT_DB_OPTIONS(db),
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    rt_text page = {0};
    json_t *trail = NULL;
    rt_status status = cli_parse(spec, argc, argv, &err);
    if (status == RT_OK)
        status = guard_run_open(&run, &err);
    if (status == RT_OK && db.db)
        status = trail_of(&trail, &db, &err);
    cli_account_db_close(&db);
    if (status == RT_OK) {
        json_t *record = record_of(&run, trail);
        rt_report_guard(&page, record);
        json_decref(record);
        status = page.failed ? rt_error_set(&err, RT_NO_MEMORY, "no memory for the page")
                             : rt_file_write(out, page.data, page.size, &err);
    }
    const size_t bytes = page.size;
    rt_text_deinit(&page);
    guard_run_close(&run);
    if (status != RT_OK)
        return cli_fail(&err);
    if (db.as_json)
        return cli_print_json(json_pack("{s:s, s:I}", "out", out, "bytes", (json_int_t)bytes));
    (void)printf("%s: %zu bytes\n", out, bytes);
    return 0;
}
