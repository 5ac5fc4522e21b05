/* cli/verify_evidence.c - `retort verify evidence DIR`: watermarks and tests against reference vectors. */
#include "cli/cli.h"
#include "cli/verify.h"
#include "evidence/verify.h"

int verify_evidence(int argc, char **argv)
{
    const char *dir = NULL;
    bool json = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "DIR holds tails, combine, rank_tests, mmd, weights, torch_rng, hf_kgw, hf_synthid, rt1_prf,\n"
         "rt1_detect and rt1_reading .json, or some of them.  Counts, ids, hashes and bits are compared\n"
         "exactly, log10 p to 1e-6 relative (saddlepoint tails to 1e-4), other numbers to 1e-9 relative.\n"
         "Exit status 3 when a comparison is beyond its tolerance.\n\n"
         "Examples:\n  retort verify evidence tests/golden/evidence\n"
         "  retort verify evidence tests/golden/evidence --json"},
        {CLI_STRING | CLI_REQUIRED, "DIR", &dir, "folder of reference vectors"},
        {CLI_FLAG, "--json", &json, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_verify result;
    rt_error err = {0};
    if (cli_parse(spec, argc, argv, &err) != RT_OK || rt_verify_evidence(&result, dir, &err) != RT_OK)
        return cli_fail(&err);
    return verify_print(&result, json);
}
