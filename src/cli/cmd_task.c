/* cli/cmd_task.c - `retort task WORD`: problems whose answers can be checked. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "cli/commands.h"
#include "cli/sub.h"
#include "cli/task.h"

bool cli_task_add(cli_task_answers *answers, size_t problem, rt_verdict verdict, const char *final)
{
    if (answers->count == answers->capacity) {
        const size_t capacity = answers->capacity * 2 + 64;
        rt_task_answer *list = realloc(answers->list, capacity * sizeof *list);
        if (!list)
            return false;
        answers->list = list;
        answers->capacity = capacity;
    }
    char *copy = strdup(final);
    if (!copy)
        return false;
    answers->list[answers->count++] = (rt_task_answer){problem, verdict, copy};
    return true;
}

void cli_task_deinit(cli_task_answers *answers)
{
    for (size_t i = 0; i < answers->count; i++)
        free(answers->list[i].final);
    free(answers->list);
    *answers = (cli_task_answers){0};
}

void cli_task_limit(rt_sandbox_limits *limits, size_t seconds)
{
    limits->cpu_s = (double)rt_size_max(seconds, 1);
    limits->wall_s = 5 * limits->cpu_s;
}

const char *cli_verdict_word(rt_verdict verdict)
{
    static const char *const words[] = {"wrong", "right", "none", "stopped"};
    return words[verdict];
}

json_t *cli_task_json(const rt_task_figures *f)
{
    json_t *pass = json_object();
    for (size_t i = 0; i < f->n_pass; i++) {
        char key[24];
        (void)snprintf(key, sizeof key, "%zu", f->pass_k[i]);
        (void)json_object_set_new(pass, key, rt_interval_json(&f->pass[i]));
    }
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o}", "problems", (json_int_t)f->problems,
                     "answers", (json_int_t)f->answers, "right", (json_int_t)f->right, "wrong",
                     (json_int_t)f->wrong, "none", (json_int_t)f->none, "stopped", (json_int_t)f->stopped,
                     "accuracy", rt_interval_json(&f->accuracy), "majority", rt_interval_json(&f->majority),
                     "pass", pass);
}

static void print_interval(const char *name, const rt_interval *x)
{
    (void)printf("%-24s%6.2f%%  [%.2f, %.2f]\n", name, 100 * x->value, 100 * x->lo, 100 * x->hi);
}

void cli_task_print(const rt_task_figures *f)
{
    (void)printf("problems                %zu, %zu answers: %zu right, %zu wrong, %zu without an answer",
                 f->problems, f->answers, f->right, f->wrong, f->none);
    (void)printf(f->stopped ? ", %zu stopped at a limit\n" : "\n", f->stopped);
    print_interval("accuracy", &f->accuracy);
    if (f->most < 2)
        return;
    char name[40];
    (void)snprintf(name, sizeof name, "majority of %zu", f->least);
    print_interval(name, &f->majority);
    for (size_t i = 0; i < f->n_pass; i++) {
        (void)snprintf(name, sizeof name, "pass@%zu", f->pass_k[i]);
        print_interval(name, &f->pass[i]);
    }
}

int cmd_task(int argc, char **argv)
{
    const cli_sub subs[] = {
        {"run", (char[]){"task run"}, "a model answers problems; how many are right?", cli_task_run},
        {"prompts", (char[]){"task prompts"}, "problems as prompts, for generate and collect",
         cli_task_prompts},
        {"check", (char[]){"task check"}, "which answers are right; those that are, as training text",
         cli_task_check},
        {"duel", (char[]){"task duel"}, "which of two models answers better, as a third one judges",
         cli_task_duel},
    };
    return cli_run_sub(subs, sizeof subs / sizeof subs[0],
                       "  retort task run gsm8k.jsonl --model smollm2-135m-instruct --samples 8\n"
                       "  retort task prompts gsm8k.jsonl --samples 4 --out prompts.jsonl\n"
                       "  retort task check gsm8k.jsonl answers.jsonl --keep shortest --out train.jsonl",
                       argc, argv);
}
