/* cli/guard_train.c - `retort guard train`, `calibrate`, `train-elicit`: the figures the guard compares with.
 */
#include <stdio.h>

#include "cli/guard.h"
#include "guard/elicit_train.h"
#include "guard/train.h"

int guard_train(int argc, char **argv)
{
    cli_list files = {.count = 0}, labels = {.count = 0};
    const char *asn = NULL, *out = NULL;
    double strength = 0.01;
    size_t folds = 5, trees = 150, reference_corpora = 0;
    bool json = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Fits the score's weights to labelled traffic and writes a reference with the benign accounts' "
         "cross-fitted\n"
         "scores.  Several corpora: as many --labels as --traffic, in the same order.\n\n"
         "example:\n"
         "  retort guard train --traffic dev.jsonl.zst --labels dev.labels.jsonl --asn asn.json --out "
         "reference.json"},
        {CLI_LIST | CLI_REQUIRED, "--traffic FILE", &files, "recorded traffic (may be given several times)"},
        {CLI_LIST | CLI_REQUIRED, "--labels FILE", &labels,
         "JSON lines {account, label: benign|distil, cluster}"},
        {CLI_STRING, "--asn FILE", &asn, "network classes, of all corpora"},
        {CLI_STRING | CLI_REQUIRED, "--out FILE", &out, "the reference to write"},
        {CLI_REAL, "--strength X", &strength, "pull of the trees' leaves to 0 (0.01)"},
        {CLI_COUNT, "--trees N", &trees, "trees (150)"},
        {CLI_COUNT, "--folds N", &folds, "parts for cross-fitting (5)"},
        {CLI_COUNT, "--reference-corpora N", &reference_corpora,
         "benign scores of the first N corpora, where they suffice (all)"},
        {CLI_FLAG, "--json", &json, "the figures as JSON"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    rt_guard_sample *sample = NULL;
    rt_guard_reference *reference = NULL;
    rt_guard_fit_report report;
    if (cli_parse(spec, argc, argv, &err) != RT_OK)
        return cli_fail(&err);
    rt_status status = files.count == labels.count
                           ? rt_guard_sample_open(&sample, &err)
                           : rt_error_set(&err, RT_INVALID, "guard train: %zu --traffic but %zu --labels",
                                          files.count, labels.count);
    for (size_t i = 0; status == RT_OK && i < files.count; i++)
        status = rt_guard_sample_add(sample, files.items[i], asn, labels.items[i], &err);
    const rt_guard_fit fit = {
        .folds = folds, .trees = trees, .strength = strength, .reference_corpora = reference_corpora};
    if (status == RT_OK)
        status = rt_guard_train(&reference, sample, &fit, &report, &err);
    if (status == RT_OK)
        status = rt_guard_reference_write(reference, out, &err);
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

int guard_calibrate(int argc, char **argv)
{
    const char *path = NULL, *asn = NULL, *out = NULL, *from = NULL;
    double alpha = 0.01;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Replaces the benign part of a reference by reviewed benign traffic of one's own: p-values then "
         "mean this\n"
         "service.  A rate that the number of accounts cannot support is refused.\n\n"
         "example:\n"
         "  retort guard calibrate reviewed.jsonl.zst --alpha 0.01 --out reference.json"},
        {CLI_STRING, "FILE", &path, "recorded traffic of accounts that were reviewed and found benign"},
        {CLI_STRING, "--asn FILE", &asn, "network classes"},
        {CLI_STRING, "--from FILE", &from, "the reference whose weights are kept (built-in)"},
        {CLI_REAL, "--alpha X", &alpha, "the false-alarm rate that is to be promised (0.01)"},
        {CLI_STRING | CLI_REQUIRED, "--out FILE", &out, "the reference to write"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
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
