/* fuzz/fuzz_account.c - what operators and clients send to the account room: any bytes end in settings or a
 * sentence, settings survive being printed, a key is taken apart without a step outside, events are cut into
 * all their bytes.
 *
 * The first byte says what the rest is. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "account/key.h"
#include "account/ledger.h"
#include "account/limits.h"
#include "account/terms.h"
#include "serve/sse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        __builtin_trap();
}

static void read_limits(const json_t *json)
{
    rt_limits limits = rt_limits_none(), again = rt_limits_none();
    rt_error err = {0};
    if (rt_limits_read(&limits, json, &err) != RT_OK) {
        check(err.text[0] != '\0');
        return;
    }
    check(limits.rpm >= -1 && limits.tpm >= -1 && limits.tpd >= -1 && limits.concurrency >= -1 &&
          limits.budget >= -1 && limits.max_tokens != 0 && limits.top_logprobs <= RT_TOP_LOGPROBS_MAX);
    json_t *printed = rt_limits_json(&limits);
    check(rt_limits_read(&again, printed, &err) == RT_OK && again.rpm == limits.rpm &&
          again.tpm == limits.tpm && again.tpd == limits.tpd && again.max_tokens == limits.max_tokens &&
          (again.budget < 0) == (limits.budget < 0));
    json_decref(printed);
}

static void read_permissions(const json_t *json)
{
    rt_permissions permissions = {0};
    rt_error err = {0};
    if (rt_permissions_read(&permissions, json, &err) == RT_OK)
        json_decref(rt_permissions_json(&permissions));
    rt_permissions_deinit(&permissions);
}

static void read_prices(const json_t *json)
{
    rt_error err = {0};
    int64_t cost = 0;
    if (rt_prices_check(json, &err) == RT_OK && rt_prices_cost(json, "m", 1 << 20, 1 << 10, 1 << 20, &cost))
        check(cost >= 0 && cost <= RT_COST_MAX);
}

static void read_key(const char *text, size_t size)
{
    rt_key_text key;
    char clean[64];
    char *copy = malloc(size + 1);
    check(copy != NULL);
    memcpy(copy, text, size);
    copy[size] = '\0';
    if (rt_key_parse(&key, copy))
        check(strlen(key.id) == RT_KEY_ID_SIZE - 1);
    rt_text_clean(clean, sizeof clean, copy);
    check(rt_utf8_valid(clean, strlen(clean)));
    for (const char *c = clean; *c; c++)
        check((unsigned char)*c >= ' ' && *c != 127);
    free(copy);
}

static int64_t count_in(const json_t *object, const char *key, const char *other)
{
    const json_t *value = json_object_get(object, key);
    value = value ? value : json_object_get(object, other);
    return json_is_integer(value) && json_integer_value(value) > 0 ? json_integer_value(value) : 0;
}

/* The usage that is found without a tree is what a tree of the whole says; names may be written with escapes,
 * which no server does: such texts are left out. */
static void check_usage(const char *data, size_t size)
{
    rt_sse_usage usage = {0};
    bool only;
    rt_usage_read(&usage, data, size, &only);
    check(usage.input >= 0 && usage.cached >= 0 && usage.output >= 0);
    json_t *whole = memchr(data, '\\', size) ? NULL : json_loadb(data, size, 0, NULL);
    const json_t *found = json_object_get(whole, "usage");
    if (!json_is_object(found))
        found = json_object_get(json_object_get(whole, "response"), "usage");
    if (whole) {
        check(usage.there == json_is_object(found));
        check(usage.input == count_in(found, "prompt_tokens", "input_tokens"));
        check(usage.output == count_in(found, "completion_tokens", "output_tokens"));
        check(!only || json_array_size(json_object_get(whole, "choices")) == 0);
    }
    json_decref(whole);
}

static void count_event(void *context, const char *bytes, size_t size, bool whole)
{
    size_t data_size;
    *(size_t *)context += size;
    const char *data = whole ? rt_sse_data(bytes, size, &data_size) : NULL;
    if (!data)
        return;
    check(data >= bytes && data + data_size <= bytes + size);
    check_usage(data, data_size);
    check(rt_chunk_text_bytes(data, data_size) <= data_size * 5);
}

static void cut_events(const char *text, size_t size)
{
    rt_sse sse = {0};
    size_t seen = 0;
    const size_t half = size / 2;
    check_usage(text, size);
    check(rt_sse_feed(&sse, text, half, count_event, &seen) &&
          rt_sse_feed(&sse, text + half, size - half, count_event, &seen));
    rt_sse_rest(&sse, count_event, &seen);
    check(seen == size);
    rt_sse_deinit(&sse);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const char *text = (const char *)data + 1;
    rt_error err = {0};
    rt_terms *terms = NULL;
    json_t *json = NULL;
    switch (data[0]) {
    case 'k':
        read_key(text, size - 1);
        return 0;
    case 's':
        cut_events(text, size - 1);
        return 0;
    case 't':
        if (rt_terms_read(&terms, text, size - 1, "terms", &err) == RT_OK)
            check(*rt_terms_version(terms) != '\0');
        rt_terms_close(terms);
        return 0;
    default:
        break;
    }
    if (rt_json_parse(&json, text, size - 1, "body", &err) != RT_OK)
        return 0;
    rt_prompt_policy policy = {RT_PROMPT_NONE, 1};
    read_limits(json);
    read_permissions(json);
    read_prices(json);
    (void)rt_prompt_policy_read(&policy, json, &err);
    check(rt_json_tokens_bound(json) >= 0);
    json_decref(json);
    return 0;
}
