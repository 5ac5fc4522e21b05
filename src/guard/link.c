/* guard/link.c - see link.h.
 *
 * Keys (address, payer, creation hour, wrappers) of all accounts are sorted once; a run of equal keys is a
 * bucket, its length the base rate.  Each pair is visited from its first common bucket only. */
#include "guard/link.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKET_MAX = 48, RARE_ADDRESS = 12, WRAPPERS = 4, WRAPPER_HITS = 3, WRAPPER_SHARE = 20 };
/* the most that a creation gap says, and all but addresses and payers together */
static const double created_most = 4, others_most = 8.5;
static const double week = 604800;
static const float wrappers_most = 3.5F, one_place_less = 1.5F;
enum { KEY_ADDRESS, KEY_PAYER, KEY_CREATED, KEY_HEAD, KEY_TAIL };

typedef struct key {
    uint64_t value; /* kind in the top bits */
    uint32_t account, users;
} key;

struct rt_guard_links {
    const rt_guard *guard;
    size_t n;  /* accounts */
    key *keys; /* sorted by value, then account */
    size_t n_keys;
    bool *profiled;                      /* [n] */
    float (*profile)[RT_GUARD_FEATURES]; /* [n] clipped features of content and form */
    double *created;                     /* [n] ascending */
};

static uint64_t key_of(int kind, uint64_t value)
{
    return (uint64_t)kind << 60 | (value & ((UINT64_C(1) << 60) - 1));
}

static int by_key(const void *a, const void *b)
{
    const key *x = a, *y = b;
    if (x->value != y->value)
        return x->value < y->value ? -1 : 1;
    return (x->account > y->account) - (x->account < y->account);
}

static void add_key(rt_guard_links *links, int kind, uint64_t value, size_t account)
{
    links->keys[links->n_keys++] = (key){key_of(kind, value), (uint32_t)account, 0};
}

/* The beginnings or ends that the account uses most, as far as they are habits: WRAPPER_HITS times and in one
 * of WRAPPER_SHARE prompts at least.  Returns how many. */
static size_t wrappers_of(uint32_t out[WRAPPERS], const rt_frequent *frequent, uint32_t judged)
{
    uint32_t hits[WRAPPERS];
    size_t n = 0;
    for (size_t i = 0; i < RT_FREQUENT_ITEMS; i++) {
        const uint32_t sure = (uint32_t)(frequent->counts[i] - frequent->over[i]);
        if (sure < WRAPPER_HITS || sure * (uint64_t)WRAPPER_SHARE < judged)
            continue;
        size_t at = n < WRAPPERS ? n++ : WRAPPERS;
        for (; at > 0 && hits[at - 1] < sure; at--)
            if (at < WRAPPERS) {
                hits[at] = hits[at - 1];
                out[at] = out[at - 1];
            }
        if (at < WRAPPERS) {
            hits[at] = sure;
            out[at] = frequent->items[i];
        }
    }
    return n;
}

static void add_wrappers(rt_guard_links *links, int kind, const rt_frequent *frequent, size_t index)
{
    uint32_t mine[WRAPPERS];
    const size_t n = wrappers_of(mine, frequent, rt_guard_account_at(links->guard, index)->template.judged);
    for (size_t i = 0; i < n; i++)
        add_key(links, kind, mine[i], index);
}

static void add_keys(rt_guard_links *links, size_t index)
{
    const rt_guard_account *a = rt_guard_account_at(links->guard, index);
    for (size_t i = 0; i < RT_GUARD_ADDRESSES; i++)
        if (a->client.address_counts[i] && (a->client.address_counts[i] > 1 || a->n < 8))
            add_key(links, KEY_ADDRESS, a->client.addresses[i], index);
    for (size_t i = 0; i < RT_GUARD_PAYERS; i++)
        if (a->client.payers[i])
            add_key(links, KEY_PAYER, a->client.payers[i], index);
    if (a->created > 0) { /* half-hour bins, and the next one, so that neighbours meet */
        const uint64_t bin = (uint64_t)(a->created / 1800);
        add_key(links, KEY_CREATED, bin, index);
        add_key(links, KEY_CREATED, bin + 1, index);
    }
    add_wrappers(links, KEY_HEAD, &a->template.heads, index);
    add_wrappers(links, KEY_TAIL, &a->template.tails, index);
}

/* What the account does, for "do these two do the same": features as the score sees them. */
static void profile_of(const rt_guard_links *links, size_t index)
{
    if (links->profiled[index]) /* made when it is first wanted: most accounts are in no pair */
        return;
    links->profiled[index] = true;
    const rt_guard_reference *r = rt_guard_reference_of(links->guard);
    float features[RT_GUARD_FEATURES];
    rt_guard_measure(rt_guard_account_at(links->guard, index), features);
    for (size_t f = 0; f < rt_guard_feature_count(); f++) {
        const rt_guard_term *t = &r->terms[f];
        const float z = (features[f] - t->centre) / t->scale;
        links->profile[index][f] = fminf(4, fmaxf(-4, z));
    }
}

static int by_time(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

rt_status rt_guard_links_open(rt_guard_links **out, const rt_guard *guard, rt_error *err)
{
    const size_t n = rt_guard_count(guard);
    *out = NULL;
    rt_guard_links *links = calloc(1, sizeof *links);
    if (links) {
        links->guard = guard;
        links->n = n;
        links->keys =
            calloc(n * (RT_GUARD_ADDRESSES + RT_GUARD_PAYERS + 2 + 2 * WRAPPERS) + 1, sizeof *links->keys);
        links->profile = calloc(n + 1, sizeof *links->profile);
        links->profiled = calloc(n + 1, sizeof *links->profiled);
    }
    if (links)
        links->created = calloc(n + 1, sizeof *links->created);
    if (!links || !links->keys || !links->profile || !links->profiled || !links->created) {
        rt_guard_links_close(links);
        return rt_error_set(err, RT_NO_MEMORY, "guard: no memory to link %zu accounts", n);
    }
    for (size_t i = 0; i < n; i++) {
        add_keys(links, i);
        links->created[i] = rt_guard_account_at(guard, i)->created;
    }
    qsort(links->created, n, sizeof *links->created, by_time);
    qsort(links->keys, links->n_keys, sizeof *links->keys, by_key);
    for (size_t i = 0, end; i < links->n_keys; i = end) {
        for (end = i; end < links->n_keys && links->keys[end].value == links->keys[i].value; end++)
            ;
        for (size_t k = i; k < end; k++)
            links->keys[k].users = (uint32_t)(end - i);
    }
    *out = links;
    return RT_OK;
}

void rt_guard_links_close(rt_guard_links *links)
{
    if (!links)
        return;
    free(links->keys);
    free(links->profile);
    free(links->profiled);
    free(links->created);
    free(links);
}

static uint32_t users_of(const rt_guard_links *links, uint64_t value)
{
    size_t low = 0, high = links->n_keys;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (links->keys[middle].value < value)
            low = middle + 1;
        else
            high = middle;
    }
    return low < links->n_keys && links->keys[low].value == value ? links->keys[low].users : 0;
}

/* Sharing a thing that u of n accounts use: strangers do so with probability u / n, one operator's accounts
 * (who rotate) with a chance that falls as the thing becomes public. */
static float shared_ratio(double users, double n)
{
    return (float)fmax(0, log(n / users) - log1p(users * users / 100));
}

static void addresses(rt_guard_link *link, const rt_guard_links *links, const rt_guard_account *a,
                      const rt_guard_account *b)
{
    for (size_t i = 0; i < RT_GUARD_ADDRESSES; i++)
        for (size_t k = 0; a->client.address_counts[i] && k < RT_GUARD_ADDRESSES; k++)
            if (b->client.address_counts[k] && a->client.addresses[i] == b->client.addresses[k]) {
                const uint32_t users = users_of(links, key_of(KEY_ADDRESS, a->client.addresses[i]));
                link->address += shared_ratio(fmax(users, 2), (double)links->n + 100);
                link->shared_addresses += users <= RARE_ADDRESS;
            }
}

static void payers(rt_guard_link *link, const rt_guard_links *links, const rt_guard_account *a,
                   const rt_guard_account *b)
{
    for (size_t i = 0; i < RT_GUARD_PAYERS; i++)
        for (size_t k = 0; a->client.payers[i] && k < RT_GUARD_PAYERS; k++)
            if (a->client.payers[i] == b->client.payers[k])
                link->payer =
                    fmaxf(link->payer,
                          (float)log(((double)links->n + 100) /
                                     fmax(2, users_of(links, key_of(KEY_PAYER, a->client.payers[i])))));
}

/* Habits of wording that both have: what few accounts use counts, what many use does not. */
static float same_wrappers(const rt_guard_links *links, int kind, const rt_guard_account *a,
                           const rt_guard_account *b)
{
    const bool head = kind == KEY_HEAD;
    uint32_t x[WRAPPERS], y[WRAPPERS];
    const size_t nx = wrappers_of(x, head ? &a->template.heads : &a->template.tails, a->template.judged),
                 ny = wrappers_of(y, head ? &b->template.heads : &b->template.tails, b->template.judged);
    double sum = 0;
    for (size_t i = 0; i < nx; i++)
        for (size_t k = 0; k < ny; k++)
            if (x[i] == y[k])
                sum +=
                    fmax(0, log(((double)links->n + 100) / fmax(2, users_of(links, key_of(kind, x[i])))) - 1);
    return (float)sum;
}

/* Phi of presence in ten-minute bins, over the hours that either is ever seen in. */
static float presence_phi(const rt_guard_account *a, const rt_guard_account *b)
{
    double na = 0, nb = 0, both = 0, bins = RT_GUARD_PRESENCE_BITS;
    for (size_t i = 0; i < sizeof a->link.presence; i++) {
        const unsigned x = a->link.presence[i], y = b->link.presence[i];
        na += __builtin_popcount(x);
        nb += __builtin_popcount(y);
        both += __builtin_popcount(x & y);
    }
    const double denominator = sqrt(na * (bins - na) * nb * (bins - nb));
    return denominator > 0 ? (float)((bins * both - na * nb) / denominator) : 0;
}

static float profile_distance(const rt_guard_links *links, size_t a, size_t b)
{
    double sum = 0;
    size_t count = 0;
    profile_of(links, a);
    profile_of(links, b);
    for (size_t f = 0; f < rt_guard_feature_count(); f++) {
        const rt_guard_family family = rt_guard_feature_signal(f)->family;
        if (family == RT_GUARD_CONDUCT)
            continue;
        const double d = (double)(links->profile[a][f] - links->profile[b][f]);
        sum += d * d;
        count++;
    }
    return (float)sqrt(sum / (double)count);
}

/* Accounts made within a week of the time. */
static double made_near(const rt_guard_links *links, double time)
{
    size_t bounds[2];
    for (size_t k = 0; k < 2; k++) {
        const double limit = time + (k ? week : -week);
        size_t low = 0, high = links->n;
        while (low < high) {
            const size_t middle = (low + high) / 2;
            if (links->created[middle] < limit)
                low = middle + 1;
            else
                high = middle;
        }
        bounds[k] = low;
    }
    return (double)(bounds[1] - bounds[0]);
}

/* How exactly a time of creation is known: some systems keep the day or the hour. */
static double grain_of(double time)
{
    return fmod(time, 86400) == 0 ? 86400 : fmod(time, 3600) == 0 ? 3600 : 60;
}

/* Accounts made in one go: against how many strangers a gap as small would bring together. */
static float created_ratio(const rt_guard_links *links, const rt_guard_account *a, const rt_guard_account *b)
{
    if (a->created <= 0 || b->created <= 0)
        return 0;
    const double gap = fabs(a->created - b->created) + fmax(grain_of(a->created), grain_of(b->created));
    if (gap > 7200)
        return 0;
    const double by_chance = made_near(links, a->created) / ((double)links->n + 100) * gap / week;
    return (float)fmin(created_most, fmax(0, log(0.25 / (by_chance + 1e-6))));
}

/* A log-likelihood ratio by straight lines between measured points, x ascending. */
static float lines(const float (*points)[2], size_t n, float x)
{
    if (x <= points[0][0])
        return points[0][1];
    for (size_t i = 1; i < n; i++)
        if (x <= points[i][0]) {
            const float t = (x - points[i - 1][0]) / (points[i][0] - points[i - 1][0]);
            return points[i - 1][1] + t * (points[i][1] - points[i - 1][1]);
        }
    return points[n - 1][1];
}

/* Accounts of one operator do the same work; strangers behind one exit do not. */
static const float content_points[][2] = {{0.2F, 2.5F}, {0.4F, 1.5F}, {0.7F, 0}, {1.0F, -2}, {1.6F, -5}};
static const float presence_points[][2] = {{-0.05F, -0.2F}, {0.05F, 0}, {0.15F, 0.7F}, {0.4F, 2}, {0.7F, 3}};
static const float wrapper_points[][2] = {{0, -0.3F}, {0.02F, 0.2F}, {0.06F, 1}, {0.15F, 1.5F}};

/* Addresses that are the account's habit. */
static size_t places_of(const rt_guard_account *a)
{
    size_t n = 0;
    for (size_t i = 0; i < RT_GUARD_ADDRESSES; i++)
        n += a->client.address_counts[i] > 1 || (a->client.address_counts[i] && a->n < 8);
    return n;
}

rt_guard_link rt_guard_link_of(const rt_guard_links *links, size_t a, size_t b)
{
    const rt_guard_account *x = rt_guard_account_at(links->guard, a),
                           *y = rt_guard_account_at(links->guard, b);
    rt_guard_link link = {0};
    size_t prompts, templates;
    addresses(&link, links, x, y);
    payers(&link, links, x, y);
    link.created = created_ratio(links, x, y);
    link.client = x->client.agent == y->client.agent ? 0.5F : -0.1F;
    link.content = lines(content_points, 5, profile_distance(links, a, b));
    const float jaccard = (float)rt_hash_sample_jaccard(&x->link.templates, &y->link.templates, &templates);
    link.wrappers = lines(wrapper_points, 4, jaccard);
    /* who sits at one place and meets one who goes round there is a neighbour, also when both word things
     * alike */
    const bool one_place = (places_of(x) == 1) != (places_of(y) == 1);
    if (link.address > 0 && one_place)
        link.address -= one_place_less;
    if (link.created > 0 || link.payer > 0 || !one_place)
        link.wrappers = fminf(wrappers_most, link.wrappers + same_wrappers(links, KEY_HEAD, x, y) +
                                                 same_wrappers(links, KEY_TAIL, x, y));
    /* strangers hardly ever send the same text; a class does, and parts of one set never do */
    (void)rt_hash_sample_jaccard(&x->link.prompts, &y->link.prompts, &prompts);
    link.overlap = prompts ? 1 : 0;
    const double few = fmin(1, fmin(x->n, y->n) / 40.0); /* presence of a few requests is luck */
    link.presence = (float)few * lines(presence_points, 5, presence_phi(x, y));
    link.total = (float)-log((double)links->n + 100) + link.address + link.payer + link.created +
                 link.client + link.content + link.wrappers + link.overlap + link.presence;
    return link;
}

void rt_guard_links_candidates(const rt_guard_links *links, rt_guard_on_pair visit, void *context)
{
    /* among very many accounts a common hour of creation cannot make a pair, whatever else speaks for it */
    const bool hopeless = created_most + others_most - log((double)links->n + 100) < RT_GUARD_EDGE_MIN;
    for (size_t i = 0, end; i < links->n_keys; i = end) {
        end = i + links->keys[i].users;
        const uint64_t kind = links->keys[i].value >> 60;
        /* a common way of wording makes no pair: strangers follow the same advice */
        if (end - i > BUCKET_MAX || kind >= KEY_HEAD || (kind == KEY_CREATED && hopeless))
            continue;
        for (size_t p = i; p < end; p++)
            for (size_t q = p + 1; q < end; q++)
                if (links->keys[p].account != links->keys[q].account)
                    visit(context, links->keys[p].account, links->keys[q].account);
    }
}
