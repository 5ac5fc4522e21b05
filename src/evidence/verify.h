/* evidence/verify.h - the formulas of this room against reference vectors in the form of
 * tests/golden/evidence (its README gives the tolerances). */
#ifndef RT_EVIDENCE_VERIFY_H
#define RT_EVIDENCE_VERIFY_H

#include "judge/verify.h"

/* dir holds some of torch_rng, hf_kgw, hf_synthid, rt1_prf, rt1_detect, rt1_reading, tails, mmd, combine,
 * rank_tests and weights .json; none at all is an error, and so is a malformed one. */
rt_status rt_verify_evidence(rt_verify *result, const char *dir, rt_error *err);

#endif
