/* guard/policy.h - what the operator wants done at which evidence: the ladder of responses, from a YAML file.
 *
 * Each rung has the p from which on it is taken.  For those that slow or withhold this is the p-value of the
 * running week, which is that of the account's worst moment against whole benign weeks, or of its cluster
 * (guard.h): the share of benign accounts that meet it in a week.  For those that accuse it is 1 / e: the
 * share of benign accounts that EVER meet it. */
#ifndef RT_GUARD_POLICY_H
#define RT_GUARD_POLICY_H

#include "base/schema.h"

struct rt_guard_options;

typedef enum rt_rung { /* in order of what they do to an account */
                       RT_RUNG_NONE,
                       RT_RUNG_OBSERVE,   /* its state says "watched"; nothing changes for it */
                       RT_RUNG_WATERMARK, /* its answers carry a mark of its own; it notices nothing */
                       RT_RUNG_TWINS,     /* some answers are drawn twice, some hold a canary */
                       RT_RUNG_SLOW,      /* a quarter of its rates */
                       RT_RUNG_LOGPROBS,  /* fewer alternatives a token, or none */
                       RT_RUNG_REASONING, /* reasoning is not shown */
                       RT_RUNG_CHALLENGE, /* it must say what it is for; until it has, no answers */
                       RT_RUNG_SUSPEND,
                       RT_RUNG_COUNT
} rt_rung;
const char *rt_rung_name(rt_rung rung); /* "none", "observe", ... */

enum { RT_SUSPEND_BY_PERSON, RT_SUSPEND_BY_RULE };
enum { RT_ACCUSE_BY_E, RT_ACCUSE_BY_P };

typedef struct rt_guard_policy {
    double p[RT_RUNG_COUNT]; /* [RT_RUNG_NONE] is not used; 0: the rung is never taken */
    double twins_share;      /* of the requests from RT_RUNG_TWINS on that are drawn twice */
    double canaries_share;   /* of those that end with a canary, where the server has some */
    size_t logprobs_top;     /* alternatives that RT_RUNG_LOGPROBS leaves */
    size_t suspend_families; /* kinds of signals that must agree, or a linked cluster */
    int suspend_by;      /* person: it is proposed, an operator decides; rule: done where e-BH confirms it */
    double suspend_fdr;  /* the share of false ones among what e-BH confirms */
    int accuse_by;       /* e: challenge and suspend from 1 / e on; p: by the running week's p-value alone */
    double block_days;   /* how long the benign accounts of the reference were watched */
    double sweep_hours;  /* accounts are linked so often */
    size_t requests_min; /* before any rung but observe */
    double calm;         /* a rung that lapsed or was lifted comes back at p / calm only */
    double expire_hours; /* without stronger evidence a rung lapses to the one below */
    size_t exposure_top; /* always on: most alternatives a token for anybody */
    bool exposure_bias;  /* always on: may log-probabilities be asked for together with logit_bias? */
    size_t exemplars;    /* ids of an account's most telling requests that are kept */
    bool dry_run;        /* decide and record, change nothing */
    const char *slow_message, *challenge_message, *suspend_message; /* what the account is told */
} rt_guard_policy;

typedef struct rt_guard_policy_file rt_guard_policy_file;
/* path NULL: the defaults.  An error names file, line and key; contradictions (a stronger rung at weaker
 * evidence) are errors. */
rt_status rt_guard_policy_open(rt_guard_policy_file **out, const char *path, rt_error *err);
rt_status rt_guard_policy_read(rt_guard_policy_file **out, const char *data, size_t size, const char *where,
                               rt_error *err);
/* Sets block_seconds, sweep_seconds and fdr of the options. */
void rt_guard_policy_apply(const rt_guard_policy_file *file, struct rt_guard_options *options);
const rt_guard_policy *rt_guard_policy_of(const rt_guard_policy_file *file); /* valid until close */
void rt_guard_policy_print(const rt_guard_policy_file *file, rt_text *out);  /* as YAML with comments */
void rt_guard_policy_close(rt_guard_policy_file *file);                      /* NULL is allowed */

#endif
