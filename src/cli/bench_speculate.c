/* cli/bench_speculate.c - `retort bench speculate`: answers with a draft beside the same model alone. */
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "cli/bench.h"
#include "cli/open_model.h"
#include "cli/prompts.h"
#include "model/generate.h"

/* Everyday questions: what a draft is good for depends on what is said. */
static const char *const questions[] = {
    "Why does the moon have phases?",
    "Write a short letter that thanks a neighbour for watering the plants.",
    "Explain how to boil an egg, step by step.",
    "What is the difference between a list and a tuple in Python?",
    "Give three reasons to learn a second language.",
    "Summarise what a library does in two sentences.",
    "How can a small shop find more customers?",
    "Write a function in C that counts the words of a text.",
};
enum { QUESTIONS = sizeof questions / sizeof questions[0], ANSWER_TOKENS = 128 };

typedef struct scene {
    bench *b;
    cli_model model, draft;
    cli_prompts prompts;
    rt_prompt asked[QUESTIONS];
    double *times;
} scene;

static rt_status open_scene(scene *s, rt_error *err)
{
    const bench_options *o = &s->b->options;
    const rt_precision precision = cli_precision(o->precision);
    if (cli_model_open(&s->model, o->model, precision, 0, s->b->pool, err) != RT_OK ||
        cli_model_open(&s->draft, o->draft, precision, CLI_MODEL_NO_TEMPLATE, s->b->pool, err) != RT_OK ||
        cli_models_match(&s->model, &s->draft, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < QUESTIONS; i++)
        if (cli_prompts_add(&s->prompts, questions[i], strlen(questions[i]), NULL, err) != RT_OK)
            return err->status;
    if (cli_prompts_render(&s->prompts, &s->model, s->model.model->config.n_context, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < QUESTIONS; i++) {
        const rt_token_list *ids = &s->prompts.list[i].ids;
        s->asked[i] = (rt_prompt){ids->ids, ids->count, ANSWER_TOKENS, i};
    }
    s->times = calloc(2 * o->runs, sizeof *s->times);
    return s->times ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for %zu runs", o->runs);
}

/* Seconds a token of decoding, with the draft or without it. */
static rt_status answer(const scene *s, const rt_model *draft, rt_generate_stats *stats, double *out,
                        rt_error *err)
{
    const rt_generate_options options = {.sampling = s->b->options.sampling,
                                         .n_slots = 1,
                                         .n_positions = rt_size_min(1024, s->model.model->config.n_context),
                                         .draft = draft,
                                         .draft_max = s->b->options.draft_max};
    if (rt_generate(s->model.model, s->model.tokenizer, s->asked, QUESTIONS, &options, stats, err) != RT_OK)
        return err->status;
    *out = stats->decode_s / (double)rt_size_max(stats->answer_tokens - QUESTIONS, 1);
    return RT_OK;
}

/* Turn and turn about, so that a neighbour takes from both. */
static rt_status run_both(const scene *s, rt_generate_stats *with, rt_error *err)
{
    const size_t runs = s->b->options.runs;
    rt_generate_stats alone;
    for (size_t run = 0; run < runs; run++)
        if (answer(s, NULL, &alone, &s->times[run], err) != RT_OK ||
            answer(s, s->draft.model, with, &s->times[runs + run], err) != RT_OK)
            return err->status;
    return RT_OK;
}

static void add_rows(const scene *s, const rt_generate_stats *with)
{
    const size_t runs = s->b->options.runs;
    const double alone = 1 / bench_median(s->times, runs), both = 1 / bench_median(s->times + runs, runs);
    const double tested = (double)rt_size_max(with->draft.tested, 1);
    bench_add(s->b, &(bench_row){.name = "answers by the model alone", .unit = "tokens/s", .value = alone});
    bench_add(s->b, &(bench_row){.name = "answers with the draft",
                                 .unit = "tokens/s",
                                 .value = both,
                                 .limit = alone,
                                 .bar = BENCH_SHARE,
                                 .must = 1.3,
                                 .aim = 2});
    bench_add(s->b, &(bench_row){.name = "  of the draft's tokens accepted",
                                 .unit = "%",
                                 .value = 100 * (double)with->draft.accepted / tested});
    bench_add(s->b, &(bench_row){.name = "  expected from both distributions",
                                 .unit = "%",
                                 .value = 100 * with->draft.expected / tested});
    bench_add(s->b, &(bench_row){.name = "  tokens a pass of the model",
                                 .unit = "",
                                 .value = (double)(with->draft.accepted + with->draft.rounds) /
                                          (double)rt_size_max(with->draft.rounds, 1)});
    bench_add(s->b, &(bench_row){.name = "  share of the time in the draft",
                                 .unit = "%",
                                 .value = 100 * with->draft.seconds / with->decode_s});
}

rt_status bench_speculate(bench *b, rt_error *err)
{
    if (!b->options.draft)
        return b->all ? RT_OK
                      : rt_error_set(err, RT_INVALID, "bench speculate: name the draft with --draft MODEL");
    scene s = {.b = b};
    rt_generate_stats with;
    rt_status status = open_scene(&s, err);
    if (status == RT_OK)
        status = run_both(&s, &with, err);
    if (status == RT_OK)
        add_rows(&s, &with);
    free(s.times);
    cli_prompts_deinit(&s.prompts);
    cli_model_close(&s.draft);
    cli_model_close(&s.model);
    return status;
}
