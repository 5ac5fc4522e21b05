/* cli/sampling.h - the options of every command that draws tokens, for its option table. */
#ifndef RT_CLI_SAMPLING_H
#define RT_CLI_SAMPLING_H

#include "model/sampler.h"

/* s: an rt_sampling that holds the defaults. */
#define CLI_SAMPLING_ROWS(s)                                                                                 \
    {CLI_REAL, "--temperature X", &(s).temperature, "0 is greedy; below 1 safer, above 1 wilder"},           \
        {CLI_COUNT, "--top-k N", &(s).top_k, "draw from the N likeliest tokens only (default: all)"},        \
        {CLI_REAL, "--top-p X", &(s).top_p, "... from the smallest set with this much mass (default: all)"}, \
        {CLI_REAL, "--min-p X", &(s).min_p, "... from those with at least X times the best's probability"},  \
        {CLI_REAL, "--repetition-penalty X", &(s).repetition_penalty,                                        \
         "divides the logits of tokens seen so far (default 1: none)"},                                      \
        {CLI_REAL, "--frequency-penalty X", &(s).frequency_penalty,                                          \
         "taken off a token's logit for each time it was seen (default 0)"},                                 \
        {CLI_REAL, "--presence-penalty X", &(s).presence_penalty,                                            \
         "taken off the logit of a token that was seen (default 0)"},                                        \
    {                                                                                                        \
        CLI_COUNT, "--seed N", &(s).seed, "another seed, other draws (default 0)"                            \
    }

#endif
