/* account/refuse.h - fills in a refusal. */
#ifndef RT_ACCOUNT_REFUSE_H
#define RT_ACCOUNT_REFUSE_H

#include "account/gate.h"

/* Always false, so that a check can return it.  retry_after_s < 0: no Retry-After. */
bool rt_refuse(rt_refusal *refusal, int http, const char *type, const char *code, const char *param,
               double retry_after_s, const char *fmt, ...) RT_PRINTF(7, 8);

#endif
