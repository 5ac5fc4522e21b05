/* cli/cmd_distill.c - `retort distill RECIPE.yaml [key=value ...]`: trains a student, and goes on where it
 * stopped. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/distill_run.h"
#include "cli/progress.h"

static const char about[] =
    "Trains a student from a recipe, in a folder of its own.  Stopped (Ctrl-C) or killed, the same command\n"
    "goes on from the last checkpoint and gives the bits of the run that was not stopped.\n"
    "\n"
    "  retort distill recipes/demo.yaml --run runs/first\n"
    "  retort distill recipes/demo.yaml --run runs/short train.tokens=20K student.n_layers=10\n"
    "  retort distill recipes/demo.yaml --print-recipe\n"
    "\n"
    "RUN holds log.jsonl, checkpoint.safetensors, run.json, recipe.yaml, student/ (Hugging Face folder) and\n"
    "student.<TYPE>.gguf.";

typedef struct screen {
    cli_progress bar;
    bool shown, quiet;
} screen;

static bool show_step(void *context, const rt_run_progress *p)
{
    screen *s = context;
    if (!s->shown && !s->quiet)
        cli_progress_open(&s->bar, "distil", p->steps_done - 1, p->steps_total, 10);
    s->shown = true;
    char figures[120];
    if (p->report.kl_forward == p->report.kl_forward) /* not NAN */
        (void)snprintf(figures, sizeof figures, "step %llu  loss %.4f  KL %.3f  %.0f tokens/s",
                       (unsigned long long)p->steps_done, p->report.loss, p->report.kl_forward,
                       p->tokens_per_s);
    else
        (void)snprintf(figures, sizeof figures, "step %llu  loss %.4f  %.0f tokens/s",
                       (unsigned long long)p->steps_done, p->report.loss, p->tokens_per_s);
    if (!s->quiet)
        cli_progress_update(&s->bar, p->steps_done, figures);
    return !cli_interrupted();
}

static rt_status read_recipe(distill_run *d, const char *path, const cli_rest *words, rt_error *err)
{
    if (rt_settings_open(&d->settings, rt_recipe_fields, rt_recipe_field_count, err) != RT_OK ||
        rt_settings_read(d->settings, path, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < words->count; i++)
        if (rt_settings_override(d->settings, words->items[i], err) != RT_OK)
            return err->status;
    if (rt_settings_fill(d->settings, &d->recipe, err) != RT_OK || rt_recipe_check(&d->recipe, err) != RT_OK)
        return err->status;
    return rt_recipe_objective(&d->objective, &d->recipe, d->recipe.teacher.store[0] != '\0', err);
}

static int print_recipe(const distill_run *d)
{
    rt_text text = {0};
    rt_settings_print(d->settings, &text);
    (void)fputs(text.data ? text.data : "", stdout);
    rt_text_deinit(&text);
    return 0;
}

static rt_status restart(const char *dir, rt_error *err)
{
    char *path = rt_path_join(dir, "checkpoint.safetensors");
    if (!path)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
    const rt_status status = !rt_path_exists(path) || remove(path) == 0
                                 ? RT_OK
                                 : rt_error_set(err, RT_IO, "%.300s: cannot be deleted", path);
    free(path);
    return status;
}

/* A rank that fails names itself and ends the others, whose last checkpoint stands. */
static void end_ranks(distill_run *d, rt_status status, rt_error *err)
{
    const rt_ranks *ranks = rt_dist_ranks(&d->dist);
    const bool failed = status != RT_OK && status != RT_STOPPED;
    char where[32];
    (void)snprintf(where, sizeof where, "rank %zu", d->dist.ranks.rank);
    if (ranks && failed) {
        (void)rt_error_within(err, where);
        (void)cli_fail(err);
    }
    rt_dist_close(&d->dist, failed);
}

int cmd_distill(int argc, char **argv)
{
    const char *recipe_path = NULL, *dir = "run";
    bool anew = false, print = false, quiet = false, json = false, no_export = false, init_only = false;
    cli_rest words = {0};
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL, about},
        {CLI_STRING, "RECIPE.yaml", &recipe_path, "the settings; docs/recipes.md lists the keys"},
        {CLI_REST, "[key=value]", &words, "settings that win over the recipe's"},
        {CLI_STRING, "--run DIR", &dir, "folder of the run (default: run)"},
        {CLI_FLAG, "--restart", &anew, "forget the folder's checkpoint and begin anew"},
        {CLI_FLAG, "--print-recipe", &print, "print the resolved recipe and stop"},
        {CLI_FLAG, "--init-only", &init_only, "write the student as it starts, without training it"},
        {CLI_FLAG, "--no-export", &no_export, "do not write the student's files at the end"},
        {CLI_FLAG, "--quiet", &quiet, "no progress bar"},
        {CLI_FLAG, "--json", &json, "print the run's facts as one JSON object at the end"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    distill_run d = {0};
    rt_lock lock = {.fd = -1};
    rt_status status = cli_parse(spec, argc, argv, &err);
    if (status == RT_OK)
        status = read_recipe(&d, recipe_path, &words, &err);
    if (status == RT_OK && print) {
        const int code = print_recipe(&d);
        distill_run_close(&d);
        return code;
    }
    if (status == RT_OK)
        status = rt_dist_open(&d.dist, &err);
    const bool first = distill_run_is_first(&d);
    quiet = quiet || !first;
    screen s = {.quiet = quiet};
    cli_interrupts_watch();
    d.dir = dir;
    if (status == RT_OK && first && (status = rt_dir_make(dir, &err)) == RT_OK &&
        (status = rt_lock_acquire(&lock, dir, &err)) == RT_OK && anew)
        status = restart(dir, &err);
    if (status == RT_OK)
        status = distill_run_open(&d, &err);
    if (status == RT_OK && !quiet)
        distill_run_say(&d, stderr);
    if (status == RT_OK && !init_only)
        status = distill_run_train(&d, show_step, &s, &err);
    if (s.shown && !quiet)
        cli_progress_close(&s.bar);
    if (s.shown && !quiet)
        distill_run_say_phases(&d, stderr);
    if (status == RT_OK && !no_export && first)
        status = distill_run_export(&d, &err);
    json_t *facts = NULL;
    if (status == RT_OK && first)
        status = distill_run_facts(&d, &facts, &err);
    end_ranks(&d, status, &err);
    distill_run_close(&d);
    rt_lock_release(&lock);
    if (status != RT_OK)
        return cli_fail(&err);
    if (json && first)
        return cli_print_json(facts);
    json_decref(facts);
    return 0;
}
