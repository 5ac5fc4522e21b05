/* guard/signal_time.c - when the requests come: hours of the day, gaps, sessions.
 *
 * Many honest clients are active day and night with gaps of every kind, so this judges little and links
 * more.  A clock that jumps back counts as no gap. */
#include "guard/signals.h"

#include <math.h>

static void observe(rt_guard_account *account, rt_guard_seen *seen)
{
    rt_guard_time_state *s = &account->time;
    const double ts = seen->event->ts;
    s->hours[(size_t)fmod(ts / 3600, 24)]++;
    if (account->n == 0) {
        s->sessions = 1;
        return;
    }
    const double gap = fmax(0, ts - account->last_ts), x = log1p(gap);
    s->bursts += gap < 2;
    s->sessions += gap > 1800;
    s->gaps++;
    const double delta = x - s->gap_mean;
    s->gap_mean += delta / s->gaps;
    s->gap_m2 += delta * (x - s->gap_mean);
    if (s->gaps > 1)
        s->gap_cross += (x - s->gap_mean) * (s->gap_last - s->gap_mean);
    s->gap_last = x;
}

static void measure(const rt_guard_account *account, float *f)
{
    const rt_guard_time_state *s = &account->time;
    const double n = account->n, variance = s->gap_m2 / (s->gaps + 1.0);
    f[0] = rt_guard_entropy(s->hours, 24);
    f[1] = (float)sqrt(variance);
    f[2] = (float)(s->gap_cross / (s->gap_m2 + 2));
    f[3] = (float)(s->bursts / (n + 4));
    f[4] = (float)log((n + 2) / (s->sessions + 1.0)); /* requests a session */
}

const rt_guard_signal rt_guard_signal_time = {
    "time",  RT_GUARD_CONDUCT,
    observe, measure,
    5,       {"hours", "gap_spread", "gap_memory", "bursts", "a_session"}};
