/* report/report.h - a run directory as one HTML page; docs/report-format.md says what is read. */
#ifndef RT_REPORT_REPORT_H
#define RT_REPORT_REPORT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/text.h"
#include "report/run.h"
#include "retort/error.h"

/* What the page has; the rest is left out, and the page says so. */
#define RT_REPORT_PART_MAP(X)                                                                                \
    X(facts) X(loss) X(kl) X(table) X(position) X(calibration) X(kinds) X(size) X(speed) X(samples)
typedef struct rt_report_parts {
#define RT_REPORT_PART_FIELD(name) bool name;
    RT_REPORT_PART_MAP(RT_REPORT_PART_FIELD)
#undef RT_REPORT_PART_FIELD
    size_t bytes; /* of the page */
} rt_report_parts;

/* Appends the page to `out`; the caller checks out->failed. */
void rt_report_page(rt_text *out, const rt_run_record *run, rt_report_parts *parts);

/* Reads run_dir and writes the page to path, atomically. */
rt_status rt_report_write(const char *run_dir, const char *path, rt_report_parts *parts, rt_error *err);

#endif
