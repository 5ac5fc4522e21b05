/* student/machine.c - named machines, descriptions, and the form in which measured rates are kept; see
 * machine.h. */
#include "student/machine.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "retort/version.h"
#include "tensor/cpu.h"

/* Dense bf16 peak, memory and its rate: the makers' data sheets of the SXM cards.  H800: $2 an hour is the
 * price that DeepSeek-V3's report assumes; the others are left to --usd-hour. */
static const rt_machine machines[] = {
    {.name = "H100",
     .bf16 = 989.5e12,
     .f32 = 66.9e12,
     .int8 = 1979e12,
     .read = 3.35e12,
     .memory = 80e9,
     .utilisation = 0.35},
    {.name = "H200",
     .bf16 = 989.5e12,
     .f32 = 66.9e12,
     .int8 = 1979e12,
     .read = 4.8e12,
     .memory = 141e9,
     .utilisation = 0.35},
    {.name = "H800",
     .bf16 = 989.5e12,
     .f32 = 66.9e12,
     .int8 = 1979e12,
     .read = 3.35e12,
     .memory = 80e9,
     .usd_hour = 2,
     .utilisation = 0.35},
    {.name = "A100",
     .bf16 = 312e12,
     .f32 = 19.5e12,
     .int8 = 624e12,
     .read = 2.039e12,
     .memory = 80e9,
     .utilisation = 0.35},
};

const rt_machine *rt_machine_find(const char *name)
{
    for (size_t i = 0; i < sizeof machines / sizeof machines[0]; i++)
        if (strcasecmp(machines[i].name, name) == 0)
            return &machines[i];
    return NULL;
}

const char *rt_machine_names(void) { return "H100, H200, H800, A100"; }

/* ---- a description ---- */

typedef struct real_key {
    const char *key;
    double *to;
    double max;
    bool needed;
} real_key;

static rt_status read_keys(const real_key *keys, size_t n, const json_t *json, const char *where,
                           rt_error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)json, key, value)
    {
        bool known = strcmp(key, "name") == 0;
        for (size_t i = 0; i < n; i++)
            known = known || strcmp(key, keys[i].key) == 0;
        if (!known)
            return rt_error_set(err, RT_INVALID,
                                "%.200s: '%.60s' is no key of a machine; bf16_flops, memory_bytes, "
                                "read_bytes_per_s, disk_bytes_per_s, usd_per_hour, utilisation are",
                                where, key);
    }
    for (size_t i = 0; i < n; i++) {
        value = json_object_get(json, keys[i].key);
        if (!value && !keys[i].needed)
            continue;
        const double x = json_is_number(value) ? json_number_value(value) : -1;
        if (!(x > 0 && x <= keys[i].max) && !(x == 0 && !keys[i].needed))
            return rt_error_set(err, RT_INVALID, "%.200s: %s must be a number above 0, at most %g", where,
                                keys[i].key, keys[i].max);
        *keys[i].to = x;
    }
    return RT_OK;
}

rt_status rt_machine_from_json(rt_machine *out, const json_t *json, const char *where, rt_error *err)
{
    rt_machine m = {.utilisation = 0.35};
    if (!json_is_object(json))
        return rt_error_set(err, RT_INVALID, "%.200s: a machine is a JSON object", where);
    const char *name = json_string_value(json_object_get(json, "name"));
    (void)snprintf(m.name, sizeof m.name, "%.60s", name ? name : "the machine described");
    const real_key keys[] = {
        {"bf16_flops", &m.bf16, 1e21, true},       {"f32_flops", &m.f32, 1e21, false},
        {"int8_ops", &m.int8, 1e21, false},        {"read_bytes_per_s", &m.read, 1e18, false},
        {"memory_bytes", &m.memory, 1e18, false},  {"disk_bytes_per_s", &m.disk, 1e15, false},
        {"usd_per_hour", &m.usd_hour, 1e6, false}, {"utilisation", &m.utilisation, 1, true},
    };
    const json_t *utilisation = json_object_get(json, "utilisation");
    const size_t n = sizeof keys / sizeof keys[0];
    if (!utilisation)
        return rt_error_set(
            err, RT_INVALID,
            "%.200s: utilisation is missing: the share of the peak that is reached, 0.35 is usual", where);
    if (read_keys(keys, n, json, where, err) != RT_OK)
        return err->status;
    *out = m;
    return RT_OK;
}

/* ---- measured rates, kept ---- */

static const char *const precision_names[RT_PRECISION_COUNT] = {
    [RT_PRECISION_F32] = "f32", [RT_PRECISION_BF16] = "bf16", [RT_PRECISION_INT8] = "int8"};

typedef struct rate_row {
    const char *key;
    double *values;
} rate_row;

enum { RATE_ROWS = 5 };
static void rows_of(rate_row rows[RATE_ROWS], rt_machine_rates *rates)
{
    rows[0] = (rate_row){"forward", rates->forward};
    rows[1] = (rate_row){"train", rates->train};
    rows[2] = (rate_row){"head_train", rates->head_train};
    rows[3] = (rate_row){"head_loss", rates->head_loss};
    rows[4] = (rate_row){"load", rates->load};
}

json_t *rt_machine_rates_to_json(const rt_machine *machine)
{
    rt_machine_rates rates = machine->rates;
    rate_row rows[RATE_ROWS];
    rows_of(rows, &rates);
    json_t *out = json_pack("{s:s, s:s, s:s, s:I, s:f}", "version", RT_VERSION, "machine", machine->name,
                            "kernels", rt_cpu_name(rt_cpu_level()), "threads", (json_int_t)machine->threads,
                            "update", rates.update);
    for (size_t r = 0; out && r < RATE_ROWS; r++) {
        json_t *row = json_object();
        for (size_t p = 0; p < RT_PRECISION_COUNT; p++)
            if (rows[r].values[p] > 0)
                (void)json_object_set_new(row, precision_names[p], json_real(rows[r].values[p]));
        (void)json_object_set_new(out, rows[r].key, row);
    }
    return out;
}

static bool same_text(const json_t *json, const char *key, const char *wanted)
{
    const char *value = json_string_value(json_object_get(json, key));
    return value && strcmp(value, wanted) == 0;
}

bool rt_machine_rates_from_json(rt_machine *machine, const json_t *json)
{
    if (!same_text(json, "version", RT_VERSION) || !same_text(json, "machine", machine->name) ||
        !same_text(json, "kernels", rt_cpu_name(rt_cpu_level())) ||
        json_integer_value(json_object_get(json, "threads")) != (json_int_t)machine->threads)
        return false;
    rt_machine_rates rates = {.update = json_number_value(json_object_get(json, "update"))};
    rate_row rows[RATE_ROWS];
    rows_of(rows, &rates);
    for (size_t r = 0; r < RATE_ROWS; r++)
        for (size_t p = 0; p < RT_PRECISION_COUNT; p++)
            rows[r].values[p] =
                json_number_value(json_object_get(json_object_get(json, rows[r].key), precision_names[p]));
    machine->rates = rates;
    return true;
}
