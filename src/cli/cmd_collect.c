/* cli/cmd_collect.c - `retort collect`: asks a teacher and keeps what it says, resumable, exactly once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "cli/collect_check.h"
#include "cli/collect_instruct.h"
#include "cli/collect_settings.h"
#include "cli/collect_terms.h"
#include "cli/commands.h"
#include "cli/progress.h"
#include "teacher/batch.h"

/* Limits of answers are needed where spending is limited and none was given. */
enum { ANSWER_TOKENS_MAX = 4096 };

typedef struct run {
    collect_settings settings;
    rt_settings *owner;
    rt_collect_options options;
    rt_teacher *teacher;
    json_t *params, *identity, *facts, *source;
    char *base;
    bool json, json_progress, permitted, dry_run, batch_api;
    double json_shown;
    size_t instruct; /* prompts to be made up; 0: none */
    cli_progress bar;
    bool bar_open;
} run;

static const char about[] =
    "Asks every prompt of the files and keeps the answers: a row each in FILE.jsonl, or in the folder of an\n"
    "outputs store. Stopped (Ctrl-C) or killed, the same command goes on: nothing is asked twice but what "
    "was\n"
    "in flight. Rows without an answer go to FILE.rejected.jsonl with the reason.\n"
    "\n"
    "Rows of --in: {\"prompt\"}, {\"messages\"}, {\"conversations\"} (ShareGPT), {\"instruction\", "
    "\"input\"},\n"
    "OpenAI Batch requests, or lines of a .txt file. Settings may stand in a recipe (--recipe, and "
    "key=value\n"
    "words); 'retort collect --print-recipe' shows all of them. Ctrl-C once waits for what is in flight, "
    "twice\n"
    "stops at once.\n"
    "\n"
    "Examples:\n"
    "  retort collect --in prompts.jsonl --out rows.jsonl --url http://127.0.0.1:8000 --model m --max-tokens "
    "256\n"
    "  retort collect --in p.jsonl --out store/ --url https://api.example.com/v1 --model m --key-env "
    "API_KEY\n"
    "      --logprobs 20 --samples 4 --prices prices.yaml --spend-max 25usd\n"
    "  retort collect --check http://127.0.0.1:8000";

/* ---- progress ---- */

static rt_status show_json(run *r, const rt_collect_progress *p)
{
    const double now = rt_clock_seconds();
    if (now - r->json_shown < 1)
        return RT_OK;
    r->json_shown = now;
    const rt_collect_totals *t = p->totals;
    json_t *line = json_pack("{s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:I, s:I, s:I, s:I, s:f}", "rows",
                             (json_int_t)t->rows, "rejected", (json_int_t)t->rejected, "rows_total",
                             (json_int_t)p->rows_total, "prompt_tokens", (json_int_t)t->usage.prompt,
                             "completion_tokens", (json_int_t)t->usage.completion, "money", t->money,
                             "elapsed_s", p->elapsed_s, "in_flight", (json_int_t)p->state->in_flight, "limit",
                             (json_int_t)p->state->limit, "retries", (json_int_t)p->state->retries, "limited",
                             (json_int_t)p->state->limited, "paused_s", p->state->paused_s);
    char *text = line ? json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    if (text)
        (void)fprintf(stderr, "%s\n", text);
    free(text);
    json_decref(line);
    return RT_OK;
}

static void show_bar(run *r, const rt_collect_progress *p)
{
    char figures[160];
    const rt_collect_totals *t = p->totals;
    const double rate = p->elapsed_s > 0 ? (double)p->tokens_here / p->elapsed_s : 0;
    int n = snprintf(figures, sizeof figures, "%llu rows  %.0f tok/s  %zu at once",
                     (unsigned long long)t->rows, rate, p->state->in_flight);
    if (n > 0 && (size_t)n < sizeof figures && t->rejected + p->state->failures)
        n += snprintf(figures + n, sizeof figures - (size_t)n, "  %llu errors",
                      (unsigned long long)(t->rejected + p->state->failures));
    if (n > 0 && (size_t)n < sizeof figures && r->options.price.known)
        n += snprintf(figures + n, sizeof figures - (size_t)n, "  %.2f %s", t->money,
                      r->options.price.currency);
    if (n > 0 && (size_t)n < sizeof figures && p->state->paused_s > 0.5)
        (void)snprintf(figures + n, sizeof figures - (size_t)n, "  paused %.0f s", p->state->paused_s);
    if (!r->bar_open) {
        cli_progress_open(&r->bar, "collect", p->rows_before, p->rows_total, 10);
        r->bar_open = true;
    }
    r->bar.total = p->rows_total ? p->rows_total : 1;
    cli_progress_update(&r->bar, t->rows + t->rejected, figures);
}

static rt_status progress(void *context, const rt_collect_progress *p, rt_error *err)
{
    run *r = context;
    if (cli_interrupted())
        return rt_error_set(err, RT_STOPPED, "stopped");
    if (r->json_progress)
        return show_json(r, p);
    show_bar(r, p);
    return RT_OK;
}

/* ---- setting up ---- */

static rt_status open_batch(run *r, const char *key, rt_error *err)
{
    const collect_settings *s = &r->settings;
    const char *out = s->output.out;
    rt_text state = {0};
    rt_text_printf(&state, "%s%sbatches.json", out, rt_collect_out_is_file(out) ? "." : "/");
    const rt_batch_options options = {.url = s->teacher.url,
                                      .model = s->teacher.model,
                                      .key = key,
                                      .state = state.data,
                                      .top_logprobs = s->ask.logprobs,
                                      .keep_raw = s->output.format == 1,
                                      .poll_s = s->net.poll_s,
                                      .n_vocab = s->teacher.n_vocab,
                                      .licence = s->teacher.licence,
                                      .terms = s->teacher.terms,
                                      .forbids_training = s->teacher.forbids_training};
    const rt_status status = state.failed ? rt_error_set(err, RT_NO_MEMORY, "no memory for a name")
                                          : rt_batch_open(&r->teacher, &options, err);
    rt_text_deinit(&state);
    return status;
}

static rt_status open_remote(run *r, rt_error *err)
{
    const collect_settings *s = &r->settings;
    size_t concurrency = 0;
    if (strcmp(s->net.concurrency, "auto") != 0 &&
        (!rt_parse_count(&concurrency, s->net.concurrency) || concurrency < 1 || concurrency > 4096))
        return rt_error_set(err, RT_INVALID,
                            "net.concurrency: '%.40s' is neither auto nor a number from 1 to 4096",
                            s->net.concurrency);
    const char *key = "";
    if (s->teacher.key_env[0]) {
        key = getenv(s->teacher.key_env);
        if (!key || !key[0])
            return rt_error_set(err, RT_INVALID,
                                "the environment variable %.80s is not set; it should hold the key",
                                s->teacher.key_env);
    }
    if (r->batch_api)
        return open_batch(r, key, err);
    const rt_remote_options options = {.url = s->teacher.url,
                                       .model = s->teacher.model,
                                       .key = key,
                                       .completions = s->ask.endpoint == 1,
                                       .stream = s->ask.stream,
                                       .keep_raw = s->output.format == 1,
                                       .token_ids = s->ask.token_ids,
                                       .top_logprobs = s->ask.logprobs,
                                       .attempts = s->net.attempts,
                                       .concurrency = concurrency,
                                       .concurrency_max = concurrency ? concurrency : s->net.concurrency_max,
                                       .timeout_s = s->net.timeout_s,
                                       .silence_s = s->net.silence_s,
                                       .patience_s = s->net.patience_s,
                                       .n_vocab = s->teacher.n_vocab,
                                       .licence = s->teacher.licence,
                                       .terms = s->teacher.terms,
                                       .forbids_training = s->teacher.forbids_training,
                                       .seed = (uint64_t)rt_clock_unix_seconds()};
    return rt_remote_open(&r->teacher, &options, err);
}

/* What makes two runs the same; how fast and how patiently they ask does not. */
static rt_status make_facts(run *r, rt_error *err)
{
    const collect_settings *s = &r->settings;
    const rt_teacher_info *info = rt_teacher_info_of(r->teacher);
    r->params = collect_params(s, err);
    if (!r->params)
        return err->status;
    if ((r->options.spend_max.money > 0 || r->options.spend_max.tokens) &&
        !json_object_get(r->params, "max_tokens") && !json_object_get(r->params, "max_completion_tokens")) {
        (void)json_object_set_new(r->params, "max_tokens", json_integer(ANSWER_TOKENS_MAX));
        (void)fprintf(stderr, "retort: with a limit of spending every answer has one too: max_tokens %d\n",
                      (int)ANSWER_TOKENS_MAX);
    }
    if (s->teacher.file[0] &&
        s->ask.logprobs) { /* a server is asked by the remote teacher, which knows what it refuses */
        (void)json_object_set_new(r->params, "logprobs", json_true());
        (void)json_object_set_new(r->params, "top_logprobs", json_integer((json_int_t)s->ask.logprobs));
    }
    r->facts = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:b}", "kind", info->kind, "name", info->name,
                         "source", info->source, "licence", info->licence, "terms", info->terms,
                         "tokenizer_hash", info->tokenizer_hash, "forbids_training", info->forbids_training);
    r->identity = json_pack("{s:O, s:s, s:s, s:s, s:s, s:I, s:I, s:b, s:i, s:i, s:f}", "params", r->params,
                            "source", info->source, "model", info->name, "system", s->prompts.system, "key",
                            s->prompts.key, "samples", (json_int_t)s->ask.samples, "logprobs",
                            (json_int_t)s->ask.logprobs, "token_ids", s->ask.token_ids, "endpoint",
                            s->ask.endpoint, "format", s->output.format, "near", s->prompts.near);
    r->source = json_pack("{s:s, s:s, s:s, s:s}", "teacher", info->name, "url", info->source, "licence",
                          info->licence, "terms", info->terms);
    if (!r->facts || !r->identity || !r->source)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the settings");
    rt_collect_options *o = &r->options;
    o->params = r->params;
    o->settings = r->identity;
    o->teacher = r->facts;
    o->source = r->source;
    return RT_OK;
}

static rt_status set_up(run *r, rt_error *err)
{
    const collect_settings *s = &r->settings;
    rt_collect_options *o = &r->options;
    if (s->prompts.in.count == 0)
        return rt_error_set(err, RT_INVALID, "collect: which prompts? --in FILE");
    if (!s->output.out[0] && !r->dry_run)
        return rt_error_set(err, RT_INVALID, "collect: where to? --out FILE.jsonl or a folder");
    if (!s->teacher.url[0] == !s->teacher.file[0])
        return rt_error_set(err, RT_INVALID, "collect: name one teacher: --url ADDRESS, or --teacher MODEL");
    o->out = s->output.out;
    o->inputs = s->prompts.in;
    o->prompts = (rt_prompt_options){.system = s->prompts.system[0] ? s->prompts.system : NULL,
                                     .prompt_key = s->prompts.key[0] ? s->prompts.key : NULL,
                                     .completions = s->ask.endpoint == 1};
    o->samples = s->ask.samples;
    o->rows_max = s->prompts.limit;
    o->batch = s->output.format == 1;
    o->ordered = s->output.ordered;
    o->on_length = (rt_on_length)s->ask.on_length;
    o->near = s->prompts.near;
    o->who = getenv("USER");
    o->progress = progress;
    o->context = r;
    if (o->batch && !rt_collect_out_is_file(o->out) && !r->dry_run)
        return rt_error_set(err, RT_INVALID, "collect: --format batch is written to a FILE.jsonl");
    if (collect_prices(&o->price, &o->spend_max, s, err) != RT_OK)
        return err->status;
    if (collect_teacher_file_open(&r->teacher, s, err) != RT_OK)
        return err->status;
    if (!r->teacher && open_remote(r, err) != RT_OK)
        return err->status;
    return make_facts(r, err);
}

/* ---- results ---- */

static int dry_run(run *r, rt_error *err)
{
    rt_collect_survey survey;
    if (rt_collect_survey_files(&survey, &r->options, err) != RT_OK)
        return cli_fail(err);
    const rt_price *price = &r->options.price;
    const uint64_t answer = survey.answer_tokens_worst;
    const double worst = rt_price_of(price, survey.prompt_tokens, 0, answer);
    /* 50 tokens a second of each request, 64 at once: a guess that is named as one */
    const double seconds = (double)answer / (50.0 * 64);
    if (r->json)
        return cli_print_json(
            json_pack("{s:I, s:I, s:I, s:I, s:b, s:o, s:f}", "prompts", (json_int_t)survey.prompts, "rows",
                      (json_int_t)survey.rows, "prompt_tokens", (json_int_t)survey.prompt_tokens,
                      "answer_tokens_max", (json_int_t)answer, "all_limited", survey.all_limited, "cost_max",
                      price->known ? json_real(worst) : json_null(), "seconds_guess", seconds));
    (void)printf("prompts        %zu\nrows           %zu\nprompt tokens  %llu (estimate: bytes / 4)\n",
                 survey.prompts, survey.rows, (unsigned long long)survey.prompt_tokens);
    if (survey.all_limited)
        (void)printf("answer tokens  at most %llu\n", (unsigned long long)answer);
    else
        (void)printf("answer tokens  not limited: give --max-tokens\n");
    if (price->known)
        (void)printf("cost           %s %.2f %s\n",
                     survey.all_limited ? "at most about" : "prompts alone:", worst, price->currency);
    if (survey.all_limited)
        (void)printf("time           some %.0f s, if 64 requests at once give 50 tokens/s each\n", seconds);
    return 0;
}

static json_t *report_json(const run *r, const rt_collect_report *p)
{
    const rt_collect_totals *t = &p->totals;
    return json_pack(
        "{s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:I}", "out",
        r->options.out, "complete", p->complete, "rows", (json_int_t)t->rows, "rejected",
        (json_int_t)t->rejected, "duplicates", (json_int_t)p->duplicates, "near", (json_int_t)p->near,
        "refusals", (json_int_t)p->refusals, "truncated", (json_int_t)p->truncated, "shared",
        (json_int_t)p->shared, "attempts", (json_int_t)p->attempts, "retries", (json_int_t)p->retries,
        "limited", (json_int_t)p->limited, "recovered", (json_int_t)p->adopted, "prompt_tokens",
        (json_int_t)t->usage.prompt, "cached_tokens", (json_int_t)t->usage.cached, "completion_tokens",
        (json_int_t)t->usage.completion, "money", t->money, "flags", (json_int_t)p->flags);
}

static void say_report(const run *r, const rt_collect_report *p)
{
    const rt_collect_totals *t = &p->totals;
    (void)fprintf(stderr, "retort: %llu rows, %llu rejected", (unsigned long long)t->rows,
                  (unsigned long long)t->rejected);
    const struct {
        size_t n;
        const char *what;
    } more[] = {{p->duplicates, "duplicates left out"}, {p->near, "near duplicates left out"},
                {p->refusals, "refusals marked"},       {p->truncated, "cut off at their limit"},
                {p->shared, "shared answers"},          {p->adopted, "rows of a killed run recovered"}};
    for (size_t i = 0; i < sizeof more / sizeof more[0]; i++)
        if (more[i].n)
            (void)fprintf(stderr, ", %zu %s", more[i].n, more[i].what);
    (void)fprintf(stderr, "; %llu + %llu tokens", (unsigned long long)t->usage.prompt,
                  (unsigned long long)t->usage.completion);
    if (r->options.price.known)
        (void)fprintf(stderr, ", %.4f %s", t->money, r->options.price.currency);
    (void)fprintf(stderr, "; %llu requests, %llu of them again, %llu times 429\n",
                  (unsigned long long)p->attempts, (unsigned long long)p->retries,
                  (unsigned long long)p->limited);
}

static int instruct_all(run *r, rt_error *err)
{
    rt_collect_report report = {0};
    size_t made = 0;
    const rt_status status = collect_instruct(r->teacher, &r->options, r->instruct, &made, &report, err);
    if (r->bar_open)
        cli_progress_close(&r->bar);
    if (status == RT_STOPPED && cli_interrupted())
        (void)cli_stopped(err, "the same command goes on");
    if (status != RT_OK)
        return cli_fail(err);
    (void)fprintf(stderr, "retort: %zu prompts in %s%s\n", made, r->options.out,
                  made < r->instruct ? " (the teacher said nothing new any more)" : "");
    return r->json
               ? cli_print_json(json_pack("{s:s, s:I}", "out", r->options.out, "prompts", (json_int_t)made))
               : 0;
}

static int collect_all(run *r, rt_error *err)
{
    if (r->dry_run)
        return dry_run(r, err);
    if (collect_terms_check(rt_teacher_info_of(r->teacher), r->permitted, err) != RT_OK)
        return cli_fail(err);
    (void)json_object_set_new(r->facts, "permission_claimed", json_boolean(r->permitted));
    rt_collect_report report;
    cli_interrupts_watch();
    if (r->instruct)
        return instruct_all(r, err);
    const rt_status status = rt_collect(r->teacher, &r->options, &report, err);
    if (r->bar_open)
        cli_progress_close(&r->bar);
    if (report.totals.rows + report.totals.rejected + report.attempts)
        say_report(r, &report);
    if (status == RT_STOPPED && cli_interrupted())
        (void)cli_stopped(err, "the same command goes on");
    if (status != RT_OK)
        return cli_fail(err);
    return r->json ? cli_print_json(report_json(r, &report)) : 0;
}

static void deinit(run *r)
{
    rt_teacher_close(r->teacher);
    rt_settings_close(r->owner);
    json_decref(r->params);
    json_decref(r->identity);
    json_decref(r->facts);
    json_decref(r->source);
}

int cmd_collect(int argc, char **argv)
{
    run r = {0};
    cli_list inputs = {0};
    cli_rest overrides = {0};
    const char *recipe = NULL, *check = NULL;
    bool completions = false, stream = false, ids = false, ordered = false, print_recipe = false;
    const char *v[26] = {0};
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL, about},
        {CLI_REST, "[KEY=VALUE...]", &overrides, "settings of the recipe"},
        {CLI_LIST, "--in FILE", &inputs, "prompts (JSONL, .zst, .txt); may be given again"},
        {CLI_STRING, "--out PATH", &v[0], "FILE.jsonl, or the folder of an outputs store"},
        {CLI_STRING, "--url URL", &v[1], "an OpenAI-compatible server"},
        {CLI_STRING, "--model M", &v[2], "the model's name there"},
        {CLI_STRING, "--key-env NAME", &v[3], "environment variable that holds the key"},
        {CLI_STRING, "--teacher MODEL", &v[4], "instead of --url: a model file or folder on this machine"},
        {CLI_STRING, "--recipe FILE", &recipe, "settings as YAML"},
        {CLI_FLAG, "--completions", &completions, "texts to be continued, no chat"},
        {CLI_STRING, "--system TEXT", &v[5], "said before every prompt"},
        {CLI_STRING, "--prompt-key KEY", &v[6], "rows hold the prompt under this key"},
        {CLI_STRING, "--temperature X", &v[7], "default: the server's"},
        {CLI_STRING, "--top-p X", &v[8], "default: the server's"},
        {CLI_STRING, "--max-tokens N", &v[9], "of an answer"},
        {CLI_STRING, "--seed N", &v[10], "sample i of a prompt gets seed N + i"},
        {CLI_STRING, "--samples N", &v[11], "answers to each prompt (default 1)"},
        {CLI_STRING, "--n N", &v[11], "the same as --samples"},
        {CLI_STRING, "--logprobs N", &v[12], "keep the N likeliest tokens of each position"},
        {CLI_FLAG, "--token-ids", &ids, "ask for the tokens' ids too"},
        {CLI_FLAG, "--stream", &stream,
         "take answers as streams; with --teacher: layers from disk, for models larger than memory"},
        {CLI_STRING, "--concurrency N", &v[13], "requests at once (default auto)"},
        {CLI_STRING, "--concurrency-max N", &v[14], "most that auto tries (default 256)"},
        {CLI_STRING, "--attempts N", &v[15], "of one request (default 8); a 429 does not count"},
        {CLI_STRING, "--timeout S", &v[16], "of one request (default 600)"},
        {CLI_STRING, "--patience S", &v[17], "server out of reach, before the run stops (default 300)"},
        {CLI_STRING, "--prices FILE", &v[18],
         "price table: models: {NAME: {input, cached, output}} per million"},
        {CLI_STRING, "--spend-max X", &v[19], "such as 25usd or 2Mtok"},
        {CLI_STRING, "--on-length keep|drop|retry:2x", &v[20],
         "answers cut off at --max-tokens (default keep)"},
        {CLI_STRING, "--near X", &v[21], "drop prompts at least this similar to an earlier one, such as 0.8"},
        {CLI_STRING, "--limit N", &v[22], "only the first N prompts"},
        {CLI_STRING, "--format rows|batch", &v[23], "own rows, or OpenAI Batch results"},
        {CLI_COUNT, "--self-instruct N", &r.instruct,
         "make N prompts up from the seed tasks of --in, into --out"},
        {CLI_FLAG, "--batch-api", &r.batch_api,
         "by the server's Batch API: files go up, answers come within a day"},
        {CLI_STRING, "--licence TEXT", &v[24], "of the outputs, kept with every row"},
        {CLI_STRING, "--terms TEXT", &v[25], "terms of use: an address or a sentence"},
        {CLI_STRING, "--cache FILE", &r.options.cache,
         "answers shared between runs: temperature 0, or with a seed"},
        {CLI_FLAG, "--ordered", &ordered, "sort the rows at the end"},
        {CLI_FLAG, "--new-run", &r.options.new_run, "other settings: move what is there aside"},
        {CLI_FLAG, "--retry-failed", &r.options.retry_failed, "ask the rejected rows again"},
        {CLI_FLAG, "--i-have-permission", &r.permitted, "collect although the terms forbid it; recorded"},
        {CLI_FLAG, "--dry-run", &r.dry_run, "rows, tokens, cost and time; nothing is asked"},
        {CLI_STRING, "--check URL", &check, "what a server truly supports, in ten requests"},
        {CLI_FLAG, "--print-recipe", &print_recipe, "the settings as YAML; nothing is asked"},
        {CLI_FLAG, "--json-progress", &r.json_progress, "progress as JSON lines on standard error"},
        {CLI_FLAG, "--json", &r.json, "print the result as JSON"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    if (cli_parse(spec, argc, argv, &err) != RT_OK)
        return cli_fail(&err);
    if (check)
        return collect_check(check, v[2], v[3], r.json);
    const collect_word words[] = {{"output.out", v[0], true},
                                  {"teacher.url", v[1], true},
                                  {"teacher.model", v[2], true},
                                  {"teacher.key_env", v[3], true},
                                  {"teacher.file", v[4], true},
                                  {"prompts.system", v[5], true},
                                  {"prompts.key", v[6], true},
                                  {"ask.temperature", v[7], false},
                                  {"ask.top_p", v[8], false},
                                  {"ask.max_tokens", v[9], false},
                                  {"ask.seed", v[10], true},
                                  {"ask.samples", v[11], false},
                                  {"ask.logprobs", v[12], false},
                                  {"net.concurrency", v[13], true},
                                  {"net.concurrency_max", v[14], false},
                                  {"net.attempts", v[15], false},
                                  {"net.timeout_s", v[16], false},
                                  {"net.patience_s", v[17], false},
                                  {"price.table", v[18], true},
                                  {"price.spend_max", v[19], true},
                                  {"ask.on_length", v[20], true},
                                  {"prompts.near", v[21], false},
                                  {"prompts.limit", v[22], false},
                                  {"output.format", v[23], false},
                                  {"teacher.licence", v[24], true},
                                  {"teacher.terms", v[25], true},
                                  {"ask.endpoint", completions ? "completions" : NULL, false},
                                  {v[4] ? "teacher.stream" : "ask.stream", stream ? "yes" : NULL, false},
                                  {"ask.token_ids", ids ? "yes" : NULL, false},
                                  {"output.ordered", ordered ? "yes" : NULL, false}};
    int exit_code;
    if (collect_settings_read(&r.owner, &r.settings, recipe, words, sizeof words / sizeof words[0], &inputs,
                              &overrides, &err) != RT_OK) {
        exit_code = cli_fail(&err);
    } else if (print_recipe) {
        rt_text text = {0};
        rt_settings_print(r.owner, &text);
        (void)fwrite(text.data, 1, text.size, stdout);
        rt_text_deinit(&text);
        exit_code = 0;
    } else {
        exit_code = set_up(&r, &err) == RT_OK ? collect_all(&r, &err) : cli_fail(&err);
    }
    deinit(&r);
    return exit_code;
}
