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

float rt_guard_groups(float groups[RT_GUARD_GROUPS], const rt_guard_elicited *elicited)
{
    static const uint8_t group_of[RT_GUARD_TYPES] = {
        [RT_GUARD_TYPE_question] = 0, [RT_GUARD_TYPE_mathematics] = 1, [RT_GUARD_TYPE_choice] = 2,
        [RT_GUARD_TYPE_puzzle] = 3,   [RT_GUARD_TYPE_code] = 4,        [RT_GUARD_TYPE_document] = 5,
        [RT_GUARD_TYPE_message] = 5,  [RT_GUARD_TYPE_translation] = 5};
    const float weight = 1 - elicited->type[RT_GUARD_TYPE_follow_up];
    memset(groups, 0, RT_GUARD_GROUPS * sizeof *groups);
    for (size_t k = 0; k < RT_GUARD_TYPES; k++)
        if (k != RT_GUARD_TYPE_follow_up)
            groups[group_of[k]] += elicited->type[k] / fmaxf(weight, 1e-6F);
    return weight;
}

void rt_guard_spread_add(rt_guard_spread *spread, const rt_guard_elicited *elicited)
{
    float groups[RT_GUARD_GROUPS];
    const float weight = rt_guard_groups(groups, elicited);
    for (size_t k = 0; k < RT_GUARD_GROUPS; k++) {
        spread->mass[k] += weight * groups[k];
        spread->blur -= weight * groups[k] * logf(fmaxf(groups[k], 1e-9F));
    }
}

float rt_guard_spread_value(const rt_guard_spread *spread)
{
    float total = 2, h = 0, most = 0;
    for (size_t k = 0; k < RT_GUARD_GROUPS; k++) {
        total += spread->mass[k];
        most = fmaxf(most, spread->mass[k]);
    }
    bool added = false;
    for (size_t k = 0; k < RT_GUARD_GROUPS; k++) {
        float share = spread->mass[k];
        if (!added && share >= most) {
            share += 2;
            added = true;
        }
        share /= total;
        h -= share > 0 ? share * logf(share) : 0;
    }
    return fmaxf(0, h - spread->blur / total);
}
