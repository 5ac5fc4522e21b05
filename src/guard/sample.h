/* guard/sample.h - the inside of a training sample, for train.c: rows of features, accounts, labels. */
#ifndef RT_GUARD_SAMPLE_H
#define RT_GUARD_SAMPLE_H

#include <jansson.h>

#include "guard/train.h"

enum { RT_SAMPLE_KIND_BYTES = 40 };

typedef struct rt_sample_row {
    uint32_t account, requests; /* index; how many the account had made */
    float features[RT_GUARD_FEATURES];
} rt_sample_row;

typedef struct rt_sample_account {
    size_t first, count; /* its rows, in order of time */
    uint64_t group;      /* hash of its cluster or, alone, of its name: decides the fold */
    bool attacker;
    bool only_scored; /* takes no part in a fit */
    bool unscored;    /* and in no figure */
    int use_class;
    uint32_t corpus; /* of the calls of rt_guard_sample_add, from 0 */
    char name[RT_GUARD_ACCOUNT_BYTES_MAX + 1], kind[RT_SAMPLE_KIND_BYTES]; /* as the labels tell, or "" */
} rt_sample_account;

struct rt_guard_sample {
    rt_sample_row *rows;
    size_t n_rows, rows_capacity;
    rt_sample_account *accounts;
    size_t n_accounts, accounts_capacity;
    uint32_t n_corpora;
};
/* JSON lines {account, label: benign or distil, ...} as an object from account to its line; the caller drops
 * it, after an error too. */
rt_status rt_sample_labels(json_t **out, const char *path, rt_error *err);
/* As guard.c keeps it: the largest score that two checks in a row reached, at each row of the account
 * (`reached`, by row; may be NULL) and at last. */
float rt_sample_largest_score(float *reached, const rt_guard_reference *r, const rt_guard_sample *s,
                              const rt_sample_account *a);

#endif
