/* report/evidence_page.h - the record of an examination (`retort evidence run`) as one page, for a lawyer and
 * an engineer alike. */
#ifndef RT_REPORT_EVIDENCE_PAGE_H
#define RT_REPORT_EVIDENCE_PAGE_H

#include <jansson.h>
#include <stdbool.h>

#include "base/text.h"

/* Appends the page; the caller checks out->failed.  plan_intact: whether the hash of the record's plan holds
 * now, as the caller has computed it; false is shown in red.  Members that are missing or of another type are
 * left out. */
void rt_report_evidence(rt_text *out, const json_t *record, bool plan_intact);

#endif
