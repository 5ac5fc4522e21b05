/* retort/retort.h - the library: everything that a program needs, in the order of the stages.
 *
 * The headers of the rooms are the manual: shapes, units, owners and errors stand there.  They include each
 * other by room ("model/decoder.h"); pkg-config gives the folder.  The interface is not frozen before 1.0. */
#ifndef RETORT_RETORT_H
#define RETORT_RETORT_H

#include "retort/error.h"
#include "retort/version.h"

#include "base/pool.h"
#include "judge/eval.h"
#include "judge/metrics.h"
#include "judge/verify.h"
#include "model/chat_template.h"
#include "model/decoder.h"
#include "model/export.h"
#include "model/generate.h"
#include "model/sampler.h"
#include "model/session.h"
#include "model/tokenizer.h"
#include "model/weights.h"
#include "report/report.h"
#include "student/data.h"
#include "student/recipe.h"
#include "student/run.h"
#include "student/trainer.h"

#endif
