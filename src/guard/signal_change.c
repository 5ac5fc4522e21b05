/* guard/signal_change.c - sudden changes: an account that is taken over, or moves to a new model at once.
 *
 * A one-sided CUSUM (Page 1954) of the standardised logarithm of requests a day, k = 1/2 sigma; 5 sigma is an
 * alarm.  Standardised by the account's own days so far, with a floor that a quiet week does not undercut. */
#include "guard/signals.h"

#include <math.h>

static const double slack = 0.5, sigma_min = 0.5;

static void close_day(rt_guard_change_state *s)
{
    const double x = log1p(s->today);
    if (s->days >= 2) {
        const double sigma = fmax(sigma_min, sqrt(s->m2 / (s->days - 1)));
        s->up = fmax(0, s->up + fmin(4, (x - s->mean) / sigma) - slack);
        s->worst = fmax(s->worst, s->up);
    }
    s->days++;
    const double delta = x - s->mean;
    s->mean += delta / s->days;
    s->m2 += delta * (x - s->mean);
}

static void observe(rt_guard_account *account, rt_guard_seen *seen)
{
    rt_guard_change_state *s = &account->change;
    const int32_t day = (int32_t)(seen->event->ts / 86400);
    if (account->n == 0)
        s->day = day;
    if (day > s->day) { /* days without requests say nothing about the change */
        close_day(s);
        s->day = day;
        s->today = 0;
    }
    s->today++;
}

static void measure(const rt_guard_account *account, float *f)
{
    f[0] = (float)fmin(account->change.worst, 20);
}

const rt_guard_signal rt_guard_signal_change = {"change", RT_GUARD_CONDUCT, observe, measure, 1, {"cusum"}};
