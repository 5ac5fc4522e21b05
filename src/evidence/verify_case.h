/* evidence/verify_case.h - what the files verify_*.c share: the entry at hand and its comparisons. */
#ifndef RT_EVIDENCE_VERIFY_CASE_H
#define RT_EVIDENCE_VERIFY_CASE_H

#include <jansson.h>
#include <stdbool.h>

#include "base/arena.h"
#include "evidence/verify.h"

typedef struct ev_run {
    rt_verify *result;
    const char *file;         /* "tails.json" */
    char entry[96];           /* "binomial 3" */
    rt_arena arena;           /* emptied between entries */
    const json_t *other_keys; /* of rt1_prf.json, or NULL */
} ev_run;

/* Each adds one comparison named "<file>: <entry>: <what>". */
void ev_log10(ev_run *run, const char *what, double x, double ref);  /* 1e-6 relative */
void ev_saddle(ev_run *run, const char *what, double x, double ref); /* 1e-4 absolute */
void ev_real(ev_run *run, const char *what, double x, double ref);   /* 1e-9 relative */
void ev_within(ev_run *run, const char *what, double x, double ref, double scale, double tolerance);
void ev_exact(ev_run *run, const char *what, bool equal);
void ev_entry(ev_run *run, const char *kind, size_t index);

/* Members of an object; RT_CORRUPT with file and entry.  ev_u64 reads a number or a text, "0x..." or decimal.
 */
rt_status ev_bad(const ev_run *run, rt_error *err, const char *fmt, ...) RT_PRINTF(3, 4);
rt_status ev_get_real(const ev_run *run, const json_t *o, const char *key, double *out, rt_error *err);
rt_status ev_get_size(const ev_run *run, const json_t *o, const char *key, size_t *out, rt_error *err);
rt_status ev_get_u64(const ev_run *run, const json_t *o, const char *key, uint64_t *out, rt_error *err);
rt_status ev_get_text(const ev_run *run, const json_t *o, const char *key, const char **out, rt_error *err);
rt_status ev_get_reals(ev_run *run, const json_t *o, const char *key, double **out, size_t *n, rt_error *err);
rt_status ev_get_ids(ev_run *run, const json_t *o, const char *key, int32_t **out, size_t *n, rt_error *err);
/* Rows of equal length: out [n, m]. */
rt_status ev_get_matrix(ev_run *run, const json_t *o, const char *key, double **out, size_t *n, size_t *m,
                        rt_error *err);
rt_status ev_get_key(const ev_run *run, const json_t *o, const char *key, uint8_t out[16], rt_error *err);
rt_status ev_room(ev_run *run, void *out_pointer, size_t count, size_t size, rt_error *err);

/* One a file. */
typedef rt_status (*ev_handler)(ev_run *run, const json_t *root, rt_error *err);
rt_status ev_tails(ev_run *run, const json_t *root, rt_error *err);
rt_status ev_combine(ev_run *run, const json_t *root, rt_error *err);
rt_status ev_rank_tests(ev_run *run, const json_t *root, rt_error *err);
rt_status ev_mmd(ev_run *run, const json_t *root, rt_error *err);
rt_status ev_weights(ev_run *run, const json_t *root, rt_error *err);
rt_status ev_torch_rng(ev_run *run, const json_t *root, rt_error *err);
rt_status ev_hf_kgw(ev_run *run, const json_t *root, rt_error *err);
rt_status ev_hf_synthid(ev_run *run, const json_t *root, rt_error *err);
rt_status ev_rt1_prf(ev_run *run, const json_t *root, rt_error *err);
rt_status ev_rt1_detect(ev_run *run, const json_t *root, rt_error *err);
rt_status ev_rt1_reading(ev_run *run, const json_t *root, rt_error *err);

#endif
