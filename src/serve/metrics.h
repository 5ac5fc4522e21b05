/* serve/metrics.h - counters and histograms in the text format of Prometheus (0.0.4).  Event thread only; no
 * key, account or text ever becomes a label. */
#ifndef RT_SERVE_METRICS_H
#define RT_SERVE_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "base/text.h"

enum { RT_BUCKETS_MAX = 16, RT_SERIES_MAX = 256, RT_NAMES_MAX = 64 };

typedef struct rt_histogram {
    uint64_t counts[RT_BUCKETS_MAX + 1];
    double sum;
    uint64_t count;
} rt_histogram;

typedef struct rt_metrics {
    struct {
        const char *endpoint; /* a constant */
        int status;
        uint64_t count;
    } requests[RT_SERIES_MAX];
    size_t n_requests;
    struct {
        char name[64];
        uint64_t count;
    } unknown_fields[RT_NAMES_MAX];
    size_t n_unknown;
    rt_histogram ttft, tpot, e2e, queue;
    struct {
        const char *kind; /* a constant */
        uint64_t count;
    } limited[16];
    size_t n_limited;
    uint64_t cancelled;
    uint64_t relayed_prompt, relayed_output, relayed_cached; /* tokens of a gateway */
} rt_metrics;

void rt_metrics_request(rt_metrics *metrics, const char *endpoint, int status);
void rt_metrics_limited(rt_metrics *metrics, const char *kind);
/* true: the name was not seen before (worth a line in the log). */
bool rt_metrics_unknown_field(rt_metrics *metrics, const char *name);
void rt_metrics_observe(rt_histogram *histogram, double seconds);
/* What is counted here; gauges are appended by the caller with rt_metrics_value. */
void rt_metrics_write(const rt_metrics *metrics, rt_text *out);
void rt_metrics_value(rt_text *out, const char *name, const char *type, double value);

#endif
