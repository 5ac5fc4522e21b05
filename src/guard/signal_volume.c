/* guard/signal_volume.c - how much comes out for what goes in.  Weak alone: honest batch work is larger. */
#include "guard/signals.h"

#include <math.h>

static void observe(rt_guard_account *account, rt_guard_seen *seen)
{
    rt_guard_volume_state *s = &account->volume;
    const rt_guard_record *e = seen->event;
    s->log_in += log1p(e->prompt_tokens);
    s->log_out += log1p((double)e->completion_tokens / e->n);
    s->log_max += log1p(e->max_tokens);
    s->out_tokens += e->completion_tokens;
    s->long_out += e->completion_tokens / e->n > 300;
}

static void measure(const rt_guard_account *account, float *f)
{
    const rt_guard_volume_state *s = &account->volume;
    const double n = account->n + 2.0, days = fmax(1, (account->last_ts - account->first_ts) / 86400);
    f[0] = (float)((s->log_out - s->log_in) / n);
    f[1] = (float)(s->log_out / n);
    f[2] = (float)(s->log_max / n);
    f[3] = (float)log(account->n + 1.0);
    f[4] = (float)log1p(account->n / days);
}

const rt_guard_signal rt_guard_signal_volume = {
    "volume", RT_GUARD_CONDUCT, observe, measure, 5, {"ratio", "out", "limit", "requests", "a_day"}};
