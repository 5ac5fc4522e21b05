/* account/terms.h - the operator's terms of use, which accounts accept before they are served.
 *
 * A YAML file:  version: "2026-11"        what an acceptance is recorded for
 *               distillation: forbidden   allowed | forbidden | by_agreement
 *               link: https://...         shown to who has not accepted
 *               text: ...                 optional */
#ifndef RT_ACCOUNT_TERMS_H
#define RT_ACCOUNT_TERMS_H

#include <stddef.h>

#include "retort/error.h"

typedef enum rt_distillation {
    RT_DISTILLATION_ALLOWED,
    RT_DISTILLATION_FORBIDDEN,
    RT_DISTILLATION_BY_AGREEMENT, /* where the account's permission says so */
} rt_distillation;

typedef struct rt_terms rt_terms;
rt_status rt_terms_open(rt_terms **out, const char *path, rt_error *err);
rt_status rt_terms_read(rt_terms **out, const char *data, size_t size, const char *where, rt_error *err);
void rt_terms_close(rt_terms *terms); /* NULL is allowed */
const char *rt_terms_version(const rt_terms *terms);
const char *rt_terms_link(const rt_terms *terms);
const char *rt_terms_text(const rt_terms *terms); /* "" when there is none */
rt_distillation rt_terms_distillation(const rt_terms *terms);
const char *rt_distillation_name(rt_distillation distillation);

#endif
