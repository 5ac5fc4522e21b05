/* outputs/record_scores.h - any teacher's log-probabilities of given texts, by its verb *score*, into a
 * store.
 *
 * For teachers that are not a model in this process (outputs/record.h is faster for those): a server that
 * gives log-probabilities of prompts, another store.  Texts that are in the store already are passed over, so
 * what was stopped or killed goes on where it was. */
#ifndef RT_OUTPUTS_RECORD_SCORES_H
#define RT_OUTPUTS_RECORD_SCORES_H

#include "outputs/record.h"
#include "teacher/teacher.h"

typedef struct rt_record_scores_options {
    rt_score_options score;
    size_t in_flight_max; /* texts; 0: 256 */
    double flush_seconds;
    bool (*progress)(void *context, const rt_record_progress *progress); /* now and then; false: stop */
    void *context;
} rt_record_scores_options;

/* RT_STOPPED when progress says so, and the status of the first text that could not be scored (err says how
 * many could not) when all others are done: in both cases what was recorded is flushed and the same call goes
 * on. */
rt_status rt_record_scores(rt_store *store, rt_teacher *teacher, const rt_record_texts *texts,
                           const rt_record_scores_options *options, rt_record_progress *done, rt_error *err);

#endif
