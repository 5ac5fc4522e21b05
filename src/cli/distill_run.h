/* cli/distill_run.h - what a distillation needs, from a resolved recipe: teacher, tokenizer, text, student,
 * trainer.
 *
 * Used by `retort distill`; opened, trained, exported and closed in this order. */
#ifndef RT_CLI_DISTILL_RUN_H
#define RT_CLI_DISTILL_RUN_H

#include <jansson.h>
#include <stdio.h>

#include "dist/dist.h"
#include "student/recipe.h"
#include "student/run.h"

typedef struct distill_run {
    rt_settings *settings; /* the caller has filled recipe and objective from them */
    rt_recipe recipe;
    rt_objective objective;
    const char *dir;
    rt_dist dist; /* opened by the caller */
    /* the rest is filled by open */
    bool has_teacher;
    char *teacher_path; /* without a teacher: of the student's tokenizer */
    rt_pool *pool;
    rt_weights *weights, *stream; /* stream: headers alone, where the teacher's layers come from disk */
    rt_tokenizer *tokenizer;      /* the student's */
    char *tokenizer_path;
    rt_chat_template *chat_template;
    rt_tokenizer *teacher_tokenizer; /* where it is another one; else NULL */
    rt_chat_template *teacher_template;
    rt_across_text across_text; /* the documents in those tokens, where the teacher is at hand */
    int32_t *across_map;
    rt_model_config teacher_config, student_config;
    rt_model *teacher; /* NULL when neither loss nor features need one at hand */
    rt_documents docs;
    bool kept;             /* the teacher is kept rows of the store */
    rt_kept_source source; /* with teacher.store */
    bool on_policy;
    rt_own own;            /* with on_policy */
    rt_weights *base;      /* of a student that starts from a checkpoint, as long as adapters read it */
    rt_adapters *adapters; /* NULL: everything is trained */
    rt_trainer *trainer;
    size_t layers[RT_LAYERS_MAX], n_layers; /* init layers */
    rt_survey survey;                       /* of the teacher, where the recipe wants one; tokens 0: none */
    double survey_seconds;
    char identity[65], teacher_hash[65];
    rt_run_state state;
    uint64_t resumed_at;
    json_int_t started; /* unix seconds */
} distill_run;

/* Of several processes the first one writes and speaks. */
bool distill_run_is_first(const distill_run *d);
rt_status distill_run_open(distill_run *d, rt_error *err);
void distill_run_say(const distill_run *d, FILE *out); /* a few lines: what is trained from what, on what */
void distill_run_say_phases(const distill_run *d, FILE *out); /* a line with on_policy: where the time went */
rt_status distill_run_train(distill_run *d, rt_run_step_fn step_fn, void *context, rt_error *err);
rt_status distill_run_export(const distill_run *d, rt_error *err);
/* The facts of the run, written to run.json too (docs/report-format.md). */
rt_status distill_run_facts(const distill_run *d, json_t **out, rt_error *err);
void distill_run_close(distill_run *d);

/* distill_start.c: student_config, trainer and its values.  What was looked at to choose what is kept, as it
 * goes into run.json; NULL: nothing was. */
rt_status distill_start(distill_run *d, rt_error *err);
json_t *distill_survey_facts(const distill_run *d);

/* distill_across.c: a student whose tokenizer is not the teacher's.  Opening it; the text of both; settings
 * for the trainer; a line on it. */
rt_status distill_across_open(distill_run *d, rt_error *err);
rt_status distill_across_text(distill_run *d, const rt_document_options *options, rt_error *err);
rt_status distill_across_options(distill_run *d, rt_trainer_options *options, rt_error *err);
void distill_across_say(const distill_run *d, FILE *out);
void distill_across_close(distill_run *d);
/* The student's shape with its own vocabulary. */
void distill_across_config(const distill_run *d, rt_model_config *config);

/* distill_store.c: the text of teacher.store, with its rows where the loss asks for them; a line on it. */
rt_status distill_store_open(distill_run *d, rt_error *err);
void distill_store_say(const distill_run *d, FILE *out);

#endif
