/* serve/choice.h - the text of a choice as its tokens come: whole characters, stop strings, held-back ends.
 *
 * Tokens are bytes; a stop string may begin in one token and end in another, and a character too.  Text
 * leaves only when it is whole and can no longer become part of a stop string, so what a stream has sent is
 * always the beginning of what an answer in one piece would be. */
#ifndef RT_SERVE_CHOICE_H
#define RT_SERVE_CHOICE_H

#include "serve/job.h"

/* Adds the bytes of a shown token.  true: a stop string is complete, and the text ends before it. */
bool rt_choice_push(rt_choice *choice, const rt_job_options *options, const char *bytes, size_t size);
/* Turns what is safe into text; with `last` all that is left (an unfinished character becomes U+FFFD).  To be
 * called under the job's lock. */
void rt_choice_release(rt_choice *choice, const rt_job_options *options, bool last);
/* Appends bytes as UTF-8: ill-formed parts become U+FFFD.  Without `last` a character that may still be
 * completed is left; returns the bytes taken. */
size_t rt_utf8_append(rt_text *out, const char *data, size_t size, bool last);

#endif
