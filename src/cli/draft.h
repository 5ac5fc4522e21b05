/* cli/draft.h - what runs ahead in speculative decoding, from the options of every command that can. */
#ifndef RT_CLI_DRAFT_H
#define RT_CLI_DRAFT_H

#include "cli/open_model.h"
#include "model/generate.h"
#include "model/shortlist.h"

typedef struct cli_draft_options {
    const char *draft, *shortlist; /* NULL: none; the one beside the draft */
    size_t max;
    double cost;
    bool fixed;
} cli_draft_options;

/* d: a cli_draft_options. */
#define CLI_DRAFT_ROWS(d)                                                                                    \
    {CLI_STRING, "--draft MODEL", &(d).draft,                                                                \
     "a small model that runs ahead: the same answers sooner; 'lookup': what followed the last\n"            \
     "words when they were said before; 'lookup+MODEL': the better of both, token by token"},                \
        {CLI_STRING, "--draft-shortlist FILE", &(d).shortlist,                                               \
         "the ids that the draft may say ('retort shortlist'; default: the list beside the draft,\n"         \
         "'none': all)"},                                                                                    \
        {CLI_COUNT, "--draft-max N", &(d).max, "tokens ahead at most (default 7, 15 at most)"},              \
        {CLI_REAL, "--draft-cost X", &(d).cost,                                                              \
         "of a draft's token in those of the model, as 'bench speculate' measures it (default: by\n"         \
         "their sizes)"},                                                                                    \
    {                                                                                                        \
        CLI_FLAG, "--draft-fixed", &(d).fixed, "always as many tokens ahead, whether it pays or not"         \
    }

typedef struct cli_draft {
    cli_model model; /* empty: none */
    bool lookup;
    size_t n_ids; /* that it may say; 0: all */
} cli_draft;

/* Where a model's shortlist lies, in malloc'd memory: in its folder, or beside its file; NULL: no memory. */
char *cli_shortlist_path(const char *model_path);

/* A list that was made for such a model; RT_MISMATCH: for another. */
rt_status cli_shortlist_read(rt_shortlist *out, const char *path, const cli_model *draft, rt_error *err);

/* Without options->draft *out stays empty.  RT_MISMATCH when the draft reads other ids than the model. */
rt_status cli_draft_open(cli_draft *out, const cli_draft_options *options, const cli_model *model,
                         rt_precision precision, rt_pool *pool, rt_error *err);
void cli_draft_close(cli_draft *draft);
void cli_draft_use(const cli_draft *draft, const cli_draft_options *options, rt_generate_options *out);

#endif
