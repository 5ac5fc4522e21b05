/* report/story_page.h - a whole story as one page: who asked for what, what the guard and a person decided,
 * what a student learnt meanwhile, and what an examination of it says (scripts/story writes the file). */
#ifndef RT_REPORT_STORY_PAGE_H
#define RT_REPORT_STORY_PAGE_H

#include <jansson.h>

#include "base/text.h"

/* Appends the page; the caller checks out->failed.  Members that are missing or of another type are left out;
 * docs/report-format.md names them. */
void rt_report_story(rt_text *out, const json_t *story);

#endif
