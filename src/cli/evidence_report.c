/* cli/evidence_report.c - `retort evidence report RECORD`: the record of an examination as one page. */
#include <stdio.h>

#include "base/file.h"
#include "base/json.h"
#include "cli/cli.h"
#include "cli/evidence.h"
#include "report/evidence_page.h"

static const size_t record_max = (size_t)64 << 20;

int evidence_report(int argc, char **argv)
{
    const char *path = NULL, *out = "evidence.html";
    bool json = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "One page that fetches nothing: claim, plan, figures, whether the p-values are honest here, other\n"
         "explanations. A plan that is not the one that was hashed is shown in red.\n\n"
         "Examples:\n  retort evidence report record.json --out page.html"},
        {CLI_STRING | CLI_REQUIRED, "RECORD", &path, "from 'retort evidence run --out'"},
        {CLI_STRING, "--out FILE", &out, "where the page goes (default evidence.html)"},
        {CLI_FLAG, "--json", &json, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    json_t *record = NULL;
    bool intact = false;
    if (cli_parse(spec, argc, argv, &err) != RT_OK || rt_json_read(&record, path, record_max, &err) != RT_OK)
        return cli_fail(&err);
    rt_status status = RT_OK;
    if (json_integer_value(json_object_get(record, "retort_evidence_record")) != 1)
        status = rt_error_set(&err, RT_CORRUPT, "%.300s: is no record of 'retort evidence run'", path);
    if (status == RT_OK)
        status = rt_evidence_plan_check(json_object_get(record, "plan"), &intact, path, &err);
    intact &= json_is_true(json_object_get(record, "plan_intact"));
    rt_text page = {0};
    if (status == RT_OK)
        rt_report_evidence(&page, record, intact);
    if (status == RT_OK && page.failed)
        status = rt_error_set(&err, RT_NO_MEMORY, "no memory for the page");
    if (status == RT_OK)
        status = rt_file_write(out, page.data, page.size, &err);
    const size_t bytes = page.size;
    rt_text_deinit(&page);
    json_decref(record);
    if (status != RT_OK)
        return cli_fail(&err);
    if (json)
        return cli_print_json(
            json_pack("{s:s,s:I,s:b}", "out", out, "bytes", (json_int_t)bytes, "plan_intact", intact));
    (void)printf("%s: %zu bytes%s\n", out, bytes, intact ? "" : "; THE PLAN WAS ALTERED");
    return 0;
}
