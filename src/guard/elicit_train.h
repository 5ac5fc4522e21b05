/* guard/elicit_train.h - makes the table of the classifier of prompts from labelled texts. */
#ifndef RT_GUARD_ELICIT_TRAIN_H
#define RT_GUARD_ELICIT_TRAIN_H

#include "guard/elicit.h"

typedef struct rt_elicit_report { /* on the tenth of the texts that was held out */
    size_t texts, held_out;
    double type_right;             /* share of texts whose type was found */
    double want_found, want_false; /* wants found at probability 1/2; texts without wants that got one */
} rt_elicit_report;

/* Reads JSON lines {"text", "type", "wants": [...]} (plain or .zst), trains with AdaGrad for `epochs`
 * passes, and writes the table.  The same file and seed give the same bytes. */
rt_status rt_elicit_train(const char *texts_path, const char *table_path, size_t epochs, uint64_t seed,
                          rt_elicit_report *report, rt_error *err);

#endif
