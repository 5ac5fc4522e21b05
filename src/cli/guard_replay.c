/* cli/guard_replay.c - `retort guard replay FILE`: what the guard finds in recorded traffic.
 *
 * The same calls as in the live server, in the order of the file; then one JSON line for each account in the
 * order of their first requests. */
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
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
    const char *path = NULL, *asn = NULL, *policy = NULL, *reference_path = NULL, *state = NULL;
    bool json = false, skip_bad = false;
    size_t accounts_max = 0;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Replays recorded requests (JSON lines, .zst too) through the guard and prints one JSON line for "
         "each account:\n"
         "account, requests, score (higher is more suspect), p, flagged_at, cluster, cluster_p, reasons.\n\n"
         "examples:\n"
         "  retort guard replay traffic.jsonl.zst --asn asn.json > found.jsonl\n"
         "  retort guard replay today.jsonl --state guard.state   # goes on from yesterday's state"},
        {CLI_STRING, "FILE", &path, "the recorded traffic"},
        {CLI_STRING, "--asn FILE", &asn,
         "JSON object: network -> residential, mobile, business, datacentre, education, vpn"},
        {CLI_STRING, "--policy FILE", &policy,
         "the ladder's thresholds (YAML): each account's rung is told too"},
        {CLI_STRING, "--reference FILE", &reference_path, "another reference than the built-in one"},
        {CLI_STRING, "--state FILE", &state,
         "read the state before, if the file is there, and write it after"},
        {CLI_COUNT, "--accounts-max N", &accounts_max, "accounts kept at once (1000000)"},
        {CLI_FLAG, "--skip-bad-rows", &skip_bad, "pass over malformed rows and count them on stderr"},
        {CLI_FLAG, "--json", &json, "JSON lines, which is what is printed in any case"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    rt_guard *guard = NULL;
    rt_guard_reference *reference = NULL;
    rt_guard_policy_file *file = NULL;
    rt_ladders *ladders = NULL;
    rt_guard_replay_counts counts;
    int code = 1;
    if (cli_parse(spec, argc, argv, &err) != RT_OK)
        return cli_fail(&err);
    if (reference_path && rt_guard_reference_read(&reference, reference_path, &err) != RT_OK)
        return cli_fail(&err);
    const rt_guard_options options = {.reference = reference, .asn_path = asn, .accounts_max = accounts_max};
    if (rt_guard_open(&guard, &options, &err) != RT_OK ||
        (state && rt_path_exists(state) && rt_guard_load(guard, state, &err) != RT_OK) ||
        (policy && (rt_guard_policy_open(&file, policy, &err) != RT_OK ||
                    rt_ladders_open(&ladders, guard, rt_guard_policy_of(file), NULL, &err) != RT_OK)) ||
        rt_guard_replay(
            guard, path,
            &(rt_guard_replay_options){.ladders = ladders, .skip_bad = skip_bad, .sweep_at_end = true},
            &counts, &err) != RT_OK ||
        (state && rt_guard_save(guard, state, &err) != RT_OK)) {
        code = cli_fail(&err);
    } else {
        if (counts.bad_rows)
            (void)fprintf(stderr, "retort: %zu malformed rows were passed over\n", counts.bad_rows);
        code = print_results(guard, ladders);
    }
    rt_ladders_close(ladders);
    rt_guard_policy_close(file);
    rt_guard_close(guard);
    rt_guard_reference_close(reference);
    return code;
}
