/* guard/signals.h - the signals: each observes requests and gives a few numbers about the account.
 *
 * A feature's value depends on the account's state alone and is finite for any state with at least one
 * request.  Order in the table is the order of the features in a reference. */
#ifndef RT_GUARD_SIGNALS_H
#define RT_GUARD_SIGNALS_H

#include "guard/account.h"

enum { RT_GUARD_FEATURES = 64, RT_GUARD_SIGNAL_FEATURES_MAX = 10 };

typedef enum rt_guard_family {                    /* suspension needs two that agree */
                               RT_GUARD_CONTENT,  /* what is asked */
                               RT_GUARD_FORM,     /* how it is wrapped and repeated */
                               RT_GUARD_SETTINGS, /* request parameters */
                               RT_GUARD_CONDUCT,  /* volume, time, client */
} rt_guard_family;

typedef struct rt_guard_signal {
    const char *name;
    rt_guard_family family;
    void (*observe)(rt_guard_account *account, rt_guard_seen *seen);
    void (*measure)(const rt_guard_account *account, float *features);
    size_t n_features;
    const char *features[RT_GUARD_SIGNAL_FEATURES_MAX];
} rt_guard_signal;

const rt_guard_signal *rt_guard_signal_at(size_t index); /* in the order they observe */
extern const size_t rt_guard_signal_count;

/* All features of an account, [RT_GUARD_FEATURES]; those past the table's are 0. */
void rt_guard_measure(const rt_guard_account *account, float features[RT_GUARD_FEATURES]);
size_t rt_guard_feature_count(void);
const char *rt_guard_feature_name(size_t feature); /* "template.share" without the signal's name: "share" */
const rt_guard_signal *rt_guard_feature_signal(size_t feature);
/* -1 where no feature "signal.name" is known. */
int rt_guard_feature_find(const char *name);

/* Groups of an elicited prompt, summing to 1 (0: nothing but a dialogue's next turn); returns the weight. */
float rt_guard_groups(float groups[RT_GUARD_GROUPS], const rt_guard_elicited *elicited);
void rt_guard_spread_add(rt_guard_spread *spread, const rt_guard_elicited *elicited);
/* Nats: the entropy of the groups' shares less the mean entropy of single prompts (the mutual information of
 * prompt and group), with two prompts of one group added; 0 for a program whose texts the classifier is
 * unsure about, log 6 for tasks of all groups. */
float rt_guard_spread_value(const rt_guard_spread *spread);

/* Entropy in nats of counts, with half a count added to the whole so that few counts say little. */
float rt_guard_entropy(const uint32_t *counts, size_t n);

enum { RT_GUARD_NETWORKS = 6 };
extern const char *const rt_guard_networks[RT_GUARD_NETWORKS]; /* residential, mobile, ... */
/* Is the program one that a person types into (a browser, a chat program) rather than a library? */
bool rt_guard_is_person(const char *agent, size_t size);

extern const rt_guard_signal rt_guard_signal_repeat, rt_guard_signal_template, rt_guard_signal_breadth,
    rt_guard_signal_elicit, rt_guard_signal_params, rt_guard_signal_volume, rt_guard_signal_time,
    rt_guard_signal_change, rt_guard_signal_client, rt_guard_signal_link;

#endif
