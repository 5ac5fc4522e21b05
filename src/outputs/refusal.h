/* outputs/refusal.h - answers that decline to answer, by the phrases with which they begin. */
#ifndef RT_OUTPUTS_REFUSAL_H
#define RT_OUTPUTS_REFUSAL_H

#include <stddef.h>

/* The phrase that was found near the start of the text, or NULL. Marking, not judging: rows are kept. */
const char *rt_refusal_find(const char *text, size_t size);

#endif
