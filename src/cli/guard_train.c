/* cli/guard_train.c - `retort guard features`, `train`, `calibrate`, `train-elicit`: the figures the guard
 * compares with.
 */
#include <stdio.h>

#include "cli/guard.h"
#include "guard/elicit_train.h"
#include "guard/train.h"

int guard_features(int argc, char **argv)
{
    const char *path = NULL, *labels = NULL, *asn = NULL, *out = NULL;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Replays traffic once and keeps what a fit needs of it; `guard train --features` reads it.\n\n"
         "example:\n"
         "  retort guard features dev.jsonl.zst --labels dev.labels.jsonl --asn asn.json --out dev.features"},
        {CLI_STRING, "FILE", &path, "recorded traffic"},
        {CLI_STRING, "--labels FILE", &labels, "JSON lines {account, label: benign|distil, kind, cluster}"},
        {CLI_STRING, "--asn FILE", &asn, "network classes"},
        {CLI_STRING | CLI_REQUIRED, "--out FILE", &out, "the file to write; this build alone can read it"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    rt_guard_sample *sample = NULL;
    if (cli_parse(spec, argc, argv, &err) != RT_OK)
        return cli_fail(&err);
    rt_status status = rt_guard_sample_open(&sample, &err);
    if (status == RT_OK)
        status = rt_guard_sample_add(sample, path, asn, labels, &err);
    if (status == RT_OK)
        status = rt_guard_sample_write(sample, out, &err);
    if (status == RT_OK)
        printf("%s\t%zu benign and %zu attacking accounts\n", out, rt_guard_sample_accounts(sample, false),
               rt_guard_sample_accounts(sample, true));
    rt_guard_sample_close(sample);
    return status == RT_OK ? 0 : cli_fail(&err);
}

/* One JSON line an account. */
static void print_scored(void *context, const rt_guard_scored *scored)
{
    json_t *row = json_pack("{s:s, s:s, s:i, s:b, s:f, s:f}", "account", scored->name, "kind", scored->kind,
                            "corpus", (int)scored->corpus, "attacker", scored->attacker, "score",
                            (double)scored->score, "p", (double)scored->p);
    json_object_set_new(row, "flagged_at",
                        scored->flagged_at ? json_integer(scored->flagged_at) : json_null());
    json_t *features = json_object();
    for (size_t f = 0; f < rt_guard_feature_count(); f++) {
        char name[96];
        (void)snprintf(name, sizeof name, "%s.%s", rt_guard_feature_signal(f)->name,
                       rt_guard_feature_name(f));
        json_object_set_new(features, name, json_real((double)scored->features[f]));
    }
    json_object_set_new(row, "features", features);
    (void)json_dumpf(row, context, JSON_COMPACT | JSON_REAL_PRECISION(6));
    (void)fputc('\n', context);
    json_decref(row);
}

int guard_train(int argc, char **argv)
{
    cli_list files = {.count = 0}, labels = {.count = 0}, kept = {.count = 0}, without = {.count = 0};
    const char *asn = NULL, *out = NULL, *scores_path = NULL, *left_out = NULL;
    double strength = 0.01, poison = 0;
    size_t folds = 5, trees = 150, reference_accounts = 0, fit_corpora = 0;
    bool json = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Fits the score's weights to labelled traffic and writes a reference with the benign accounts' "
         "cross-fitted\n"
         "scores.  Several corpora: as many --labels as --traffic, in the same order.\n\n"
         "example:\n"
         "  retort guard train --traffic dev.jsonl.zst --labels dev.labels.jsonl --asn asn.json --out "
         "reference.json\n"
         "  retort guard train --features a.features --features b.features --fit-corpora 1 --scores "
         "out.jsonl"},
        {CLI_LIST, "--traffic FILE", &files, "recorded traffic (may be given several times)"},
        {CLI_LIST, "--labels FILE", &labels, "JSON lines {account, label: benign|distil, kind, cluster}"},
        {CLI_LIST, "--features FILE", &kept, "what `guard features` kept (may be given several times)"},
        {CLI_STRING, "--asn FILE", &asn, "network classes, of all corpora"},
        {CLI_STRING, "--out FILE", &out, "the reference to write"},
        {CLI_STRING, "--scores FILE", &scores_path, "JSON lines of what fits without it say of each account"},
        {CLI_COUNT, "--fit-corpora N", &fit_corpora, "fit to the first N corpora, score the others (all)"},
        {CLI_STRING, "--left-out KIND", &left_out, "attackers of this kind are only scored"},
        {CLI_LIST, "--without SIGNAL", &without, "do not judge by this signal (may be given several times)"},
        {CLI_REAL, "--poison X", &poison, "hide attackers among the benign: a share of these (0)"},
        {CLI_REAL, "--strength X", &strength, "pull of the trees' leaves to 0 (0.01)"},
        {CLI_COUNT, "--trees N", &trees, "trees (150)"},
        {CLI_COUNT, "--folds N", &folds, "parts for cross-fitting (5)"},
        {CLI_COUNT, "--reference-accounts N", &reference_accounts,
         "keep N benign scores of each use class, evenly spaced (all); no p-value is under 1 / (N + 1)"},
        {CLI_FLAG, "--json", &json, "the figures as JSON"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    rt_guard_sample *sample = NULL;
    rt_guard_reference *reference = NULL;
    rt_guard_fit_report report;
    if (cli_parse(spec, argc, argv, &err) != RT_OK)
        return cli_fail(&err);
    rt_status status = RT_OK;
    if (files.count != labels.count || !(files.count + kept.count))
        status =
            rt_error_set(&err, RT_INVALID,
                         "guard train: %zu --traffic and %zu --labels; each traffic needs its labels, and "
                         "without --features at least one is needed",
                         files.count, labels.count);
    else if (without.count > RT_GUARD_WITHOUT_MAX || (!out && !scores_path))
        status = rt_error_set(&err, RT_INVALID,
                              "guard train: needs --out or --scores, and takes at most %d --without",
                              RT_GUARD_WITHOUT_MAX);
    FILE *scores = NULL;
    if (status == RT_OK && scores_path && !(scores = fopen(scores_path, "w")))
        status = rt_error_set(&err, RT_IO, "%.200s: cannot be written", scores_path);
    if (status == RT_OK)
        status = rt_guard_sample_open(&sample, &err);
    for (size_t i = 0; status == RT_OK && i < files.count; i++)
        status = rt_guard_sample_add(sample, files.items[i], asn, labels.items[i], &err);
    for (size_t i = 0; status == RT_OK && i < kept.count; i++)
        status = rt_guard_sample_read(sample, kept.items[i], &err);
    rt_guard_fit fit = {.folds = folds,
                        .trees = trees,
                        .strength = strength,
                        .reference_accounts = reference_accounts,
                        .fit_corpora = fit_corpora,
                        .left_out = left_out,
                        .n_without = without.count,
                        .poison = poison,
                        .on_scored = scores ? print_scored : NULL,
                        .context = scores};
    for (size_t i = 0; status == RT_OK && i < without.count; i++)
        fit.without[i] = without.items[i];
    if (status == RT_OK)
        status = rt_guard_train(&reference, sample, &fit, &report, &err);
    if (status == RT_OK && out)
        status = rt_guard_reference_write(reference, out, &err);
    if (scores && fclose(scores) != 0 && status == RT_OK)
        status = rt_error_set(&err, RT_IO, "%.200s: writing failed", scores_path);
    rt_guard_sample_close(sample);
    rt_guard_reference_close(reference);
    if (status != RT_OK)
        return cli_fail(&err);
    if (json)
        return cli_print_json(json_pack("{s:I, s:I, s:f, s:f, s:f}", "benign", (json_int_t)report.benign,
                                        "attackers", (json_int_t)report.attackers, "found_at_0.5_percent",
                                        report.found_half, "found_at_1_percent", report.found_one,
                                        "found_at_2_percent", report.found_two));
    printf("benign\t%zu accounts\nattackers\t%zu accounts\n", report.benign, report.attackers);
    printf("found alone, cross-fitted\t%.3f at 0.5%%, %.3f at 1%%, %.3f at 2%% false alarms\n",
           report.found_half, report.found_one, report.found_two);
    for (size_t c = 0; c < report.corpora; c++)
        printf(
            "corpus %zu, at p < 1%%\t%.3f of the attackers, %.4f of the benign; distance from uniform %.3f\n",
            c + 1, report.corpus_found[c], report.corpus_false[c], report.corpus_ks[c]);
    return 0;
}

static void print_aside(void *context, const rt_guard_aside *aside)
{
    printf("set aside\t%s\tp %.5f\t%s\n", aside->account, aside->p,
           aside->decided ? "found to collect" : "to be reviewed");
    if (!context)
        return;
    json_t *row = json_pack("{s:s, s:f, s:f, s:b}", "account", aside->account, "score", aside->score, "p",
                            aside->p, "decided", aside->decided);
    (void)json_dumpf(row, context, JSON_COMPACT | JSON_REAL_PRECISION(6));
    (void)fputc('\n', context);
    json_decref(row);
}

int guard_calibrate(int argc, char **argv)
{
    const char *path = NULL, *asn = NULL, *out = NULL, *from = NULL, *reviewed = NULL, *aside_path = NULL;
    double alpha = 0.01;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Replaces the benign part of a reference by reviewed benign traffic of one's own: p-values then "
         "mean this\n"
         "service.  A rate that the number of accounts cannot support is refused.  Accounts that the "
         "reference "
         "suspects, as far\n"
         "as they are more than honest accounts would be, are set aside and listed: a few collectors taken "
         "for benign would\n"
         "hide all others.  Who was looked at goes into --reviewed, and the command is repeated.\n\n"
         "example:\n"
         "  retort guard calibrate reviewed.jsonl.zst --alpha 0.01 --out reference.json\n"
         "  retort guard calibrate reviewed.jsonl.zst --set-aside look.jsonl --reviewed decided.jsonl --out "
         "reference.json"},
        {CLI_STRING, "FILE", &path, "recorded traffic of accounts that were reviewed and found benign"},
        {CLI_STRING, "--asn FILE", &asn, "network classes"},
        {CLI_STRING, "--from FILE", &from, "the reference whose weights are kept (built-in)"},
        {CLI_REAL, "--alpha X", &alpha, "the false-alarm rate that is to be promised (0.01)"},
        {CLI_STRING, "--set-aside FILE", &aside_path, "JSON lines of the accounts that were set aside"},
        {CLI_STRING, "--reviewed FILE", &reviewed,
         "JSON lines {account, label: benign|distil}: what a person decided of them"},
        {CLI_STRING | CLI_REQUIRED, "--out FILE", &out, "the reference to write"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    FILE *aside = NULL;
    rt_guard_sample *sample = NULL;
    rt_guard_reference *made = NULL, *own = NULL;
    const rt_guard_reference *weights = NULL;
    if (cli_parse(spec, argc, argv, &err) != RT_OK)
        return cli_fail(&err);
    rt_status status =
        from ? rt_guard_reference_read(&own, from, &err) : rt_guard_reference_builtin(&weights, &err);
    if (status == RT_OK)
        status = rt_guard_sample_open(&sample, &err);
    if (status == RT_OK)
        status = rt_guard_sample_add(sample, path, asn, NULL, &err);
    if (status == RT_OK && aside_path && !(aside = fopen(aside_path, "w")))
        status = rt_error_set(&err, RT_IO, "%.200s: cannot be written", aside_path);
    if (status == RT_OK)
        status =
            rt_guard_sample_screen(sample, own ? own : weights, alpha, reviewed, print_aside, aside, &err);
    if (aside && fclose(aside) != 0 && status == RT_OK)
        status = rt_error_set(&err, RT_IO, "%.200s: writing failed", aside_path);
    if (status == RT_OK)
        status = rt_guard_calibrate(&made, own ? own : weights, sample, alpha, &err);
    if (status == RT_OK)
        status = rt_guard_reference_write(made, out, &err);
    if (status == RT_OK)
        for (size_t k = 0; k < RT_GUARD_CLASSES; k++)
            printf("%s\t%zu benign scores, smallest p %.6f\n", rt_guard_class_names[k], made->n_benign[k],
                   1 / ((double)made->n_benign[k] + 1));
    rt_guard_sample_close(sample);
    rt_guard_reference_close(made);
    rt_guard_reference_close(own);
    return status == RT_OK ? 0 : cli_fail(&err);
}

int guard_train_elicit(int argc, char **argv)
{
    const char *texts = NULL, *out = NULL;
    size_t epochs = 5, seed = 1;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Trains the classifier of prompts on JSON lines {text, type, wants}, as scripts/guard-elicit-texts "
         "makes them.\n\n"
         "example:\n"
         "  scripts/guard-elicit-texts ../shared/data/text > texts.jsonl\n"
         "  retort guard train-elicit texts.jsonl --out data/guard/elicit.weights"},
        {CLI_STRING, "TEXTS", &texts, "labelled texts"},
        {CLI_STRING | CLI_REQUIRED, "--out FILE", &out, "the table to write"},
        {CLI_COUNT, "--epochs N", &epochs, "passes over the texts (5)"},
        {CLI_COUNT, "--seed N", &seed, "order of the texts (1)"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    rt_elicit_report report;
    if (cli_parse(spec, argc, argv, &err) != RT_OK ||
        rt_elicit_train(texts, out, epochs, seed, &report, &err) != RT_OK)
        return cli_fail(&err);
    printf("texts\t%zu, of which %zu held out\n", report.texts, report.held_out);
    printf("types right\t%.3f\nwants found\t%.3f\nwants where there is none\t%.4f\n", report.type_right,
           report.want_found, report.want_false);
    return 0;
}
