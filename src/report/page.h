/* report/page.h - the frame of the page: head with style sheet, sections, figures, tables, foot.
 *
 * One file, nothing fetched: the page's own policy (Content-Security-Policy) forbids it and lets only the one
 * script of ours run, so even a mistake in escaping could not run a model's output. */
#ifndef RT_REPORT_PAGE_H
#define RT_REPORT_PAGE_H

#include "base/text.h"

void rt_page_open(rt_text *out, const char *title, const char *kicker,
                  const char *deck); /* foreign texts: escaped */
void rt_page_close(rt_text *out, const char *colophon);

void rt_page_section_open(rt_text *out, const char *id, const char *heading); /* ours: not escaped */
void rt_page_section_close(rt_text *out);
void rt_page_paragraph(rt_text *out, const char *classes, const char *text); /* escaped */
/* What is not there: one sentence in place of a part. */
void rt_page_missing(rt_text *out, const char *sentence);
void rt_page_figure_open(rt_text *out, const char *title);
void rt_page_figure_close(rt_text *out, const char *caption); /* escaped; NULL for none */

#endif
