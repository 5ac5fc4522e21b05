/* student/recipe.h - the settings of a distillation: the keys of a recipe, what they mean, and the checks
 * that no single key can make. */
#ifndef RT_STUDENT_RECIPE_H
#define RT_STUDENT_RECIPE_H

#include "base/schema.h"
#include "model/decoder.h"
#include "student/adapter.h"
#include "student/course.h"
#include "student/feature_train.h"
#include "student/own.h"
#include "student/schedule.h"
#include "student/survey.h"

enum { RT_INIT_LAYERS, RT_INIT_RANDOM, RT_INIT_CHECKPOINT };
enum { RT_LAYERS_EVEN, RT_LAYERS_INFLUENCE };
enum { RT_RECIPE_MAP, RT_RECIPE_CHUNKS, RT_RECIPE_ULD, RT_RECIPE_TEXT }; /* across.way */
enum { RT_LOSS_ON_ANSWER, RT_LOSS_ON_ALL };

typedef struct rt_recipe {
    struct {
        const char *model;
        int precision;
        bool stream;
        const char *store;
        rt_strings accept;
    } teacher;
    struct {
        int init;
        rt_counts layers;
        size_t n_layers;
        int choice;
        size_t n_embd, n_ff, n_heads, n_heads_kv, survey_tokens, embd_rank;
        const char *model, *tokenizer;
        int precision;
    } student;
    struct {
        rt_strings train;
        size_t tokens_max;
        int loss_on;
    } data;
    rt_strings loss;
    struct {
        int way;
        double weight, ce, temperature;
    } across;
    struct {
        double share, temperature, top_p, clip, cap;
        size_t answers, tokens_max;
        rt_strings loss;
        int objective;
    } on_policy;
    struct {
        int kind, base;
        size_t rank;
        double alpha;
        rt_strings targets;
    } adapters;
    struct {
        int hidden, layers, projection;
        double hidden_weight, relation_weight;
        rt_counts pairs, relation_layers;
        rt_strings relations;
        size_t relation_heads;
    } features;
    struct {
        size_t tokens, steps, batch_tokens, micro_batches, seed, threads;
        double lr, warmup, floor, decay_share, beta1, beta2, eps, weight_decay, clip, checkpoint_minutes;
        int schedule, decay;
    } train;
    struct {
        rt_strings types;
        const char *name;
    } output;
} rt_recipe;

extern const rt_field rt_recipe_fields[];
extern const size_t rt_recipe_field_count;

/* A loss from its terms, each "[WEIGHT] KIND [name=value ...]": "fkl"; "0.8 fkl temperature=2 tau2=yes" and
 * "0.2 ce".  A number may be a ramp "a..b" over the steps (shape=linear|cosine, over=SHARE).  kept: the
 * teacher is kept rows; terms that name no tail get the bucket. */
rt_status rt_recipe_loss(rt_objective *out, const rt_strings *terms, bool kept, uint64_t steps,
                         rt_error *err);
/* The features of a recipe for two shapes: its layer map made into pairs. */
rt_status rt_recipe_features(rt_feature_options *out, const rt_recipe *recipe, const rt_model_config *student,
                             const rt_model_config *teacher, rt_error *err);
/* The adapters of a recipe; rank 0: none. */
rt_status rt_recipe_adapters(rt_adapter_options *out, const rt_recipe *recipe, rt_error *err);
/* With student.tokenizer: how a teacher of other tokens is learnt from; way NONE without one, and for the
 * text alone.  The map is the caller's to make. */
rt_across_options rt_recipe_across(const rt_recipe *recipe);
/* The terms of the loss: those of `loss`, or cross-entropy where only the text is learnt. */
rt_status rt_recipe_objective(rt_objective *out, const rt_recipe *recipe, bool kept, rt_error *err);
/* Training on own answers, by the keys under on_policy; share 0: none. */
rt_status rt_recipe_own(rt_own_options *out, const rt_recipe *recipe, rt_error *err);
bool rt_recipe_has_features(const rt_recipe *recipe);
/* Which of the teacher's layers the student takes: as listed, or n_layers of them spread evenly, first and
 * last included; influence [teacher_layers]: those with the largest instead.  map [RT_LAYERS_MAX]. */
rt_status rt_recipe_layers(size_t *map, size_t *n, const rt_recipe *recipe, size_t teacher_layers,
                           const double *influence, rt_error *err);
rt_cut_sizes rt_recipe_cut(const rt_recipe *recipe);
/* Do layers or widths depend on what the teacher does on some text? */
bool rt_recipe_needs_survey(const rt_recipe *recipe);
/* Steps of the run: as given, or tokens / (batch_tokens * micro_batches), at least 1. */
uint64_t rt_recipe_steps(const rt_recipe *recipe);
rt_schedule rt_recipe_schedule(const rt_recipe *recipe);
rt_precision rt_recipe_precision(int choice); /* of "bf16|f32|int8" */
/* Combinations that cannot work: one sentence that names the keys. */
rt_status rt_recipe_check(const rt_recipe *recipe, rt_error *err);

#endif
