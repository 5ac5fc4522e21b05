/* cli/outputs_audit.c - `retort outputs audit`: recorded log-probabilities against the model at hand. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "cli/cli.h"
#include "cli/open_model.h"
#include "cli/outputs.h"
#include "cli/progress.h"
#include "judge/audit.h"

enum { NAMED = 8 }; /* documents that are named */

typedef struct arguments {
    const char *store, *model, *precision;
    size_t documents, threads;
    bool quiet, json;
} arguments;

typedef struct session {
    rt_pool *pool;
    rt_reader *reader;
    cli_model held, other;
    const char *precision, *other_precision;
    cli_progress bar;
    bool shown, quiet;
} session;

/* The recorded precision where the manifest has it (a server's is not known: full precision then, with the
 * noise of int8 allowed for), and another one for the noise. */
static void choose_precisions(session *s, const arguments *a)
{
    const char *recorded = json_string_value(
        json_object_get(json_object_get(rt_reader_manifest(s->reader), "teacher"), "precision"));
    const bool known =
        recorded && (!strcmp(recorded, "bf16") || !strcmp(recorded, "int8") || !strcmp(recorded, "f32"));
    s->precision = a->precision ? a->precision : known ? recorded : "f32";
    s->other_precision = strcmp(s->precision, "f32") != 0 ? "f32" : known ? "bf16" : "int8";
}

static rt_status open_all(session *s, const arguments *a, rt_error *err)
{
    if (rt_reader_open(&s->reader, a->store, err) != RT_OK ||
        rt_pool_open(&s->pool, (unsigned)rt_size_min(a->threads, 1 << 16), err) != RT_OK)
        return err->status;
    choose_precisions(s, a);
    if (cli_model_open(&s->held, a->model, cli_precision(s->precision), CLI_MODEL_NO_TEMPLATE, s->pool,
                       err) != RT_OK ||
        cli_model_open(&s->other, a->model, cli_precision(s->other_precision), CLI_MODEL_NO_TEMPLATE, s->pool,
                       err) != RT_OK)
        return err->status;
    const char *hash = json_string_value(
        json_object_get(json_object_get(rt_reader_manifest(s->reader), "teacher"), "tokenizer_hash"));
    if (hash && *hash && strcmp(hash, rt_tokenizer_hash(s->held.tokenizer)) != 0)
        return rt_error_set(err, RT_MISMATCH,
                            "%.200s was recorded with another tokenizer than %.200s has: its ids mean other "
                            "tokens",
                            a->store, a->model);
    return RT_OK;
}

static bool show(void *context, size_t done, size_t total)
{
    session *s = context;
    if (!s->shown && !s->quiet)
        cli_progress_open(&s->bar, "audit", 0, total, 10);
    s->shown = true;
    if (!s->quiet)
        cli_progress_update(&s->bar, done, "");
    return !cli_interrupted();
}

static bool beyond(const rt_audit_result *r, size_t d)
{
    return r->documents[d].sum > RT_AUDIT_DOCUMENT * r->bound * r->documents[d].rows;
}

static json_t *result_json(const session *s, const arguments *a, const rt_audit_result *r)
{
    json_t *list = json_array();
    for (size_t d = 0; d < r->n_documents; d++)
        if (beyond(r, d))
            (void)json_array_append_new(list, json_integer((json_int_t)r->documents[d].number));
    return json_pack("{s:s,s:s,s:b,s:I,s:I,s:o,s:f,s:f,s:f,s:o,s:s,s:s,s:o}", "store", a->store, "model",
                     s->held.path, "same", r->same, "documents", (json_int_t)r->n_documents, "rows",
                     (json_int_t)r->rows, "difference", rt_interval_json(&r->difference), "noise", r->noise,
                     "code_error", r->code_error, "bound", r->bound, "top1",
                     isnan(r->top1) ? json_null() : json_real(r->top1), "precision", s->precision,
                     "noise_against", s->other_precision, "documents_beyond", list);
}

static void print(const session *s, const arguments *a, const rt_audit_result *r)
{
    (void)printf("%s: %s\n", a->store,
                 r->same ? "its log-probabilities are those of this model"
                         : "its log-probabilities are not those of this model");
    (void)printf("%-36s%.5f", "mean difference, nats", r->difference.value);
    (void)printf(isnan(r->difference.lo) ? "\n" : " [%.5f, %.5f]\n", r->difference.lo, r->difference.hi);
    (void)printf("%-36s%.5f: the noise of %s against %s (%.5f), the codes' rounding (%.5f), %.3f\n", "bound",
                 r->bound, s->precision, s->other_precision, r->noise, r->code_error, RT_AUDIT_FLOOR);
    if (!isnan(r->top1))
        (void)printf("%-36s%.2f%%\n", "the same most probable id", 100 * r->top1);
    (void)printf("%-36s%zu, %.0f rows\n", "documents", r->n_documents, r->rows);
    if (!r->n_beyond)
        return;
    (void)printf("%-36s%zu:", "documents far beyond the bound", r->n_beyond);
    for (size_t d = 0, named = 0; d < r->n_documents && named < NAMED; d++)
        if (beyond(r, d) && ++named)
            (void)printf(" %llu", (unsigned long long)r->documents[d].number);
    (void)printf(r->n_beyond > NAMED ? " ...\n" : "\n");
}

int cli_outputs_audit(int argc, char **argv)
{
    arguments a = {.documents = 200};
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "The model reads recorded texts again, and what it says at the kept ids is compared.  Equal they "
         "never are:\n"
         "codes are rounded, and arithmetic has noise, which is measured on the same rows.  Ends with status "
         "3 when\n"
         "they are further apart than that: another model, another version of it, or one that was changed "
         "midway.\n\n"
         "Examples:\n"
         "  retort outputs audit store --model smollm2-135m-instruct\n"
         "  retort outputs audit store --model T.gguf --documents 0 --json"},
        {CLI_STRING | CLI_REQUIRED, "DIR", &a.store, "the store"},
        {CLI_STRING | CLI_REQUIRED, "--model MODEL", &a.model, "whose they should be"},
        {CLI_COUNT, "--documents N", &a.documents, "so many, spread evenly (default 200; 0: all)"},
        {CLI_STRING, "--precision " CLI_PRECISIONS, &a.precision,
         "how the model computes (default: as was recorded; where\nthat is not known f32)"},
        {CLI_COUNT, "--threads N", &a.threads, "default: one a processor"},
        {CLI_FLAG, "--quiet", &a.quiet, "no progress bar"},
        {CLI_FLAG, "--json", &a.json, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    session s = {0};
    rt_audit_result result = {0};
    rt_status status = cli_parse(spec, argc, argv, &err);
    s.quiet = a.quiet;
    cli_interrupts_watch();
    const rt_audit_options options = {.documents = a.documents, .progress = show, .context = &s};
    if (status == RT_OK && (status = open_all(&s, &a, &err)) == RT_OK)
        status = rt_audit(&result, s.reader, s.held.model, s.other.model, &options, &err);
    if (s.shown && !s.quiet)
        cli_progress_close(&s.bar);
    int code = status == RT_OK ? 0 : cli_fail(&err);
    if (status == RT_OK && a.json)
        code = cli_print_json(result_json(&s, &a, &result));
    else if (status == RT_OK)
        print(&s, &a, &result);
    if (status == RT_OK && code == 0 && !result.same)
        code = rt_status_exit_code(RT_CHECK_FAILED);
    rt_audit_result_deinit(&result);
    rt_reader_close(s.reader);
    cli_model_close(&s.other);
    cli_model_close(&s.held);
    rt_pool_close(s.pool);
    return code;
}
