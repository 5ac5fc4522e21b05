/* model/template_eval.h - the state of a running chat template, for template_eval.c (expressions) and
 * template_run.c (statements).  Internal to the model room. */
#ifndef RT_MODEL_TEMPLATE_EVAL_H
#define RT_MODEL_TEMPLATE_EVAL_H

#include "model/template_ast.h"

enum { STEPS_MAX = 10 * 1000 * 1000, VARIABLES_MAX = 4096, CALLS_MAX = 100 };
static const size_t output_bytes_max = (size_t)64 << 20;

typedef struct variable {
    const char *name;
    value value;
} variable;

typedef enum flow { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE } flow;

struct evaluator {
    const json_t *variables; /* what the caller gave */
    variable *stack;
    size_t count;
    size_t scope;               /* assignments look no further down */
    size_t globals, macro_base; /* inside a macro: [0, globals) and [macro_base, count) are visible */
    size_t steps, calls, depth;
    flow flow;
    rt_text *out;
    rt_error *err;
};

rt_status rt_template_step(evaluator *e, size_t line);
rt_status rt_template_evaluate(evaluator *e, value *out, const node *n);
value rt_template_look_up(evaluator *e, const char *name);
/* Takes the value. */
rt_status rt_template_assign(evaluator *e, const char *name, value v, size_t line);
void rt_template_drop_to(evaluator *e, size_t count);
/* Runs statements into a text of their own. */
rt_status rt_template_capture(evaluator *e, value *out, const node *list, size_t line);
rt_status rt_template_apply_filter(evaluator *e, value *out, const node *n, const value *in);
rt_status rt_template_run_list(evaluator *e, const node *list);

#endif
