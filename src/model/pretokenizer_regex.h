/* model/pretokenizer_regex.h - a PCRE2 program from a pattern written for Oniguruma (what
 * tokenizer.json holds), with limits so that a hostile pattern ends. */
#ifndef RT_MODEL_PRETOKENIZER_REGEX_H
#define RT_MODEL_PRETOKENIZER_REGEX_H

#include "base/text.h"

typedef struct rt_regex rt_regex;
typedef struct rt_regex_run rt_regex_run; /* memory of one caller at a time */

rt_status rt_regex_open(rt_regex **out, const char *pattern, rt_error *err);
void rt_regex_close(rt_regex *regex);
rt_status rt_regex_run_open(rt_regex_run **out, const rt_regex *regex, rt_error *err);
void rt_regex_run_close(rt_regex_run *run);
/* The next match at or after `at` of well-formed text; *found false: none. */
rt_status rt_regex_next(rt_regex_run *run, const char *text, size_t size, size_t at, bool *found,
                        size_t *begin, size_t *end, rt_error *err);

#endif
