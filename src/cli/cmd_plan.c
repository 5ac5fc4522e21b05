/* cli/cmd_plan.c - `retort plan RECIPE.yaml`: operations, time, memory, disk and money before anything is
 * spent.
 *
 * The figures are gathered into one JSON object; the table is printed from it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/plan_inputs.h"
#include "outputs/price.h"

static const char about[] =
    "What a run takes, from the recipe and the headers of its files; no weights are read.  For this machine\n"
    "the rates are measured once (about ten seconds) and kept; for another one the peak and a utilisation "
    "are\n"
    "used.  docs/plan.md has the formulas.\n"
    "\n"
    "  retort plan recipes/demo.yaml\n"
    "  retort plan recipes/demo.yaml train.tokens=10M --machine H100 --usd-hour 2.5\n"
    "  retort plan tests/golden/plan/deepseek_v3.yaml --machine H800 --nodes 2048 --utilisation 0.374\n"
    "  retort plan --target 40M --from smollm2-135m-instruct\n"
    "  retort plan recipes/prune.yaml --target 100MB output.types=[Q8_0]\n"
    "  retort plan recipes/demo.yaml --prompts 10K --answer-tokens 800 --usd-in 0.5 --usd-out 2";

typedef struct extras {
    double teacher_loss;
    size_t prompts, samples, prompt_tokens, answer_tokens;
    const char *prices, *api_model;
    double usd_in, usd_out;
} extras;

static json_t *shape_json(const rt_cost_shape *s)
{
    return json_pack("{s:s, s:I, s:f, s:f, s:f, s:f}", "family", s->family, "layers", (json_int_t)s->n_layers,
                     "parameters", s->parameters, "active", s->active, "multiplied", s->matmul, "head",
                     s->head);
}

static json_t *scaling_json(plan_inputs *p, const rt_estimate *e, double teacher_loss)
{
    const rt_cost_shape *s = &p->in.student, *t = &p->in.teacher;
    const double n = s->parameters - s->head - s->embedding, nt = t->parameters - t->head - t->embedding;
    if (nt <= 0 && teacher_loss <= 0)
        return json_null();
    const bool assumed = teacher_loss <= 0;
    if (assumed) /* a teacher trained on as much as the law has seen */
        teacher_loss = rt_scaling_loss_supervised(&rt_scaling_supervised_2025, nt, 512e9);
    const bool valid = rt_scaling_is_valid(n, e->tokens) && (nt <= 0 || rt_scaling_is_valid(nt, 1));
    if (!valid)
        plan_note(
            p, "the scaling law was fitted on models of 143 M to 12.6 B parameters and up to 512 G tokens: "
               "here it is extrapolated");
    if (assumed)
        plan_note(
            p, "the teacher's loss is the law's for a model of its size after 512 G tokens; --teacher-loss "
               "gives the real one");
    return json_pack(
        "{s:f, s:b, s:f, s:f, s:b, s:s}", "teacher_loss", teacher_loss, "teacher_loss_assumed", assumed,
        "student_distilled",
        rt_scaling_loss_distilled(&rt_scaling_distilled_2025, &rt_scaling_supervised_2025, n, e->tokens,
                                  teacher_loss),
        "student_alone", rt_scaling_loss_supervised(&rt_scaling_supervised_2025, n, e->tokens), "valid",
        valid, "source",
        "Busbridge et al. 2025, Distillation Scaling Laws; random starts, their data and tokenizer");
}

static json_t *api_json(const extras *x)
{
    const rt_estimate_api api = {.prompts = (double)x->prompts,
                                 .samples = (double)x->samples,
                                 .prompt_tokens = (double)x->prompt_tokens,
                                 .answer_tokens = (double)x->answer_tokens,
                                 .usd_in = x->usd_in,
                                 .usd_out = x->usd_out};
    if (x->prompts == 0)
        return json_null();
    return json_pack("{s:I, s:f, s:f, s:f}", "requests", (json_int_t)(x->prompts * x->samples),
                     "prompt_tokens", api.prompts * api.samples * api.prompt_tokens, "answer_tokens",
                     api.prompts * api.samples * api.answer_tokens, "usd", rt_estimate_api_usd(&api));
}

static json_t *stream_json(const plan_inputs *p)
{
    const rt_estimate_stream *s = &p->stream;
    if (!p->streams)
        return json_null();
    return json_pack("{s:f, s:f, s:I, s:f, s:f, s:f, s:f, s:f, s:b, s:f}", "disk_bytes_per_s", p->stream_disk,
                     "layer_bytes", p->stream_layer_bytes, "stream_tokens", (json_int_t)p->stream_tokens,
                     "read_s", s->read_s, "load_s", s->load_s, "compute_s", s->compute_s, "pass_s", s->pass_s,
                     "pass_tokens_per_s", s->tokens_per_s, "disk_bound", s->disk_bound, "tokens_balanced",
                     s->tokens_balanced);
}

static json_t *machine_json(const plan_inputs *p)
{
    const rt_machine *m = &p->machine;
    json_t *out = json_pack("{s:s, s:b, s:I, s:f}", "name", m->name, "measured", m->measured, "devices",
                            (json_int_t)p->in.devices, "memory_bytes", m->memory);
    if (m->measured)
        (void)json_object_set_new(out, "rates", rt_machine_rates_to_json(m));
    else
        (void)json_object_update_new(
            out, json_pack("{s:f, s:f}", "bf16_flops", m->bf16, "utilisation", m->utilisation));
    return out;
}

static json_t *results_json(plan_inputs *p, const extras *x)
{
    rt_estimate e;
    rt_estimate_make(&e, &p->in);
    const rt_estimate_text *text = &p->in.text;
    json_t *out = json_pack(
        "{s:o, s:o, s:o, s:{s:b, s:f, s:f, s:f, s:f, s:f}, s:{s:I, s:f}, s:{s:f, s:f, s:f, s:f, s:f}}",
        "student", shape_json(&p->in.student), "teacher",
        p->in.teacher.n_layers ? shape_json(&p->in.teacher) : json_null(), "machine", machine_json(p), "text",
        "read", text->read, "documents", text->documents, "tokens", text->tokens, "batch_tokens",
        text->batch_tokens, "batch_rows", text->batch_rows, "length", text->length, "run", "steps",
        (json_int_t)p->in.steps, "tokens", e.tokens, "flops", "student_token", e.flops.student_token,
        "teacher_token", e.flops.teacher_token, "attention_share", e.flops.attention_share, "total",
        e.flops.total, "rule_6nd", e.flops.rule_6nd);
    json_t *more = json_pack(
        "{s:{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}, s:{s:f, s:f, s:f, s:f, s:f, s:f, s:b}, "
        "s:{s:f, s:f, s:f, s:f, s:f, s:f, s:f}}",
        "time", "step_s", e.time.step_s, "teacher_s", e.time.teacher_s, "student_s", e.time.student_s,
        "head_s", e.time.head_s, "update_s", e.time.update_s, "tokens_per_s", e.time.tokens_per_s, "total_s",
        e.time.total_s, "device_hours", e.time.device_hours, "usd", e.time.usd, "memory", "arenas",
        e.memory.arenas, "teacher", e.memory.teacher, "mapped", e.memory.mapped, "text", e.memory.text,
        "program", e.memory.program, "peak_bytes", e.memory.peak, "fits", e.memory.fits, "disk", "log",
        e.disk.log, "checkpoint", e.disk.checkpoint, "student", e.disk.student, "outputs", e.disk.outputs,
        "total", e.disk.total, "store_draws", e.disk.store_draws, "store_topk", e.disk.store_topk);
    (void)json_object_update_new(out, more);
    if (p->in.network > 0)
        (void)json_object_set_new(out, "network",
                                  json_pack("{s:f, s:f, s:f, s:f, s:f}", "bytes_sent", e.time.network_bytes,
                                            "reduce_s", e.time.reduce_s, "gather_s", e.time.gather_s,
                                            "waiting_s", e.time.waiting_s, "efficiency", e.time.efficiency));
    if (text->teacher_tokens > 0)
        (void)json_object_set_new(json_object_get(out, "text"), "teacher_tokens",
                                  json_real(text->teacher_tokens));
    if (p->in.factors.trained > 0)
        (void)json_object_set_new(
            out, "factors",
            json_pack("{s:f, s:f}", "rank", p->in.factors.rank, "trained", p->in.factors.trained));
    if (p->in.adapters.trained > 0)
        (void)json_object_set_new(out, "adapters",
                                  json_pack("{s:f, s:f, s:f}", "rank", p->in.adapters.rank, "trained",
                                            p->in.adapters.trained, "bytes", e.disk.adapter));
    (void)json_object_set_new(out, "scaling", scaling_json(p, &e, x->teacher_loss));
    (void)json_object_set_new(out, "api", api_json(x));
    (void)json_object_set_new(out, "stream", stream_json(p));
    json_t *notes = json_array();
    for (size_t i = 0; i < p->n_notes; i++)
        (void)json_array_append_new(notes, json_string(p->notes[i]));
    (void)json_object_set_new(out, "notes", notes);
    return out;
}

/* ---- the table ---- */

static double real(const json_t *json, const char *group, const char *key)
{
    return json_number_value(json_object_get(json_object_get(json, group), key));
}

/* "671 G": three digits and a prefix of thousands, so that a unit may follow. */
const char *plan_short_number(char out[24], double x)
{
    static const char *const units[] = {"", " k", " M", " G", " T", " P", " E", " Z", " Y"};
    size_t unit = 0;
    while (fabs(x) >= 999.5 && unit + 1 < sizeof units / sizeof units[0]) {
        x /= 1000;
        unit++;
    }
    (void)snprintf(out, 24, "%.*f%s",
                   x >= 99.95 || (unit == 0 && x == floor(x)) ? 0
                   : x >= 9.995                               ? 1
                                                              : 2,
                   x, units[unit]);
    return out;
}

const char *plan_bytes(char out[24], double x)
{
    (void)plan_short_number(out, x);
    (void)snprintf(out + strlen(out), 24 - strlen(out), "%s", fabs(x) < 999.5 ? " B" : "B");
    return out;
}

static const char *duration(char out[24], double s)
{
    if (s < 120)
        (void)snprintf(out, 24, "%.0f s", s);
    else if (s < 2 * 3600)
        (void)snprintf(out, 24, "%.1f minutes", s / 60);
    else if (s < 2 * 86400)
        (void)snprintf(out, 24, "%.1f hours", s / 3600);
    else
        (void)snprintf(out, 24, "%.1f days", s / 86400);
    return out;
}

static void print_model(const json_t *json, const char *which)
{
    char a[24], b[24];
    const json_t *m = json_object_get(json, which);
    if (!json_is_object(m))
        return;
    const double parameters = json_number_value(json_object_get(m, "parameters"));
    const double active = json_number_value(json_object_get(m, "active"));
    (void)printf("%-12s%s, %d layers, %s parameters", which, json_string_value(json_object_get(m, "family")),
                 (int)json_integer_value(json_object_get(m, "layers")), plan_short_number(a, parameters));
    if (active < parameters)
        (void)printf(", %s active", plan_short_number(b, active));
    (void)printf("\n");
}

static void print_time(const json_t *json)
{
    char a[24], b[24], c[24];
    const json_t *machine = json_object_get(json, "machine");
    const bool measured = json_is_true(json_object_get(machine, "measured"));
    (void)printf("%-12s%s", "machine", json_string_value(json_object_get(machine, "name")));
    if (!measured)
        (void)printf(
            ", %.0f of them, %s FLOP/s in bf16 each, utilisation %.3g", real(json, "machine", "devices"),
            plan_short_number(a, real(json, "machine", "bf16_flops")), real(json, "machine", "utilisation"));
    (void)printf("%s\n", measured ? ", as measured" : "");
    (void)printf("%-12s%s: %s tokens/s, %.3g s a step", "time", duration(a, real(json, "time", "total_s")),
                 plan_short_number(b, real(json, "time", "tokens_per_s")), real(json, "time", "step_s"));
    const double step = real(json, "time", "step_s");
    if (measured)
        (void)printf(" (teacher %.0f%%, student %.0f%%, heads and loss %.0f%%, update %.0f%%)",
                     100 * real(json, "time", "teacher_s") / step,
                     100 * real(json, "time", "student_s") / step, 100 * real(json, "time", "head_s") / step,
                     100 * real(json, "time", "update_s") / step);
    (void)printf("\n");
    if (json_object_get(json, "network"))
        (void)printf(
            "%-12s%s sent by each a step, %.3g s for gradients and %.3g s for parameters, %.3g s of it not "
            "hidden: %.0f%% of %.0f times one\n",
            "network", plan_bytes(a, real(json, "network", "bytes_sent")), real(json, "network", "reduce_s"),
            real(json, "network", "gather_s"), real(json, "network", "waiting_s"),
            100 * real(json, "network", "efficiency"), real(json, "machine", "devices"));
    if (!measured || real(json, "time", "usd") > 0)
        (void)printf("%-12s%s device hours, %s US$\n", "cost",
                     plan_short_number(b, real(json, "time", "device_hours")),
                     plan_short_number(c, real(json, "time", "usd")));
}

static void print_sizes(const json_t *json)
{
    char a[24], b[24], c[24], d[24];
    (void)printf(
        "%-12s%s a device at peak: trainer %s, teacher %s, mapped files %s%s\n", "memory",
        plan_bytes(a, real(json, "memory", "peak_bytes")), plan_bytes(b, real(json, "memory", "arenas")),
        plan_bytes(c, real(json, "memory", "teacher")), plan_bytes(d, real(json, "memory", "mapped")),
        json_is_false(json_object_get(json_object_get(json, "memory"), "fits"))
            ? "; MORE THAN THE MACHINE HAS"
            : "");
    (void)printf("%-12s%s: checkpoint %s (twice while it is written), student %s, GGUF files %s\n", "disk",
                 plan_bytes(a, real(json, "disk", "total")), plan_bytes(b, real(json, "disk", "checkpoint")),
                 plan_bytes(c, real(json, "disk", "student")), plan_bytes(d, real(json, "disk", "outputs")));
    (void)printf(
        "%-12sof the teacher's outputs for this text: %s with 12 draws a token, %s with the top 50\n",
        "store", plan_bytes(a, real(json, "disk", "store_draws")),
        plan_bytes(b, real(json, "disk", "store_topk")));
}

static void print_table(const json_t *json)
{
    char a[24], b[24], c[24], d[24], e[24];
    print_model(json, "teacher");
    print_model(json, "student");
    if (json_object_get(json, "factors"))
        (void)printf("%-12sof the embedding, rank %.0f: %s values are trained\n", "factors",
                     real(json, "factors", "rank"), plan_short_number(a, real(json, "factors", "trained")));
    if (json_object_get(json, "adapters"))
        (void)printf("%-12srank %.0f, %s values are trained\n", "adapters", real(json, "adapters", "rank"),
                     plan_short_number(a, real(json, "adapters", "trained")));
    (void)printf("%-12s%s steps, %s tokens", "run", plan_short_number(a, real(json, "run", "steps")),
                 plan_short_number(b, real(json, "run", "tokens")));
    if (json_is_true(json_object_get(json_object_get(json, "text"), "read")))
        (void)printf("; the text: %s documents, %s tokens",
                     plan_short_number(a, real(json, "text", "documents")),
                     plan_short_number(c, real(json, "text", "tokens")));
    if (json_object_get(json_object_get(json, "text"), "teacher_tokens"))
        (void)printf("; %.3g of the teacher's for each", real(json, "text", "teacher_tokens"));
    (void)printf(
        "\n%-12s%s FLOP a token (%.1f%% of it attention), %s in all; by the rule 6 N D: %s\n", "arithmetic",
        plan_short_number(a, real(json, "flops", "student_token") + real(json, "flops", "teacher_token")),
        100 * real(json, "flops", "attention_share"), plan_short_number(b, real(json, "flops", "total")),
        plan_short_number(c, real(json, "flops", "rule_6nd")));
    print_time(json);
    print_sizes(json);
    const json_t *api = json_object_get(json, "api"), *scaling = json_object_get(json, "scaling");
    if (json_is_object(api))
        (void)printf("%-12s%s requests, %s tokens in, %s out: %.2f US$\n", "answers",
                     plan_short_number(a, real(json, "api", "requests")),
                     plan_short_number(b, real(json, "api", "prompt_tokens")),
                     plan_short_number(c, real(json, "api", "answer_tokens")), real(json, "api", "usd"));
    const json_t *stream = json_object_get(json, "stream");
    if (json_is_object(stream))
        (void)printf(
            "%-12s%s of layers from a disk of %s/s in %.3g s a pass of %s tokens: %s tokens/s, bound by %s; "
            "%s tokens balance both\n",
            "streaming", plan_bytes(a, real(json, "stream", "layer_bytes")),
            plan_bytes(b, real(json, "stream", "disk_bytes_per_s")), real(json, "stream", "pass_s"),
            plan_short_number(c, real(json, "stream", "stream_tokens")),
            plan_short_number(d, real(json, "stream", "pass_tokens_per_s")),
            json_is_true(json_object_get(stream, "disk_bound")) ? "reading" : "computing",
            plan_short_number(e, floor(real(json, "stream", "tokens_balanced"))));
    if (json_is_object(scaling))
        (void)printf("%-12sstudent from a random start: %.3f nats a token distilled, %.3f trained alone; "
                     "teacher %.3f\n%-12s(%s)\n",
                     "to expect", real(json, "scaling", "student_distilled"),
                     real(json, "scaling", "student_alone"), real(json, "scaling", "teacher_loss"), "",
                     json_string_value(json_object_get(scaling, "source")));
    size_t i;
    json_t *note;
    json_array_foreach(json_object_get(json, "notes"), i, note)(void)
        printf("%-12s%s\n", i ? "" : "notes", json_string_value(note));
}

/* The prices of --prices, where it is given. */
static rt_status read_prices(extras *x, rt_error *err)
{
    rt_price price;
    if (!x->prices != !x->api_model)
        return rt_error_set(err, RT_INVALID, "plan: --prices and --api-model belong together");
    if (!x->prices)
        return RT_OK;
    if (x->usd_in > 0 || x->usd_out > 0)
        return rt_error_set(err, RT_INVALID, "plan: give --prices, or --usd-in and --usd-out");
    if (rt_price_read(&price, x->prices, x->api_model, err) != RT_OK)
        return err->status;
    x->usd_in = price.input;
    x->usd_out = price.output;
    return RT_OK;
}

static int propose(const plan_target *target, const char *recipe, const cli_rest *words,
                   const plan_options *options, bool json_wanted)
{
    json_t *json = NULL;
    rt_error err = {0};
    const bool is_word = recipe && strchr(recipe, '=') && !rt_path_exists(recipe); /* no recipe was named */
    char **all = calloc(words->count + 1, sizeof *all);
    size_t n = 0;
    if (all && is_word)
        all[n++] = (char *)(uintptr_t)recipe;
    for (size_t i = 0; all && i < words->count; i++)
        all[n++] = words->items[i];
    if (!all)
        (void)rt_error_set(&err, RT_NO_MEMORY, "no memory for %zu words", words->count);
    else
        (void)plan_target_json(&json, target, is_word ? NULL : recipe, all, n, options, &err);
    free(all);
    if (!json)
        return cli_fail(&err);
    if (json_wanted)
        return cli_print_json(json);
    plan_target_print(json);
    json_decref(json);
    return 0;
}

int cmd_plan(int argc, char **argv)
{
    const char *recipe = NULL;
    bool json_wanted = false;
    plan_target target = {.n_max = 6};
    plan_options options = {.machine = "this", .nodes = 1, .latency_us = 20, .stream_tokens = 16384};
    extras x = {.samples = 1, .prompt_tokens = 200, .answer_tokens = 500};
    cli_rest words = {0};
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL, about},
        {CLI_STRING, "[RECIPE.yaml]", &recipe, "the settings; docs/recipes.md lists the keys"},
        {CLI_REST, "[key=value]", &words, "settings that win over the recipe's"},
        {CLI_STRING, "--target SIZE", &target.target,
         "propose students of this size: 40M (parameters) or 100MB (the first of output.types)"},
        {CLI_STRING, "--from MODEL", &target.from, "what they are cut out of (default: teacher.model)"},
        {CLI_COUNT, "--shapes N", &target.n_max, "at most so many (default 6)"},
        {CLI_STRING, "--machine M", &options.machine,
         "this (default), H100, H200, H800, A100, or a JSON file"},
        {CLI_COUNT, "--nodes N", &options.nodes, "how many of them (default 1)"},
        {CLI_REAL, "--network B", &options.network,
         "GB/s each way between them: gradients and parameters go by a ring (default: costs nothing)"},
        {CLI_REAL, "--latency U", &options.latency_us, "microseconds a message (default 20)"},
        {CLI_REAL, "--utilisation U", &options.utilisation,
         "share of the peak that is reached (default 0.35)"},
        {CLI_REAL, "--usd-hour P", &options.usd_hour, "price of one for an hour"},
        {CLI_COUNT, "--threads N", &options.threads, "of this machine (default: the recipe's)"},
        {CLI_FLAG, "--no-text", &options.no_text, "do not count the training text"},
        {CLI_FLAG, "--measure", &options.measure,
         "measure this machine again: the kept rates may be of a busy hour"},
        {CLI_FLAG, "--stream", &options.stream, "the teacher's layers come from disk: what a pass takes"},
        {CLI_COUNT, "--stream-tokens N", &options.stream_tokens,
         "that go through it together (default 16384)"},
        {CLI_REAL, "--disk-rate B", &options.disk, "bytes/s (default: measured on the teacher's file)"},
        {CLI_REAL, "--teacher-loss L", &x.teacher_loss, "nats a token, for the scaling law"},
        {CLI_COUNT, "--prompts N", &x.prompts, "price answers from a paid server: how many prompts"},
        {CLI_COUNT, "--samples N", &x.samples, "answers a prompt (default 1)"},
        {CLI_COUNT, "--prompt-tokens N", &x.prompt_tokens, "of a prompt (default 200)"},
        {CLI_COUNT, "--answer-tokens N", &x.answer_tokens, "of an answer (default 500)"},
        {CLI_STRING, "--prices FILE", &x.prices, "collect's price table, for --api-model"},
        {CLI_STRING, "--api-model NAME", &x.api_model, "whose entry of it counts"},
        {CLI_REAL, "--usd-in P", &x.usd_in, "US$ a million prompt tokens"},
        {CLI_REAL, "--usd-out P", &x.usd_out, "US$ a million answer tokens"},
        {CLI_FLAG, "--json", &json_wanted, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    plan_inputs p = {0};
    rt_status status = cli_parse(spec, argc, argv, &err);
    if (status == RT_OK && (options.utilisation < 0 || options.utilisation > 1))
        status = rt_error_set(&err, RT_INVALID, "--utilisation %g is not in 0..1", options.utilisation);
    if (status == RT_OK && (options.stream_tokens == 0 || options.stream_tokens > 1 << 30))
        status = rt_error_set(&err, RT_INVALID, "--stream-tokens %zu is not in 1..%d", options.stream_tokens,
                              1 << 30);
    if (status == RT_OK)
        status = read_prices(&x, &err);
    if (status == RT_OK && !recipe && !target.target)
        status = rt_error_set(&err, RT_INVALID, "plan: RECIPE.yaml is missing; or give --target SIZE");
    if (status == RT_OK && target.from && !target.target)
        status = rt_error_set(&err, RT_INVALID, "plan: --from belongs to --target SIZE");
    if (status == RT_OK && target.target)
        return propose(&target, recipe, &words, &options, json_wanted);
    if (status == RT_OK)
        status = plan_inputs_read(&p, recipe, words.items, words.count, &options, &err);
    if (status != RT_OK) {
        plan_inputs_close(&p);
        return cli_fail(&err);
    }
    json_t *json = results_json(&p, &x);
    plan_inputs_close(&p);
    if (json_wanted)
        return cli_print_json(json);
    print_table(json);
    json_decref(json);
    return 0;
}
