/* cli/cmd_guard.c - `retort guard WORD`: finding accounts that collect training data. */
#include "cli/commands.h"
#include "cli/guard.h"
#include "cli/sub.h"

static char replay[] = "guard replay", explain[] = "guard explain", clusters[] = "guard clusters",
            review[] = "guard review", what_if[] = "guard what-if", report[] = "guard report",
            calibrate[] = "guard calibrate", features[] = "guard features", train[] = "guard train",
            train_elicit[] = "guard train-elicit";

static const cli_sub subs[] = {
    {"replay", replay, "recorded traffic judged: one JSON line an account", guard_replay},
    {"explain", explain, "why an account has its score", guard_explain},
    {"clusters", clusters, "linked accounts, and which clusters collect", guard_clusters},
    {"review", review, "what a person should look at, most useful first", guard_review},
    {"what-if", what_if, "who would be hit by another policy", guard_what_if},
    {"report", report, "what was found and decided, as one page for the record", guard_report},
    {"calibrate", calibrate, "a reference from reviewed benign traffic", guard_calibrate},
    {"features", features, "what a fit needs of labelled traffic", guard_features},
    {"train", train, "a reference's weights from labelled traffic", guard_train},
    {"train-elicit", train_elicit, "the classifier of prompts from labelled texts", guard_train_elicit},
};

static const char examples[] = "examples:\n"
                               "  retort guard replay traffic.jsonl.zst --asn asn.json\n"
                               "  retort guard calibrate reviewed.jsonl --out reference.json\n";

int cmd_guard(int argc, char **argv)
{
    return cli_run_sub(subs, sizeof subs / sizeof *subs, examples, argc, argv);
}
