/* fuzz/fuzz_evidence_record.c - records as pages: members of any type and text, bounded and escaped. */
#include <stdint.h>

#include "base/json.h"
#include "report/evidence_page.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *record = NULL;
    rt_error err = {0};
    rt_text page = {.size_max = 1 << 24};
    if (rt_json_parse(&record, (const char *)data, size, "fuzz", &err) == RT_OK)
        rt_report_evidence(&page, record, size % 2);
    rt_text_deinit(&page);
    json_decref(record);
    return 0;
}
