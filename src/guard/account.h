/* guard/account.h - what is kept of an account: counters and sketches of fixed size, no text.
 *
 * Plain bytes without pointers: a snapshot writes the struct as it is.  Each signal owns one member and
 * alone writes it.  Zeroed memory is an account without requests. */
#ifndef RT_GUARD_ACCOUNT_H
#define RT_GUARD_ACCOUNT_H

#include "guard/digest.h"
#include "guard/elicit.h"
#include "guard/evalue.h"
#include "guard/event.h"
#include "guard/frame.h"
#include "guard/record.h"
#include "guard/sketch.h"

enum {
    RT_GUARD_RECENT = 8,           /* prompts that a dialogue may go on from */
    RT_GUARD_NEAR = 16,            /* prompts that a near duplicate is looked for among */
    RT_GUARD_PRESENCE_BITS = 1008, /* ten-minute bins of a week */
    RT_GUARD_BAG = 64,             /* of a signed bag of words */
    RT_GUARD_BIAS_BITS = 512,
    RT_GUARD_ADDRESSES = 8,
    RT_GUARD_PAYERS = 2,
};

/* What a task is for the width of tasks: all texts of users are one group, a dialogue's next turn is none. */
enum { RT_GUARD_GROUPS = 6 };

/* How widely tasks spread over the groups, beyond what the classifier is unsure of in each. */
typedef struct rt_guard_spread {
    float mass[RT_GUARD_GROUPS]; /* sums of probabilities */
    float blur;                  /* sum of the single prompts' entropies, nats */
} rt_guard_spread;

typedef struct rt_guard_template_state {
    rt_frequent heads, long_heads, tails; /* first 4, first 8, last 4 words */
    uint32_t covered;                     /* prompts whose head or tail had come 3 times before */
    uint32_t judged;                      /* prompts that begin something (not a dialogue's next turn) */
    rt_guard_spread covered_types;
    float frame_share; /* sum over judged prompts of the share of words that are a frame's */
} rt_guard_template_state;

typedef struct rt_guard_breadth_state {
    rt_hll words;
    uint64_t total_words;
    float bag[RT_GUARD_BAG]; /* sum of unit vectors of tasks' words */
    uint32_t bags;
    rt_guard_spread types;       /* of new prompts that begin something */
    float last[RT_GUARD_GROUPS]; /* of the one before; all 0: none yet */
    float switches;              /* sum over neighbours of the distance of their groups, 0 to 1 each */
    uint32_t pairs;
} rt_guard_breadth_state;

typedef struct rt_guard_repeat_state {
    rt_hll prompts;
    uint64_t recent[RT_GUARD_RECENT];
    uint32_t recent_bytes[RT_GUARD_RECENT];
    uint8_t recent_turns[RT_GUARD_RECENT];
    uint64_t near[RT_GUARD_NEAR];
    uint32_t continued, near_count, lower;
} rt_guard_repeat_state;

typedef struct rt_guard_elicit_state {
    float wants[RT_GUARD_WANTS]; /* sums of probabilities */
    uint32_t begun;              /* prompts that begin something */
    uint32_t any;                /* of them, those with a want of probability over 1/2 */
    rt_guard_spread any_types;   /* of those */
    float recent_any;            /* share, half-life 200 requests */
} rt_guard_elicit_state;

typedef struct rt_guard_params_state {
    uint32_t top_logprobs, logprobs, biased, one_token, cold, streamed; /* requests */
    uint8_t bias_ids[RT_GUARD_BIAS_BITS / 8];                           /* a bit for each hash of an id */
    double exposure; /* sum of top_logprobs x answer tokens */
    double samples;  /* sum of (n - 1) at a temperature over 0.3 */
} rt_guard_params_state;

typedef struct rt_guard_volume_state {
    double log_in, log_out, log_max; /* sums of logarithms of 1 + tokens */
    double out_tokens;
    uint32_t long_out; /* answers over 300 tokens */
} rt_guard_volume_state;

typedef struct rt_guard_time_state {
    uint32_t hours[24];
    double gap_mean, gap_m2, gap_last,
        gap_cross;         /* of log(1 + seconds), Welford; sum of neighbours' products */
    uint32_t gaps, bursts; /* gaps; those under 2 seconds */
    uint32_t sessions;     /* gaps over 30 minutes, plus 1 */
} rt_guard_time_state;

typedef struct rt_guard_change_state {
    int32_t day; /* the day being counted */
    uint32_t today, days;
    double mean, m2;  /* of log(1 + requests) of full days */
    double up, worst; /* CUSUM */
} rt_guard_change_state;

typedef struct rt_guard_client_state {
    uint32_t people, networks[6]; /* requests from a person's program; by network class */
    uint32_t addresses[RT_GUARD_ADDRESSES], address_counts[RT_GUARD_ADDRESSES];
    uint32_t payers[RT_GUARD_PAYERS];
    uint32_t agent; /* of the last request */
    uint32_t agent_changes, address_changes, last_address;
    uint32_t models; /* a bit for each of 32 hashes */
} rt_guard_client_state;

typedef struct rt_guard_link_state {
    uint8_t presence[RT_GUARD_PRESENCE_BITS / 8];
    rt_hash_sample prompts, fillers, templates;
} rt_guard_link_state;

typedef struct rt_guard_account {
    char name[RT_GUARD_ACCOUNT_BYTES_MAX + 1];
    uint32_t n;          /* requests of the running block */
    uint32_t next_check; /* the count at which it is judged again */
    double first_ts, last_ts, created;
    rt_guard_template_state template;
    rt_guard_breadth_state breadth;
    rt_guard_repeat_state repeat;
    rt_guard_frames frames;
    rt_guard_elicit_state elicit;
    rt_guard_params_state params;
    rt_guard_volume_state volume;
    rt_guard_time_state time;
    rt_guard_change_state change;
    rt_guard_client_state client;
    rt_guard_link_state link;
    /* what was found */
    float score;         /* the largest that two checks in a row reached */
    float last_score;    /* of the last check */
    float p;             /* its p-value */
    uint32_t flagged_at; /* requests in all when p first fell under 1 %; 0: never */
    uint32_t index;      /* its place in the guard */
    /* what the last sweep for links found (cluster.h) */
    uint32_t cluster;            /* 0: in none */
    float cluster_p;             /* of the cluster: is it one operator that collects? */
    float cluster_score, lift_p; /* what that adds to the account's own: -1e9 and 1 where it adds nothing */
    /* blocks of time (evalue.h): all above but name, times and what was found is of the running one */
    double block_start;
    uint32_t n_before;        /* requests of closed blocks */
    float best_score, best_p; /* largest score and smallest p of closed blocks */
    rt_evalue_path path;
    float log_e;        /* the e-value as it stands, with the cluster's part */
    uint32_t confirmed; /* e-BH at the last sweep: bit 0 the account, bit 1 its cluster */
} rt_guard_account;
_Static_assert(sizeof(rt_guard_account) <= 4096, "an account fits a page");

/* One request with everything that was worked out about it once. */
typedef struct rt_guard_seen {
    const rt_guard_record *event;
    const rt_guard_digest *digest;
    const rt_guard_elicited *elicited;
    rt_guard_range task; /* the words inside the account's wrapper */
    uint64_t key;
    bool continued; /* an earlier prompt is the beginning of this one: a dialogue's next turn */
    bool repeated;  /* the very same prompt as one of the recent ones */
    bool fresh;     /* neither, and surely not sent before: enough of the new ones to measure by */
} rt_guard_seen;

#endif
