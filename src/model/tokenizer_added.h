/* model/tokenizer_added.h - tokens that are found in a text before it is cut into words.
 *
 * Which of them count follows from what they are: markup such as <|im_end|> or <tool_call> only when the
 * caller asks for special tokens (in plain text it is text, whatever the file calls it); any other added
 * token, such as a run of blanks, always. */
#ifndef RT_MODEL_TOKENIZER_ADDED_H
#define RT_MODEL_TOKENIZER_ADDED_H

#include "base/text.h"
#include "model/tokenizer_prefix.h"

typedef struct rt_added_token {
    int32_t id;
    char *text; /* owned; what is looked for (normalised where `normalized`) */
    size_t size;
    bool special;        /* control: decode may skip it */
    bool markup;         /* only looked for when special tokens are asked for */
    bool lstrip, rstrip; /* takes the whitespace on this side with it */
    bool single_word;    /* not inside a word */
    bool normalized;     /* looked for after normalising, else before */
} rt_added_token;

typedef struct rt_added {
    rt_added_token *tokens;
    size_t count, capacity;
    rt_prefix_set raw, normalized; /* values are positions in `tokens` */
} rt_added;

typedef struct rt_added_match {
    size_t begin, end; /* with the whitespace that it takes */
    int32_t id;
} rt_added_match;

/* Copies the text; false when out of memory. */
bool rt_added_push(rt_added *added, const rt_added_token *token);
rt_status rt_added_seal(rt_added *added, rt_error *err);
void rt_added_deinit(rt_added *added);
/* The leftmost (longest) match at or after `from` in the raw or the normalised set. */
bool rt_added_find(const rt_added *added, bool normalized, const char *text, size_t size, size_t from,
                   bool parse_special, rt_added_match *out);
/* Does it look like markup: <...>, [...] or so, not a word or blanks? */
bool rt_added_is_markup(const char *text, size_t size);

#endif
