/* cli/bench_speculate.c - `retort bench speculate`: answers with a draft beside the same model alone. */
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "cli/bench.h"
#include "cli/open_model.h"
#include "cli/prompts.h"
#include "model/generate.h"
#include "model/pace.h"

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
enum { QUESTIONS = sizeof questions / sizeof questions[0] };

typedef struct scene {
    bench *b;
    cli_model model;
    cli_draft draft;
    cli_prompts prompts;
    rt_prompt *asked;
    double *alone, *with; /* [runs] seconds a token */
} scene;

static rt_status read_questions(scene *s, rt_error *err)
{
    const bench_options *o = &s->b->options;
    rt_status status = o->prompts ? cli_prompts_read(&s->prompts, o->prompts, NULL, err) : RT_OK;
    for (size_t i = 0; i < QUESTIONS && status == RT_OK && !o->prompts; i++)
        status = cli_prompts_add(&s->prompts, questions[i], strlen(questions[i]), NULL, err);
    if (status == RT_OK)
        status = cli_prompts_render(&s->prompts, &s->model, s->model.model->config.n_context, err);
    if (status != RT_OK)
        return status;
    s->asked = calloc(s->prompts.count, sizeof *s->asked);
    s->alone = calloc(2 * o->runs, sizeof *s->alone);
    if (!s->asked || !s->alone)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu prompts and %zu runs", s->prompts.count,
                            o->runs);
    s->with = s->alone + o->runs;
    for (size_t i = 0; i < s->prompts.count; i++) {
        const rt_token_list *ids = &s->prompts.list[i].ids;
        s->asked[i] = (rt_prompt){ids->ids, ids->count, o->answer, i};
    }
    return RT_OK;
}

static rt_status open_scene(scene *s, rt_error *err)
{
    const bench_options *o = &s->b->options;
    const rt_precision precision = cli_precision(o->precision);
    if (cli_model_open(&s->model, o->model, precision, 0, s->b->pool, err) != RT_OK ||
        cli_draft_open(&s->draft, &o->draft, &s->model, precision, s->b->pool, err) != RT_OK)
        return err->status;
    return read_questions(s, err);
}

static rt_status answer(const scene *s, const rt_prompt *prompt, bool drafted, rt_generate_stats *stats,
                        rt_error *err)
{
    const bench_options *o = &s->b->options;
    rt_generate_options options = {
        .sampling = o->sampling,
        .n_slots = 1,
        .n_positions = rt_size_min(prompt->n + o->answer + 1, s->model.model->config.n_context)};
    if (drafted)
        cli_draft_use(&s->draft, &o->draft, &options);
    return rt_generate(s->model.model, s->model.tokenizer, prompt, 1, &options, stats, err);
}

static void add_stats(rt_generate_stats *sum, const rt_generate_stats *one)
{
    sum->answer_tokens += one->answer_tokens;
    sum->decode_s += one->decode_s;
    sum->draft.rounds += one->draft.rounds;
    sum->draft.proposed += one->draft.proposed;
    sum->draft.tested += one->draft.tested;
    sum->draft.accepted += one->draft.accepted;
    sum->draft.looked_up_tested += one->draft.looked_up_tested;
    sum->draft.looked_up_accepted += one->draft.looked_up_accepted;
    sum->draft.expected += one->draft.expected;
    sum->draft.seconds += one->draft.seconds;
    sum->draft.passes += one->draft.passes;
    sum->draft.single_passes += one->draft.single_passes;
    sum->draft.single_s += one->draft.single_s;
    for (size_t i = 0; i <= RT_DRAFT_MAX; i++) {
        sum->draft.model_s[i] += one->draft.model_s[i];
        sum->draft.model_passes[i] += one->draft.model_passes[i];
    }
}

/* Question by question, turn and turn about, so that a neighbour takes from both. */
static rt_status run_both(const scene *s, rt_generate_stats *alone, rt_generate_stats *with, rt_error *err)
{
    for (size_t run = 0; run < s->b->options.runs; run++) {
        rt_generate_stats sums[2] = {{0}}, one;
        for (size_t i = 0; i < 2 * s->prompts.count; i++) {
            if (answer(s, &s->asked[i / 2], i % 2, &one, err) != RT_OK)
                return err->status;
            add_stats(&sums[i % 2], &one);
        }
        for (size_t k = 0; k < 2; k++)
            (k ? s->with : s->alone)[run] =
                sums[k].decode_s / (double)rt_size_max(sums[k].answer_tokens - s->prompts.count, 1);
        add_stats(alone, &sums[0]);
        add_stats(with, &sums[1]);
    }
    return RT_OK;
}

static void add_figure(const scene *s, const char *name, const char *unit, double value)
{
    bench_add(s->b, &(bench_row){.name = name, .unit = unit, .value = value});
}

static double over(double a, double b) { return b > 0 ? a / b : 0; }

/* What a pass over one more token costs, in passes over one: over the passes with proposals. */
static double row_cost(const rt_generate_stats *with, double one)
{
    double seconds = 0, passes = 0, rows = 0;
    for (size_t i = 1; i <= RT_DRAFT_MAX; i++) {
        seconds += with->draft.model_s[i];
        passes += (double)with->draft.model_passes[i];
        rows += (double)(i * with->draft.model_passes[i]);
    }
    return over(seconds - passes * one, rows * one);
}

static void add_rows(const scene *s, const rt_generate_stats *alone, const rt_generate_stats *with)
{
    const size_t runs = s->b->options.runs;
    const double rates[] = {1 / bench_median(s->alone, runs), 1 / bench_median(s->with, runs)};
    const double one =
        over(alone->decode_s, (double)alone->answer_tokens - (double)(runs * s->prompts.count));
    const double tested = (double)with->draft.tested, by_lookup = (double)with->draft.looked_up_tested;
    add_figure(s, "answers by the model alone", "tokens/s", rates[0]);
    bench_add(s->b, &(bench_row){.name = "answers with the draft",
                                 .unit = "tokens/s",
                                 .value = rates[1],
                                 .limit = rates[0],
                                 .bar = BENCH_SHARE,
                                 .must = 1.3,
                                 .aim = 2});
    add_figure(s, "  of the tested tokens accepted", "%", 100 * over((double)with->draft.accepted, tested));
    add_figure(s, "  expected from both distributions", "%", 100 * over(with->draft.expected, tested));
    add_figure(s, "  tokens a pass of the model", "",
               over((double)(with->draft.accepted + with->draft.rounds), (double)with->draft.rounds));
    if (s->draft.lookup) {
        add_figure(s, "  of the tested tokens looked up", "%", 100 * over(by_lookup, tested));
        add_figure(s, "  of those accepted", "%",
                   100 * over((double)with->draft.looked_up_accepted, by_lookup));
    }
    add_figure(s, "  share of the time before the model", "%",
               100 * over(with->draft.seconds, with->decode_s));
    if (s->draft.model.model) {
        add_figure(s, "  a draft's pass over the model's", "",
                   over(with->draft.single_s, one * (double)with->draft.single_passes));
        add_figure(s, "  the same by their sizes", "", rt_pace_cost(s->draft.model.model, s->model.model));
    }
    add_figure(s, "  one more token in a pass", "", row_cost(with, one));
}

rt_status bench_speculate(bench *b, rt_error *err)
{
    if (!b->options.draft.draft)
        return b->all ? RT_OK
                      : rt_error_set(err, RT_INVALID, "bench speculate: name the draft with --draft MODEL");
    scene s = {.b = b};
    rt_generate_stats alone = {0}, with = {0};
    rt_status status = open_scene(&s, err);
    if (status == RT_OK)
        status = run_both(&s, &alone, &with, err);
    if (status == RT_OK)
        add_rows(&s, &alone, &with);
    free(s.alone);
    free(s.asked);
    cli_prompts_deinit(&s.prompts);
    cli_draft_close(&s.draft);
    cli_model_close(&s.model);
    return status;
}
