/* guard/attach.c - see attach.h. */
#include "guard/attach.h"

#include <math.h>
#include <stdlib.h>

enum { CLUSTER_MIN = 5, USES_MAX = 64 };
static const double together_seconds = 7200, share_min = 0.6;

typedef struct use { /* an address that a member of a cluster uses */
    uint32_t address, root, account;
} use;

static int by_address(const void *a, const void *b)
{
    const use *x = a, *y = b;
    if (x->address != y->address)
        return x->address < y->address ? -1 : 1;
    if (x->root != y->root)
        return x->root < y->root ? -1 : 1;
    return (x->account > y->account) - (x->account < y->account);
}

typedef struct fit { /* how a lone account fits one cluster */
    uint32_t root, addresses, members;
    double requests;
    bool together; /* made with a member, or with its program */
} fit;

static void count_use(fit *fits, size_t *n_fits, const rt_guard *guard, const rt_guard_account *lone,
                      const use *u, size_t count, double requests)
{
    size_t i = 0;
    while (i < *n_fits && fits[i].root != u->root)
        i++;
    if (i == RT_GUARD_ADDRESSES)
        return;
    if (i == *n_fits)
        fits[(*n_fits)++] = (fit){.root = u->root};
    fits[i].addresses++;
    fits[i].members += (uint32_t)count;
    fits[i].requests += requests;
    for (size_t k = 0; k < count; k++) {
        const rt_guard_account *member = rt_guard_account_at(guard, u[k].account);
        fits[i].together |= (lone->created > 0 && fabs(member->created - lone->created) < together_seconds) ||
                            (member->client.agent && member->client.agent == lone->client.agent);
    }
}

/* The root that the account fits, or its own index. */
static uint32_t place_of(const rt_guard *guard, uint32_t index, const use *uses, size_t n_uses)
{
    const rt_guard_account *a = rt_guard_account_at(guard, index);
    fit fits[RT_GUARD_ADDRESSES];
    size_t n_fits = 0;
    double all = 0;
    for (size_t i = 0; i < RT_GUARD_ADDRESSES; i++) {
        all += a->client.address_counts[i];
        if (a->client.address_counts[i] < 2)
            continue;
        size_t low = 0, high = n_uses;
        while (low < high) {
            const size_t middle = (low + high) / 2;
            if (uses[middle].address < a->client.addresses[i])
                low = middle + 1;
            else
                high = middle;
        }
        for (size_t end; low < n_uses && uses[low].address == a->client.addresses[i]; low = end) {
            for (end = low;
                 end < n_uses && uses[end].address == uses[low].address && uses[end].root == uses[low].root;
                 end++)
                ;
            const size_t count = end - low < USES_MAX ? end - low : USES_MAX;
            count_use(fits, &n_fits, guard, a, uses + low, count, a->client.address_counts[i]);
        }
    }
    const fit *best = NULL;
    for (size_t i = 0; i < n_fits; i++)
        if (fits[i].addresses >= 2 && fits[i].members >= 3 && fits[i].together &&
            fits[i].requests >= share_min * all && (!best || fits[i].members > best->members))
            best = &fits[i];
    return best ? best->root : index;
}

rt_status rt_guard_attach(uint32_t *roots, const rt_guard *guard, rt_error *err)
{
    const size_t n = rt_guard_count(guard);
    uint32_t *sizes = calloc(n + 1, sizeof *sizes), *placed = calloc(n + 1, sizeof *placed);
    use *uses = NULL;
    size_t n_uses = 0, linked = 0;
    for (size_t i = 0; sizes && i < n; i++)
        sizes[roots[i]]++;
    for (size_t i = 0; sizes && i < n; i++)
        linked += sizes[roots[i]] >= CLUSTER_MIN;
    if (sizes && placed)
        uses = calloc(linked * RT_GUARD_ADDRESSES + 1, sizeof *uses);
    if (!uses) {
        free(sizes);
        free(placed);
        return rt_error_set(err, RT_NO_MEMORY, "guard: no memory to attach accounts to clusters");
    }
    for (size_t i = 0; i < n; i++) {
        const rt_guard_client_state *c = &rt_guard_account_at(guard, i)->client;
        for (size_t k = 0; sizes[roots[i]] >= CLUSTER_MIN && k < RT_GUARD_ADDRESSES; k++)
            if (c->address_counts[k] > 1)
                uses[n_uses++] = (use){c->addresses[k], roots[i], (uint32_t)i};
    }
    if (n_uses)
        qsort(uses, n_uses, sizeof *uses, by_address);
    /* decided for all before any is moved, so that the order of accounts does not matter */
    for (size_t i = 0; i < n; i++)
        placed[i] = sizes[roots[i]] == 1 && n_uses ? place_of(guard, (uint32_t)i, uses, n_uses) : roots[i];
    for (size_t i = 0; i < n; i++)
        roots[i] = placed[i];
    free(sizes);
    free(placed);
    free(uses);
    return RT_OK;
}
