/* report/sections.h - the page's sections, in their order; each appends itself and notes in `parts` what it
 * had. Only report.c uses them. */
#ifndef RT_REPORT_SECTIONS_H
#define RT_REPORT_SECTIONS_H

#include "report/report.h"

void rt_section_loss(rt_text *out, const rt_run_record *run, rt_report_parts *parts);
void rt_section_judge(rt_text *out, const rt_run_record *run, rt_report_parts *parts);
void rt_section_where(rt_text *out, const rt_run_record *run, rt_report_parts *parts);
void rt_section_cost(rt_text *out, const rt_run_record *run, rt_report_parts *parts);
void rt_section_samples(rt_text *out, const rt_run_record *run, rt_report_parts *parts);
void rt_section_facts(rt_text *out, const rt_run_record *run, rt_report_parts *parts);

#endif
