/* cli/cmd_generate.c - `retort generate MODEL`: an answer on the terminal, or answers to a file of prompts.
 *
 * Both go through rt_generate: one prompt streams as its tokens come, many are answered side by side and
 * written as rows that survive a kill. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/size.h"
#include "cli/answers.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/draft.h"
#include "cli/open_model.h"
#include "cli/progress.h"
#include "cli/sampling.h"
#include "cli/stream.h"
#include "cli/watermark.h"
#include "model/generate.h"

static const size_t stdin_max = (size_t)64 << 20; /* bytes of a prompt on standard input */

typedef struct settings {
    const char *model, *prompt, *prompts, *system, *precision, *out;
    size_t tokens_max, slots, context, threads;
    bool raw, resume, json;
    rt_sampling sampling;
    cli_draft_options draft;
    cli_mark_options mark;
} settings;

typedef struct run {
    const settings *settings;
    rt_pool *pool;
    cli_model model;
    cli_draft draft; /* empty without --draft */
    cli_prompts prompts;
    rt_prompt *asked; /* those without an answer yet */
    size_t *index;    /* [asked]: where they stand in `prompts` */
    size_t n_asked, n_answered, tokens;
    cli_answers answers;
    cli_progress bar;
    cli_stream stream;
    json_t *row; /* of a single prompt */
    rt_mark *mark;
    rt_mark_key mark_key;
    json_t *mark_json; /* NULL: no watermark */
    double opened_s, begun;
    rt_generate_stats stats;
    rt_error write_err; /* why a callback stopped the run */
} run;

static rt_status read_stdin(cli_prompts *prompts, const char *system, rt_error *err)
{
    if (isatty(STDIN_FILENO))
        return rt_error_set(
            err, RT_INVALID,
            "generate: there is no prompt: give --prompt, --prompts or text on standard input");
    rt_text text = {.size_max = stdin_max};
    char block[4096];
    for (size_t n; (n = fread(block, 1, sizeof block, stdin)) > 0;)
        rt_text_append(&text, block, n);
    rt_status status = RT_OK;
    if (text.failed || ferror(stdin))
        status =
            rt_error_set(err, RT_INVALID, "the prompt on standard input cannot be read, or is past 64 MiB");
    else
        status = cli_prompts_add(prompts, text.data ? text.data : "", text.size, system, err);
    rt_text_deinit(&text);
    return status;
}

static rt_status read_prompts(run *r, rt_error *err)
{
    const settings *s = r->settings;
    if (s->prompt && s->prompts)
        return rt_error_set(err, RT_INVALID, "generate: give --prompt or --prompts, not both");
    if (s->prompts)
        return cli_prompts_read(&r->prompts, s->prompts, s->system, err);
    if (s->prompt)
        return cli_prompts_add(&r->prompts, s->prompt, strlen(s->prompt), s->system, err);
    return read_stdin(&r->prompts, s->system, err);
}

/* The answer's row: index, what was asked, what came. */
static json_t *row_of(const run *r, const rt_answer *answer)
{
    rt_text text = {0};
    rt_error err = {0};
    const size_t index = r->index[answer->index];
    const cli_prompt *prompt = &r->prompts.list[index];
    rt_text_puts(&text, prompt->thought); /* the thought's beginning belongs to the answer */
    if (rt_tokenizer_decode(r->model.tokenizer, answer->ids, answer->n, true, &text, &err) != RT_OK) {
        rt_text_deinit(&text);
        return NULL;
    }
    json_t *row =
        json_pack("{s:I,s:O,s:o,s:s,s:I,s:I}", "index", (json_int_t)index, prompt->key, prompt->value,
                  "completion", rt_json_text(text.data ? text.data : "", text.size), "finish_reason",
                  answer->finish == RT_FINISH_STOP ? "stop" : "length", "prompt_tokens",
                  (json_int_t)prompt->ids.count, "completion_tokens", (json_int_t)answer->n);
    if (r->mark_json)
        (void)json_object_set(row, "watermark", r->mark_json);
    rt_text_deinit(&text);
    return row;
}

static bool stream_token(void *context, size_t index, int32_t id)
{
    run *r = context;
    (void)index;
    size_t size;
    const char *bytes = rt_tokenizer_token_bytes(r->model.tokenizer, id, &size);
    if (!r->settings->json && !rt_tokenizer_is_special(r->model.tokenizer, id))
        cli_stream_write(&r->stream, bytes, size);
    return !cli_interrupted();
}

static bool keep_answer(void *context, const rt_answer *answer)
{
    run *r = context;
    r->row = row_of(r, answer);
    return true;
}

static bool count_token(void *context, size_t index, int32_t id)
{
    run *r = context;
    (void)index;
    (void)id;
    r->tokens++;
    return !cli_interrupted();
}

static bool write_answer(void *context, const rt_answer *answer)
{
    run *r = context;
    if (cli_answers_append(&r->answers, row_of(r, answer), &r->write_err) != RT_OK)
        return false;
    r->n_answered++;
    char figures[64];
    (void)snprintf(figures, sizeof figures, "%zu answers  %.0f tokens/s", r->answers.n_done + r->n_answered,
                   (double)r->tokens / (rt_clock_seconds() - r->begun));
    cli_progress_update(&r->bar, r->answers.n_done + r->n_answered, figures);
    return !cli_interrupted();
}

static double rate(size_t tokens, double seconds) { return seconds > 0 ? (double)tokens / seconds : 0; }

/* The answers' tokens but the first of each, which belong to the prompts' time. */
static double decode_rate(const run *r)
{
    const size_t first = rt_size_min(r->stats.answer_tokens, r->n_asked);
    return rate(r->stats.answer_tokens - first, r->stats.decode_s);
}

static double tokens_a_round(const run *r)
{
    return rate(r->stats.draft.accepted + r->stats.draft.rounds, (double)r->stats.draft.rounds);
}

/* Of the tokens that were read. */
static double prefill_rate(const run *r)
{
    return rate(r->stats.prompt_tokens - r->stats.prompt_shared, r->stats.prefill_s);
}

static void print_stats(const run *r)
{
    (void)fprintf(
        stderr,
        "retort: prompt %zu tokens, %zu of them read once for several (%.0f tokens/s), answer %zu "
        "tokens (%.1f tokens/s); first token after %.3f s (model opened in %.3f s); %.0f MB at most\n",
        r->stats.prompt_tokens, r->stats.prompt_shared, prefill_rate(r), r->stats.answer_tokens,
        decode_rate(r), r->stats.first_token_s, r->opened_s, (double)rt_peak_memory_bytes() * 1e-6);
    if (r->settings->draft.draft)
        (void)fprintf(stderr,
                      "retort: draft: %zu of %zu tokens accepted (%.1f%%), %.2f tokens a pass of the model, "
                      "%.0f%% of the time in the draft\n",
                      r->stats.draft.accepted, r->stats.draft.tested,
                      100 * rate(r->stats.draft.accepted, (double)r->stats.draft.tested), tokens_a_round(r),
                      100 * (r->stats.decode_s > 0 ? r->stats.draft.seconds / r->stats.decode_s : 0));
}

static json_t *stats_json(const run *r)
{
    json_t *json =
        json_pack("{s:I,s:I,s:I,s:f,s:f,s:f,s:f,s:I}", "prompt_tokens", (json_int_t)r->stats.prompt_tokens,
                  "prompt_shared_tokens", (json_int_t)r->stats.prompt_shared, "answer_tokens",
                  (json_int_t)r->stats.answer_tokens, "prefill_tokens_per_s", prefill_rate(r),
                  "decode_tokens_per_s", decode_rate(r), "first_token_s", r->stats.first_token_s, "open_s",
                  r->opened_s, "peak_memory_bytes", (json_int_t)rt_peak_memory_bytes());
    if (r->settings->draft.draft)
        (void)json_object_set_new(
            json, "draft",
            json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:f,s:f,s:f,s:f}", "rounds",
                      (json_int_t)r->stats.draft.rounds, "proposed", (json_int_t)r->stats.draft.proposed,
                      "tested", (json_int_t)r->stats.draft.tested, "accepted",
                      (json_int_t)r->stats.draft.accepted, "looked_up_tested",
                      (json_int_t)r->stats.draft.looked_up_tested, "looked_up_accepted",
                      (json_int_t)r->stats.draft.looked_up_accepted, "acceptance",
                      rate(r->stats.draft.accepted, (double)r->stats.draft.tested), "expected_acceptance",
                      r->stats.draft.tested ? r->stats.draft.expected / (double)r->stats.draft.tested : 0.0,
                      "tokens_a_round", tokens_a_round(r), "seconds", r->stats.draft.seconds));
    return json;
}

/* What is to be asked, and the context that the longest of it needs. */
static rt_status plan(run *r, size_t *context, rt_error *err)
{
    const settings *s = r->settings;
    const size_t limit = r->model.model->config.n_context;
    *context = s->context ? rt_size_min(s->context, limit) : limit;
    if (cli_prompts_render(&r->prompts, &r->model, *context, err) != RT_OK)
        return s->prompts ? rt_error_within(err, s->prompts) : err->status;
    r->asked = calloc(r->prompts.count, sizeof *r->asked);
    r->index = calloc(r->prompts.count, sizeof *r->index);
    if (!r->asked || !r->index)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu prompts", r->prompts.count);
    size_t longest = 1;
    for (size_t i = 0; i < r->prompts.count; i++) {
        const rt_token_list *ids = &r->prompts.list[i].ids;
        if (r->answers.done && r->answers.done[i])
            continue;
        longest = rt_size_max(longest, ids->count);
        r->index[r->n_asked] = i;
        r->asked[r->n_asked++] = (rt_prompt){ids->ids, ids->count, s->tokens_max, i};
    }
    if (s->tokens_max < *context - longest)
        *context = longest + rt_size_max(s->tokens_max, 1);
    return RT_OK;
}

static rt_status generate(run *r, rt_generate_options *options, rt_error *err)
{
    options->sampling = r->settings->sampling;
    options->sampling.marker = r->mark ? rt_mark_marker(r->mark) : NULL;
    options->n_slots = r->settings->slots;
    cli_draft_use(&r->draft, &r->settings->draft, options);
    options->context = r;
    r->begun = rt_clock_seconds();
    return rt_generate(r->model.model, r->model.tokenizer, r->asked, r->n_asked, options, &r->stats, err);
}

static int answer_one(run *r, rt_error *err)
{
    rt_generate_options options = {.token = stream_token, .answer = keep_answer};
    if (plan(r, &options.n_positions, err) != RT_OK)
        return cli_fail(err);
    r->stream.terminal = isatty(STDOUT_FILENO);
    const rt_status status = generate(r, &options, err);
    if (!r->settings->json && (status == RT_OK || status == RT_STOPPED)) {
        cli_stream_end(&r->stream);
        if (printf("\n") < 0 || fflush(stdout) != 0)
            return cli_fail(&(rt_error){RT_IO, "the answer cannot be written to standard output"});
    }
    if (status == RT_STOPPED)
        (void)cli_stopped(err, "the answer is not whole");
    if (status != RT_OK)
        return cli_fail(err);
    print_stats(r);
    if (!r->settings->json)
        return 0;
    (void)json_object_set_new(r->row, "stats", stats_json(r));
    return cli_print_json(json_incref(r->row));
}

static rt_status answer_all(run *r, rt_error *err)
{
    rt_generate_options options = {.token = count_token, .answer = write_answer};
    if (cli_answers_open(&r->answers, r->settings->out, r->settings->resume, &r->prompts, err) != RT_OK ||
        plan(r, &options.n_positions, err) != RT_OK)
        return err->status;
    if (r->n_asked == 0)
        return RT_OK;
    cli_progress_open(&r->bar, "answers", r->answers.n_done, r->prompts.count, 10);
    const rt_status status = generate(r, &options, err);
    cli_progress_close(&r->bar);
    if (r->write_err.status != RT_OK)
        *err = r->write_err;
    else if (status == RT_STOPPED)
        (void)cli_stopped(err, r->settings->out ? "the same command with --resume goes on"
                                                : "with --out FILE it could go on");
    return err->status;
}

static int answer_many(run *r, rt_error *err)
{
    const settings *s = r->settings;
    if (s->json && !s->out)
        return cli_fail(&(rt_error){RT_INVALID, "generate: --json with many prompts needs --out FILE"});
    rt_status status = answer_all(r, err);
    const size_t skipped = r->answers.n_done;
    rt_error close_err = {0};
    if (cli_answers_close(&r->answers, &close_err) != RT_OK && status == RT_OK) {
        *err = close_err;
        status = close_err.status;
    }
    if (r->stats.answer_tokens)
        print_stats(r);
    if (status != RT_OK)
        return cli_fail(err);
    if (s->json)
        return cli_print_json(json_pack("{s:s,s:I,s:I,s:o}", "out", s->out, "answered",
                                        (json_int_t)r->n_answered, "skipped", (json_int_t)skipped, "stats",
                                        stats_json(r)));
    return 0;
}

static int work(run *r, rt_error *err)
{
    const settings *s = r->settings;
    if (rt_sampling_check(&s->sampling, err) != RT_OK || read_prompts(r, err) != RT_OK)
        return cli_fail(err);
    if (!s->prompts && (s->out || s->resume))
        return cli_fail(&(rt_error){RT_INVALID, "generate: --out and --resume belong to --prompts FILE"});
    const double from = rt_clock_seconds();
    if (rt_pool_open(&r->pool, (unsigned)rt_size_min(s->threads, 1 << 16), err) != RT_OK ||
        cli_model_open(&r->model, s->model, cli_precision(s->precision), s->raw ? CLI_MODEL_NO_TEMPLATE : 0,
                       r->pool, err) != RT_OK ||
        cli_mark_open(&r->mark, &r->mark_key, &r->mark_json, &s->mark, r->model.model->config.n_vocab,
                      r->model.tokenizer, err) != RT_OK)
        return cli_fail(err);
    if (cli_draft_open(&r->draft, &s->draft, &r->model, cli_precision(s->precision), r->pool, err) != RT_OK)
        return cli_fail(err);
    r->opened_s = rt_clock_seconds() - from;
    cli_interrupts_watch();
    return s->prompts ? answer_many(r, err) : answer_one(r, err);
}

int cmd_generate(int argc, char **argv)
{
    settings s = {
        .precision = "int8", .tokens_max = 256, .sampling = rt_sampling_default(), .mark = {.alpha = 0.3}};
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "The prompt is --prompt, or what comes on standard input; its answer goes to standard output as it\n"
         "is made. With --prompts FILE (JSONL rows with \"prompt\" or \"messages\"; a last answer in the\n"
         "messages is left out) the answers are rows {index, prompt, completion, finish_reason,\n"
         "prompt_tokens, completion_tokens}, written as they end. Stopped or killed, the same command with\n"
         "--resume answers the prompts that have no row yet. The model's chat template is used unless "
         "--raw.\nWith --draft prompts are answered one after another.\n\n"
         "Examples:\n  retort generate smollm2-135m-instruct --prompt 'Why is the sky blue?'\n"
         "  retort generate student/ --prompts prompts.jsonl --out answers.jsonl --resume\n"
         "  retort generate smollm2-135m-instruct --draft run/student --prompt 'Why is the sky blue?'"},
        {CLI_STRING, "MODEL", &s.model, "GGUF file, folder, or a model that was pulled"},
        {CLI_STRING, "--prompt TEXT", &s.prompt, "answer this"},
        {CLI_STRING, "--prompts FILE", &s.prompts, "answer every row of a JSONL file"},
        {CLI_STRING, "--out FILE", &s.out, "where the rows go (default: standard output)"},
        {CLI_FLAG, "--resume", &s.resume, "go on with the rows that --out has"},
        {CLI_STRING, "--system TEXT", &s.system, "what the model is told before the prompt"},
        {CLI_FLAG, "--raw", &s.raw, "continue the text: no chat template"},
        {CLI_COUNT, "--tokens-max N", &s.tokens_max, "of an answer (default 256)"},
        CLI_SAMPLING_ROWS(s.sampling),
        CLI_MARK_ROWS(s.mark),
        {CLI_STRING, "--watermark-account NAME", &s.mark.account,
         "a second key, derived for this account, for a share of the tokens"},
        {CLI_COUNT, "--slots N", &s.slots, "answers side by side (default 16)"},
        CLI_DRAFT_ROWS(s.draft),
        {CLI_COUNT, "--context N", &s.context, "tokens of prompt and answer (default: the model's)"},
        {CLI_STRING, "--precision " CLI_PRECISIONS, &s.precision, "of the computation (default int8)"},
        {CLI_COUNT, "--threads N", &s.threads, "default: one a processor"},
        {CLI_FLAG, "--json", &s.json, "print one JSON object: the answer's row, or the totals"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    if (cli_parse(spec, argc, argv, &err) != RT_OK)
        return cli_fail(&err);
    run r = {.settings = &s};
    const int status = work(&r, &err);
    free(r.answers.done);
    json_decref(r.row);
    free(r.asked);
    free(r.index);
    cli_prompts_deinit(&r.prompts);
    json_decref(r.mark_json);
    rt_mark_close(r.mark);
    cli_draft_close(&r.draft);
    cli_model_close(&r.model);
    rt_pool_close(r.pool);
    return status;
}
