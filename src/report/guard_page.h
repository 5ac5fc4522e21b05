/* report/guard_page.h - the record of what a guard found and what was decided, as one page: for the file, and
 * for who judges an appeal. */
#ifndef RT_REPORT_GUARD_PAGE_H
#define RT_REPORT_GUARD_PAGE_H

#include <jansson.h>

#include "base/text.h"

/* Appends the page; the caller checks out->failed.  record: {source, made, accounts, review, people:
 * [accounts as guard/view.h gives them], clusters: [with links], calibration, policy, trail: {valid, fault,
 * rows: [...]} or null, cases}.  Members that are missing or of another type are left out. */
void rt_report_guard(rt_text *out, const json_t *record);

#endif
