/* fuzz/fuzz_guard_policy.c - policy files of the ladder, and references. */
#include "guard/policy.h"
#include "guard/reference.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    rt_error err = {0};
    rt_guard_policy_file *policy;
    rt_guard_reference *reference;
    if (rt_guard_policy_read(&policy, (const char *)data, size, "policy", &err) == RT_OK)
        rt_guard_policy_close(policy);
    if (rt_guard_reference_parse(&reference, (const char *)data, size, "reference", &err) == RT_OK)
        rt_guard_reference_close(reference);
    return 0;
}
