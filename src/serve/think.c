/* serve/think.c - see think.h. */
#include "serve/think.h"

#include <string.h>

static const char open_tag[] = "<think>", close_tag[] = "</think>";
enum { OPEN_SIZE = sizeof open_tag - 1, CLOSE_SIZE = sizeof close_tag - 1 };

rt_think rt_think_make(bool enabled, bool opened)
{
    return (rt_think){.state = !enabled ? RT_THINK_CONTENT : opened ? RT_THINK_AFTER : RT_THINK_START};
}

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

static size_t skip_blanks(const char *text, size_t at, size_t size)
{
    while (at < size && is_blank(text[at]))
        at++;
    return at;
}

/* At the start: an opening tag, the beginning of one (wait), or anything else (content). */
static bool decide(rt_think *t, const char *text, size_t size, bool last)
{
    const size_t at = skip_blanks(text, 0, size), left = size - at;
    const size_t n = left < OPEN_SIZE ? left : OPEN_SIZE;
    if (memcmp(text + at, open_tag, n) != 0) {
        t->state = RT_THINK_CONTENT;
        return true;
    }
    if (n < OPEN_SIZE) {
        if (last)
            t->state = RT_THINK_CONTENT;
        return last;
    }
    t->at = at + OPEN_SIZE;
    t->state = RT_THINK_AFTER;
    return true;
}

/* How much of text[at..size) is thought for certain: not blanks at the end, nor what may be the closing tag.
 */
static size_t certain(const char *text, size_t at, size_t size)
{
    size_t end = size;
    for (size_t n = size - at < CLOSE_SIZE - 1 ? size - at : CLOSE_SIZE - 1; n > 0; n--)
        if (memcmp(text + size - n, close_tag, n) == 0) {
            end = size - n;
            break;
        }
    while (end > at && is_blank(text[end - 1]))
        end--;
    return end;
}

static bool thoughts(rt_think *t, const char *text, size_t size, bool last, rt_think_part *part)
{
    const char *close = memmem(text + t->at, size - t->at, close_tag, CLOSE_SIZE);
    size_t end = close ? (size_t)(close - text) : last ? size : certain(text, t->at, size);
    if (close)
        while (end > t->at && is_blank(text[end - 1]))
            end--;
    *part = (rt_think_part){text + t->at, end - t->at, true};
    t->at = end;
    t->thoughts_end = size;
    if (close) {
        t->at = (size_t)(close - text) + CLOSE_SIZE;
        t->thoughts_end = t->at;
        t->state = RT_THINK_CONTENT;
        t->skip = true;
    }
    return part->size > 0;
}

bool rt_think_next(rt_think *t, const char *text, size_t size, bool last, rt_think_part *part)
{
    if (t->state == RT_THINK_START && !decide(t, text, size, last))
        return false;
    if (t->state == RT_THINK_AFTER) { /* blanks after the tag */
        t->at = skip_blanks(text, t->at, size);
        if (t->at == size)
            return false;
        t->state = RT_THINK_INSIDE;
    }
    if (t->state == RT_THINK_INSIDE && thoughts(t, text, size, last, part))
        return true;
    if (t->state != RT_THINK_CONTENT)
        return false;
    if (t->skip) {
        t->at = skip_blanks(text, t->at, size);
        t->skip = t->at == size;
    }
    if (t->at == size)
        return false;
    *part = (rt_think_part){text + t->at, size - t->at, false};
    t->at = size;
    return true;
}
