/* cli/evidence.h - what the subcommands of `retort evidence` share. */
#ifndef RT_CLI_EVIDENCE_H
#define RT_CLI_EVIDENCE_H

#include "cli/rows.h"
#include "cli/open_model.h"
#include "cli/watermark.h"
#include "evidence/battery.h"
#include "evidence/token_counts.h"

int evidence_plan(int argc, char **argv);
int evidence_run(int argc, char **argv);
int evidence_calibrate(int argc, char **argv);
int evidence_report(int argc, char **argv);
int evidence_probes(int argc, char **argv);

/* A plan at work: its inputs opened, what its suspect shows gathered. */
typedef struct cli_case {
    json_t *plan;
    bool intact; /* the plan's hash holds */
    rt_pool *pool;
    cli_model suspect_model, reference_model, tokenizer_model;
    rt_subject suspect, reference; /* model and endpoint NULL: none */
    rt_endpoint *endpoint;         /* NULL: the suspect is no server */
    const rt_tokenizer *tokenizer; /* of the teacher: the suspect's, the plan's or the reference's; NULL */
    const char *work;              /* folder of what a server said */
    const char *answers;           /* path of the suspect's answers, recorded or asked for; NULL: not yet */
    char *asked;                   /* that path, when it was asked for */
    rt_answer_survey survey;       /* of the answers that watermark tests take */
    bool surveyed;
    rt_token_counts counts; /* of a server that was asked with text: does it cut as `tokenizer` does? */
    bool has_key;
    rt_mark_key key;
    rt_gathered gathered;
    const char *suspect_name; /* another model in the suspect's place (a control); NULL: the plan's */
    size_t threads;
} cli_case;

/* SHA-256 of the input `name` of a plan: a file; of suspect, reference, weights, tokenizer and readers a
 * model, by path or name. */
rt_status cli_input_hash(char hex[65], const char *name, const char *path, rt_error *err);
/* Reads and checks the plan, opens pool, key and models.  A key that is not the plan's (commitment) is
 * RT_MISMATCH; a public one RT_FORBIDDEN; changed inputs RT_MISMATCH. */
rt_status cli_case_open(cli_case *c, const char *plan_path, const char *key_path, rt_error *err);
void cli_case_close(cli_case *c);
/* Samples and reads as far as the plan's watermark tests need it.  Progress goes to stderr. */
rt_status cli_case_gather(cli_case *c, rt_error *err);
/* The suspect's answers as texts: recorded, or asked of its server, or (without ids' text) sampled from its
 * model and decoded.  Read anew for each caller. */
rt_status cli_case_answers(cli_case *c, rt_texts *out, rt_error *err);
/* The plan's tests that need no watermark, handed one by one to `take`; results that were refused for want of
 * inputs are errors. */
typedef rt_status (*cli_take_result)(void *context, rt_result *result, bool counts, rt_error *err);
rt_status cli_case_rows(cli_case *c, cli_take_result take, void *context, rt_error *err);
rt_status cli_case_texts(cli_case *c, cli_take_result take, void *context, json_t **identity, rt_error *err);
rt_status cli_case_weights(cli_case *c, cli_take_result take, void *context, rt_error *err);

/* Of students with known doses [{dose, model, z, log10_p}]: {doses: [{dose, students, reached}], least_dose?:
 * the one at which four of five have p <= 1e-5, models}. */
json_t *cli_power_json(const json_t *dosed);
/* How many times more expected z is from those students than from the controls of a calibrated test:
 * densities smoothed by kernels, within 1/n and n for n models a side.  false: fewer than five on a side. */
bool cli_likelihood_ratio(double *out, double z, const json_t *calibrated);

bool cli_plan_has(const json_t *plan, rt_test test);
const char *cli_plan_text(const json_t *plan, const char *name); /* NULL: not there */
size_t cli_plan_count(const json_t *plan, const char *name, size_t otherwise);

#endif
