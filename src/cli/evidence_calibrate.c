/* cli/evidence_calibrate.c - `retort evidence calibrate`: are the tests' p-values honest on this suspect and
 * on control students?  (METHODS-evidence section 7) */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/rng.h"
#include "base/size.h"
#include "cli/cli.h"
#include "cli/evidence.h"
#include "evidence/combine.h"

enum { QUANTILES = 101 };

typedef struct settings {
    const char *plan, *key, *out, *work;
    cli_rest controls;
    cli_list dosed;
    size_t keys, seed, threads;
    bool json;
} settings;

static int by_double(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Figures of p-values that should be uniform; p [n] is sorted. */
static json_t *uniformity(double *p, size_t n, bool *passed)
{
    size_t below_01 = 0, below_001 = 0;
    json_t *quantiles = json_array();
    qsort(p, n, sizeof *p, by_double);
    for (size_t i = 0; i < n; i++) {
        below_01 += p[i] < 0.01;
        below_001 += p[i] < 0.001;
    }
    const size_t points = rt_size_min(n, QUANTILES); /* of the QQ plot */
    for (size_t i = 0; i < points; i++)
        (void)json_array_append_new(quantiles, json_real(p[points > 1 ? i * (n - 1) / (points - 1) : 0]));
    const double d = rt_ks_statistic(p, n), ks = rt_ks_p(d, n);
    /* all of them 1: the suspect is its own reference, and there is nothing that could be wrong */
    *passed = (n > 0 && p[0] == 1) || (ks > 0.01 && (n == 0 || p[0] >= 0.01 / (double)n));
    return json_pack("{s:I,s:f,s:f,s:f,s:f,s:f,s:b,s:o}", "n", (json_int_t)n, "ks_d", d, "ks_p", ks,
                     "below_0.01", (double)below_01 / fmax((double)n, 1), "below_0.001",
                     (double)below_001 / fmax((double)n, 1), "least", n ? p[0] : 1.0, "passed", *passed,
                     "quantiles", quantiles);
}

/* Random keys on the plan's own suspect: the sharp check that needs no training. */
static rt_status random_keys(const cli_case *c, rt_test test, const settings *s, json_t *out, bool *passed,
                             rt_error *err)
{
    double *z = malloc((2 * s->keys + 1) * sizeof *z), *p = z ? z + s->keys : NULL, sum = 0, squares = 0;
    if (!z)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu keys", s->keys);
    rt_status status = rt_battery_random(&c->gathered, test, &c->key.mark, s->keys, s->seed ^ 0xCA11B, true,
                                         c->pool, z, p, err);
    for (size_t i = 0; status == RT_OK && i < s->keys; i++) {
        sum += z[i];
        squares += z[i] * z[i];
        p[i] = pow(10, p[i]);
    }
    if (status == RT_OK) {
        const double n = fmax((double)s->keys, 1), mean = sum / n;
        json_t *o = uniformity(p, s->keys, passed);
        (void)json_object_update_new(
            o, json_pack("{s:f,s:f}", "mean_z", mean, "sd_z", sqrt(fmax(0, squares / n - mean * mean))));
        (void)json_object_set_new(out, "random_keys", o);
    }
    free(z);
    return status;
}

typedef struct control {
    const settings *s;
    const char *name;
    json_t *lists;
    size_t index;
    double dose; /* of a student that is none; 0: innocent */
} control;

/* Tests that count keep their p; a null of counts is spread over its step, so that it can be uniform. */
static rt_status keep(void *context, rt_result *result, bool counts, rt_error *err)
{
    const control *c = context;
    const char *word = rt_test_word(result->test);
    json_t *list = json_object_get(c->lists, word);
    (void)counts;
    (void)err;
    json_decref(result->more);
    result->more = NULL;
    if (result->descriptive || result->test == RT_TEST_MMD) /* "not the same model" is true of a control */
        return RT_OK;
    if (c->dose > 0 && result->test >= RT_TEST_WEIGHTS) /* a dose of text says nothing of ancestry */
        return RT_OK;
    if (!list)
        (void)json_object_set_new(c->lists, word, list = json_array());
    rt_rng rng = rt_rng_make(c->s->seed, (uint32_t)(c->index * RT_TEST_COUNT + result->test));
    json_t *one = json_pack("{s:s,s:f,s:f,s:f}", "model", c->name, "z", result->z, "log10_p",
                            fmax(result->log10_p, -1e300), "p_spread",
                            rt_result_spread(result, 1 - rt_rng_uniform(&rng)));
    if (c->dose > 0)
        (void)json_object_set_new(one, "dose", json_real(c->dose));
    (void)json_array_append_new(list, one);
    return RT_OK;
}

/* The plan's tests on a control in the suspect's place: one p for each. */
static rt_status one_control(const settings *s, const char *name, size_t index, double dose, json_t *lists,
                             rt_error *err)
{
    cli_case c = {.threads = s->threads, .suspect_name = name, .work = s->work};
    control k = {s, name, lists, index, dose};
    rt_status status = cli_case_open(&c, s->plan, s->key, err);
    if (status == RT_OK)
        status = cli_case_gather(&c, err);
    for (rt_test t = 0; status == RT_OK && t < RT_TEST_MARKS; t++) {
        rt_result result;
        if (!cli_plan_has(c.plan, t))
            continue;
        status = rt_battery_mark(&result, &c.gathered, t, &c.key.mark, err);
        if (status == RT_OK)
            status = keep(&k, &result, true, err);
    }
    if (status == RT_OK)
        status = cli_case_rows(&c, keep, &k, err);
    if (status == RT_OK)
        status = cli_case_texts(&c, keep, &k, NULL, err);
    if (status == RT_OK)
        status = cli_case_weights(&c, keep, &k, err);
    cli_case_close(&c);
    return status == RT_OK ? RT_OK : rt_error_within(err, name);
}

static json_t *controls_json(json_t *list, bool *passed, rt_error *err)
{
    const size_t n = json_array_size(list);
    double *p = malloc((n + 1) * sizeof *p);
    if (!p) {
        (void)rt_error_set(err, RT_NO_MEMORY, "no memory for %zu controls", n);
        return NULL;
    }
    for (size_t i = 0; i < n; i++)
        p[i] = json_number_value(json_object_get(json_array_get(list, i), "p_spread"));
    json_t *o = uniformity(p, n, passed);
    (void)json_object_set(o, "models", list);
    free(p);
    return o;
}

/* Students whose share of marked text is known, "0.1=MODEL": what dose would be found? */
static rt_status dosed_students(const settings *s, json_t *tests, rt_error *err)
{
    json_t *lists = json_object(), *list;
    const char *name;
    rt_status status = RT_OK;
    for (size_t i = 0; status == RT_OK && i < s->dosed.count; i++) {
        char *end = NULL;
        const double dose = strtod(s->dosed.items[i], &end);
        if (!(dose > 0 && dose <= 1) || *end != '=' || !end[1])
            status = rt_error_set(err, RT_INVALID, "--dosed '%.80s': is not DOSE=MODEL with a dose in (0, 1]",
                                  s->dosed.items[i]);
        if (status != RT_OK)
            break;
        (void)fprintf(stderr, "retort: student %zu of %zu: %s\n", i + 1, s->dosed.count, end + 1);
        status = one_control(s, end + 1, CLI_LIST_MAX + i, dose, lists, err);
    }
    json_object_foreach(lists, name, list)
    {
        if (status == RT_OK && !json_object_get(tests, name))
            (void)json_object_set_new(tests, name, json_pack("{s:b}", "passed", true));
        if (status == RT_OK)
            (void)json_object_set_new(json_object_get(tests, name), "power", cli_power_json(list));
    }
    json_decref(lists);
    return status;
}

static rt_status calibrate(const settings *s, json_t *out, rt_error *err)
{
    cli_case c = {.threads = s->threads, .work = s->work};
    json_t *tests = json_object(), *lists = json_object();
    (void)json_object_set_new(out, "tests", tests);
    rt_status status = cli_case_open(&c, s->plan, s->key, err);
    if (status == RT_OK)
        status = cli_case_gather(&c, err);
    if (status == RT_OK && !c.has_key && s->controls.count == 0)
        status =
            rt_error_set(err, RT_INVALID,
                         "this plan has no watermark test, so random keys say nothing: name control models");
    for (rt_test t = 0; status == RT_OK && t < RT_TEST_MARKS; t++) {
        bool passed = true;
        if (!cli_plan_has(c.plan, t))
            continue;
        json_t *o = json_object();
        (void)json_object_set_new(tests, rt_test_word(t), o);
        (void)json_object_set_new(lists, rt_test_word(t), json_array());
        status = random_keys(&c, t, s, o, &passed, err);
        (void)json_object_set_new(o, "passed", json_boolean(passed));
    }
    if (status == RT_OK)
        (void)json_object_update_new(out, json_pack("{s:i,s:O,s:O}", "retort_evidence_calibration", 1,
                                                    "plan_hash", json_object_get(c.plan, "hash"), "key",
                                                    json_object_get(c.plan, "key_public")));
    cli_case_close(&c);
    for (size_t i = 0; status == RT_OK && i < s->controls.count; i++) {
        (void)fprintf(stderr, "retort: control %zu of %zu: %s\n", i + 1, s->controls.count,
                      s->controls.items[i]);
        status = one_control(s, s->controls.items[i], i, 0, lists, err);
    }
    if (status == RT_OK)
        status = dosed_students(s, tests, err);
    const char *name;
    json_t *list;
    json_object_foreach(lists, name, list)
    {
        bool passed;
        json_t *o = status == RT_OK && s->controls.count ? controls_json(list, &passed, err) : NULL;
        if (!o)
            continue;
        json_t *test = json_object_get(tests, name);
        if (!test)
            (void)json_object_set_new(tests, name, test = json_pack("{s:b}", "passed", true));
        (void)json_object_set_new(test, "controls", o);
        (void)json_object_set_new(test, "passed",
                                  json_boolean(passed && json_is_true(json_object_get(test, "passed"))));
    }
    json_decref(lists);
    return status;
}

static void print_line(const char *test, const char *kind, const json_t *o)
{
    (void)printf("%-12s %-12s n %-5d KS p %.3g  below 0.01: %.2f%%  below 0.001: %.2f%%  least %.2g  %s\n",
                 test, kind, (int)json_integer_value(json_object_get(o, "n")),
                 json_number_value(json_object_get(o, "ks_p")),
                 100 * json_number_value(json_object_get(o, "below_0.01")),
                 100 * json_number_value(json_object_get(o, "below_0.001")),
                 json_number_value(json_object_get(o, "least")),
                 json_is_true(json_object_get(o, "passed")) ? "passed" : "NOT CALIBRATED");
}

int evidence_calibrate(int argc, char **argv)
{
    settings s = {.keys = 1000};
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Watermark tests of the plan with random keys on its suspect, and all its tests on control\n"
         "students (same sizes and recipes, other text, unmarked or other keys). The p-values must be\n"
         "uniform: Kolmogorov-Smirnov p > 0.01, and none below 0.01/n. Where p is of a count, it is spread\n"
         "over its step for this check, and only for it. A test that fails is shown as not calibrated, and\n"
         "'evidence run' gives no p for it. Exit status 3 when one failed.\n\n"
         "Examples:\n  retort evidence calibrate plan.json --keys 1000 --out calibration.json\n"
         "  retort evidence calibrate plan.json controls/*/student --out calibration.json --json\n"
         "  retort evidence calibrate plan.json c1/ c2/ --dosed 1=s1/ --dosed 0.1=s2/ --out "
         "calibration.json"},
        {CLI_STRING | CLI_REQUIRED, "PLAN", &s.plan, "from 'retort evidence plan'"},
        {CLI_REST, "[CONTROL...]", &s.controls, "models that are certainly innocent"},
        {CLI_LIST, "--dosed DOSE=MODEL", &s.dosed,
         "a student with this share of marked text, 0.1=student/: what dose would be found?"},
        {CLI_STRING, "--key KEY", &s.key, "where the plan's key is, when not where the plan says"},
        {CLI_COUNT, "--keys N", &s.keys, "random keys (default 1000)"},
        {CLI_COUNT, "--seed N", &s.seed, "of the random keys (default 0)"},
        {CLI_STRING, "--out FILE", &s.out, "where the calibration goes"},
        {CLI_STRING, "--work FOLDER", &s.work, "where what a server said is kept (as for 'run')"},
        {CLI_COUNT, "--threads N", &s.threads, "default: one a processor"},
        {CLI_FLAG, "--json", &s.json, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    if (cli_parse(spec, argc, argv, &err) != RT_OK)
        return cli_fail(&err);
    cli_interrupts_watch();
    json_t *out = json_object();
    rt_status status = calibrate(&s, out, &err);
    if (status == RT_OK && s.out)
        status = rt_json_write(s.out, out, &err);
    if (status != RT_OK) {
        json_decref(out);
        return cli_fail(&err);
    }
    bool all = true;
    const char *name;
    json_t *test;
    json_object_foreach(json_object_get(out, "tests"), name, test)
    {
        all &= json_is_true(json_object_get(test, "passed"));
        if (s.json)
            continue;
        if (json_object_get(test, "random_keys"))
            print_line(name, "random keys", json_object_get(test, "random_keys"));
        if (json_object_get(test, "controls"))
            print_line(name, "controls", json_object_get(test, "controls"));
        const json_t *power = json_object_get(test, "power"), *dose;
        size_t i;
        json_array_foreach(json_object_get(power, "doses"), i, dose)(void)
            printf("%-12s %-12s %.3g: %d of %d students at p <= 1e-5\n", name, "dose",
                   json_number_value(json_object_get(dose, "dose")),
                   (int)json_integer_value(json_object_get(dose, "reached")),
                   (int)json_integer_value(json_object_get(dose, "students")));
    }
    int exit_status = s.json ? cli_print_json(json_incref(out)) : 0;
    json_decref(out);
    return all ? exit_status : rt_status_exit_code(RT_CHECK_FAILED);
}
