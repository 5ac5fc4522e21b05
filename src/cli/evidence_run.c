/* cli/evidence_run.c - `retort evidence run`: the plan's tests, their combination, the words that it allows.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/size.h"
#include "cli/cli.h"
#include "cli/evidence.h"
#include "evidence/combine.h"
#include "evidence/saddle.h"
#include "evidence/plan.h"
#include "retort/version.h"

enum { RESULTS_MAX = 128 };
static const size_t record_max = (size_t)64 << 20;

typedef struct run {
    cli_case c;
    json_t *calibration; /* NULL: none */
    json_t *results, *accounts, *identity;
    double log10_p[RESULTS_MAX]; /* of results that count */
    int group[RESULTS_MAX];      /* of independent data: reading 0, sampled text 1, then one a test */
    size_t n_counted;
    bool all_calibrated, all_checked;
} run;

/* Did a test pass the calibration?  -1: it is not in the file. */
static int calibrated(const run *r, rt_test test)
{
    const json_t *t = json_object_get(json_object_get(r->calibration, "tests"), rt_test_word(test));
    return t ? json_is_true(json_object_get(t, "passed")) : -1;
}

static int group_of(rt_test test)
{
    if (test == RT_TEST_POOLED || test == RT_TEST_SOFT || test == RT_TEST_HARD)
        return 0;
    return test == RT_TEST_DIFFERENCE || test == RT_TEST_CLOSED ? 1 : (int)test;
}

/* The smallest rise of a mean score per pair that p = 1e-5 would have shown; and, where something was found,
 * the share of this dose that would still be. */
static void add_power(json_t *o, const rt_result *result, const rt_watermark *mark)
{
    static const double z5 = 4.2649;
    if (result->test == RT_TEST_HARD || result->test == RT_TEST_CLOSED) {
        double weights[RT_PRF_LAYERS_MAX], variance = mark->gamma * (1 - mark->gamma);
        if (mark->scheme == RT_SCHEME_GUMBEL)
            variance = 1;
        if (mark->scheme == RT_SCHEME_TOURNAMENT || mark->scheme == RT_SCHEME_HF_SYNTHID) {
            const size_t layers = mark->scheme == RT_SCHEME_TOURNAMENT ? mark->layers : mark->n_keys;
            variance = 0;
            rt_synthid_weights(weights, layers);
            for (size_t l = 0; l < layers; l++)
                variance += weights[l] * weights[l] / 4;
        }
        (void)json_object_set_new(o, "least_rise_at_1e-5",
                                  json_real(z5 * sqrt(variance / fmax((double)result->n, 1))));
    }
    if (result->z > z5)
        (void)json_object_set_new(o, "share_of_dose_at_1e-5", json_real(z5 / result->z));
}

/* From the calibration's students: what dose would have been found, and a likelihood ratio. */
static void add_expectation(const run *r, json_t *o, const rt_result *result)
{
    const json_t *test =
        json_object_get(json_object_get(r->calibration, "tests"), rt_test_word(result->test));
    const json_t *dose = json_object_get(json_object_get(test, "power"), "least_dose");
    double ratio;
    if (dose)
        (void)json_object_set(o, "least_dose_at_1e-5", (json_t *)(uintptr_t)dose);
    if (!result->descriptive && cli_likelihood_ratio(&ratio, result->z, test))
        (void)json_object_set_new(o, "likelihood_ratio", json_real(ratio));
}

/* A result that failed its calibration is shown without p, and counts for nothing. */
static void add_result(run *r, rt_result *result, bool counts)
{
    const int passed = calibrated(r, result->test);
    json_t *o = rt_result_json(result);
    const bool mark = result->test < RT_TEST_MARKS,
               checked = !mark || result->check.keys == 0 || result->check.calibrated;
    if (mark)
        add_power(o, result, &r->c.key.mark);
    add_expectation(r, o, result);
    if (passed == 0 || !checked) {
        (void)json_object_del(o, "p");
        (void)json_object_del(o, "log10_p");
        (void)json_object_set_new(o, "note", json_string("not calibrated here: no p is given"));
        r->all_calibrated = false;
        counts = false;
    }
    (void)json_object_set_new(
        o, "calibrated", passed >= 0 ? json_boolean(passed) : json_string(mark ? "by random keys" : "exact"));
    if (counts && r->n_counted < RESULTS_MAX) {
        r->log10_p[r->n_counted] = result->log10_p;
        r->group[r->n_counted++] = group_of(result->test);
        r->all_checked &= checked;
    }
    (void)json_array_append_new(r->results, o);
}

static rt_status mark_tests(run *r, rt_error *err)
{
    cli_case *c = &r->c;
    const size_t keys = cli_plan_count(c->plan, "random_keys", 99), seed = cli_plan_count(c->plan, "seed", 0);
    const json_t *accounts = json_object_get(c->plan, "accounts");
    for (rt_test t = 0; t < RT_TEST_MARKS; t++) {
        rt_result result;
        if (!cli_plan_has(c->plan, t))
            continue;
        if (rt_battery_mark(&result, &c->gathered, t, &c->key.mark, err) != RT_OK ||
            (!result.note && rt_battery_check(&result, &c->gathered, &c->key.mark, keys, seed ^ 0x5EED,
                                              c->pool, err) != RT_OK))
            return err->status;
        add_result(r, &result, !result.note); /* a note: there was nothing to look at */
        for (size_t a = 0; a < json_array_size(accounts); a++) {
            const char *account = json_string_value(json_array_get(accounts, a));
            rt_watermark mark;
            rt_result its;
            if (rt_mark_key_for_account(&mark, &c->key.mark, account, err) != RT_OK ||
                rt_battery_mark(&its, &c->gathered, t, &mark, err) != RT_OK)
                return err->status;
            json_t *o = rt_result_json(&its);
            (void)json_object_update_new(
                o, json_pack("{s:s,s:f}", "account", account, "log10_p_corrected",
                             fmin(0, its.log10_p + log10((double)json_array_size(accounts)))));
            (void)json_array_append_new(r->accounts, o);
        }
    }
    return RT_OK;
}

static rt_status take(void *context, rt_result *result, bool counts, rt_error *err)
{
    (void)err;
    add_result(context, result, counts);
    return RT_OK;
}

/* An earlier record on other data that found something with the same key. */
static bool replicates(const run *r)
{
    rt_error err = {0};
    json_t *record = NULL;
    const char *path = cli_plan_text(r->c.plan, "replicates");
    if (!path || rt_json_read(&record, path, record_max, &err) != RT_OK)
        return false;
    const json_t *plan = json_object_get(record, "plan");
    const json_t *before = json_object_get(json_object_get(plan, "key_public"), "commitment"),
                 *now = json_object_get(json_object_get(r->c.plan, "key_public"), "commitment");
    const json_t *inputs = json_object_get(plan, "inputs"), *mine = json_object_get(r->c.plan, "inputs");
    const bool fresh = !json_equal(json_object_get(inputs, "read"), json_object_get(mine, "read")) ||
                       (!json_object_get(mine, "read") &&
                        !json_equal(json_object_get(plan, "seed"), json_object_get(r->c.plan, "seed")));
    const double p = json_number_value(json_object_get(json_object_get(record, "verdict"), "log10_p"));
    const bool good = fresh && json_equal(before, now) && p <= -5;
    json_decref(record);
    return good;
}

static json_t *verdict(const run *r, rt_verdict_facts *f)
{
    double least[RT_TEST_COUNT + 2] = {0};
    size_t groups = 0;
    for (size_t i = 0; i < r->n_counted; i++)
        least[r->group[i]] = fmin(least[r->group[i]], r->log10_p[i]);
    for (size_t g = 0; g < RT_TEST_COUNT; g++)
        groups += least[g] <= log10(0.05);
    *f = (rt_verdict_facts){.log10_p = rt_cauchy(r->log10_p, r->n_counted),
                            .calibrated = r->n_counted > 0,
                            .key_check = r->all_checked,
                            .second_test = groups >= 2,
                            .replicated = replicates(r),
                            .plan_first = r->c.intact,
                            .none_combined = r->n_counted == 0};
    json_t *o = rt_verdict_json(f);
    (void)json_object_set_new(o, "combined_by",
                              json_string("Cauchy, which holds under any dependence of the tests"));
    (void)json_object_set_new(o, "tests_combined", json_integer((json_int_t)r->n_counted));
    if (r->n_counted) /* holds whatever the tests have to do with each other, at a price */
        (void)json_object_set_new(o, "log10_p_bonferroni",
                                  json_real(fmax(rt_bonferroni(r->log10_p, r->n_counted), -1e300)));
    return o;
}

static rt_status read_calibration(run *r, const char *path, rt_error *err)
{
    if (!path)
        return RT_OK;
    if (rt_json_read(&r->calibration, path, record_max, err) != RT_OK)
        return err->status;
    const json_t *hash = json_object_get(r->calibration, "plan_hash");
    if (!json_equal(hash, json_object_get(r->c.plan, "hash")))
        return rt_error_set(err, RT_MISMATCH, "%.300s: is the calibration of another plan", path);
    return RT_OK;
}

static void warn(json_t *list, const char *format, ...) RT_PRINTF(2, 3);
static void warn(json_t *list, const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    (void)json_array_append_new(list, json_string(text));
}

static json_int_t whole(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}

/* What a reader must know of the suspect's behaviour before believing a figure. */
static json_t *warnings_of(const run *r)
{
    json_t *list = json_array();
    const rt_answer_survey *s = &r->c.survey;
    if (s->refusals)
        warn(list, "%zu of %zu answers are refusals and were left out: n is smaller", s->refusals,
             s->answers);
    if (s->copies)
        warn(list,
             "%zu of %zu answers repeat logged answers of the teacher nearly word for word (retrieval, or "
             "learned by "
             "heart) and were left out",
             s->copies, s->answers);
    json_t *e = r->c.endpoint ? rt_endpoint_json(r->c.endpoint) : NULL;
    const json_t *again = json_object_get(e, "again");
    if (whole(again, "same") < whole(again, "asked"))
        warn(list,
             "the endpoint is not steady: %d of %d questions had another answer at temperature 0 early and "
             "late; it "
             "may have been changed between calls",
             (int)(whole(again, "asked") - whole(again, "same")), (int)whole(again, "asked"));
    if (json_object_size(json_object_get(e, "fingerprints")) > 1 ||
        json_object_size(json_object_get(e, "models")) > 1)
        warn(list, "the endpoint named itself in more than one way: another model may have answered in part");
    size_t i;
    const json_t *flag;
    json_array_foreach(json_object_get(e, "flags"), i, flag)
        warn(list, "the endpoint contradicts itself: %.300s", json_string_value(flag));
    if (rt_token_counts_differ(&r->c.counts))
        warn(
            list,
            "the server counts the tokens of prompts otherwise than the plan's tokenizer (%zu of %zu alike): "
            "its tokenizer is another, so what it scored of given ids says nothing; tests on its answers "
            "hold",
            r->c.counts.alike, r->c.counts.prompts);
    else if (r->c.suspect.endpoint && r->c.gathered.read && r->c.counts.prompts == 0)
        warn(list, "whether the server has the plan's tokenizer was not checked: it was asked no prompts");
    if (whole(e, "rejected"))
        warn(list, "%d requests had no answer", (int)whole(e, "rejected"));
    const rt_look *look = &r->c.gathered.look;
    if (look->borders)
        warn(list,
             "the suspect's tokenizer or the reference's is another: read were %.1f%% of the places, where "
             "tokens begin "
             "in all of them, and %.1f%% of the probability there, on tokens that are one of the teacher's",
             100 * (double)look->borders / (double)(look->borders + look->apart),
             100 * look->mass_kept / fmax(look->mass, 1));
    if (r->c.gathered.look.foreign)
        warn(list, "%zu of %zu listed tokens are none of the teacher's tokenizer and were left out",
             r->c.gathered.look.foreign, r->c.gathered.look.listed);
    json_decref(e);
    return list;
}

static const json_t *result_of(const run *r, const char *test)
{
    size_t i;
    const json_t *o;
    json_array_foreach(r->results, i,
                       o) if (strcmp(json_string_value(json_object_get(o, "test")), test) == 0) return o;
    return NULL;
}

/* What this run has to say of another explanation; "" where it says nothing. */
static void tested_here(const run *r, const char *id, char *out, size_t size)
{
    const char *test = strcmp(id, "ancestor") == 0 ? "weights" : strcmp(id, "same_model") == 0 ? "mmd" : "";
    const json_t *result = test[0] ? result_of(r, test) : NULL, *p = json_object_get(result, "p");
    size_t checked = 0, i;
    const json_t *o;
    out[0] = '\0';
    json_array_foreach(r->results, i, o) checked +=
        json_is_true(json_object_get(json_object_get(o, "key_check"), "calibrated"));
    if (p)
        (void)snprintf(out, size, "the %s test: p %.30s", test, json_string_value(p));
    else if (strcmp(id, "ancestor") == 0 && r->c.reference.model)
        (void)snprintf(out, size, "the pooled test takes the reference off; its weights were not compared");
    else if (strcmp(id, "fault") == 0 && checked)
        (void)snprintf(out, size, "random keys gave the right mean and spread in %zu tests", checked);
    else if (strcmp(id, "many") == 0)
        (void)snprintf(out, size, "%zu tests were combined, %zu accounts corrected for", r->n_counted,
                       json_array_size(json_object_get(r->c.plan, "accounts")));
    else if (strcmp(id, "retrieval") == 0 && cli_plan_text(r->c.plan, "logged") && r->c.surveyed)
        (void)snprintf(out, size, "%zu of %zu answers repeat the log word for word; they were left out",
                       r->c.survey.copies, r->c.survey.answers);
    else if (strcmp(id, "retrieval") == 0 && r->c.suspect.model && r->c.gathered.read)
        (void)snprintf(out, size, "the file was read: nothing can be fed to it");
    else if (strcmp(id, "key") == 0)
        (void)snprintf(out, size, "the key is no public one; its commitment is in the plan");
    else if (strcmp(id, "second_hand") == 0 && (result_of(r, "twins") || result_of(r, "canaries")))
        (void)snprintf(out, size, "rows that only one account was given were tested");
}

static json_t *alternatives_of(const run *r)
{
    json_t *list = rt_alternatives_json(r->c.has_key), *o;
    size_t i;
    json_array_foreach(list, i, o)
    {
        char text[200];
        tested_here(r, json_string_value(json_object_get(o, "id")), text, sizeof text);
        (void)json_object_set_new(o, "here", json_string(text[0] ? text : "not tested here"));
    }
    return list;
}

static json_t *record_of(run *r, double began, double seconds)
{
    rt_verdict_facts facts;
    json_t *key = r->c.has_key ? rt_mark_key_public(&r->c.key) : json_null();
    json_t *record =
        json_pack("{s:i,s:s,s:O,s:b,s:f,s:f,s:o,s:O,s:O}", "retort_evidence_record", 1, "version", RT_VERSION,
                  "plan", r->c.plan, "plan_intact", r->c.intact, "started", began, "wall_s", seconds, "key",
                  key, "results", r->results, "accounts", r->accounts);
    if (r->identity)
        (void)json_object_set(record, "identity", r->identity);
    if (r->calibration)
        (void)json_object_set(record, "calibration", r->calibration);
    if (r->c.gathered.read)
        (void)json_object_set_new(record, "reading",
                                  json_pack("{s:I,s:I}", "places", (json_int_t)r->c.gathered.look.places,
                                            "skipped", (json_int_t)r->c.gathered.look.skipped));
    if (r->c.surveyed)
        (void)json_object_set_new(record, "answers",
                                  json_pack("{s:I,s:I,s:I}", "asked", (json_int_t)r->c.survey.answers,
                                            "refusals", (json_int_t)r->c.survey.refusals, "copies",
                                            (json_int_t)r->c.survey.copies));
    if (r->c.endpoint)
        (void)json_object_set_new(record, "endpoint", rt_endpoint_json(r->c.endpoint));
    if (r->c.counts.prompts)
        (void)json_object_set_new(record, "prompt_counts",
                                  json_pack("{s:I,s:I}", "prompts", (json_int_t)r->c.counts.prompts, "alike",
                                            (json_int_t)r->c.counts.alike));
    (void)json_object_set_new(record, "warnings", warnings_of(r));
    (void)json_object_set_new(record, "sampled_tokens", json_integer((json_int_t)r->c.gathered.sampled));
    (void)json_object_set_new(record, "verdict", verdict(r, &facts));
    if (facts.log10_p <= log10(0.05))
        (void)json_object_set_new(record, "alternatives", alternatives_of(r));
    return record;
}

static void print_record(const json_t *record)
{
    size_t i;
    const json_t *o, *v = json_object_get(record, "verdict");
    if (!json_is_true(json_object_get(record, "plan_intact")))
        (void)printf("THE PLAN WAS ALTERED after it was hashed\n");
    json_array_foreach(json_object_get(record, "results"), i, o)
    {
        const char *p = json_string_value(json_object_get(o, "p"));
        if (!json_object_get(o, "z")) {
            (void)printf("%-12s n %-9d %.4g  %s\n", json_string_value(json_object_get(o, "test")),
                         (int)whole(o, "n"), json_number_value(json_object_get(o, "statistic")),
                         json_object_get(o, "note") ? json_string_value(json_object_get(o, "note")) : "");
            continue;
        }
        (void)printf("%-12s n %-9d z %8.2f  p %s%s%s\n", json_string_value(json_object_get(o, "test")),
                     (int)json_integer_value(json_object_get(o, "n")),
                     json_number_value(json_object_get(o, "z")), p ? p : "-",
                     json_object_get(o, "note") ? "  " : "",
                     json_object_get(o, "note") ? json_string_value(json_object_get(o, "note")) : "");
    }
    json_array_foreach(json_object_get(record, "accounts"), i, o)(void)
        printf("%-12s account %s: z %.2f, log10 p %.2f corrected for all accounts\n",
               json_string_value(json_object_get(o, "test")),
               json_string_value(json_object_get(o, "account")), json_number_value(json_object_get(o, "z")),
               json_number_value(json_object_get(o, "log10_p_corrected")));
    if (whole(v, "tests_combined"))
        (void)printf("%s (combined p %s)\n", json_string_value(json_object_get(v, "words")),
                     json_string_value(json_object_get(v, "p")));
    else
        (void)printf("training on outputs: %s (what was run stands each for itself)\n",
                     json_string_value(json_object_get(v, "words")));
    if (json_object_get(v, "missing_for_more"))
        (void)printf("for more, this is missing: %s\n",
                     json_string_value(json_object_get(v, "missing_for_more")));
    json_array_foreach(json_object_get(record, "warnings"), i, o)(void)
        printf("warning: %s\n", json_string_value(o));
    json_array_foreach(json_object_get(record, "identity"), i, o)(void)
        printf("%-12s %s: %d of %d answers claim it, %d of %d prompts (weak: lifts no verdict)\n", "identity",
               json_string_value(json_object_get(o, "name")), (int)whole(o, "k"), (int)whole(o, "n"),
               (int)whole(o, "prompts_claiming"), (int)whole(o, "prompts"));
    json_array_foreach(json_object_get(record, "alternatives"), i, o)(void) printf(
        "%s%s (%s): %s\n", i ? "  " : "other explanations:\n  ",
        json_string_value(json_object_get(o, "explanation")),
        json_string_value(json_object_get(o, "tested_how")), json_string_value(json_object_get(o, "here")));
}

int evidence_run(int argc, char **argv)
{
    const char *plan = NULL, *key = NULL, *calibration = NULL, *out = NULL, *work = NULL;
    size_t threads = 0;
    bool json = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Runs the plan's tests, combines those that speak of outputs, and says what the figures allow:\n"
         "no evidence found, not excluded, indication, strong or very strong evidence; not tested where no\n"
         "test of outputs was run. Every test has its null hypothesis, assumptions and what it cannot say; "
         "watermark tests are checked with random\n"
         "keys. A plan that was altered after it was hashed is run and reported as altered.\n"
         "Exit status 0 whatever is found.\n\n"
         "Examples:\n  retort evidence run plan.json --out record.json\n"
         "  retort evidence run plan.json --calibration calibration.json --json"},
        {CLI_STRING | CLI_REQUIRED, "PLAN", &plan, "from 'retort evidence plan'"},
        {CLI_STRING, "--key KEY", &key, "where the plan's key is, when not where the plan says"},
        {CLI_STRING, "--calibration FILE", &calibration, "from 'retort evidence calibrate'"},
        {CLI_STRING, "--out FILE", &out, "where the record goes"},
        {CLI_STRING, "--work FOLDER", &work,
         "what a server said is kept here; the same command goes on from it"},
        {CLI_COUNT, "--threads N", &threads, "default: one a processor"},
        {CLI_FLAG, "--json", &json, "print the record"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    if (cli_parse(spec, argc, argv, &err) != RT_OK)
        return cli_fail(&err);
    cli_interrupts_watch();
    const double from = rt_clock_seconds(), began = (double)rt_clock_unix_seconds();
    run r = {.c = {.threads = threads, .work = work},
             .results = json_array(),
             .accounts = json_array(),
             .all_checked = true};
    rt_status status = cli_case_open(&r.c, plan, key, &err);
    if (status == RT_OK)
        status = read_calibration(&r, calibration, &err);
    if (status == RT_OK)
        status = cli_case_gather(&r.c, &err);
    if (status == RT_OK)
        status = mark_tests(&r, &err);
    if (status == RT_OK)
        status = cli_case_rows(&r.c, take, &r, &err);
    if (status == RT_OK)
        status = cli_case_texts(&r.c, take, &r, &r.identity, &err);
    if (status == RT_OK)
        status = cli_case_weights(&r.c, take, &r, &err);
    json_t *record = status == RT_OK ? record_of(&r, began, rt_clock_seconds() - from) : NULL;
    if (status == RT_OK && out)
        status = rt_json_write(out, record, &err);
    int exit_status = 0;
    if (status == RT_STOPPED && cli_interrupted())
        (void)cli_stopped(&err, work ? "the same command goes on" : "the same command begins again");
    if (status != RT_OK)
        exit_status = cli_fail(&err);
    else if (json)
        exit_status = cli_print_json(json_incref(record));
    else
        print_record(record);
    json_decref(record);
    json_decref(r.results);
    json_decref(r.accounts);
    json_decref(r.identity);
    json_decref(r.calibration);
    cli_case_close(&r.c);
    return exit_status;
}
