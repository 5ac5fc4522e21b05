/* cli/guard_show.c - `retort guard explain`, `clusters`, `review`, `what-if`: the same traffic, looked at by
 * a person. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/guard.h"
#include "guard/result.h"
#include "guard/view.h"

#define RUN_OPTIONS(run)                                                                                     \
    {CLI_STRING, "FILE", &(run).path, "the recorded traffic"},                                               \
        {CLI_STRING, "--asn FILE", &(run).asn, "network classes"},                                           \
    {                                                                                                        \
        CLI_STRING, "--reference FILE", &(run).reference_path, "another reference than the built-in one"     \
    }

static void print_explanation(const json_t *json)
{
    const json_t *signals = json_object_get(json, "signals"), *cluster = json_object_get(json, "cluster");
    printf("account\t%s (%s)\n", json_string_value(json_object_get(json, "account")),
           json_string_value(json_object_get(json, "use_class")));
    printf("requests\t%lld\n", (long long)json_integer_value(json_object_get(json, "requests")));
    printf("p\t%g\n", json_number_value(json_object_get(json, "p")));
    if (json_is_integer(cluster))
        printf("cluster\t%lld, p %g\n", (long long)json_integer_value(cluster),
               json_number_value(json_object_get(json, "cluster_p")));
    printf("score\t%.3f at its highest; %.3f now, %.3f of it the base\n",
           json_number_value(json_object_get(json, "score")),
           json_number_value(json_object_get(json, "score_now")),
           json_number_value(json_object_get(json, "base")));
    printf("\nsignal\tvalue\tpercentile among benign\tcontribution\n");
    for (size_t i = 0; i < json_array_size(signals); i++) {
        const json_t *s = json_array_get(signals, i);
        const double part = json_number_value(json_object_get(s, "contribution"));
        if (fabs(part) >= 0.02)
            printf("%s\t%.4g\t%.0f\t%+.3f\n", json_string_value(json_object_get(s, "signal")),
                   json_number_value(json_object_get(s, "value")),
                   json_number_value(json_object_get(s, "percentile")), part);
    }
}

int guard_explain(int argc, char **argv)
{
    guard_run run = {0};
    const char *name = NULL;
    bool json = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Shows why an account has its score: each signal's value, its percentile among benign accounts of "
         "the same use\n"
         "class, and its contribution; contributions and base sum up to the score.\n\n"
         "example:\n  retort guard explain account-7 traffic.jsonl.zst --asn asn.json"},
        {CLI_STRING, "ACCOUNT", &name, "the account's name"},
        RUN_OPTIONS(run),
        {CLI_STRING, "--policy FILE", &run.policy_path, "the ladder's policy (YAML)"},
        {CLI_FLAG, "--json", &json, "as JSON"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    int code = 0;
    const rt_guard_account *account = NULL;
    if (cli_parse(spec, argc, argv, &err) != RT_OK || guard_run_open(&run, &err) != RT_OK)
        code = cli_fail(&err);
    else if (!(account = rt_guard_find(run.guard, name))) {
        (void)rt_error_set(&err, RT_INVALID, "guard explain: no account \"%.63s\" in %.160s", name, run.path);
        code = cli_fail(&err);
    } else {
        json_t *told = rt_guard_view_explain(run.guard, account);
        (void)json_object_set_new(told, "rung",
                                  json_string(rt_rung_name(guard_run_rung(&run, run.policy, account))));
        if (json)
            code = cli_print_json(told);
        else {
            print_explanation(told);
            json_decref(told);
        }
    }
    guard_run_close(&run);
    return code;
}

int guard_clusters(int argc, char **argv)
{
    guard_run run = {0};
    bool json = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Lists the clusters of linked accounts, most evidence first.  Being linked accuses nobody: p tells "
         "whether the\n"
         "members together do what benign accounts do not.\n\n"
         "example:\n  retort guard clusters traffic.jsonl.zst --asn asn.json"},
        RUN_OPTIONS(run),
        {CLI_FLAG, "--json", &json, "as JSON, with the members"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    rt_guard_cluster *clusters = NULL;
    size_t count = 0;
    int code = 0;
    if (cli_parse(spec, argc, argv, &err) != RT_OK || guard_run_open(&run, &err) != RT_OK ||
        rt_guard_clusters_list(&clusters, &count, run.guard, &err) != RT_OK)
        code = cli_fail(&err);
    else if (json) {
        json_t *told = rt_guard_view_clusters(run.guard);
        code = cli_print_json(json_incref(json_object_get(told, "clusters")));
        json_decref(told);
    } else {
        printf("cluster\taccounts\tp\taccused\n");
        for (size_t i = 0; i < count; i++)
            printf("%u\t%u\t%.3g\t%s\n", clusters[i].id, clusters[i].size, (double)clusters[i].p,
                   clusters[i].accused ? "yes" : "no");
    }
    free(clusters);
    guard_run_close(&run);
    return code;
}

static int by_suspicion(const void *a, const void *b)
{
    const rt_guard_account *x = *(const rt_guard_account *const *)a, *y = *(const rt_guard_account *const *)b;
    const float p = rt_guard_final_p(x), q = rt_guard_final_p(y), s = rt_guard_final_score(x),
                t = rt_guard_final_score(y);
    if (p != q)
        return p < q ? -1 : 1;
    return s != t ? (s > t ? -1 : 1) : strcmp(x->name, y->name);
}

/* Benjamini and Hochberg's list at rate q: among those on it, a share q is expected to be there by chance.  A
 * list for people to look at, so dependence between accounts is let pass. */
static size_t review_size(const rt_guard_account *const *accounts, size_t n, double q)
{
    size_t size = 0;
    for (size_t i = 0; i < n; i++)
        if ((double)rt_guard_final_p(accounts[i]) <= q * (double)(i + 1) / (double)n)
            size = i + 1;
    return size;
}

int guard_review(int argc, char **argv)
{
    guard_run run = {0};
    double q = 0.1;
    bool json = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Lists what a person should look at, most useful first, so that a share of at most --rate of the "
         "list is\n"
         "expected to be there by chance.\n\n"
         "example:\n  retort guard review traffic.jsonl.zst --asn asn.json"},
        RUN_OPTIONS(run),
        {CLI_REAL, "--rate Q", &q, "false discoveries among the list (0.1)"},
        {CLI_FLAG, "--json", &json, "as JSON"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    int code = 0;
    if (cli_parse(spec, argc, argv, &err) != RT_OK || guard_run_open(&run, &err) != RT_OK) {
        code = cli_fail(&err);
        guard_run_close(&run);
        return code;
    }
    const size_t n = rt_guard_count(run.guard);
    const rt_guard_account **accounts = calloc(n + 1, sizeof *accounts);
    json_t *list = json_array();
    for (size_t i = 0; accounts && i < n; i++)
        accounts[i] = rt_guard_account_at(run.guard, i);
    if (accounts)
        qsort(accounts, n, sizeof *accounts, by_suspicion);
    const size_t size = accounts ? review_size(accounts, n, q) : 0;
    if (!json)
        printf("account\trequests\tp\tcluster\n");
    for (size_t i = 0; i < size; i++) {
        if (json)
            json_array_append_new(list, rt_guard_result(run.guard, accounts[i]));
        else
            printf("%s\t%u\t%.3g\t%u\n", accounts[i]->name, accounts[i]->n,
                   (double)rt_guard_final_p(accounts[i]), accounts[i]->cluster);
    }
    if (json)
        code = cli_print_json(list);
    else
        json_decref(list);
    free(accounts);
    guard_run_close(&run);
    return code;
}

int guard_what_if(int argc, char **argv)
{
    guard_run run = {0};
    bool json = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Shows who would be hit by another policy: how many accounts stand on each rung under it and under "
         "the default\n"
         "one.\n\n"
         "example:\n  retort guard what-if traffic.jsonl.zst --policy stricter.yaml"},
        RUN_OPTIONS(run),
        {CLI_STRING | CLI_REQUIRED, "--policy FILE", &run.policy_path, "the other policy (YAML)"},
        {CLI_FLAG, "--json", &json, "as JSON"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    rt_guard_policy_file *standard = NULL;
    size_t counts[2][RT_RUNG_COUNT] = {{0}};
    int code = 0;
    if (cli_parse(spec, argc, argv, &err) != RT_OK || guard_run_open(&run, &err) != RT_OK ||
        rt_guard_policy_open(&standard, NULL, &err) != RT_OK) {
        code = cli_fail(&err);
        rt_guard_policy_close(standard);
        guard_run_close(&run);
        return code;
    }
    for (size_t i = 0; i < rt_guard_count(run.guard); i++) {
        const rt_guard_account *account = rt_guard_account_at(run.guard, i);
        counts[0][guard_run_rung(&run, standard, account)]++;
        counts[1][guard_run_rung(&run, run.policy, account)]++;
    }
    json_t *list = json_array();
    if (!json)
        printf("rung\tdefault\tthis policy\n");
    for (size_t k = 0; k < RT_RUNG_COUNT; k++) {
        if (json)
            json_array_append_new(list,
                                  json_pack("{s:s, s:I, s:I}", "rung", rt_rung_name((rt_rung)k), "default",
                                            (json_int_t)counts[0][k], "policy", (json_int_t)counts[1][k]));
        else
            printf("%s\t%zu\t%zu\n", rt_rung_name((rt_rung)k), counts[0][k], counts[1][k]);
    }
    if (json)
        code = cli_print_json(list);
    else
        json_decref(list);
    rt_guard_policy_close(standard);
    guard_run_close(&run);
    return code;
}
