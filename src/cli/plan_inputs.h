/* cli/plan_inputs.h - what `retort plan` reads: a recipe, the shapes of its models, the text if it is there,
 * and the machine.  Of weight files only the headers are read. */
#ifndef RT_CLI_PLAN_INPUTS_H
#define RT_CLI_PLAN_INPUTS_H

#include <jansson.h>

#include "student/estimate.h"
#include "student/recipe.h"

enum { PLAN_NOTES_MAX = 12 };

typedef struct plan_options {
    const char *machine; /* "this", a name, or a file */
    size_t nodes, threads;
    double utilisation, usd_hour; /* <= 0: the machine's */
    double network, latency_us;   /* GB/s each way between nodes, <= 0: costs nothing; of a message */
    bool no_text;                 /* do not read the training text */
    bool measure;                 /* this machine again, whatever is kept */
    bool stream;                  /* the teacher's layers come from disk */
    size_t stream_tokens;         /* that go through it together */
    double disk;                  /* bytes/s; <= 0: measured on the teacher's file */
} plan_options;

typedef struct plan_inputs {
    rt_settings *settings;
    rt_recipe recipe;
    rt_loss_mix mix;
    rt_machine machine;
    rt_estimate_input in;
    bool streams;
    rt_estimate_stream stream; /* a pass of the teacher, where it is streamed */
    double stream_layer_bytes, stream_disk;
    size_t stream_tokens;
    bool needs_teacher; /* the loss does; else the teacher only gives the student its start */
    char notes[PLAN_NOTES_MAX][200];
    size_t n_notes;
} plan_inputs;

rt_status plan_inputs_read(plan_inputs *p, const char *recipe_path, char **words, size_t n_words,
                           const plan_options *options, rt_error *err);
/* The recipe alone, and the shape of its teacher.  recipe_path NULL: the defaults and the words. */
rt_status plan_teacher_config(rt_model_config *out, plan_inputs *p, const char *recipe_path, char **words,
                              size_t n_words, rt_error *err);
void plan_inputs_close(plan_inputs *p);
void plan_note(plan_inputs *p, const char *fmt, ...) RT_PRINTF(2, 3);

/* plan_target.c: shapes near a size ("40M" parameters, "100MB" of a file), with what training them takes. */
typedef struct plan_target {
    const char *target,
        *from; /* from NULL: the recipe's teacher, or SmolLM2-135M-Instruct without a recipe */
    size_t n_max;
} plan_target;
rt_status plan_target_json(json_t **out, const plan_target *target, const char *recipe_path, char **words,
                           size_t n_words, const plan_options *options, rt_error *err);
void plan_target_print(const json_t *json);

/* How `plan` prints numbers: "671 G", "1.20 MB". */
const char *plan_short_number(char out[24], double x);
const char *plan_bytes(char out[24], double x);

#endif
