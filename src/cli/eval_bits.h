/* cli/eval_bits.h - `retort eval --bits`: models of any tokenizers on one text, in bits a byte. */
#ifndef RT_CLI_EVAL_BITS_H
#define RT_CLI_EVAL_BITS_H

#include "cli/cli.h"

typedef struct cli_eval_bits {
    const char *teacher, *data, *precision, *out;
    const cli_list *students; /* "NAME=MODEL" or a model */
    size_t tokens_max, resamples, seed;
    bool loss_on_all, json;
} cli_eval_bits;
int cli_eval_bits_run(const cli_eval_bits *arguments); /* the exit status */

#endif
