/* judge/task.h - figures of a set of problems: accuracy, majority and pass@k with 95% intervals over
 * problems. */
#ifndef RT_JUDGE_TASK_H
#define RT_JUDGE_TASK_H

#include "judge/answer.h"
#include "judge/bootstrap.h"

typedef struct rt_task_answer {
    size_t problem; /* index */
    rt_verdict verdict;
    char *final; /* owned; "" where nothing was found: answers that are equal have equal ones */
} rt_task_answer;

enum { RT_PASS_MAX = 8 };
typedef struct rt_task_figures {
    size_t problems, answers;           /* problems: with at least one answer */
    size_t right, wrong, none, stopped; /* answers */
    rt_interval accuracy;               /* mean over problems of the share of right answers */
    size_t least, most;                 /* answers of a problem */
    rt_interval majority;               /* the most frequent final answer is right (ties: the first said) */
    size_t n_pass, pass_k[RT_PASS_MAX]; /* 1, 2, 4, ... and `least` */
    rt_interval pass[RT_PASS_MAX];      /* 1 - C(n-c, k) / C(n, k), problems with fewer answers left out */
} rt_task_figures;

/* answers [n] in the order in which they were said. */
rt_status rt_task_count(rt_task_figures *out, const rt_task_answer *answers, size_t n, size_t n_problems,
                        uint64_t seed, rt_error *err);
/* One model's answers less another's on the problems that both answered; the intervals draw problems again,
 * with both models' answers to each (paired). */
typedef struct rt_task_difference {
    size_t problems;
    rt_interval accuracy, majority;
} rt_task_difference;
rt_status rt_task_compare(rt_task_difference *out, const rt_task_answer *answers, size_t n,
                          const rt_task_answer *before, size_t n_before, size_t n_problems, uint64_t seed,
                          rt_error *err);
/* 1 - C(n-c, k) / C(n, k) for c right of n, k <= n. */
double rt_pass_at(size_t n, size_t c, size_t k);

#endif
