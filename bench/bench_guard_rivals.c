/* bench/bench_guard_rivals.c - published detectors of extraction on recorded traffic, one JSON line an
 * account.
 *
 * They see what the guard sees of a prompt, as a unit vector of 128 signed word counts; none of them needs
 * labels.  usage: bench_guard_rivals TRAFFIC
 *   volume  requests a day
 *   near    share of prompts with an earlier one at a cosine of 0.9 or more (the similar pairs of SEAT, 2021)
 *   prada   1 - W' of the distances to the nearest earlier prompt, W' by Shapiro and Francia 1972, an
 *           approximation of the Shapiro-Wilk W that PRADA looks at (arXiv 1805.02628)
 *   mmd     largest squared distance between the mean of 100 successive prompts' random Fourier features and
 * the mean of all accounts' (windowed MMD with an RBF kernel, as in arXiv 2606.05725; features by Rahimi and
 * Recht) */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/rng.h"
#include "base/unpack.h"
#include "guard/digest.h"
#include "guard/event.h"

enum { DIMS = 128, FOURIER = 128, WINDOW = 100, PROMPTS_MAX = 1500, ACCOUNTS_MAX = 100000 };
static const double near_cosine = 0.9, width = 1.0;

typedef struct account {
    char name[RT_GUARD_ACCOUNT_BYTES_MAX + 1];
    float (*vectors)[DIMS];
    size_t n, kept;
    double first, last;
    double mean[FOURIER];
} account;

static account *accounts;
static size_t n_accounts;
static float (*directions)[DIMS];
static float phases[FOURIER];

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double normal(rt_rng *rng)
{
    const double u = rt_rng_uniform(rng), v = rt_rng_uniform(rng);
    return sqrt(-2 * log(1 - u)) * cos(6.283185307179586 * v);
}

static account *find(json_t *index, rt_guard_span name)
{
    char text[RT_GUARD_ACCOUNT_BYTES_MAX + 1];
    (void)snprintf(text, sizeof text, "%.*s", (int)name.size, name.data);
    const json_t *known = json_object_get(index, text);
    if (known)
        return &accounts[json_integer_value(known)];
    if (n_accounts == ACCOUNTS_MAX)
        return NULL;
    json_object_set_new(index, text, json_integer((json_int_t)n_accounts));
    account *a = &accounts[n_accounts++];
    (void)snprintf(a->name, sizeof a->name, "%s", text);
    return a;
}

static bool add(account *a, const rt_guard_event *event)
{
    rt_guard_digest digest;
    float norm = 1e-9F;
    if (a->n++ == 0)
        a->first = event->ts;
    a->last = event->ts;
    if (a->kept == PROMPTS_MAX)
        return true;
    if (!(a->kept & (a->kept - 1)) || a->kept == 0) {
        void *bigger = realloc(a->vectors, (a->kept ? a->kept * 2 : 1) * sizeof *a->vectors);
        if (!bigger)
            return false;
        a->vectors = bigger;
    }
    float *v = a->vectors[a->kept++];
    memset(v, 0, sizeof *a->vectors);
    rt_guard_digest_make(&digest, event->prompt.data, event->prompt.size, 1);
    for (uint32_t i = 0; i < digest.n_words; i++)
        v[digest.words[i] % DIMS] += (digest.words[i] >> 30) & 1 ? 1 : -1;
    for (size_t d = 0; d < DIMS; d++)
        norm += v[d] * v[d];
    for (size_t d = 0; d < DIMS; d++)
        v[d] /= sqrtf(norm);
    return true;
}

static float dot(const float *a, const float *b)
{
    float sum = 0;
    for (size_t d = 0; d < DIMS; d++)
        sum += a[d] * b[d];
    return sum;
}

static void fourier(double out[FOURIER], const float *v)
{
    for (size_t k = 0; k < FOURIER; k++)
        out[k] = sqrt(2.0 / FOURIER) * cos((double)(dot(directions[k], v) + phases[k]));
}

/* near and prada, from each prompt's nearest earlier one */
static void nearest(const account *a, double *near, double *prada)
{
    double *distance = calloc(a->kept + 1, sizeof *distance), pairs = 0, sum = 0, square = 0, cross = 0,
           weights = 0;
    const size_t n = a->kept - 1;
    *near = *prada = 0;
    for (size_t i = 1; distance && i < a->kept; i++) {
        float most = -1;
        for (size_t j = 0; j < i; j++)
            most = fmaxf(most, dot(a->vectors[i], a->vectors[j]));
        pairs += (double)most >= near_cosine;
        distance[i - 1] = sqrt(fmax(0, 2 - 2 * (double)most));
    }
    if (distance && n >= 8) {
        qsort(distance, n, sizeof *distance, by_value);
        for (size_t i = 0; i < n; i++) {
            sum += distance[i];
            square += distance[i] * distance[i];
            /* Blom's scores; the quantile by Tukey's lambda, right to 0.005 */
            const double p = ((double)i + 0.625) / ((double)n + 0.25),
                         m = 4.91 * (pow(p, 0.14) - pow(1 - p, 0.14));
            cross += m * distance[i];
            weights += m * m;
        }
        const double variance = square - sum * sum / (double)n;
        *near = pairs / (double)n;
        *prada = variance > 1e-12 ? 1 - cross * cross / (weights * variance) : 1;
    }
    free(distance);
}

static double mmd(const account *a, const double all[FOURIER])
{
    double(*features)[FOURIER] = calloc(a->kept + 1, sizeof *features), sums[FOURIER] = {0}, most = 0;
    for (size_t i = 0; features && i < a->kept; i++) {
        fourier(features[i], a->vectors[i]);
        for (size_t k = 0; k < FOURIER; k++)
            sums[k] += features[i][k] - (i >= WINDOW ? features[i - WINDOW][k] : 0);
        const double n = (double)(i < WINDOW ? i + 1 : WINDOW);
        double square = 0;
        for (size_t k = 0; k < FOURIER; k++)
            square += (sums[k] / n - all[k]) * (sums[k] / n - all[k]);
        if (n >= 12) /* few prompts are far from any mean: what they are by chance is taken off */
            most = fmax(most, square - 1 / n);
    }
    free(features);
    return most;
}

static rt_status read_traffic(const char *path, rt_error *err)
{
    rt_text text = {.size_max = (size_t)4 << 30};
    json_t *index = json_object();
    rt_status status = rt_file_read_unpacked(&text, path, err);
    const char *line = text.data, *const end = text.data + text.size;
    while (status == RT_OK && line && line < end) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        const size_t size = (size_t)((stop ? stop : end) - line);
        rt_guard_row row;
        if (size && (status = rt_guard_row_parse(&row, line, size, path, err)) == RT_OK) {
            account *a = find(index, row.event.account);
            if (!a || !add(a, &row.event))
                status = rt_error_set(err, RT_NO_MEMORY, "%.200s: has too many accounts", path);
            rt_guard_row_deinit(&row);
        }
        line = stop ? stop + 1 : end;
    }
    json_decref(index);
    rt_text_deinit(&text);
    return status;
}

int main(int argc, char **argv)
{
    rt_error err = {0};
    rt_rng rng = rt_rng_make(9, 0);
    double all[FOURIER] = {0}, one[FOURIER];
    accounts = calloc(ACCOUNTS_MAX, sizeof *accounts);
    directions = calloc(FOURIER, sizeof *directions);
    if (argc != 2 || !accounts || !directions)
        return puts("usage: bench_guard_rivals TRAFFIC"), 2;
    for (size_t k = 0; k < FOURIER; k++) {
        phases[k] = (float)(6.283185307179586 * rt_rng_uniform(&rng));
        for (size_t d = 0; d < DIMS; d++)
            directions[k][d] = (float)(normal(&rng) / width);
    }
    if (read_traffic(argv[1], &err) != RT_OK)
        return puts(err.text), 1;
    for (size_t i = 0; i < n_accounts; i++) /* each account counts once in the pool, by its first prompts */
        for (size_t j = 0; j < accounts[i].kept && j < 20; j++) {
            fourier(one, accounts[i].vectors[j]);
            for (size_t k = 0; k < FOURIER; k++)
                all[k] += one[k] / (fmin(20, (double)accounts[i].kept) * (double)n_accounts);
        }
    for (size_t i = 0; i < n_accounts; i++) {
        double near, prada;
        nearest(&accounts[i], &near, &prada);
        const double days = fmax(1, (accounts[i].last - accounts[i].first) / 86400);
        printf("{\"account\": \"%s\", \"volume\": %.6g, \"near\": %.6g, \"prada\": %.6g, \"mmd\": %.6g}\n",
               accounts[i].name, (double)accounts[i].n / days, near, prada, mmd(&accounts[i], all));
        free(accounts[i].vectors);
    }
    free(accounts);
    free(directions);
    return 0;
}
