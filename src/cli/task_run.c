/* cli/task_run.c - `retort task run`: a model answers problems, by likelihood or in words. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/size.h"
#include "cli/cli.h"
#include "cli/open_model.h"
#include "cli/progress.h"
#include "cli/prompts.h"
#include "cli/sampling.h"
#include "cli/task.h"
#include "judge/choice.h"
#include "model/generate.h"

typedef struct settings {
    const char *problems, *model, *draft, *precision, *out, *instruction, *system;
    size_t most, samples, tokens_max, slots, context, threads, seconds;
    rt_sampling sampling;
    bool json;
} settings;

typedef struct run {
    const settings *settings;
    rt_pool *pool;
    cli_model model, draft;
    rt_problems problems;
    cli_prompts prompts; /* one a problem */
    cli_task_answers answers;
    rt_answer_options rules;
    FILE *out;
    cli_progress bar;
    size_t right, per_byte_right, tokens;
    rt_error *err;
    rt_status status; /* of a callback */
} run;

static rt_status write_row(run *r, const json_t *row)
{
    char *text = r->out ? json_dumps(row, JSON_COMPACT) : NULL;
    const bool ok = !r->out || (text && fprintf(r->out, "%s\n", text) > 0 && fflush(r->out) == 0);
    free(text);
    return ok ? RT_OK : rt_error_set(r->err, RT_IO, "%.300s: cannot be written", r->settings->out);
}

static void show(run *r)
{
    char figures[80];
    (void)snprintf(figures, sizeof figures, "%.1f%% right",
                   100 * (double)r->right / (double)rt_size_max(r->answers.count, 1));
    cli_progress_update(&r->bar, r->answers.count, figures);
}

/* ---- choices ---- */

static rt_status ask_choices(run *r, rt_error *err)
{
    rt_chooser *chooser;
    if (rt_chooser_open(&chooser, r->model.model, r->model.tokenizer, err) != RT_OK)
        return err->status;
    rt_status status = RT_OK;
    for (size_t i = 0; i < r->problems.count && status == RT_OK; i++) {
        rt_choice_result got;
        const rt_problem *p = &r->problems.list[i];
        if ((status = rt_chooser_ask(chooser, p, &got, err)) != RT_OK)
            break;
        r->right += got.right;
        r->per_byte_right += got.right_per_byte;
        json_t *log_p = json_array();
        for (size_t k = 0; k < p->n_choices; k++)
            (void)json_array_append_new(log_p, json_real(got.log_p[k]));
        json_t *row = json_pack("{s:I, s:b, s:b, s:o}", "line", (json_int_t)p->line, "right", got.right,
                                "right_per_byte", got.right_per_byte, "log_p", log_p);
        status = write_row(r, row);
        json_decref(row);
        if (status == RT_OK &&
            !cli_task_add(&r->answers, i, got.right ? RT_VERDICT_RIGHT : RT_VERDICT_WRONG, ""))
            status = rt_error_set(err, RT_NO_MEMORY, "no memory for %zu problems", r->problems.count);
        show(r);
        if (status == RT_OK && cli_interrupted())
            status = cli_stopped(err, "the figures are not made");
    }
    rt_chooser_close(chooser);
    return status;
}

/* ---- words ---- */

static bool take_answer(void *context, const rt_answer *answer)
{
    run *r = context;
    const size_t problem = answer->index / r->settings->samples;
    const rt_problem *p = &r->problems.list[problem];
    rt_text text = {0}, final = {0};
    rt_verdict verdict = RT_VERDICT_NONE;
    rt_text_puts(&text, r->prompts.list[problem].thought);
    r->status = rt_tokenizer_decode(r->model.tokenizer, answer->ids, answer->n, true, &text, r->err);
    if (r->status == RT_OK)
        r->status =
            rt_answer_check(&verdict, p, text.data ? text.data : "", text.size, &r->rules, &final, r->err);
    if (r->status == RT_OK) {
        r->tokens += answer->n;
        json_t *row =
            json_pack("{s:I, s:I, s:s, s:o, s:s, s:I, s:s, s:o}", "line", (json_int_t)p->line, "sample",
                      (json_int_t)(answer->index % r->settings->samples), "prompt", p->prompt, "completion",
                      rt_json_text(text.data ? text.data : "", text.size), "finish_reason",
                      answer->finish == RT_FINISH_STOP ? "stop" : "length", "completion_tokens",
                      (json_int_t)answer->n, "verdict", cli_verdict_word(verdict), "final",
                      rt_json_text(final.data ? final.data : "", final.size));
        r->status = write_row(r, row);
        json_decref(row);
    }
    if (r->status == RT_OK && !cli_task_add(&r->answers, problem, verdict, final.data ? final.data : ""))
        r->status = rt_error_set(r->err, RT_NO_MEMORY, "no memory for an answer");
    r->right += verdict == RT_VERDICT_RIGHT;
    rt_text_deinit(&text);
    rt_text_deinit(&final);
    show(r);
    return r->status == RT_OK && !cli_interrupted();
}

static rt_status render(run *r, size_t context, rt_error *err)
{
    for (size_t i = 0; i < r->problems.count; i++) {
        rt_text text = {0};
        rt_text_puts(&text, r->problems.list[i].prompt);
        if (r->settings->instruction)
            rt_text_printf(&text, "\n%s", r->settings->instruction);
        const rt_status status =
            text.failed ? rt_error_set(err, RT_NO_MEMORY, "no memory for a prompt")
                        : cli_prompts_add(&r->prompts, text.data, text.size, r->settings->system, err);
        rt_text_deinit(&text);
        if (status != RT_OK)
            return status;
    }
    return cli_prompts_render(&r->prompts, &r->model, context, err);
}

static rt_status ask_words(run *r, rt_error *err)
{
    const settings *s = r->settings;
    const size_t limit = r->model.model->config.n_context, n = r->problems.count * s->samples;
    const size_t context = s->context ? rt_size_min(s->context, limit) : rt_size_min(limit, 4096);
    if (s->samples > 1 && s->sampling.temperature == 0)
        return rt_error_set(err, RT_INVALID,
                            "task run: --samples %zu at temperature 0 are %zu equal answers; give "
                            "--temperature",
                            s->samples, s->samples);
    if (render(r, context, err) != RT_OK)
        return err->status;
    rt_prompt *asked = calloc(n, sizeof *asked);
    if (!asked)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu prompts", n);
    size_t longest = 1;
    for (size_t i = 0; i < n; i++) {
        const rt_token_list *ids = &r->prompts.list[i / s->samples].ids;
        asked[i] = (rt_prompt){ids->ids, ids->count, s->tokens_max, i};
        longest = rt_size_max(longest, ids->count);
    }
    rt_generate_options options = {.sampling = s->sampling,
                                   .n_slots = s->slots,
                                   .n_positions =
                                       rt_size_min(context, longest + rt_size_max(s->tokens_max, 1)),
                                   .draft = r->draft.model,
                                   .answer = take_answer,
                                   .context = r};
    rt_generate_stats stats;
    rt_status status = rt_generate(r->model.model, r->model.tokenizer, asked, n, &options, &stats, err);
    if (status == RT_STOPPED && r->status != RT_OK)
        status = r->status;
    else if (status == RT_STOPPED)
        status = cli_stopped(err, "the figures are not made");
    free(asked);
    return status;
}

/* ---- all ---- */

static rt_status open_all(run *r, bool *choices, rt_error *err)
{
    const settings *s = r->settings;
    if (s->samples == 0 || rt_sampling_check(&s->sampling, err) != RT_OK)
        return rt_error_set(err, RT_INVALID, "task run: --samples 0 asks for nothing");
    if (rt_problems_read(&r->problems, s->problems, s->most, err) != RT_OK)
        return err->status;
    *choices = r->problems.list[0].kind == RT_PROBLEM_CHOICE;
    for (size_t i = 0; i < r->problems.count; i++)
        if ((r->problems.list[i].kind == RT_PROBLEM_CHOICE) != *choices)
            return rt_error_set(err, RT_INVALID,
                                "%.200s:%zu: choices and problems in words cannot be mixed in a file",
                                s->problems, r->problems.list[i].line);
    if (rt_pool_open(&r->pool, (unsigned)rt_size_min(s->threads, 1 << 16), err) != RT_OK ||
        cli_model_open(&r->model, s->model, cli_precision(s->precision), 0, r->pool, err) != RT_OK)
        return err->status;
    if (s->draft && (cli_model_open(&r->draft, s->draft, cli_precision(s->precision), CLI_MODEL_NO_TEMPLATE,
                                    r->pool, err) != RT_OK ||
                     cli_models_match(&r->model, &r->draft, err) != RT_OK))
        return err->status;
    if (s->out && !(r->out = fopen(s->out, "we")))
        return rt_error_set(err, RT_IO, "%.300s: cannot be created", s->out);
    return RT_OK;
}

static rt_status work(run *r, json_t **out, rt_error *err)
{
    bool choices = false;
    rt_task_figures figures;
    if (open_all(r, &choices, err) != RT_OK)
        return err->status;
    const double from = rt_clock_seconds();
    cli_interrupts_watch();
    cli_progress_open(&r->bar, choices ? "problems" : "answers", 0,
                      r->problems.count * (choices ? 1 : r->settings->samples), 10);
    const rt_status status = choices ? ask_choices(r, err) : ask_words(r, err);
    cli_progress_close(&r->bar);
    if (status != RT_OK)
        return status;
    if (rt_task_count(&figures, r->answers.list, r->answers.count, r->problems.count, 1, err) != RT_OK)
        return err->status;
    *out = cli_task_json(&figures);
    (void)json_object_set_new(*out, "kind", json_string(rt_problem_kind_word(r->problems.list[0].kind)));
    (void)json_object_set_new(*out, "seconds", json_real(rt_clock_seconds() - from));
    if (choices)
        (void)json_object_set_new(*out, "accuracy_per_byte",
                                  json_real((double)r->per_byte_right / (double)r->problems.count));
    else
        (void)json_object_set_new(*out, "tokens", json_integer((json_int_t)r->tokens));
    if (r->settings->json)
        return RT_OK;
    cli_task_print(&figures);
    if (choices)
        (void)printf("%-24s%6.2f%%\n", "  by log p a byte",
                     100 * (double)r->per_byte_right / (double)r->problems.count);
    return RT_OK;
}

int cli_task_run(int argc, char **argv)
{
    settings s = {.precision = "int8",
                  .samples = 1,
                  .tokens_max = 512,
                  .seconds = 5,
                  .sampling = rt_sampling_default()};
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "FILE is a data set of the field, told by its fields: GSM8K, SVAMP, AQuA, BIG-Bench Hard, "
         "HumanEval,\n"
         "MBPP, IFEval; MMLU, ARC, PIQA, HellaSwag, Winogrande (by likelihood); or rows {question, answer |\n"
         "pattern | tests}. Programs run behind a filter of system calls: they cannot write, start "
         "processes\n"
         "or open sockets.\n\n"
         "Examples:\n  retort task run gsm8k_test.jsonl.zst --model student/ --most 200\n"
         "  retort task run gsm8k_test.jsonl.zst --model student/ --samples 8 --temperature 0.7 --out "
         "answers.jsonl\n"
         "  retort task run mmlu.jsonl --model smollm2-135m-instruct --json"},
        {CLI_STRING, "FILE", &s.problems, "JSONL (.zst) of problems"},
        {CLI_STRING | CLI_REQUIRED, "--model MODEL", &s.model, "who answers"},
        {CLI_COUNT, "--most N", &s.most, "only the first N problems"},
        {CLI_COUNT, "--samples K", &s.samples,
         "answers a problem (default 1); more give majority and pass@k"},
        {CLI_STRING, "--instruction TEXT", &s.instruction, "put behind each problem"},
        {CLI_STRING, "--system TEXT", &s.system, "what the model is told before it"},
        {CLI_STRING, "--out FILE", &s.out, "each answer and its verdict, as JSONL"},
        {CLI_COUNT, "--tokens-max N", &s.tokens_max, "of an answer (default 512)"},
        {CLI_COUNT, "--seconds N", &s.seconds,
         "processor time of a program (default 5); the clock may show five times as much"},
        CLI_SAMPLING_ROWS(s.sampling),
        {CLI_COUNT, "--slots N", &s.slots, "answers side by side (default 16)"},
        {CLI_COUNT, "--context N", &s.context,
         "tokens of problem and answer (default: the model's, 4096 at most)"},
        {CLI_STRING, "--draft MODEL", &s.draft, "a small model that runs ahead"},
        {CLI_STRING, "--precision " CLI_PRECISIONS, &s.precision, "of the computation (default int8)"},
        {CLI_COUNT, "--threads N", &s.threads, "default: one a processor"},
        {CLI_FLAG, "--json", &s.json, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    if (cli_parse(spec, argc, argv, &err) != RT_OK)
        return cli_fail(&err);
    run r = {.settings = &s, .rules = {.limits = rt_sandbox_limits_default()}, .err = &err};
    cli_task_limit(&r.rules.limits, s.seconds);
    json_t *json = NULL;
    rt_status status = work(&r, &json, &err);
    if (r.out && fclose(r.out) != 0 && status == RT_OK)
        status = rt_error_set(&err, RT_IO, "%.300s: cannot be written", s.out);
    cli_task_deinit(&r.answers);
    cli_prompts_deinit(&r.prompts);
    rt_problems_deinit(&r.problems);
    cli_model_close(&r.draft);
    cli_model_close(&r.model);
    rt_pool_close(r.pool);
    if (status == RT_OK && s.json)
        return cli_print_json(json);
    json_decref(json);
    return status == RT_OK ? 0 : cli_fail(&err);
}
