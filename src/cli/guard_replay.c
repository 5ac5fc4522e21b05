/* cli/guard_replay.c - `retort guard replay FILE`: what the guard finds in recorded traffic.
 *
 * The same calls as in the live server, in the order of the file; then one JSON line for each account in the
 * order of their first requests. */
#include <stdio.h>
#include <stdlib.h>

#include "cli/guard.h"
#include "guard/result.h"

/* With a policy each account's rung is told too. */
static json_t *result_of(const rt_guard *guard, const rt_ladders *ladders, const rt_guard_account *account)
{
    json_t *json = rt_guard_result(guard, account);
    const rt_ladder_entry *entry = ladders ? rt_ladders_find(ladders, account) : NULL;
    if (json && ladders) {
        const rt_rung rung = entry ? (rt_rung)entry->state.rung : RT_RUNG_NONE;
        (void)json_object_set_new(json, "rung", json_string(rt_rung_name(rung)));
        (void)json_object_set_new(json, "suspension_proposed", json_boolean(entry && entry->state.proposed));
    }
    return json;
}

static int print_results(const rt_guard *guard, const rt_ladders *ladders)
{
    for (size_t i = 0; i < rt_guard_count(guard); i++) {
        json_t *json = result_of(guard, ladders, rt_guard_account_at(guard, i));
        char *line =
            json ? json_dumps(json, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(8)) : NULL;
        json_decref(json);
        if (!line || puts(line) < 0) {
            free(line);
            return 1;
        }
        free(line);
    }
    return fflush(stdout) == 0 ? 0 : 1;
}

int guard_replay(int argc, char **argv)
{
    guard_run run = {0};
    bool json = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Replays recorded requests (JSON lines, .zst too) through the guard and prints one JSON line for "
         "each account:\n"
         "account, requests, score (higher is more suspect), p, flagged_at, cluster, cluster_p, reasons.\n\n"
         "examples:\n"
         "  retort guard replay traffic.jsonl.zst --asn asn.json > found.jsonl\n"
         "  retort guard replay today.jsonl --state guard.state   # goes on from yesterday's state"},
        {CLI_STRING, "FILE", &run.path, "the recorded traffic"},
        {CLI_STRING, "--asn FILE", &run.asn,
         "JSON object: network -> residential, mobile, business, datacentre, education, vpn"},
        {CLI_STRING, "--policy FILE", &run.policy_path,
         "the ladder's thresholds (YAML): each account's rung is told too"},
        {CLI_STRING, "--reference FILE", &run.reference_path, "another reference than the built-in one"},
        {CLI_STRING, "--state FILE", &run.state,
         "read the state before, if the file is there, and write it after"},
        {CLI_COUNT, "--accounts-max N", &run.accounts_max, "accounts kept at once (1000000)"},
        {CLI_FLAG, "--skip-bad-rows", &run.skip_bad, "pass over malformed rows and count them on stderr"},
        {CLI_FLAG, "--json", &json, "JSON lines, which is what is printed in any case"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    int code;
    if (cli_parse(spec, argc, argv, &err) != RT_OK || guard_run_open(&run, &err) != RT_OK)
        code = cli_fail(&err);
    else
        code = print_results(run.guard, run.policy_path ? run.ladders : NULL);
    guard_run_close(&run);
    return code;
}
