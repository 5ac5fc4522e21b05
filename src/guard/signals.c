/* guard/signals.c - the table of signals; see signals.h.  One more: a file signal_<name>.c, a line here. */
#include "guard/signals.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define SIGNAL_MAP(X)                                                                                        \
    X(repeat) X(template) X(breadth) X(elicit) X(params) X(volume) X(time) X(change) X(client) X(link)

/* `repeat` is first: it finds whether a prompt goes on from an earlier one, which the others want to know. */
static const rt_guard_signal *const table[] = {
#define ROW(name) &rt_guard_signal_##name,
    SIGNAL_MAP(ROW)
#undef ROW
};
const size_t rt_guard_signal_count = sizeof table / sizeof *table;

const rt_guard_signal *rt_guard_signal_at(size_t index) { return table[index]; }

void rt_guard_measure(const rt_guard_account *account, float features[RT_GUARD_FEATURES])
{
    memset(features, 0, RT_GUARD_FEATURES * sizeof *features);
    for (size_t s = 0, at = 0; s < rt_guard_signal_count; at += table[s++]->n_features)
        if (table[s]->n_features)
            table[s]->measure(account, features + at);
}

size_t rt_guard_feature_count(void)
{
    size_t count = 0;
    for (size_t s = 0; s < rt_guard_signal_count; s++)
        count += table[s]->n_features;
    return count;
}

const rt_guard_signal *rt_guard_feature_signal(size_t feature)
{
    for (size_t s = 0; s < rt_guard_signal_count; s++) {
        if (feature < table[s]->n_features)
            return table[s];
        feature -= table[s]->n_features;
    }
    return NULL;
}

const char *rt_guard_feature_name(size_t feature)
{
    for (size_t s = 0; s < rt_guard_signal_count; s++) {
        if (feature < table[s]->n_features)
            return table[s]->features[feature];
        feature -= table[s]->n_features;
    }
    return NULL;
}

int rt_guard_feature_find(const char *name)
{
    char full[96];
    for (size_t f = 0; f < rt_guard_feature_count(); f++) {
        (void)snprintf(full, sizeof full, "%s.%s", rt_guard_feature_signal(f)->name,
                       rt_guard_feature_name(f));
        if (!strcmp(full, name))
            return (int)f;
    }
    return -1;
}

float rt_guard_entropy(const uint32_t *counts, size_t n)
{
    double total = 0.5, h = 0;
    for (size_t i = 0; i < n; i++)
        total += counts[i];
    for (size_t i = 0; i < n; i++)
        if (counts[i])
            h -= counts[i] / total * log(counts[i] / total);
    return (float)h;
}
