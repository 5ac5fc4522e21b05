/* cli/distill_start.c - where a student starts: from layers of its teacher, cut narrower if the recipe says
 * so, from a checkpoint, or from random weights. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/size.h"
#include "cli/distill_run.h"
#include "cli/open_model.h"
#include "student/init_vocab.h"

/* The two vocabularies must be one: ids mean the same bytes in both models. */
static rt_status check_tokenizers(const distill_run *d, const char *student_path, rt_error *err)
{
    rt_tokenizer *other;
    if (rt_tokenizer_open(&other, student_path, err) != RT_OK)
        return err->status;
    rt_status status = RT_OK;
    if (strcmp(rt_tokenizer_hash(other), rt_tokenizer_hash(d->tokenizer)) != 0)
        status = rt_error_set(
            err, RT_MISMATCH,
            "the student's tokenizer (%s, %zu tokens, %.12s) is not the teacher's (%s, %zu tokens, %.12s): "
            "their ids mean different text; student.tokenizer: own teaches across tokenizers",
            rt_tokenizer_kind(other), rt_tokenizer_size(other), rt_tokenizer_hash(other),
            rt_tokenizer_kind(d->tokenizer), rt_tokenizer_size(d->tokenizer),
            rt_tokenizer_hash(d->tokenizer));
    rt_tokenizer_close(other);
    return status;
}

static rt_status random_config(distill_run *d, rt_error *err)
{
    const char *path = d->recipe.student.model;
    char *inner = rt_path_is_dir(path) ? rt_path_join(path, "config.json") : strdup(path);
    json_t *json = NULL;
    if (!inner)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
    rt_status status = rt_json_read(&json, inner, 1 << 20, err);
    if (status == RT_OK)
        status = rt_model_config_from_json(&d->student_config, json, inner, err);
    if (status == RT_OK && d->student_config.n_vocab < rt_tokenizer_size(d->tokenizer))
        status = rt_error_set(err, RT_MISMATCH,
                              "%.200s: vocab_size %zu is smaller than the tokenizer's %zu tokens", inner,
                              d->student_config.n_vocab, rt_tokenizer_size(d->tokenizer));
    json_decref(json);
    free(inner);
    return status;
}

static rt_status open_trainer(distill_run *d, const rt_weights *from, const rt_model_config *from_config,
                              const size_t *layers, rt_error *err)
{
    rt_adapter_options adapters;
    if (d->recipe.adapters.rank && (rt_recipe_adapters(&adapters, &d->recipe, err) != RT_OK ||
                                    rt_adapters_open(&d->adapters, &adapters, &d->student_config, from,
                                                     from_config, layers, d->pool, err) != RT_OK))
        return err->status;
    const rt_recipe *r = &d->recipe;
    rt_trainer_options options = {
        .mix = d->objective.mix,
        .course = d->objective.course,
        .seed = r->train.seed,
        .teacher_always = d->on_policy,
        .ranks = rt_dist_ranks(&d->dist),
        .adapters = d->adapters,
        .embd_rank = r->student.embd_rank,
        .adamw = {r->train.lr, r->train.beta1, r->train.beta2, r->train.eps, r->train.weight_decay},
        .schedule = rt_recipe_schedule(r),
        .clip = r->train.clip,
        .precision = rt_recipe_precision(r->student.precision),
        .tokens_max = r->train.batch_tokens};
    if (r->data.tokens_max > d->student_config.n_context)
        return rt_error_set(err, RT_INVALID, "data.tokens_max %zu is more than the student's context of %zu",
                            r->data.tokens_max, d->student_config.n_context);
    if (d->teacher && r->data.tokens_max > d->teacher_config.n_context)
        return rt_error_set(err, RT_INVALID, "data.tokens_max %zu is more than the teacher's context of %zu",
                            r->data.tokens_max, d->teacher_config.n_context);
    if (rt_recipe_has_features(r) &&
        rt_recipe_features(&options.features, r, &d->student_config, &d->teacher_config, err) != RT_OK)
        return err->status;
    if (distill_across_options(d, &options, err) != RT_OK)
        return err->status;
    if (d->kept) {
        options.kept.topk = d->source.topk;
        options.kept.draws = d->source.draws;
        options.kept.n_max = d->source.n_max;
        options.kept.n_vocab = d->source.n_vocab;
        options.kept.tau = d->source.tau;
        if (d->student_config.n_vocab < d->source.n_vocab)
            return rt_error_set(err, RT_MISMATCH, "the store's rows are over %zu ids and the student has %zu",
                                d->source.n_vocab, d->student_config.n_vocab);
    }
    return rt_trainer_open(&d->trainer, &d->student_config, d->teacher, &options, d->pool, err);
}

static rt_status fill_student(distill_run *d, const rt_weights *from, const rt_model_config *from_config,
                              const size_t *layers, rt_error *err)
{
    if (d->adapters)
        return rt_adapters_start(d->adapters, d->trainer->values, err);
    const rt_status status = rt_params_load(d->trainer->values, &d->trainer->layout, &d->student_config, from,
                                            from_config, layers, d->pool, err);
    return status == RT_OK ? rt_trainer_start(d->trainer, err) : status;
}

/* ---- from the teacher ---- */

/* The teacher's layers under an embedding for another vocabulary. */
static rt_status fill_across(distill_run *d, rt_error *err)
{
    const rt_trainer *t = d->trainer;
    if (rt_params_load_inner(t->values, &t->layout, &d->student_config, d->weights, &d->teacher_config,
                             d->layers, d->pool, err) != RT_OK ||
        rt_vocab_start(t->values, &t->layout, d->tokenizer, d->weights, &d->teacher_config,
                       d->teacher_tokenizer, err) != RT_OK)
        return err->status;
    return rt_trainer_start(d->trainer, err);
}

/* Looking into a model takes one that is not packed: where the teacher at hand will not do, another is opened
 * for as long as it takes. */
static rt_status survey_teacher(distill_run *d, bool widths, rt_error *err)
{
    const rt_recipe *r = &d->recipe;
    const size_t batch = rt_size_round_up(rt_size_max(r->data.tokens_max, 512), 32);
    const bool own = !d->teacher || (widths && d->teacher->precision == RT_PRECISION_INT8);
    const rt_precision precision =
        r->teacher.precision == 1 ? RT_PRECISION_F32 : RT_PRECISION_BF16; /* of bf16|f32|int8 */
    const double begun = rt_clock_seconds();
    rt_model *model = d->teacher;
    if (r->data.tokens_max > d->teacher_config.n_context)
        return rt_error_set(err, RT_INVALID, "data.tokens_max %zu is more than the teacher's context of %zu",
                            r->data.tokens_max, d->teacher_config.n_context);
    if (own && rt_model_open(&model, d->weights, precision, d->pool, err) != RT_OK)
        return err->status;
    const rt_status status = rt_survey_run(&d->survey, model, &d->docs, r->train.seed,
                                           r->student.survey_tokens, batch, widths, err);
    if (own)
        rt_model_close(model);
    d->survey_seconds = rt_clock_seconds() - begun;
    return status;
}

static rt_status start_from_layers(distill_run *d, rt_error *err)
{
    const rt_cut_sizes sizes = rt_recipe_cut(&d->recipe);
    const bool narrow = rt_cut_is_narrow(&sizes), measured = d->recipe.student.choice == RT_LAYERS_INFLUENCE;
    double influence[RT_LAYERS_MAX];
    rt_cut cut = {0};
    if (rt_recipe_layers(d->layers, &d->n_layers, &d->recipe, d->teacher_config.n_layers, NULL, err) != RT_OK)
        return err->status;
    rt_model_config_take_layers(&d->student_config, &d->teacher_config, d->layers, d->n_layers);
    distill_across_config(d, &d->student_config);
    if (rt_cut_config(&d->student_config, &sizes, err) != RT_OK) /* before minutes are spent */
        return err->status;
    if (rt_recipe_needs_survey(&d->recipe) && survey_teacher(d, narrow, err) != RT_OK)
        return err->status;
    if (measured) {
        rt_influence_scores(&d->survey.influence, influence);
        if (rt_recipe_layers(d->layers, &d->n_layers, &d->recipe, d->teacher_config.n_layers, influence,
                             err) != RT_OK)
            return err->status;
        rt_model_config_take_layers(&d->student_config, &d->teacher_config, d->layers, d->n_layers);
        if (rt_cut_config(&d->student_config, &sizes, err) != RT_OK)
            return err->status;
    }
    if (open_trainer(d, d->weights, &d->teacher_config, d->layers, err) != RT_OK)
        return err->status;
    if (d->teacher_tokenizer)
        return fill_across(d, err);
    if (!narrow)
        return fill_student(d, d->weights, &d->teacher_config, d->layers, err);
    rt_status status = rt_survey_cut(&cut, &d->survey, &d->student_config, d->layers, err);
    if (status == RT_OK)
        status = rt_params_load_slice(d->trainer->values, &d->trainer->layout, &d->student_config, d->weights,
                                      &d->teacher_config, &cut.map, d->pool, err);
    if (status == RT_OK)
        status = rt_trainer_start(d->trainer, err);
    rt_cut_deinit(&cut);
    return status;
}

json_t *distill_survey_facts(const distill_run *d)
{
    const rt_model_config *c = &d->student_config;
    double influence[RT_LAYERS_MAX];
    if (d->survey.tokens == 0)
        return NULL;
    json_t *scores = json_array(), *text = json_array();
    rt_influence_scores(&d->survey.influence, influence);
    for (size_t l = 0; l < d->survey.config.n_layers; l++)
        (void)json_array_append_new(scores, json_real(influence[l]));
    for (size_t i = 0; i < d->recipe.data.train.count; i++)
        (void)json_array_append_new(text, json_string(d->recipe.data.train.items[i]));
    if (d->recipe.teacher.store[0])
        (void)json_array_append_new(text, json_string(d->recipe.teacher.store));
    char hash[17];
    (void)snprintf(hash, sizeof hash, "%016llx",
                   (unsigned long long)rt_hash64(d->docs.ids, d->docs.n_tokens * sizeof *d->docs.ids, 0));
    return json_pack("{s:o, s:s, s:I, s:I, s:I, s:f, s:o, s:I, s:I, s:I, s:I}", "text", text, "text hash",
                     hash, "documents", (json_int_t)d->survey.documents, "tokens",
                     (json_int_t)d->survey.tokens, "seed", (json_int_t)d->recipe.train.seed, "seconds",
                     d->survey_seconds, "influence", scores, "n_embd", (json_int_t)c->n_embd, "n_ff",
                     (json_int_t)c->n_ff, "n_heads", (json_int_t)c->n_heads, "n_heads_kv",
                     (json_int_t)c->n_heads_kv);
}

/* ---- from elsewhere ---- */

static rt_status start_from_checkpoint(distill_run *d, rt_error *err)
{
    char *path = NULL;
    rt_status status = cli_model_path(&path, d->recipe.student.model, err);
    if (status == RT_OK)
        status = check_tokenizers(d, path, err);
    if (status == RT_OK)
        status = rt_weights_open(&d->base, path, err);
    if (status == RT_OK)
        status = rt_model_config_read(&d->student_config, d->base, err);
    if (status == RT_OK)
        status = open_trainer(d, d->base, &d->student_config, NULL, err);
    if (status == RT_OK)
        status = fill_student(d, d->base, &d->student_config, NULL, err);
    if (!d->adapters) {
        rt_weights_close(d->base);
        d->base = NULL;
    }
    free(path);
    return status;
}

rt_status distill_start(distill_run *d, rt_error *err)
{
    if (d->recipe.student.init == RT_INIT_LAYERS)
        return start_from_layers(d, err);
    if (d->recipe.student.init == RT_INIT_CHECKPOINT)
        return start_from_checkpoint(d, err);
    if (random_config(d, err) != RT_OK || open_trainer(d, NULL, NULL, NULL, err) != RT_OK)
        return err->status;
    rt_params_init(d->trainer->values, &d->trainer->layout, &d->student_config, d->recipe.train.seed);
    return rt_trainer_start(d->trainer, err);
}
