/* report/charts.h - the report's five pictures.  Each returns false, and writes nothing, when it has nothing
 * to show.
 *
 * Pictures that span the column are drawn twice, for a wide and for a narrow screen; the page's
 * style sheet shows one of them.  Half-width ones have one size that suits both. */
#ifndef RT_REPORT_CHARTS_H
#define RT_REPORT_CHARTS_H

#include <stdbool.h>

#include "base/text.h"
#include "report/run.h"

/* Two runs with different losses are compared by the KL to the teacher, where both logged it. */
typedef enum rt_loss_chart {
    RT_LOSS_CHART_NONE,
    RT_LOSS_CHART_ONE_LOSS,
    RT_LOSS_CHART_TWO_LOSSES, /* each its own: heights do not compare */
    RT_LOSS_CHART_KL,         /* the same measure for both */
} rt_loss_chart;
rt_loss_chart rt_chart_loss(rt_text *out, const rt_run_record *run);
/* Bars of one figure ("kl_teacher_student") for untrained, trained and baseline. */
bool rt_chart_bars(rt_text *out, const rt_run_record *run, const char *key, const char *axis_title);
bool rt_chart_position(rt_text *out, const rt_run_record *run);
bool rt_chart_reliability(rt_text *out, const rt_run_record *run);
/* Dots for models and exports: x is `bytes` or `decode_tokens_per_s`, y the KL to the teacher. */
bool rt_chart_cost(rt_text *out, const rt_run_record *run, const char *x_key, const char *x_title);

#endif
