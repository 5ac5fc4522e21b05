/* serve/think.h - the text of a reasoning model, divided at its think tags as it comes.
 *
 * Thoughts stand between <think> and </think> at the beginning of an answer; the opening tag may already be
 * in the prompt.  Tags and the blank lines around them belong to neither part. */
#ifndef RT_SERVE_THINK_H
#define RT_SERVE_THINK_H

#include <stdbool.h>
#include <stddef.h>

typedef enum rt_think_state {
    RT_THINK_START,
    RT_THINK_INSIDE,
    RT_THINK_AFTER,
    RT_THINK_CONTENT
} rt_think_state;

typedef struct rt_think {
    rt_think_state state;
    size_t at;           /* bytes of the text that are dealt with */
    bool skip;           /* blanks after the closing tag */
    size_t thoughts_end; /* where the thoughts end in the text, 0: there are none (yet) */
} rt_think;

typedef struct rt_think_part { /* a piece of the text, borrowed */
    const char *data;
    size_t size;
    bool thought;
} rt_think_part;

rt_think rt_think_make(bool enabled, bool opened);
/* The next piece of text[0..size) that can be told; false: nothing more for now.  last: no more text will
 * come. */
bool rt_think_next(rt_think *think, const char *text, size_t size, bool last, rt_think_part *part);

#endif
