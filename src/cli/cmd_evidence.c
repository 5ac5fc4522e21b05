/* cli/cmd_evidence.c - `retort evidence plan|run|calibrate|probes|report`: was this model trained on that
 * one's outputs? */
#include "cli/commands.h"
#include "cli/evidence.h"
#include "cli/sub.h"

int cmd_evidence(int argc, char **argv)
{
    const cli_sub subs[] = {
        {"plan", (char[]){"evidence plan"}, "what will be tested, written and hashed before looking",
         evidence_plan},
        {"run", (char[]){"evidence run"}, "the plan's tests on its suspect", evidence_run},
        {"calibrate", (char[]){"evidence calibrate"},
         "are the p-values honest here? random keys and controls", evidence_calibrate},
        {"probes", (char[]){"evidence probes"}, "questions that ask a model who it is", evidence_probes},
        {"report", (char[]){"evidence report"}, "a record as one page", evidence_report},
    };
    return cli_run_sub(subs, sizeof subs / sizeof *subs,
                       "  retort evidence plan --suspect student/ --reference base/ --key served-2026 --read "
                       "served.jsonl\n      --prompts questions.jsonl --out plan.json\n"
                       "  retort evidence calibrate plan.json --keys 1000 --out calibration.json\n"
                       "  retort evidence run plan.json --calibration calibration.json --out record.json\n"
                       "  retort evidence report record.json --out page.html",
                       argc, argv);
}
