/* guard/elicit_train.c - see elicit_train.h.
 *
 * A softmax over the types and a logistic regression for each want share one table of hashed features.
 * AdaGrad (Duchi et al. 2011) on single texts: rare words keep a large step, common ones settle.  A small
 * L2 pull on touched rows keeps what collisions bring in small.  At the end each label's column is scaled
 * to bytes. */
#include "guard/elicit_train.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/rng.h"
#include "base/unpack.h"

enum { LABELS = RT_ELICIT_LABELS, TYPES = RT_GUARD_TYPES, TEXTS_BYTES_MAX = 1 << 30 };
static const float step = 0.08F, pull = 2e-5F;

typedef struct example {
    uint32_t first, count; /* in trainer.features */
    uint8_t type, wants;   /* a bit for each want */
    bool held_out;
} example;

typedef struct trainer {
    example *examples;
    size_t n, capacity;
    uint16_t *features; /* rows of the table */
    size_t n_features, features_capacity;
    float (*weights)[LABELS], (*squares)[LABELS]; /* [RT_ELICIT_ROWS] */
    float bias[LABELS];
} trainer;

static int index_of(const char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(names[i], name))
            return (int)i;
    return -1;
}

static bool grow(void **data, size_t *capacity, size_t need, size_t size)
{
    if (need <= *capacity)
        return true;
    const size_t capacity_new = need * 2 + 1024;
    void *bigger = realloc(*data, capacity_new * size);
    if (!bigger)
        return false;
    *data = bigger;
    *capacity = capacity_new;
    return true;
}

static rt_status add_text(trainer *t, const json_t *row, const char *where, rt_error *err)
{
    const char *text, *type;
    if (rt_json_get_string(row, "text", &text, where, err) != RT_OK ||
        rt_json_get_string(row, "type", &type, where, err) != RT_OK)
        return err->status;
    example e = {.first = (uint32_t)t->n_features, .held_out = t->n % 10 == 9};
    const int kind = index_of(rt_guard_type_names, RT_GUARD_TYPES, type);
    if (kind < 0)
        return rt_error_set(err, RT_CORRUPT, "%.120s: \"%.40s\" is not a type of prompt", where, type);
    e.type = (uint8_t)kind;
    const json_t *wants = json_object_get(row, "wants");
    for (size_t i = 0; i < json_array_size(wants); i++) {
        const char *name = json_string_value(json_array_get(wants, i));
        const int want = index_of(rt_guard_want_names, RT_GUARD_WANTS, name ? name : "");
        if (want < 0)
            return rt_error_set(err, RT_CORRUPT, "%.120s: \"%.40s\" is not a want", where, name ? name : "?");
        e.wants |= (uint8_t)(1U << want);
    }
    rt_guard_digest digest;
    rt_guard_digest_make(&digest, text, strlen(text), 0);
    e.count = digest.n_words * 2;
    if (!grow((void **)&t->examples, &t->capacity, t->n + 1, sizeof *t->examples) ||
        !grow((void **)&t->features, &t->features_capacity, t->n_features + e.count, sizeof *t->features))
        return rt_error_set(err, RT_NO_MEMORY, "%.120s: no memory for the texts", where);
    for (uint32_t i = 0; i < digest.n_words; i++) {
        t->features[t->n_features++] = (uint16_t)(digest.words[i] & (RT_ELICIT_ROWS - 1));
        if (i + 1 < digest.n_words && i != digest.gap)
            t->features[t->n_features++] =
                (uint16_t)(rt_guard_digest_pair(digest.words[i], digest.words[i + 1]) & (RT_ELICIT_ROWS - 1));
    }
    e.count = (uint32_t)(t->n_features - e.first);
    t->examples[t->n++] = e;
    return RT_OK;
}

static rt_status read_texts(trainer *t, const char *path, rt_error *err)
{
    rt_text text = {.size_max = TEXTS_BYTES_MAX};
    rt_status status = rt_file_read_unpacked(&text, path, err);
    char *line = text.data, where[160];
    for (size_t number = 1; status == RT_OK && line && *line; number++) {
        char *end = strchr(line, '\n');
        const size_t size = end ? (size_t)(end - line) : strlen(line);
        json_t *row = NULL;
        (void)snprintf(where, sizeof where, "%.120s:%zu", path, number);
        status = rt_json_parse(&row, line, size, where, err);
        if (status == RT_OK)
            status = add_text(t, row, where, err);
        json_decref(row);
        line = end ? end + 1 : NULL;
    }
    rt_text_deinit(&text);
    if (status == RT_OK && t->n < 100)
        status =
            rt_error_set(err, RT_INVALID, "%.120s: holds %zu texts; at least 100 are needed", path, t->n);
    return status;
}

/* Probabilities of one example; the types sum to 1. */
static void predict(const trainer *t, const example *e, float out[LABELS])
{
    float logit[LABELS], max = -INFINITY, total = 0;
    memcpy(logit, t->bias, sizeof logit);
    for (uint32_t i = 0; i < e->count; i++)
        for (size_t k = 0; k < LABELS; k++)
            logit[k] += t->weights[t->features[e->first + i]][k];
    for (size_t k = 0; k < TYPES; k++)
        max = fmaxf(max, logit[k]);
    for (size_t k = 0; k < TYPES; k++)
        total += out[k] = expf(logit[k] - max);
    for (size_t k = 0; k < LABELS; k++)
        out[k] = k < TYPES ? out[k] / total : 1 / (1 + expf(-logit[k]));
}

static float truth(const example *e, size_t label)
{
    return label < TYPES ? (float)(e->type == label) : (float)((e->wants >> (label - TYPES)) & 1);
}

static void learn(trainer *t, const example *e)
{
    float gradient[LABELS];
    predict(t, e, gradient);
    /* a prompt with a want may hold any task: only what the task is decides its type, so both are learnt */
    for (size_t k = 0; k < LABELS; k++) {
        gradient[k] -= truth(e, k);
        t->bias[k] -= 0.002F * gradient[k];
    }
    const float share = 1 / sqrtf((float)e->count + 1);
    for (uint32_t i = 0; i < e->count; i++) {
        float *w = t->weights[t->features[e->first + i]], *s = t->squares[t->features[e->first + i]];
        for (size_t k = 0; k < LABELS; k++) {
            const float g = gradient[k] * share + pull * w[k];
            s[k] += g * g;
            w[k] -= step * g / sqrtf(s[k] + 1e-8F);
        }
    }
}

static void shuffle(uint32_t *order, size_t n, rt_rng *rng)
{
    for (size_t i = n; i > 1; i--) {
        const size_t j = (size_t)rt_rng_below(rng, i);
        const uint32_t kept = order[i - 1];
        order[i - 1] = order[j];
        order[j] = kept;
    }
}

static rt_elicit_report judge(const trainer *t)
{
    rt_elicit_report r = {.texts = t->n};
    size_t wants = 0, found = 0, plain = 0, wrong = 0, right = 0;
    for (size_t i = 0; i < t->n; i++) {
        const example *e = &t->examples[i];
        float p[LABELS];
        if (!e->held_out)
            continue;
        predict(t, e, p);
        size_t best = 0;
        bool any = false;
        for (size_t k = 1; k < TYPES; k++)
            best = p[k] > p[best] ? k : best;
        for (size_t k = TYPES; k < LABELS; k++) {
            any |= p[k] > 0.5F;
            wants += truth(e, k) > 0;
            found += truth(e, k) > 0 && p[k] > 0.5F;
        }
        r.held_out++;
        right += best == e->type;
        plain += e->wants == 0;
        wrong += e->wants == 0 && any;
    }
    r.type_right = r.held_out ? (double)right / (double)r.held_out : 0;
    r.want_found = wants ? (double)found / (double)wants : 0;
    r.want_false = plain ? (double)wrong / (double)plain : 0;
    return r;
}

static rt_status write_table(const trainer *t, const char *path, rt_error *err)
{
    rt_elicit_table *table = calloc(1, sizeof *table);
    if (!table)
        return rt_error_set(err, RT_NO_MEMORY, "%.200s: no memory for the table", path);
    memcpy(table->magic, "rtelic1\n", 8);
    for (size_t k = 0; k < LABELS; k++) {
        float max = 1e-6F;
        for (size_t r = 0; r < RT_ELICIT_ROWS; r++)
            max = fmaxf(max, fabsf(t->weights[r][k]));
        table->scale[k] = max / 127;
        table->bias[k] = t->bias[k];
        for (size_t r = 0; r < RT_ELICIT_ROWS; r++)
            table->rows[r][k] = (int8_t)lrintf(t->weights[r][k] / table->scale[k]);
    }
    const rt_status status = rt_file_write(path, table, sizeof *table, err);
    free(table);
    return status;
}

rt_status rt_elicit_train(const char *texts_path, const char *table_path, size_t epochs, uint64_t seed,
                          rt_elicit_report *report, rt_error *err)
{
    trainer t = {0};
    rt_status status = read_texts(&t, texts_path, err);
    uint32_t *order = NULL;
    if (status == RT_OK) {
        order = calloc(t.n, sizeof *order);
        t.weights = calloc(RT_ELICIT_ROWS, sizeof *t.weights);
        t.squares = calloc(RT_ELICIT_ROWS, sizeof *t.squares);
        if (!order || !t.weights || !t.squares)
            status = rt_error_set(err, RT_NO_MEMORY, "%.200s: no memory to train", texts_path);
    }
    for (size_t epoch = 0; status == RT_OK && epoch < epochs; epoch++) {
        rt_rng rng = rt_rng_make(seed, epoch);
        for (size_t i = 0; i < t.n; i++)
            order[i] = (uint32_t)i;
        shuffle(order, t.n, &rng);
        for (size_t i = 0; i < t.n; i++)
            if (!t.examples[order[i]].held_out)
                learn(&t, &t.examples[order[i]]);
    }
    if (status == RT_OK) {
        *report = judge(&t);
        status = write_table(&t, table_path, err);
    }
    free(order);
    free(t.weights);
    free(t.squares);
    free(t.examples);
    free(t.features);
    return status;
}
