/* report/run.h - what a run directory holds, read into plain figures; docs/report-format.md is the format.
 *
 * Every part may be missing.  A number that is missing or not finite is NAN here, and everything
 * above prints a dash or leaves it out for NAN. */
#ifndef RT_REPORT_RUN_H
#define RT_REPORT_RUN_H

#include <jansson.h>
#include <stddef.h>

#include "retort/error.h"

typedef enum rt_run_model { /* in the order in which they are shown */
                            RT_RUN_TEACHER,
                            RT_RUN_UNTRAINED,
                            RT_RUN_STUDENT,
                            RT_RUN_CE,
                            RT_RUN_MODELS
} rt_run_model;
extern const char *const rt_run_model_keys[RT_RUN_MODELS];  /* in the files: "teacher", ... */
extern const char *const rt_run_model_names[RT_RUN_MODELS]; /* for people: "trained student", ... */

typedef struct rt_figure {
    double value, low, high; /* NAN where absent */
} rt_figure;

/* A training curve of at most RT_CURVE_POINTS_MAX points; each is the mean of as many steps as the thinning
 * needed. */
enum { RT_CURVE_POINTS_MAX = 2000 };
typedef struct rt_curve {
    double *step, *tokens;      /* [count] each, as all below; tokens NAN where the log has none */
    double *loss, *loss_smooth; /* what the run minimised, and its moving average */
    double *kl, *kl_smooth;     /* KL to the teacher on the training text, where it was logged */
    size_t count;
    size_t steps;     /* in the log, before thinning */
    size_t bad_lines; /* that were not JSON objects with a step; a cut last line is not counted */
} rt_curve;

typedef struct rt_run_record {
    json_t *facts;        /* run.json, an object, or NULL */
    json_t *eval;         /* eval.json, an object, or NULL */
    json_t *samples;      /* samples.json, an array, or NULL */
    rt_curve student, ce; /* count 0 when there is no log */
} rt_run_record;

rt_status rt_run_read(rt_run_record *run, const char *dir, rt_error *err); /* all zero after a failure */
void rt_run_deinit(rt_run_record *run);

/* A number under `key`, or a {"value", "low", "high"}; object may be NULL. */
rt_figure rt_figure_get(const json_t *object, const char *key);
double rt_number_get(const json_t *object, const char *key);
const char *rt_string_get(const json_t *object, const char *key); /* NULL when absent or not a string */
const json_t *rt_run_figures(const rt_run_record *run,
                             rt_run_model model); /* the model's object in eval.json, or NULL */

#endif
