/* guard/evalue.h - evidence over time that may be looked at for ever: e-values.
 *
 * An account's life is cut into disjoint blocks as long as the benign accounts of the reference were watched.
 * Inside a block its p-value (reference.h) is that of its worst moment against the worst moments of benign
 * blocks, so any look inside is safe.  Each block turns its p into a bet b(p) >= 0 with mean 1 or less among
 * benign accounts, and wealth is multiplied by 1 - s + s b(p) for a stake s.  The e-value is the mean wealth
 * over a few stakes: a nonnegative supermartingale that starts at 1, so by Ville's inequality the share of
 * benign accounts whose e-value EVER reaches 1 / alpha is alpha or less (Vovk and Wang, arXiv 1912.06116;
 * Ramdas et al., arXiv 2210.01948).  Small stakes keep most of their wealth through honest weeks, so a long
 * honest past shields nobody.
 *
 * Habits persist: a benign account that looks odd looks odd every week.  The deviates of one account's blocks
 * are therefore taken to be equally correlated (`habit`), and a block's p is the larger of its own and of the
 * one given the blocks before; without this the product would convict people of their habits. */
#ifndef RT_GUARD_EVALUE_H
#define RT_GUARD_EVALUE_H

#include <stddef.h>
#include <stdint.h>

enum { RT_EVALUE_STAKES = 3 };

typedef struct rt_evalue_path { /* what closed blocks leave behind; zeroed: none closed */
    float log_wealth[RT_EVALUE_STAKES];
    float own_sum, linked_sum; /* of the closed blocks' normal deviates, of the account and of its cluster */
    uint32_t blocks;
} rt_evalue_path;

/* The bet: a mixture, uniform in log a, of the bets 1/a on p <= a for a from p_least to 1/20; it integrates
 * to
 * 1.  p_least: the smallest p that the sample can give. */
double rt_evalue_bet(double p, double p_least);
/* p given `blocks` earlier deviates with this sum, never smaller than p itself.  0 <= habit < 1. */
double rt_evalue_p_after(double p, double sum, uint32_t blocks, double habit);
/* The normal deviate with upper tail p, kept within +-6. */
double rt_evalue_deviate(double p);

/* log of the e-value when the running block ends with this bet; without a bet (a block in which the account
 * was never judged) the closed ones alone. */
double rt_evalue_log(const rt_evalue_path *path, double bet);
double rt_evalue_log_closed(const rt_evalue_path *path);
void rt_evalue_close_block(rt_evalue_path *path, double bet, double own, double linked);

/* e-BH (Wang and Ramdas, arXiv 2009.02824): the smallest e-value among `n` that is rejected so that the share
 * of false ones is q or less under any dependence; INFINITY: none is.  Sorts e. */
double rt_ebh_threshold(double *e, size_t n, double q);

#endif
