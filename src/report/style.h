/* report/style.h - the page's style sheet and script, kept apart because they are long. */
#ifndef RT_REPORT_STYLE_H
#define RT_REPORT_STYLE_H

extern const char rt_report_style[];
extern const char rt_report_script[];

#endif
