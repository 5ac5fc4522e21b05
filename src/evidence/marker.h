/* evidence/marker.h - marking text while it is generated: an rt_marker for rt_sampling.marker
 * (METHODS-evidence sections 2.0 to 2.5).
 *
 * The context is the last h ids of this answer (hf-kgw: of prompt and answer; hf-synthid: zeros stand before
 * the answer); the first h tokens are drawn plainly, and so is a token whose context came before in this
 * answer (required for tournament and gumbel, an option for the green lists).  At temperature 0 only green
 * lists mark.  With two keys, each token draws its key with the ordinary coin: key 2 with probability alpha.
 * Everything is computed from the ids so far: a marker has no state and may be shared by all answers.
 *
 * Ids of less than 2^-21 of the probability each are drawn plainly, as often as they would be: the mean over
 * keys stays exact, and a tournament is among the few thousand others. */
#ifndef RT_EVIDENCE_MARKER_H
#define RT_EVIDENCE_MARKER_H

#include "evidence/score.h"
#include "model/sampler.h"

typedef struct rt_mark rt_mark;

/* second: NULL, or a key of the same scheme for the share alpha of the tokens (0..1).  skip_repeated: plain
 * draws for repeated contexts with green lists too; the other schemes always do so. */
rt_status rt_mark_open(rt_mark **out, const rt_watermark *first, const rt_watermark *second, double alpha,
                       bool skip_repeated, rt_error *err);
void rt_mark_close(rt_mark *mark);
const rt_marker *rt_mark_marker(const rt_mark *mark); /* lives as long as the mark */
rt_mark *rt_mark_of_marker(const rt_marker *marker);  /* of a marker that rt_mark_marker gave */

#endif
