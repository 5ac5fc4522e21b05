/* cli/distill_across.c - a student whose tokenizer is not its teacher's. */
#include <stdlib.h>
#include <string.h>

#include "cli/distill_run.h"
#include "cli/model_arg.h"

static rt_status open_template(rt_chat_template **out, const rt_tokenizer *tokenizer, rt_error *err)
{
    const char *source = rt_tokenizer_chat_template(tokenizer);
    return source ? rt_chat_template_parse(out, source, err) : RT_OK;
}

/* Without student.tokenizer it is the teacher's; without a teacher the start's own files bring it. */
static rt_status find_tokenizer(distill_run *d, rt_error *err)
{
    const rt_recipe *r = &d->recipe;
    const char *name = strcmp(r->student.tokenizer, "own") == 0 ? r->student.model : r->student.tokenizer;
    if (*name)
        return cli_model_path(&d->tokenizer_path, name, err);
    d->tokenizer_path = strdup(d->teacher_path);
    return d->tokenizer_path ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
}

rt_status distill_across_open(distill_run *d, rt_error *err)
{
    const bool other = d->recipe.student.tokenizer[0] && d->has_teacher;
    if (find_tokenizer(d, err) != RT_OK ||
        rt_tokenizer_open(&d->tokenizer, d->tokenizer_path, err) != RT_OK ||
        open_template(&d->chat_template, d->tokenizer, err) != RT_OK)
        return err->status;
    if (!other)
        return RT_OK;
    if (rt_tokenizer_open(&d->teacher_tokenizer, d->teacher_path, err) != RT_OK)
        return err->status;
    return open_template(&d->teacher_template, d->teacher_tokenizer, err);
}

rt_status distill_across_text(distill_run *d, const rt_document_options *options, rt_error *err)
{
    const rt_documents_side student = {&d->docs, d->tokenizer, d->chat_template},
                            teacher = {&d->across_text.docs, d->teacher_tokenizer, d->teacher_template};
    for (size_t i = 0; i < d->recipe.data.train.count; i++)
        if (rt_documents_read_both(&student, &teacher, d->recipe.data.train.items[i], options, err) != RT_OK)
            return err->status;
    return rt_across_text_align(&d->across_text, &d->docs, d->tokenizer, d->teacher_tokenizer, err);
}

rt_status distill_across_options(distill_run *d, rt_trainer_options *options, rt_error *err)
{
    options->across = rt_recipe_across(&d->recipe);
    options->n_real = rt_tokenizer_real_size(d->tokenizer);
    if (options->across.way != RT_ACROSS_MAP)
        return RT_OK;
    const rt_status status =
        rt_across_map(&d->across_map, d->teacher_config.n_vocab, d->tokenizer, d->teacher_tokenizer, err);
    options->across.map = d->across_map;
    return status;
}

void distill_across_config(const distill_run *d, rt_model_config *config)
{
    if (!d->teacher_tokenizer)
        return;
    config->n_vocab = rt_tokenizer_size(d->tokenizer);
    config->bos_id = rt_tokenizer_bos(d->tokenizer);
    config->eos_id = rt_tokenizer_eos(d->tokenizer);
    config->pad_id = rt_tokenizer_pad(d->tokenizer);
}

void distill_across_say(const distill_run *d, FILE *out)
{
    static const char *const ways[] = {"map", "chunks", "uld", "text"};
    if (!d->teacher_tokenizer)
        return;
    (void)fprintf(out, "\nacross   %s: %zu tokens from the teacher's %zu", ways[d->recipe.across.way],
                  rt_tokenizer_real_size(d->tokenizer), rt_tokenizer_real_size(d->teacher_tokenizer));
    if (!d->across_text.begins)
        return;
    (void)fprintf(out, "; %zu borders in common, %.0f%% of the tokens with a loss between them",
                  d->across_text.n_groups,
                  100 * (double)d->across_text.n_covered / (double)d->docs.n_targets);
    if (d->across_text.n_diverged)
        (void)fprintf(out, "; %zu documents were cut, or do not decode alike to their end",
                      d->across_text.n_diverged);
}

void distill_across_close(distill_run *d)
{
    rt_across_text_deinit(&d->across_text);
    rt_chat_template_free(d->teacher_template);
    rt_tokenizer_close(d->teacher_tokenizer);
    free(d->tokenizer_path);
    free(d->across_map);
}
