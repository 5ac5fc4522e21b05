/* cli/serve_marks.h - the watermarks of served models: one key for all answers, one derived for each account
 * (serve/marking.h asks for them). */
#ifndef RT_CLI_SERVE_MARKS_H
#define RT_CLI_SERVE_MARKS_H

#include "cli/watermark.h"
#include "serve/marking.h"

typedef struct cli_serve_mark { /* of one model; zeroed: none */
    rt_marking marking;
    rt_mark_key key;
    rt_mark *common;
    double alpha;
    bool skip_repeated;
} cli_serve_mark;

/* own: "all", "guard" or "nobody".  *json: what a log may say of it.  Must stay where it is while it is used.
 */
rt_status cli_serve_mark_open(cli_serve_mark *mark, json_t **json, const cli_mark_options *options,
                              const char *own, size_t n_vocab, const rt_tokenizer *tokenizer, rt_error *err);
void cli_serve_mark_close(cli_serve_mark *mark);

#endif
