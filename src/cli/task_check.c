/* cli/task_check.c - `retort task prompts` and `task check`: problems out as prompts, answers back in; those
 * that are right become training text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/size.h"
#include "cli/cli.h"
#include "cli/task.h"
#include "judge/harvest.h"
#include "outputs/lines.h"

enum { WORDS_SHARED = 13 }; /* in a row: the usual measure of a test set's traces */

/* ---- prompts ---- */

/* What is asked: the problem, and an instruction behind it. */
static void put_question(rt_text *out, const rt_problem *problem, const char *instruction)
{
    rt_text_puts(out, problem->prompt);
    if (instruction)
        rt_text_printf(out, "\n%s", instruction);
}

static rt_status write_prompts(const rt_problems *problems, const char *instruction, size_t samples,
                               const char *path, rt_error *err)
{
    rt_text out = {0};
    for (size_t i = 0; i < problems->count * samples; i++) {
        const rt_problem *p = &problems->list[i / samples];
        if (p->kind == RT_PROBLEM_CHOICE) {
            rt_text_deinit(&out);
            return rt_error_set(err, RT_INVALID,
                                "line %zu: a choice is made by likelihood and has no prompt: use 'task run'",
                                p->line);
        }
        rt_text question = {0};
        put_question(&question, p, instruction);
        json_t *row =
            json_pack("{s:o, s:I}", "prompt", rt_json_text(question.data ? question.data : "", question.size),
                      "line", (json_int_t)p->line);
        char *text = row ? json_dumps(row, JSON_COMPACT) : NULL;
        rt_text_printf(&out, "%s\n", text ? text : "");
        free(text);
        json_decref(row);
        rt_text_deinit(&question);
    }
    rt_status status = RT_OK;
    if (out.failed)
        status = rt_error_set(err, RT_NO_MEMORY, "no memory for the prompts");
    else if (path)
        status = rt_file_write(path, out.data, out.size, err);
    else if (fwrite(out.data, 1, out.size, stdout) != out.size)
        status = rt_error_set(err, RT_IO, "standard output cannot be written");
    rt_text_deinit(&out);
    return status;
}

int cli_task_prompts(int argc, char **argv)
{
    const char *file = NULL, *out = NULL, *instruction = NULL;
    size_t most = 0, samples = 1;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Rows {\"prompt\"} for `generate --prompts` and `collect --in`; a problem stands --samples times "
         "for\n"
         "`generate` (collect has --samples itself).\n\n"
         "Example:\n  retort task prompts gsm8k_train.jsonl.zst --instruction 'Think step by step; end with "
         "#### N.' \\\n"
         "      --samples 4 --out prompts.jsonl"},
        {CLI_STRING, "FILE", &file, "JSONL (.zst) of problems, as in task run"},
        {CLI_STRING, "--out FILE", &out, "where they go (default: standard output)"},
        {CLI_COUNT, "--most N", &most, "only the first N problems"},
        {CLI_COUNT, "--samples K", &samples, "each so many times (default 1)"},
        {CLI_STRING, "--instruction TEXT", &instruction, "put behind each problem"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    rt_problems problems = {0};
    rt_status status = cli_parse(spec, argc, argv, &err);
    if (status == RT_OK && samples == 0)
        status = rt_error_set(&err, RT_INVALID, "task prompts: --samples 0 asks for nothing");
    if (status == RT_OK)
        status = rt_problems_read(&problems, file, most, &err);
    if (status == RT_OK)
        status = write_prompts(&problems, instruction, samples, out, &err);
    rt_problems_deinit(&problems);
    return status == RT_OK ? 0 : cli_fail(&err);
}

/* ---- check ---- */

typedef struct answer {
    size_t problem, tokens;
    rt_text text; /* thought and answer */
    bool stopped;
    rt_verdict verdict;
} answer;

typedef struct key {
    uint64_t hash;
    size_t problem;
} key;

typedef struct check {
    const char *problems_path, *answers_path, *against, *before, *out, *rows, *instruction;
    rt_problems problems;
    key *keys;      /* [2 problems] sorted: the problems by what may have been asked */
    bool *left_out; /* [problems] shares words with --against */
    answer *answers;
    size_t count, capacity, strangers, n_left_out;
    cli_task_answers verdicts;
    rt_answer_options rules;
    rt_harvest_options harvest;
    rt_harvest_counts counts;
    size_t most, seconds;
    bool json;
} check;

static uint64_t hash_text(const char *text) { return rt_hash64(text, strlen(text), 0); }

static int by_hash(const void *a, const void *b)
{
    const key *x = a, *y = b;
    return (x->hash > y->hash) - (x->hash < y->hash);
}

static rt_status open_problems(check *c, rt_error *err)
{
    if (rt_problems_read(&c->problems, c->problems_path, c->most, err) != RT_OK)
        return err->status;
    c->keys = calloc(2 * c->problems.count, sizeof *c->keys);
    c->left_out = calloc(c->problems.count, sizeof *c->left_out);
    if (!c->keys || !c->left_out)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu problems", c->problems.count);
    for (size_t i = 0; i < c->problems.count; i++) {
        if (c->problems.list[i].kind == RT_PROBLEM_CHOICE)
            return rt_error_set(err, RT_INVALID,
                                "%.200s:%zu: choices have no answers in words: use 'task run'",
                                c->problems_path, c->problems.list[i].line);
        rt_text question = {0};
        put_question(&question, &c->problems.list[i], c->instruction);
        c->keys[2 * i] = (key){question.data ? hash_text(question.data) : 0, i};
        c->keys[2 * i + 1] = (key){hash_text(c->problems.list[i].prompt), i};
        rt_text_deinit(&question);
    }
    qsort(c->keys, 2 * c->problems.count, sizeof *c->keys, by_hash);
    return RT_OK;
}

static const char *text_of(const json_t *row, const char *const *keys)
{
    for (size_t i = 0; keys[i]; i++) {
        const char *text = json_string_value(json_object_get(row, keys[i]));
        if (text)
            return text;
    }
    return NULL;
}

/* What the data set says of a problem: without the words that every prompt for a program has. */
static const char *own_words(const rt_problem *problem)
{
    static const char *const keys[] = {"text", "prompt", "question", NULL};
    const char *text = problem->kind == RT_PROBLEM_PROGRAM ? text_of(problem->row, keys) : NULL;
    return text ? text : problem->prompt;
}

static rt_status leave_out(check *c, rt_error *err)
{
    rt_problems others = {0};
    rt_overlap *overlap = NULL;
    rt_status status = rt_problems_read(&others, c->against, 0, err);
    if (status == RT_OK)
        status = rt_overlap_open(&overlap, WORDS_SHARED, err);
    for (size_t i = 0; i < others.count && status == RT_OK; i++)
        if (others.list[i].prompt)
            status =
                rt_overlap_add(overlap, own_words(&others.list[i]), strlen(own_words(&others.list[i])), err);
    for (size_t i = 0; i < c->problems.count && status == RT_OK; i++) {
        const char *words = own_words(&c->problems.list[i]);
        c->left_out[i] = rt_overlap_shares(overlap, words, strlen(words));
        c->n_left_out += c->left_out[i];
    }
    rt_overlap_close(overlap);
    rt_problems_deinit(&others);
    return status;
}

/* What was asked in a row of generate, task run or collect; NULL: it does not say. */
static const char *question_of(const json_t *row)
{
    const json_t *request = json_object_get(row, "request");
    const json_t *from = request ? request : row;
    const char *prompt = json_string_value(json_object_get(from, "prompt"));
    const json_t *messages = json_object_get(from, "messages");
    for (size_t i = json_array_size(messages); i-- > 0 && !prompt;) {
        const json_t *one = json_array_get(messages, i);
        const char *role = json_string_value(json_object_get(one, "role"));
        if (role && strcmp(role, "user") == 0)
            prompt = json_string_value(json_object_get(one, "content"));
    }
    return prompt;
}

static bool find_problem(const check *c, const char *question, size_t *out)
{
    const key wanted = {hash_text(question), 0};
    const key *found = bsearch(&wanted, c->keys, 2 * c->problems.count, sizeof wanted, by_hash);
    *out = found ? found->problem : 0;
    return found != NULL;
}

static rt_status add_answer(check *c, const json_t *row, const char *where, rt_error *err)
{
    static const char *const text_keys[] = {"completion", "text", "response", NULL};
    const char *question = question_of(row), *text = text_of(row, text_keys),
               *reasoning = json_string_value(json_object_get(row, "reasoning")),
               *finish = json_string_value(json_object_get(row, "finish_reason"));
    if (!question || !text)
        return rt_error_set(
            err, RT_INVALID,
            "%.200s: an answer needs what was asked (prompt or messages) and completion, text or "
            "response",
            where);
    answer a = {.stopped = !finish || strcmp(finish, "stop") == 0};
    if (!find_problem(c, question, &a.problem)) {
        c->strangers++;
        return RT_OK;
    }
    const json_t *usage = json_object_get(row, "usage");
    const json_t *tokens = json_object_get(usage ? usage : row, "completion_tokens");
    a.tokens = json_integer_value(tokens) > 0 ? (size_t)json_integer_value(tokens) : 0;
    if (reasoning && *reasoning)
        rt_text_printf(&a.text, "<think>\n%s\n</think>\n\n", reasoning);
    rt_text_puts(&a.text, text);
    if (!a.text.data)
        rt_text_append(&a.text, "", 0);
    if (c->count == c->capacity) {
        const size_t capacity = c->capacity * 2 + 256;
        answer *grown = realloc(c->answers, capacity * sizeof *grown);
        if (!grown) {
            rt_text_deinit(&a.text);
            return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu answers", capacity);
        }
        c->answers = grown;
        c->capacity = capacity;
    }
    c->answers[c->count++] = a;
    return a.text.failed ? rt_error_set(err, RT_NO_MEMORY, "no memory for an answer") : RT_OK;
}

static rt_status read_answers(check *c, rt_error *err)
{
    rt_lines *lines;
    if (rt_lines_open(&lines, c->answers_path, err) != RT_OK)
        return err->status;
    const char *line;
    size_t size;
    bool whole;
    rt_status status;
    while ((status = rt_lines_next(lines, &line, &size, &whole, err)) == RT_OK && line) {
        char where[320];
        json_t *row;
        if (size == 0)
            continue;
        (void)snprintf(where, sizeof where, "%.280s:%zu", c->answers_path, rt_lines_number(lines));
        if ((status = rt_json_parse(&row, line, size, where, err)) != RT_OK)
            break;
        status = add_answer(c, row, where, err);
        json_decref(row);
        if (status != RT_OK)
            break;
    }
    rt_lines_close(lines);
    if (status == RT_OK && c->count == 0)
        status = rt_error_set(err, RT_INVALID,
                              "%.200s: none of its %zu rows answers a problem of %.200s; was another "
                              "--instruction given?",
                              c->answers_path, c->strangers, c->problems_path);
    return status;
}

static rt_status judge(check *c, rt_error *err)
{
    for (size_t i = 0; i < c->count; i++) {
        answer *a = &c->answers[i];
        rt_text final = {0};
        rt_status status = rt_answer_check(&a->verdict, &c->problems.list[a->problem], a->text.data,
                                           a->text.size, &c->rules, &final, err);
        if (status == RT_OK &&
            !cli_task_add(&c->verdicts, a->problem, a->verdict, final.data ? final.data : ""))
            status = rt_error_set(err, RT_NO_MEMORY, "no memory for an answer");
        rt_text_deinit(&final);
        if (status != RT_OK)
            return status;
        if (cli_interrupted())
            return cli_stopped(err, "nothing was written");
    }
    return RT_OK;
}

static rt_status harvest(check *c, rt_error *err)
{
    rt_harvest_answer *list = calloc(c->count, sizeof *list);
    rt_text out = {0};
    if (!list)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu answers", c->count);
    for (size_t i = 0; i < c->count; i++) {
        const answer *a = &c->answers[i];
        list[i] = (rt_harvest_answer){.problem = a->problem,
                                      .text = a->text.data,
                                      .n = a->text.size,
                                      .tokens = a->tokens,
                                      .stopped = a->stopped,
                                      .verdict = c->left_out[a->problem] ? RT_VERDICT_NONE : a->verdict};
    }
    rt_status status = rt_harvest(list, c->count, &c->harvest, &c->counts, err);
    for (size_t i = 0; i < c->count && status == RT_OK; i++) {
        if (!list[i].kept)
            continue;
        rt_text question = {0};
        put_question(&question, &c->problems.list[list[i].problem], c->instruction);
        json_t *row = json_pack("{s:o, s:o, s:s}", "prompt",
                                rt_json_text(question.data ? question.data : "", question.size), "completion",
                                rt_json_text(list[i].text, list[i].n), "finish_reason", "stop");
        char *text = row ? json_dumps(row, JSON_COMPACT) : NULL;
        rt_text_printf(&out, "%s\n", text ? text : "");
        free(text);
        json_decref(row);
        rt_text_deinit(&question);
    }
    if (status == RT_OK && c->out)
        status = out.failed ? rt_error_set(err, RT_NO_MEMORY, "no memory for the training text")
                            : rt_file_write(c->out, out.data ? out.data : "", out.size, err);
    rt_text_deinit(&out);
    free(list);
    return status;
}

/* Each answer that was judged: its problem's line, and whether it is right. */
static rt_status write_rows(const check *c, rt_error *err)
{
    rt_text out = {0};
    for (size_t i = 0; i < c->count; i++) {
        const answer *a = &c->answers[i];
        rt_text_printf(&out, "{\"line\":%zu,\"verdict\":\"%s\",\"completion_tokens\":%zu,\"stopped\":%s}\n",
                       c->problems.list[a->problem].line, cli_verdict_word(a->verdict), a->tokens,
                       a->stopped ? "true" : "false");
    }
    const rt_status status = out.failed ? rt_error_set(err, RT_NO_MEMORY, "no memory for %zu rows", c->count)
                                        : rt_file_write(c->rows, out.data, out.size, err);
    rt_text_deinit(&out);
    return status;
}

static json_t *counts_json(const check *c)
{
    const rt_harvest_counts *n = &c->counts;
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "kept", (json_int_t)n->kept, "cut",
                     (json_int_t)n->cut, "too long", (json_int_t)n->long_, "looping", (json_int_t)n->looping,
                     "twice", (json_int_t)n->twice, "beyond the number a problem", (json_int_t)n->beyond,
                     "problems like those of --against", (json_int_t)c->n_left_out);
}

static void print_counts(const check *c)
{
    const rt_harvest_counts *n = &c->counts;
    (void)printf("kept                    %zu of %zu right answers", n->kept, n->right);
    const struct {
        size_t count;
        const char *why;
    } left[] = {{n->cut, "cut"},
                {n->long_, "too long"},
                {n->looping, "looping"},
                {n->twice, "said before"},
                {n->beyond, "beyond the number a problem"}};
    for (size_t i = 0; i < sizeof left / sizeof left[0]; i++)
        if (left[i].count)
            (void)printf("; %zu %s", left[i].count, left[i].why);
    (void)printf("\n");
    if (c->n_left_out)
        (void)printf("left out                %zu problems that share %d words in a row with --against\n",
                     c->n_left_out, (int)WORDS_SHARED);
    if (c->strangers)
        (void)printf("not asked               %zu answers to other questions\n", c->strangers);
}

static void close_check(check *c)
{
    for (size_t i = 0; i < c->count; i++)
        rt_text_deinit(&c->answers[i].text);
    free(c->answers);
    free(c->keys);
    free(c->left_out);
    cli_task_deinit(&c->verdicts);
    rt_problems_deinit(&c->problems);
}

static void print_difference(const char *name, const rt_interval *x)
{
    (void)printf("  %-22s%+6.2f points  [%+.2f, %+.2f]\n", name, 100 * x->value, 100 * x->lo, 100 * x->hi);
}

/* How much better the answers are than another model's to the same problems. */
static rt_status compare(const check *c, json_t *json, rt_error *err)
{
    rt_task_difference d;
    check other = {.problems_path = c->problems_path,
                   .answers_path = c->before,
                   .instruction = c->instruction,
                   .rules = c->rules,
                   .most = c->most};
    rt_status status = RT_OK;
    if (open_problems(&other, err) != RT_OK || read_answers(&other, err) != RT_OK ||
        judge(&other, err) != RT_OK ||
        rt_task_compare(&d, c->verdicts.list, c->verdicts.count, other.verdicts.list, other.verdicts.count,
                        c->problems.count, 1, err) != RT_OK)
        status = err->status;
    else if (d.problems == 0)
        status =
            rt_error_set(err, RT_INVALID, "--before %.200s: no problem is answered in both files", c->before);
    close_check(&other);
    if (status != RT_OK)
        return status;
    (void)json_object_set_new(json, "less_before",
                              json_pack("{s:I, s:o, s:o}", "problems", (json_int_t)d.problems, "accuracy",
                                        rt_interval_json(&d.accuracy), "majority",
                                        rt_interval_json(&d.majority)));
    if (c->json)
        return RT_OK;
    (void)printf("less those before        %zu problems\n", d.problems);
    print_difference("accuracy", &d.accuracy);
    print_difference("majority", &d.majority);
    return RT_OK;
}

static rt_status run_check(check *c, json_t **json, rt_error *err)
{
    rt_task_figures figures;
    if (open_problems(c, err) != RT_OK || (c->against && leave_out(c, err) != RT_OK) ||
        read_answers(c, err) != RT_OK || judge(c, err) != RT_OK || harvest(c, err) != RT_OK ||
        (c->rows && write_rows(c, err) != RT_OK) ||
        rt_task_count(&figures, c->verdicts.list, c->verdicts.count, c->problems.count, 1, err) != RT_OK)
        return err->status;
    *json = cli_task_json(&figures);
    (void)json_object_set_new(*json, "harvest", counts_json(c));
    if (!c->json) {
        cli_task_print(&figures);
        print_counts(c);
    }
    return c->before ? compare(c, *json, err) : RT_OK;
}

int cli_task_check(int argc, char **argv)
{
    const char *keep = "all";
    check c = {.rules = {.limits = rt_sandbox_limits_default()}, .seconds = 5};
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Answers are rows of generate, collect or task run; they find their problem by what was asked. With "
         "--out,\n"
         "the right ones become training text: those that ended by themselves, within --tokens-max, without "
         "loops,\n"
         "each text once.\n\n"
         "Example:\n  retort task check gsm8k_train.jsonl.zst answers.jsonl --keep shortest --against "
         "gsm8k_test.jsonl.zst \\\n"
         "      --out train.jsonl\n"
         "  retort task check gsm8k_test.jsonl.zst student.jsonl --before start.jsonl"},
        {CLI_STRING, "PROBLEMS", &c.problems_path, "JSONL (.zst) of problems, as in task run"},
        {CLI_STRING, "ANSWERS", &c.answers_path, "JSONL (.zst) of answers"},
        {CLI_STRING, "--instruction TEXT", &c.instruction, "that stood behind each problem"},
        {CLI_STRING, "--out FILE", &c.out, "training text: rows {prompt, completion, finish_reason}"},
        {CLI_STRING, "--rows FILE", &c.rows,
         "each answer's verdict: rows {line, verdict, completion_tokens, stopped}"},
        {CLI_STRING, "--keep all|shortest|first", &keep, "of a problem's right answers (default all)"},
        {CLI_COUNT, "--per-problem N", &c.harvest.most,
         "at most (default: all of all, one of shortest and first)"},
        {CLI_COUNT, "--tokens-max N", &c.harvest.tokens_max, "longer answers are left out, never cut"},
        {CLI_STRING, "--against FILE", &c.against,
         "problems that share 13 words in a row with these are left out"},
        {CLI_STRING, "--before FILE", &c.before,
         "another model's answers to the same problems: the difference, paired\nby problem, with its "
         "interval"},
        {CLI_COUNT, "--most N", &c.most, "only the first N problems"},
        {CLI_COUNT, "--seconds N", &c.seconds,
         "processor time of a program (default 5); the clock may show five times as much"},
        {CLI_FLAG, "--json", &c.json, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    json_t *json = NULL;
    if (cli_parse(spec, argc, argv, &err) != RT_OK)
        return cli_fail(&err);
    c.harvest.keep = strcmp(keep, "all") == 0        ? RT_KEEP_ALL
                     : strcmp(keep, "shortest") == 0 ? RT_KEEP_SHORTEST
                                                     : RT_KEEP_FIRST;
    cli_task_limit(&c.rules.limits, c.seconds);
    cli_interrupts_watch();
    const rt_status status = run_check(&c, &json, &err);
    close_check(&c);
    if (status == RT_OK && c.json)
        return cli_print_json(json);
    json_decref(json);
    return status == RT_OK ? 0 : cli_fail(&err);
}
