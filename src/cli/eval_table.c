/* cli/eval_table.c - see eval_table.h. */
#include "cli/eval_table.h"

#include <math.h>
#include <stdio.h>

#include "base/size.h"

enum { LABEL_WIDTH = 27, CELL_WIDTH = 24, MODELS_A_TABLE = 3, CELL_SIZE = 80, NUMBER_SIZE = 24 };

static const char *const figure_texts[RT_EVAL_FIGURES] = {
#define RT_EVAL_FIGURE_TEXT(name, figure, text) text,
    RT_EVAL_FIGURE_MAP(RT_EVAL_FIGURE_TEXT)
#undef RT_EVAL_FIGURE_TEXT
};

/* About four digits, never an exponent below a million. */
static void format_number(char out[NUMBER_SIZE], double x)
{
    const double size = fabs(x);
    if (isnan(x))
        (void)snprintf(out, NUMBER_SIZE, "-");
    else
        (void)snprintf(out, NUMBER_SIZE, "%.*f",
                       size < 9.9995   ? 3
                       : size < 99.995 ? 2
                       : size < 999.95 ? 1
                                       : 0,
                       x);
    if (size >= 1e6)
        (void)snprintf(out, NUMBER_SIZE, "%.2e", x);
}

static void format_interval(char out[CELL_SIZE], const rt_interval *i)
{
    char value[NUMBER_SIZE], low[NUMBER_SIZE], high[NUMBER_SIZE];
    format_number(value, i->value);
    format_number(low, i->lo);
    format_number(high, i->hi);
    if (isnan(i->lo))
        (void)snprintf(out, CELL_SIZE, "%s", value);
    else
        (void)snprintf(out, CELL_SIZE, "%s [%s, %s]", value, low, high);
}

/* One model's cell of a row; false: the row has nothing there. */
typedef bool (*cell_fn)(char out[CELL_SIZE], const rt_eval_result *result, size_t model, size_t row);

static bool figure_cell(char out[CELL_SIZE], const rt_eval_result *r, size_t model, size_t row)
{
    format_interval(out, &r->figures[model].figures[row]);
    return true;
}

static bool round_cell(char out[CELL_SIZE], const rt_eval_result *r, size_t model, size_t row)
{
    (void)row;
    const rt_interval *a = &r->figures[model].figures[RT_EVAL_acceptance];
    const rt_interval tokens = {rt_tokens_per_round(a->value, RT_EVAL_DRAFTS),
                                rt_tokens_per_round(a->lo, RT_EVAL_DRAFTS),
                                rt_tokens_per_round(a->hi, RT_EVAL_DRAFTS)};
    format_interval(out, &tokens);
    return true;
}

static bool above_cell(char out[CELL_SIZE], const rt_eval_result *r, size_t model, size_t row)
{
    static const rt_interval none = {0, (double)NAN, (double)NAN}; /* the teacher's own */
    (void)row;
    format_interval(out, model ? &r->figures[model].nll_above_teacher : &none);
    return true;
}

enum { COST_SPEED, COST_MEMORY, COST_DISK, COSTS };
static const char *const cost_texts[COSTS] = {"decoding, tokens/s", "weights in memory, MB",
                                              "weights on disk, MB"};

static bool cost_cell(char out[CELL_SIZE], const rt_eval_result *r, size_t model, size_t row)
{
    const double speed = r->figures[model].decode_tokens_per_s;
    char number[NUMBER_SIZE];
    format_number(number, row == COST_SPEED    ? speed
                          : row == COST_MEMORY ? (double)r->figures[model].memory_bytes / 1e6
                                               : (double)r->models[model].file_bytes / 1e6);
    (void)snprintf(out, CELL_SIZE, "%s", number);
    return row != COST_SPEED || !isnan(speed);
}

static bool group_cell(char out[CELL_SIZE], const rt_eval_group *group)
{
    char kl[NUMBER_SIZE];
    format_number(kl, group->kl.value);
    (void)snprintf(out, CELL_SIZE, "%s, %.1f%%", kl, 100 * group->top1.value);
    return group->tokens > 0;
}

static bool position_cell(char out[CELL_SIZE], const rt_eval_result *r, size_t model, size_t row)
{
    return group_cell(out, &r->figures[model].positions[row]);
}

static bool kind_cell(char out[CELL_SIZE], const rt_eval_result *r, size_t model, size_t row)
{
    return group_cell(out, &r->figures[model].kinds[row]);
}

static void print_row(const char *label, const rt_eval_result *r, size_t first, size_t end, size_t row,
                      cell_fn cell)
{
    char text[CELL_SIZE];
    if (!cell(text, r, first, row))
        return;
    (void)printf("%-*s", LABEL_WIDTH, label);
    for (size_t m = first; m < end; m++) {
        (void)cell(text, r, m, row);
        (void)printf("%s%-*s", m > first ? " " : "", m + 1 < end ? CELL_WIDTH - 1 : 0, text);
    }
    (void)printf("\n");
}

static void print_names(const char *title, const rt_eval_result *r, size_t first, size_t end)
{
    (void)printf("\n%-*s", LABEL_WIDTH, title);
    for (size_t m = first; m < end; m++)
        (void)printf("%s%-*s", m > first ? " " : "", m + 1 < end ? CELL_WIDTH - 1 : 0, r->models[m].name);
    (void)printf("\n");
}

static void print_figures(const rt_eval_result *r, size_t first, size_t end)
{
    print_names("", r, first, end);
    for (size_t f = 0; f < RT_EVAL_FIGURES; f++)
        print_row(figure_texts[f], r, first, end, f, figure_cell);
    print_row("tokens a round, 4 drafts", r, first, end, 0, round_cell);
    print_row("nats above the teacher's", r, first, end, 0, above_cell);
    for (size_t c = 0; c < COSTS; c++)
        print_row(cost_texts[c], r, first, end, c, cost_cell);
}

/* The teacher agrees with itself everywhere: students only. */
static void print_groups(const rt_eval_result *r, size_t first, size_t end)
{
    char label[64];
    print_names("KL, top-1 by position", r, first, end);
    for (size_t b = 0; b < RT_EVAL_POSITIONS; b++) {
        size_t from, to;
        rt_eval_position_bin(b, r->longest, &from, &to);
        (void)snprintf(label, sizeof label, "  %zu to %zu", from, to);
        print_row(label, r, first, end, b, position_cell);
    }
    if (!r->has_kinds)
        return;
    print_names("KL, top-1 by kind", r, first, end);
    for (size_t k = 0; k < RT_KIND_COUNT; k++) {
        (void)snprintf(label, sizeof label, "  %s (%.1f%%)", rt_token_kind_name((rt_token_kind)k),
                       100 * r->figures[0].kinds[k].tokens / (double)r->n_targets);
        print_row(label, r, first, end, k, kind_cell);
    }
}

static void print_differences(const rt_eval_result *r)
{
    (void)printf("\n%-*s%-*s%s\n", LABEL_WIDTH, "difference", CELL_WIDTH, "KL, nats", "acceptance");
    for (size_t m = 2; m < r->n_models; m++) {
        char label[96], kl[CELL_SIZE], acceptance[CELL_SIZE];
        (void)snprintf(label, sizeof label, "%s - %s", r->models[m].name, r->models[1].name);
        format_interval(kl, &r->figures[m].kl_difference);
        format_interval(acceptance, &r->figures[m].acceptance_difference);
        (void)printf("%-*s %-*s %s\n", LABEL_WIDTH - 1, label, CELL_WIDTH - 1, kl, acceptance);
    }
}

void cli_print_eval(const rt_eval_result *r)
{
    (void)printf("%zu tokens of %zu document%s; ", r->n_targets, r->n_docs, r->n_docs == 1 ? "" : "s");
    if (r->n_docs > 1)
        (void)printf("95%% intervals from %zu draws of documents\n", r->resamples);
    else
        (void)printf("intervals need more than one\n");
    for (size_t m = 0; m < r->n_models; m += MODELS_A_TABLE)
        print_figures(r, m, rt_size_min(m + MODELS_A_TABLE, r->n_models));
    if (r->n_models > 2)
        print_differences(r);
    for (size_t m = 1; m < r->n_models; m += MODELS_A_TABLE)
        print_groups(r, m, rt_size_min(m + MODELS_A_TABLE, r->n_models));
}

void cli_print_eval_own(const rt_eval_own_result *r)
{
    (void)printf("\non the students' own answers to %zu prompts, %zu tokens at most\n%-*s%-*s%-*s%s\n",
                 r->n_prompts, r->answer_max, LABEL_WIDTH, "", CELL_WIDTH, "KL(model||teacher)", CELL_WIDTH,
                 "less the first", "tokens; ended");
    for (size_t m = 1; m < r->n_models; m++) {
        const rt_eval_own_figures *f = &r->figures[m];
        char kl[CELL_SIZE], less[CELL_SIZE] = "";
        format_interval(kl, &f->kl_student_teacher);
        if (m > 1)
            format_interval(less, &f->difference);
        (void)printf("%-*s %-*s %-*s %.1f; %.0f%%\n", LABEL_WIDTH - 1, r->models[m].name, CELL_WIDTH - 1, kl,
                     CELL_WIDTH - 1, less, f->total.tokens / (double)rt_size_max(r->n_prompts, 1),
                     100 * (double)f->ended / (double)rt_size_max(r->n_prompts, 1));
    }
}
