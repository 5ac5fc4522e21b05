/* guard/drift.c - see drift.h. */
#include "guard/drift.h"

#include <math.h>
#include <string.h>

static const double week_seconds = 604800, distance_most = 0.1;
enum { RECENT_WEEKS = 4 };

void rt_guard_drift_add(rt_guard_drift *drift, double ts, int use_class, double p)
{
    if (!(ts >= 0) || ts > week_seconds * INT32_MAX / 2)
        return;
    const int32_t week = (int32_t)(ts / week_seconds) + 1;
    rt_guard_drift_week *w = &drift->weeks[week % RT_GUARD_DRIFT_WEEKS];
    if (w->week !=
        week) { /* a place is taken over by the newer week; a straggler of an older one is passed over */
        if (w->week > week)
            return;
        *w = (rt_guard_drift_week){.week = week};
    }
    /* p lies in (0, 1]; its bin is the one that it is the upper end of */
    const int bin = (int)ceil(p * RT_GUARD_DRIFT_BINS) - 1;
    w->bins[use_class][bin < 0 ? 0 : bin < RT_GUARD_DRIFT_BINS ? bin : RT_GUARD_DRIFT_BINS - 1]++;
}

rt_guard_drift_figure rt_guard_drift_judge(const uint32_t bins[RT_GUARD_DRIFT_BINS], size_t n_benign)
{
    rt_guard_drift_figure figure = {0};
    for (size_t b = 0; b < RT_GUARD_DRIFT_BINS; b++)
        figure.n += bins[b];
    if (figure.n == 0)
        return figure;
    double below = 0;
    for (size_t b = 0; b < RT_GUARD_DRIFT_BINS; b++) {
        below += bins[b];
        const double gap = fabs(below / (double)figure.n - (double)(b + 1) / RT_GUARD_DRIFT_BINS);
        figure.distance = fmax(figure.distance, gap);
    }
    figure.excess = bins[0] / (double)figure.n - 1.0 / RT_GUARD_DRIFT_BINS;
    figure.allowed = fmax(distance_most,
                          /* by chance in one of a hundred */
                          1.63 * sqrt(1 / (double)figure.n + 1 / (double)n_benign));
    figure.alarm = figure.n >= RT_GUARD_DRIFT_LEAST && figure.distance > figure.allowed;
    return figure;
}

static int32_t newest(const rt_guard_drift *drift)
{
    int32_t week = 0;
    for (size_t i = 0; i < RT_GUARD_DRIFT_WEEKS; i++)
        if (drift->weeks[i].week > week)
            week = drift->weeks[i].week;
    return week;
}

static void add_up(uint32_t bins[RT_GUARD_DRIFT_BINS], const rt_guard_drift *drift, int use_class, int weeks)
{
    const int32_t last = newest(drift);
    for (size_t i = 0; i < RT_GUARD_DRIFT_WEEKS; i++)
        if (drift->weeks[i].week && drift->weeks[i].week > last - weeks)
            for (size_t b = 0; b < RT_GUARD_DRIFT_BINS; b++)
                bins[b] += drift->weeks[i].bins[use_class][b];
}

static json_t *sentence(const char *class_name, const rt_guard_drift_figure *f)
{
    if (f->n < RT_GUARD_DRIFT_LEAST)
        return json_sprintf(
            "%s: %llu full weeks of accounts so far; it takes %d to say whether the reference fits.",
            class_name, (unsigned long long)f->n, RT_GUARD_DRIFT_LEAST);
    if (!f->alarm)
        return json_sprintf("%s: the reference fits: distance from uniform %.3f, up to %.3f is expected.",
                            class_name, f->distance, f->allowed);
    return json_sprintf(
        "%s: the reference does not fit any more: accounts look %s suspect than its own (%.1f%% have p "
        "under 5%%), so there are %s false alarms than promised; distance from uniform %.3f where %.3f "
        "is allowed. Renew it from reviewed traffic: 'retort guard calibrate'.",
        class_name, f->excess > 0 ? "more" : "less", 100 * (f->excess + 0.05),
        f->excess > 0 ? "more" : "fewer", f->distance, f->allowed);
}

static json_t *weeks_json(const rt_guard_drift *drift, int use_class, size_t n_benign)
{
    json_t *list = json_array();
    const int32_t last = newest(drift);
    for (int32_t week = last - RT_GUARD_DRIFT_WEEKS + 1; week <= last; week++) {
        const rt_guard_drift_week *w = week > 0 ? &drift->weeks[week % RT_GUARD_DRIFT_WEEKS] : NULL;
        if (!w || w->week != week)
            continue;
        const rt_guard_drift_figure f = rt_guard_drift_judge(w->bins[use_class], n_benign);
        (void)json_array_append_new(
            list, json_pack("{s:f, s:I, s:f, s:f, s:b}", "start", (week - 1) * week_seconds, "n",
                            (json_int_t)f.n, "distance", f.distance, "allowed", f.allowed, "alarm", f.alarm));
    }
    return list;
}

static json_t *class_json(const rt_guard_drift *drift, const rt_guard_reference *reference, int k)
{
    uint32_t bins[RT_GUARD_DRIFT_BINS] = {0};
    json_t *counts = json_array();
    add_up(bins, drift, k, RECENT_WEEKS);
    const rt_guard_drift_figure f = rt_guard_drift_judge(bins, reference->n_benign[k]);
    for (size_t b = 0; b < RT_GUARD_DRIFT_BINS; b++)
        (void)json_array_append_new(counts, json_integer(bins[b]));
    return json_pack("{s:s, s:I, s:f, s:f, s:f, s:b, s:o, s:I, s:f, s:o, s:o}", "class",
                     rt_guard_class_names[k], "n", (json_int_t)f.n, "distance", f.distance, "excess",
                     f.excess, "allowed", f.allowed, "alarm", f.alarm, "bins", counts, "benign",
                     (json_int_t)reference->n_benign[k], "p_least", 1 / ((double)reference->n_benign[k] + 1),
                     "sentence", sentence(rt_guard_class_names[k], &f), "weeks",
                     weeks_json(drift, k, reference->n_benign[k]));
}

json_t *rt_guard_drift_json(const rt_guard_drift *drift, const rt_guard_reference *reference)
{
    json_t *list = json_array();
    for (int k = 0; k < RT_GUARD_CLASSES; k++)
        (void)json_array_append_new(list, class_json(drift, reference, k));
    return json_pack("{s:o}", "classes", list);
}
