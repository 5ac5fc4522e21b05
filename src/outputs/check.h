/* outputs/check.h - looking after stores: verifying every byte, repairing, joining, figures. */
#ifndef RT_OUTPUTS_CHECK_H
#define RT_OUTPUTS_CHECK_H

#include "outputs/reader.h"

typedef struct rt_store_place { /* where something is wrong */
    const char *file;           /* "logits/000001.rls", "manifest.json" */
    uint64_t offset, end;       /* bytes */
    size_t saved;               /* whole rows that were found there all the same */
    bool torn;                  /* a writer was killed there: nothing that it said was written is missing */
    const char *what;           /* one phrase */
} rt_store_place;
typedef void (*rt_store_place_fn)(void *context, const rt_store_place *place);

typedef struct rt_store_totals {
    size_t files, damaged; /* damaged: places, without torn ends */
    size_t torn;           /* ends of files whose writer was killed */
    size_t unfinished;     /* files without an index: their writer was killed; nothing is wrong with that */
    uint64_t bytes, texts, documents, tokens, rows;
} rt_store_totals;

/* Reads everything: checksums, every row decoded, every text row parsed.  RT_OK also when places are damaged:
 * totals->damaged says how many, totals count what is whole. */
rt_status rt_store_verify(const char *dir, rt_store_place_fn place_fn, void *context, rt_store_totals *totals,
                          rt_error *err);

/* Writes damaged and unfinished files again with all that is whole in them; a file that had damage is kept in
 * DIR/damaged/ first.  A lost manifest is made again from the files' headers, without what only it knew. */
rt_status rt_store_repair(const char *dir, rt_store_place_fn place_fn, void *context, rt_store_totals *totals,
                          rt_error *err);

typedef struct rt_store_merged {
    uint64_t texts, documents;             /* added */
    uint64_t texts_known, documents_known; /* there before */
} rt_store_merged;
/* Adds the rows of other stores to `out`, made when it is not there; what is there already is not added
 * again. RT_MISMATCH: a store of another teacher, sampling or choice of ids. */
rt_status rt_store_merge(const char *out, const char *const *in, size_t n, rt_store_merged *merged,
                         rt_error *err);

/* Figures as JSON: totals, bytes a token, entries a row, tail mass, the error of the codes, who recorded
 * what. Figures of rows are taken over at most docs_max documents, spread evenly.  The caller owns *out. */
rt_status rt_store_stat(json_t **out, const char *dir, size_t docs_max, rt_error *err);

#endif
