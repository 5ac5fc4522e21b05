/* guard/signal_client.c - where the requests come from: program, network class, addresses, payer.
 *
 * Kept as hashes, for links between accounts; as evidence about one account they weigh little. */
#include "guard/signals.h"

#include <math.h>
#include <string.h>

const char *const rt_guard_networks[RT_GUARD_NETWORKS] = {"residential", "mobile",    "business",
                                                          "datacentre",  "education", "vpn"};

bool rt_guard_is_person(const char *agent, size_t size)
{
    static const char *const marks[] = {"mozilla", "chat",    "webui",   "web ui", "ios/",
                                        "android", "browser", "desktop", "app/"};
    char lower[96];
    const size_t n = size < sizeof lower - 1 ? size : sizeof lower - 1;
    for (size_t i = 0; i < n; i++)
        lower[i] = (char)(agent[i] >= 'A' && agent[i] <= 'Z' ? agent[i] - 'A' + 'a'
                          : agent[i]                         ? agent[i]
                                                             : ' ');
    lower[n] = '\0';
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (strstr(lower, marks[i]))
            return true;
    return false;
}

/* Counts an address among the most used; a new one takes the place of the least used. */
static void count_address(rt_guard_client_state *s, uint32_t address)
{
    size_t least = 0;
    for (size_t i = 0; i < RT_GUARD_ADDRESSES; i++) {
        if (s->addresses[i] == address) {
            s->address_counts[i]++;
            return;
        }
        if (s->address_counts[i] < s->address_counts[least])
            least = i;
    }
    s->addresses[least] = address;
    s->address_counts[least] = 1;
}

static void observe(rt_guard_account *account, rt_guard_seen *seen)
{
    rt_guard_client_state *s = &account->client;
    const rt_guard_record *e = seen->event;
    const uint32_t address = e->address, agent = e->agent, payer = e->payer;
    s->people += e->person;
    if (e->network >= 0)
        s->networks[e->network]++;
    if (address) {
        count_address(s, address);
        s->address_changes += s->last_address && address != s->last_address;
        s->last_address = address;
    }
    s->agent_changes += s->agent && agent != s->agent;
    s->agent = agent;
    if (payer && payer != s->payers[0]) {
        s->payers[1] = s->payers[0];
        s->payers[0] = payer;
    }
    s->models |= 1U << (e->model & 31);
}

static void measure(const rt_guard_account *account, float *f)
{
    const rt_guard_client_state *s = &account->client;
    const double n = account->n + 2.0;
    double addresses = 0;
    for (size_t i = 0; i < RT_GUARD_ADDRESSES; i++)
        addresses += s->address_counts[i] > 1;
    f[0] = (float)((s->people + 1) / n);
    f[1] = (float)(s->networks[3] / n);
    f[2] = (float)(s->networks[5] / n);
    f[3] = (float)addresses;
    f[4] = (float)__builtin_popcount(s->models);
    f[5] = account->created > 0 ? (float)log1p(fmax(0, account->first_ts - account->created) / 86400) : 5;
}

const rt_guard_signal rt_guard_signal_client = {
    "client", RT_GUARD_CONDUCT,
    observe,  measure,
    6,        {"people", "datacentre", "vpn", "addresses", "models", "age"}};
