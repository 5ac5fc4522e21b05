/* serve/metrics.c - see metrics.h. */
#include "serve/metrics.h"

#include <stdio.h>
#include <string.h>

static const double bounds[RT_BUCKETS_MAX] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                              0.5,   1,      2.5,   5,    10,    30,   60,  300};

void rt_metrics_request(rt_metrics *m, const char *endpoint, int status)
{
    for (size_t i = 0; i < m->n_requests; i++)
        if (m->requests[i].status == status && strcmp(m->requests[i].endpoint, endpoint) == 0) {
            m->requests[i].count++;
            return;
        }
    if (m->n_requests == RT_SERIES_MAX)
        return;
    m->requests[m->n_requests].endpoint = endpoint;
    m->requests[m->n_requests].status = status;
    m->requests[m->n_requests++].count = 1;
}

void rt_metrics_limited(rt_metrics *m, const char *kind)
{
    for (size_t i = 0; i < m->n_limited; i++)
        if (strcmp(m->limited[i].kind, kind) == 0) {
            m->limited[i].count++;
            return;
        }
    if (m->n_limited == sizeof m->limited / sizeof *m->limited)
        return;
    m->limited[m->n_limited].kind = kind;
    m->limited[m->n_limited++].count = 1;
}

/* A label holds letters, digits, '_', '-' and '.' only; what else a client sends as a name counts as "other".
 */
static bool is_plain(const char *name)
{
    size_t size = 0;
    for (; name[size]; size++) {
        const char c = name[size];
        if (!((c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '_' || c == '-' ||
              c == '.'))
            return false;
    }
    return size > 0 && size < 64;
}

bool rt_metrics_unknown_field(rt_metrics *m, const char *name)
{
    if (!is_plain(name) || (m->n_unknown == RT_NAMES_MAX - 1))
        name = "other";
    for (size_t i = 0; i < m->n_unknown; i++)
        if (strcmp(m->unknown_fields[i].name, name) == 0) {
            m->unknown_fields[i].count++;
            return false;
        }
    if (m->n_unknown == RT_NAMES_MAX)
        return false;
    (void)snprintf(m->unknown_fields[m->n_unknown].name, 64, "%s", name);
    m->unknown_fields[m->n_unknown++].count = 1;
    return true;
}

void rt_metrics_observe(rt_histogram *h, double seconds)
{
    size_t i = 0;
    while (i < RT_BUCKETS_MAX && seconds > bounds[i])
        i++;
    h->counts[i]++;
    h->count++;
    h->sum += seconds;
}

static void write_histogram(rt_text *out, const char *name, const rt_histogram *h)
{
    uint64_t below = 0;
    rt_text_printf(out, "# TYPE %s histogram\n", name);
    for (size_t i = 0; i < RT_BUCKETS_MAX; i++) {
        below += h->counts[i];
        rt_text_printf(out, "%s_bucket{le=\"%g\"} %llu\n", name, bounds[i], (unsigned long long)below);
    }
    rt_text_printf(out, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.9g\n%s_count %llu\n", name,
                   (unsigned long long)h->count, name, h->sum, name, (unsigned long long)h->count);
}

void rt_metrics_value(rt_text *out, const char *name, const char *type, double value)
{
    rt_text_printf(out, "# TYPE %s %s\n%s %.15g\n", name, type, name, value);
}

void rt_metrics_write(const rt_metrics *m, rt_text *out)
{
    rt_text_puts(out, "# TYPE retort_requests_total counter\n");
    for (size_t i = 0; i < m->n_requests; i++)
        rt_text_printf(out, "retort_requests_total{endpoint=\"%s\",status=\"%d\"} %llu\n",
                       m->requests[i].endpoint, m->requests[i].status,
                       (unsigned long long)m->requests[i].count);
    rt_text_puts(out, "# TYPE retort_unknown_fields_total counter\n");
    for (size_t i = 0; i < m->n_unknown; i++)
        rt_text_printf(out, "retort_unknown_fields_total{field=\"%s\"} %llu\n", m->unknown_fields[i].name,
                       (unsigned long long)m->unknown_fields[i].count);
    rt_text_puts(out, "# TYPE retort_rate_limited_total counter\n");
    for (size_t i = 0; i < m->n_limited; i++)
        rt_text_printf(out, "retort_rate_limited_total{kind=\"%s\"} %llu\n", m->limited[i].kind,
                       (unsigned long long)m->limited[i].count);
    write_histogram(out, "retort_ttft_seconds", &m->ttft);
    write_histogram(out, "retort_tpot_seconds", &m->tpot);
    write_histogram(out, "retort_e2e_seconds", &m->e2e);
    write_histogram(out, "retort_queue_seconds", &m->queue);
    rt_metrics_value(out, "retort_cancelled_total", "counter", (double)m->cancelled);
}
