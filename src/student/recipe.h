/* student/recipe.h - the settings of a distillation: the keys of a recipe, what they mean, and the checks
 * that no single key can make. */
#ifndef RT_STUDENT_RECIPE_H
#define RT_STUDENT_RECIPE_H

#include "base/schema.h"
#include "model/decoder.h"
#include "student/loss.h"
#include "student/schedule.h"

enum { RT_INIT_LAYERS, RT_INIT_RANDOM, RT_INIT_CHECKPOINT };
enum { RT_LOSS_ON_ANSWER, RT_LOSS_ON_ALL };

typedef struct rt_recipe {
    struct {
        const char *model;
        int precision;
    } teacher;
    struct {
        int init;
        rt_counts layers;
        size_t n_layers;
        const char *model;
        int precision;
    } student;
    struct {
        rt_strings train;
        size_t tokens_max;
        int loss_on;
    } data;
    rt_strings loss;
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

/* A loss from its terms: each "[WEIGHT] KIND [name=value ...]", names temperature, tau2, beta, alpha, mu, t,
 * label_smoothing, z_loss.  "fkl"; "0.8 fkl temperature=2 tau2=yes" and "0.2 ce". */
rt_status rt_recipe_loss(rt_loss_mix *out, const rt_strings *terms, rt_error *err);
/* Which of the teacher's layers the student takes: as listed, or n_layers of them spread evenly, first and
 * last included.  map [RT_LAYERS_MAX]. */
rt_status rt_recipe_layers(size_t *map, size_t *n, const rt_recipe *recipe, size_t teacher_layers,
                           rt_error *err);
/* Steps of the run: as given, or tokens / (batch_tokens * micro_batches), at least 1. */
uint64_t rt_recipe_steps(const rt_recipe *recipe);
rt_schedule rt_recipe_schedule(const rt_recipe *recipe);
rt_precision rt_recipe_precision(int choice); /* of "bf16|f32|int8" */
/* Combinations that cannot work: one sentence that names the keys. */
rt_status rt_recipe_check(const rt_recipe *recipe, rt_error *err);

#endif
