/* fuzz/fuzz_evidence_plan.c - plans: any JSON is checked or refused with a sentence; sealing makes it intact.
 */
#include <stdint.h>

#include "base/json.h"
#include "evidence/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *plan = NULL;
    rt_error err = {0};
    bool intact;
    if (rt_json_parse(&plan, (const char *)data, size, "fuzz", &err) != RT_OK)
        return 0;
    if (rt_evidence_plan_check(plan, &intact, "fuzz", &err) != RT_OK) {
        if (!err.text[0])
            __builtin_trap();
    } else if (rt_evidence_plan_seal(plan, &err) == RT_OK) {
        if (rt_evidence_plan_check(plan, &intact, "fuzz", &err) != RT_OK || !intact)
            __builtin_trap();
    }
    json_decref(plan);
    return 0;
}
