/* cli/task_duel.c - `retort task duel`: a model judges which of two answers to a request is better, both ways
 * round. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/size.h"
#include "cli/cli.h"
#include "cli/open_model.h"
#include "cli/progress.h"
#include "cli/prompts.h"
#include "cli/task.h"
#include "judge/duel.h"
#include "model/session.h"
#include "outputs/lines.h"

static const char question[] = "Here are a request and two answers to it. Which answer is better: right, "
                               "helpful and to the point? Being "
                               "longer is no merit of its own.\n\nRequest:\n%s\n\nAnswer A:\n%s\n\nAnswer "
                               "B:\n%s\n\nReply with one letter, "
                               "A or B.";

typedef struct arguments {
    const char *first, *second, *judge, *precision, *out;
    size_t most, context, threads;
    bool json;
} arguments;

typedef struct duel {
    const arguments *arguments;
    json_t *second; /* request -> list of answers that are not taken yet */
    size_t unpaired;
    rt_pool *pool;
    cli_model judge;
    cli_prompts prompts; /* two a round: the second model's answer as B, then as A */
    rt_duel_round *rounds;
    size_t count, capacity;
    rt_session *session;
    float *logits;
    int32_t letters[2];
    FILE *out;
    cli_progress bar;
} duel;

/* ---- the two files ---- */

/* The request as text: a prompt, or messages without the last answer. The caller frees it; NULL: neither. */
static char *request_of(const json_t *row)
{
    const json_t *prompt = json_object_get(row, "prompt"), *messages = json_object_get(row, "messages");
    rt_text text = {0};
    size_t i;
    const json_t *one;
    if (json_is_string(prompt))
        return strdup(json_string_value(prompt));
    json_array_foreach(messages, i, one)
    {
        const char *role = json_string_value(json_object_get(one, "role")),
                   *content = json_string_value(json_object_get(one, "content"));
        if (role && content && !(i + 1 == json_array_size(messages) && strcmp(role, "assistant") == 0))
            rt_text_printf(&text, "%s%s: %s", i ? "\n" : "", role, content);
    }
    return text.data; /* NULL for none */
}

/* completion, or the last message */
static const char *answer_of(const json_t *row)
{
    const json_t *messages = json_object_get(row, "messages"),
                 *last = json_array_get(messages, json_array_size(messages) - 1);
    const char *completion = json_string_value(json_object_get(row, "completion")),
               *role = json_string_value(json_object_get(last, "role"));
    return completion || !role || strcmp(role, "assistant") != 0
               ? completion
               : json_string_value(json_object_get(last, "content"));
}

typedef rt_status (*answer_fn)(duel *d, const char *request, const char *answer, rt_error *err);

static rt_status read_answers(duel *d, const char *path, answer_fn take, rt_error *err)
{
    rt_lines *lines;
    const char *line;
    size_t size;
    bool whole;
    rt_status status = rt_lines_open(&lines, path, err);
    if (status != RT_OK)
        return status;
    while ((status = rt_lines_next(lines, &line, &size, &whole, err)) == RT_OK && line) {
        char where[320];
        json_t *row;
        if (strspn(line, " \t\r") >= size)
            continue;
        (void)snprintf(where, sizeof where, "%.280s:%zu", path, rt_lines_number(lines));
        if ((status = rt_json_parse(&row, line, size, where, err)) != RT_OK)
            break;
        char *request = request_of(row);
        const char *answer = answer_of(row);
        status =
            request && answer
                ? take(d, request, answer, err)
                : rt_error_set(err, RT_INVALID,
                               "%.300s: a row needs \"prompt\" and \"completion\", or \"messages\" that end "
                               "with an answer",
                               where);
        free(request);
        json_decref(row);
        if (status != RT_OK)
            break;
    }
    rt_lines_close(lines);
    return status;
}

static rt_status keep_second(duel *d, const char *request, const char *answer, rt_error *err)
{
    json_t *list = json_object_get(d->second, request);
    if (!list) {
        list = json_array();
        (void)json_object_set_new(d->second, request, list);
    }
    return list && json_array_append_new(list, json_string(answer)) == 0
               ? RT_OK
               : rt_error_set(err, RT_NO_MEMORY, "no memory for the answers");
}

static rt_status add_prompt(duel *d, const char *request, const char *a, const char *b, rt_error *err)
{
    rt_text text = {0};
    rt_text_printf(&text, question, request, a, b);
    const rt_status status = text.failed ? rt_error_set(err, RT_NO_MEMORY, "no memory for a request")
                                         : cli_prompts_add(&d->prompts, text.data, text.size, NULL, err);
    rt_text_deinit(&text);
    return status;
}

static rt_status pair_up(duel *d, const char *request, const char *answer, rt_error *err)
{
    json_t *list = json_object_get(d->second, request);
    if (d->arguments->most && d->count == d->arguments->most)
        return RT_OK;
    if (json_array_size(list) == 0) {
        d->unpaired++;
        return RT_OK;
    }
    if (d->count == d->capacity) {
        const size_t capacity = d->capacity * 2 + 64;
        rt_duel_round *rounds = realloc(d->rounds, capacity * sizeof *rounds);
        if (!rounds)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu requests", capacity);
        d->rounds = rounds;
        d->capacity = capacity;
    }
    const char *other = json_string_value(json_array_get(list, 0));
    d->rounds[d->count++] = (rt_duel_round){.bytes_first_model = (double)strlen(answer),
                                            .bytes_second_model = (double)strlen(other)};
    rt_status status = add_prompt(d, request, answer, other, err);
    if (status == RT_OK)
        status = add_prompt(d, request, other, answer, err);
    (void)json_array_remove(list, 0);
    return status;
}

/* ---- the judge ---- */

static rt_status find_letters(duel *d, rt_error *err)
{
    static const char *const words[] = {"A", "B"};
    for (size_t i = 0; i < 2; i++) {
        rt_token_list ids = {0};
        rt_status status = rt_tokenizer_encode(d->judge.tokenizer, words[i], 1, false, &ids, err);
        if (status == RT_OK && ids.count == 0)
            status = rt_error_set(err, RT_INVALID, "the judge's tokenizer has no token for '%s'", words[i]);
        if (status == RT_OK)
            d->letters[i] = ids.ids[ids.count - 1];
        rt_token_list_deinit(&ids);
        if (status != RT_OK)
            return status;
    }
    return RT_OK;
}

static rt_status open_judge(duel *d, rt_error *err)
{
    const arguments *a = d->arguments;
    if (rt_pool_open(&d->pool, (unsigned)rt_size_min(a->threads, 1 << 16), err) != RT_OK ||
        cli_model_open(&d->judge, a->judge, cli_precision(a->precision), 0, d->pool, err) != RT_OK ||
        find_letters(d, err) != RT_OK)
        return err->status;
    const size_t limit = d->judge.model->config.n_context,
                 context = a->context ? rt_size_min(a->context, limit) : rt_size_min(limit, 8192);
    size_t longest = 1;
    if (cli_prompts_render(&d->prompts, &d->judge, context, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < d->prompts.count; i++)
        longest = rt_size_max(longest, d->prompts.list[i].ids.count);
    d->logits = malloc(d->judge.model->config.n_vocab * sizeof *d->logits);
    return d->logits ? rt_session_open(&d->session, d->judge.model, 1, longest, err)
                     : rt_error_set(err, RT_NO_MEMORY, "no memory for logits");
}

/* The chance of B among the two letters. */
static rt_status ask(duel *d, size_t prompt, double *chance_b, rt_error *err)
{
    const rt_token_list *ids = &d->prompts.list[prompt].ids;
    rt_session_truncate(d->session, 0, 0);
    if (rt_session_prefill(d->session, 0, ids->ids, ids->count, d->logits, err) != RT_OK)
        return err->status;
    *chance_b = 1 / (1 + exp((double)d->logits[d->letters[0]] - (double)d->logits[d->letters[1]]));
    return isfinite(*chance_b)
               ? RT_OK
               : rt_error_set(err, RT_NOT_FINITE, "the judge's logits are not finite numbers");
}

static rt_status write_round(duel *d, size_t i, rt_error *err)
{
    const rt_duel_round *r = &d->rounds[i];
    return !d->out ||
                   fprintf(
                       d->out,
                       "{\"round\": %zu, \"as_second\": %.6f, \"as_first\": %.6f, \"bytes\": [%.0f, %.0f]}\n",
                       i, r->as_second, r->as_first, r->bytes_first_model, r->bytes_second_model) > 0
               ? RT_OK
               : rt_error_set(err, RT_IO, "%.300s: cannot be written", d->arguments->out);
}

static rt_status judge_all(duel *d, rt_error *err)
{
    rt_status status = RT_OK;
    cli_interrupts_watch();
    cli_progress_open(&d->bar, "requests", 0, d->count, 10);
    for (size_t i = 0; i < d->count && status == RT_OK; i++) {
        double first_is_b = 0;
        if ((status = ask(d, 2 * i, &d->rounds[i].as_second, err)) == RT_OK)
            status = ask(d, 2 * i + 1, &first_is_b, err);
        d->rounds[i].as_first = 1 - first_is_b;
        if (status == RT_OK)
            status = write_round(d, i, err);
        cli_progress_update(&d->bar, i + 1, "");
        if (status == RT_OK && cli_interrupted())
            status = cli_stopped(err, "the figures are not made");
    }
    cli_progress_close(&d->bar);
    return status;
}

/* ---- figures ---- */

static void print_interval(const char *name, const rt_interval *x)
{
    (void)printf("%-36s%6.2f%%", name, 100 * x->value);
    if (!isnan(x->lo))
        (void)printf("  [%.2f, %.2f]", 100 * x->lo, 100 * x->hi);
    (void)printf("\n");
}

static int show(const duel *d, const rt_duel_figures *f)
{
    if (d->arguments->json) {
        json_t *out =
            json_pack("{s:I,s:I,s:f,s:f,s:f,s:[f,f]}", "requests", (json_int_t)f->rounds, "unpaired",
                      (json_int_t)d->unpaired, "length_coefficient", f->length, "first_place", f->first_place,
                      "consistent", f->consistent, "mean_bytes", f->mean_bytes[0], f->mean_bytes[1]);
        (void)json_object_set_new(out, "win_rate", rt_interval_json(&f->win_rate));
        (void)json_object_set_new(out, "length_controlled", rt_interval_json(&f->length_controlled));
        return cli_print_json(out);
    }
    (void)printf("%s against %s: %zu requests", d->arguments->second, d->arguments->first, f->rounds);
    (void)printf(d->unpaired ? ", %zu answers had no partner\n" : "\n", d->unpaired);
    print_interval("win rate of the second", &f->win_rate);
    print_interval("  at equal length", &f->length_controlled);
    (void)printf("%-36s%6.2f%%\n", "the same winner both ways round", 100 * f->consistent);
    (void)printf("%-36s%6.2f%%\n", "chance given to the first place", 100 * f->first_place);
    (void)printf("%-36s%.0f and %.0f\n", "mean bytes of an answer", f->mean_bytes[0], f->mean_bytes[1]);
    return 0;
}

static rt_status work(duel *d, rt_duel_figures *figures, rt_error *err)
{
    const arguments *a = d->arguments;
    d->second = json_object();
    if (read_answers(d, a->second, keep_second, err) != RT_OK ||
        read_answers(d, a->first, pair_up, err) != RT_OK)
        return err->status;
    if (d->count == 0)
        return rt_error_set(err, RT_INVALID, "%.200s and %.200s have no request in common", a->first,
                            a->second);
    if (a->out && !(d->out = fopen(a->out, "we")))
        return rt_error_set(err, RT_IO, "%.300s: cannot be created", a->out);
    if (open_judge(d, err) != RT_OK || judge_all(d, err) != RT_OK)
        return err->status;
    return rt_duel_count(figures, d->rounds, d->count, 1, err);
}

int cli_task_duel(int argc, char **argv)
{
    arguments a = {.precision = "int8"};
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Rows are what `generate --out` and `collect` write; answers to the same request are paired. The "
         "judge says\n"
         "how likely the one is better than the other, by the chances of its first token, once in each "
         "order: "
         "a\n"
         "liking for a place cancels. 'At equal length' takes out what it gives for length alone.\n\n"
         "Examples:\n  retort task duel start.jsonl student.jsonl --judge teacher.gguf\n"
         "  retort task duel start.jsonl student.jsonl --judge teacher.gguf --out rounds.jsonl --json"},
        {CLI_STRING | CLI_REQUIRED, "FIRST", &a.first, "answers of one model, JSONL (.zst)"},
        {CLI_STRING | CLI_REQUIRED, "SECOND", &a.second, "of the model whose win rate is asked"},
        {CLI_STRING | CLI_REQUIRED, "--judge MODEL", &a.judge, "who judges"},
        {CLI_COUNT, "--most N", &a.most, "only the first N requests"},
        {CLI_STRING, "--out FILE", &a.out, "the chances of each request, as JSONL"},
        {CLI_COUNT, "--context N", &a.context,
         "tokens of request and answers (default: the judge's, 8192 at most)"},
        {CLI_STRING, "--precision " CLI_PRECISIONS, &a.precision, "of the computation (default int8)"},
        {CLI_COUNT, "--threads N", &a.threads, "default: one a processor"},
        {CLI_FLAG, "--json", &a.json, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    if (cli_parse(spec, argc, argv, &err) != RT_OK)
        return cli_fail(&err);
    duel d = {.arguments = &a};
    rt_duel_figures figures;
    rt_status status = work(&d, &figures, &err);
    if (d.out && fclose(d.out) != 0 && status == RT_OK)
        status = rt_error_set(&err, RT_IO, "%.300s: cannot be written", a.out);
    const int code = status == RT_OK ? show(&d, &figures) : cli_fail(&err);
    rt_session_close(d.session);
    free(d.logits);
    free(d.rounds);
    json_decref(d.second);
    cli_prompts_deinit(&d.prompts);
    cli_model_close(&d.judge);
    rt_pool_close(d.pool);
    return code;
}
