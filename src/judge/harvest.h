/* judge/harvest.h - which answers to problems become training text (rejection sampling, METHODS 12).
 *
 * Answers that are right are kept: whole ones (ended by themselves, the thought closed), within a budget of
 * tokens, each text once a problem, without loops; then all of a problem's, or its shortest, up to so many a
 * problem. Problems whose wording shares a run of words with another set (a test set) are left out. */
#ifndef RT_JUDGE_HARVEST_H
#define RT_JUDGE_HARVEST_H

#include "judge/answer.h"

typedef enum rt_keep { RT_KEEP_ALL, RT_KEEP_SHORTEST, RT_KEEP_FIRST } rt_keep;

typedef struct rt_harvest_options {
    rt_keep keep;
    size_t most;       /* of a problem; 0: all */
    size_t tokens_max; /* of an answer; 0: any */
} rt_harvest_options;

typedef struct rt_harvest_answer {
    size_t problem;
    const char *text; /* [n] borrowed: thought and answer as the student is to say them */
    size_t n, tokens; /* tokens 0: not known, bytes / 4 are taken */
    bool stopped;     /* it ended by itself */
    rt_verdict verdict;
    bool kept; /* the result */
} rt_harvest_answer;

typedef struct rt_harvest_counts { /* of the right answers; each is counted once, for the first reason */
    size_t right, cut, long_, looping, twice, beyond, kept;
} rt_harvest_counts;

rt_status rt_harvest(rt_harvest_answer *answers, size_t n, const rt_harvest_options *options,
                     rt_harvest_counts *counts, rt_error *err);

/* Does a text end in saying the same again and again: its last third made of a piece of at most 200 bytes? */
bool rt_text_loops(const char *text, size_t n);

/* Words of n in a row that two sets share: lower case, letters and digits only. */
typedef struct rt_overlap rt_overlap;
rt_status rt_overlap_open(rt_overlap **out, size_t n_words, rt_error *err);
void rt_overlap_close(rt_overlap *overlap);
rt_status rt_overlap_add(rt_overlap *overlap, const char *text, size_t n, rt_error *err);
bool rt_overlap_shares(const rt_overlap *overlap, const char *text, size_t n);

#endif
