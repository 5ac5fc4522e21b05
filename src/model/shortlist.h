/* model/shortlist.h - a head over some ids: what makes a small draft cheap.
 *
 * The head of a small model is most of its weights (49,152 or 151,936 rows against a few layers), and a
 * draft need not be able to say everything: what it cannot say, the model says itself.  A shortlist names the
 * ids that the head keeps; every other logit is -infinity.  The model's own files stay as they are; the list
 * lies beside them as JSON:
 *   {"format": "retort-shortlist", "version": 1, "vocabulary": 151936, "ids": [0, 1, ...]}   ids ascending */
#ifndef RT_MODEL_SHORTLIST_H
#define RT_MODEL_SHORTLIST_H

#include <jansson.h>

#include "model/decoder.h"

#define RT_SHORTLIST_FILE "shortlist.json" /* in a model's folder */

typedef struct rt_shortlist {
    uint32_t *ids; /* [n] ascending, each < n_vocab */
    size_t n, n_vocab;
} rt_shortlist;

/* The `most` ids that occur most often among those with a mask of 1 (mask NULL: all), the lower id first
 * where counts are equal: what has not occurred follows in the order of ids, which is that of byte-level
 * merges, the common ones first.  RT_INVALID: an id is out of range, or most is 0 or above n_vocab. */
rt_status rt_shortlist_count(rt_shortlist *out, const int32_t *ids, const uint8_t *mask, size_t n,
                             size_t n_vocab, size_t most, rt_error *err);
void rt_shortlist_deinit(rt_shortlist *list);
rt_status rt_shortlist_write(const rt_shortlist *list, const char *path, rt_error *err);
/* RT_CORRUPT names `path` and what is wrong. */
rt_status rt_shortlist_parse(rt_shortlist *out, const json_t *json, const char *path, rt_error *err);
rt_status rt_shortlist_read(rt_shortlist *out, const char *path, rt_error *err);

/* RT_MISMATCH: the list was made for another vocabulary than the model's. */
rt_status rt_shortlist_fits(const rt_shortlist *list, const rt_model *model, rt_error *err);
/* The model's logits then come from these rows of the head alone; only sessions may run it (no training, no
 * scoring by blocks).  `weights` are those that the model was opened from; not for streamed models.  Once a
 * model.  RT_MISMATCH: the list was made for another vocabulary. */
rt_status rt_model_shorten_head(rt_model *model, const rt_weights *weights, const rt_shortlist *list,
                                rt_error *err);

#endif
