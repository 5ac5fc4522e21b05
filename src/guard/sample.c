/* guard/sample.c - recorded traffic becomes rows of features with labels; see train.h. */
#include "guard/sample.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/unpack.h"
#include "guard/replay.h"

enum { LABELS_BYTES_MAX = 256 << 20 };

typedef struct pending { /* rows of one replay, mixed over accounts, until they can be sorted */
    rt_sample_row *rows;
    size_t n, capacity;
    bool failed;
} pending;

static bool grow(void **data, size_t count, size_t size)
{
    void *bigger = realloc(*data, count * size);
    if (bigger)
        *data = bigger;
    return bigger != NULL;
}

static void on_check(void *context, const rt_guard_account *account, const float features[RT_GUARD_FEATURES])
{
    pending *p = context;
    if (p->n == p->capacity) {
        const size_t capacity = p->capacity * 2 + 1024;
        if (!grow((void **)&p->rows, capacity, sizeof *p->rows)) {
            p->failed = true;
            return;
        }
        p->capacity = capacity;
    }
    p->rows[p->n].account = account->index;
    p->rows[p->n].requests = account->n;
    memcpy(p->rows[p->n++].features, features, sizeof p->rows[0].features);
}

rt_status rt_guard_sample_open(rt_guard_sample **out, rt_error *err)
{
    *out = calloc(1, sizeof **out);
    return *out ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "guard: no memory for a sample");
}

void rt_guard_sample_close(rt_guard_sample *sample)
{
    if (!sample)
        return;
    free(sample->rows);
    free(sample->accounts);
    free(sample);
}

size_t rt_guard_sample_accounts(const rt_guard_sample *sample, bool attackers)
{
    size_t count = 0;
    for (size_t a = 0; a < sample->n_accounts; a++)
        count += sample->accounts[a].attacker == attackers;
    return count;
}

/* name -> label row */
static rt_status read_labels(json_t **out, const char *path, rt_error *err)
{
    rt_text text = {.size_max = LABELS_BYTES_MAX};
    rt_status status = rt_file_read_unpacked(&text, path, err);
    char where[160];
    *out = json_object();
    const char *line = text.data;
    for (size_t number = 1; status == RT_OK && line && *line; number++) {
        const size_t size = strcspn(line, "\n");
        json_t *row = NULL;
        const char *name, *label;
        (void)snprintf(where, sizeof where, "%.120s:%zu", path, number);
        status = rt_json_parse(&row, line, size, where, err);
        if (status == RT_OK)
            status = rt_json_get_string(row, "account", &name, where, err);
        if (status == RT_OK)
            status = rt_json_get_string(row, "label", &label, where, err);
        if (status == RT_OK && strcmp(label, "benign") != 0 && strcmp(label, "distil") != 0)
            status = rt_error_set(err, RT_CORRUPT, "%.120s: \"label\" must be benign or distil", where);
        if (status == RT_OK)
            json_object_set(*out, name, row);
        json_decref(row);
        line += size + (line[size] == '\n');
    }
    rt_text_deinit(&text);
    return status;
}

static rt_status add_account(rt_guard_sample *s, const rt_guard_account *account, const json_t *label,
                             const char *path, rt_error *err)
{
    if (s->n_accounts == s->accounts_capacity) {
        const size_t capacity = s->accounts_capacity * 2 + 256;
        if (!grow((void **)&s->accounts, capacity, sizeof *s->accounts))
            return rt_error_set(err, RT_NO_MEMORY, "%.120s: no memory for its accounts", path);
        s->accounts_capacity = capacity;
    }
    const char *cluster = json_string_value(json_object_get(label, "cluster"));
    const char *group = cluster ? cluster : account->name,
               *text = json_string_value(json_object_get(label, "label"));
    s->accounts[s->n_accounts++] = (rt_sample_account){.first = s->n_rows,
                                                       .group = rt_hash64(group, strlen(group), 11),
                                                       .attacker = text && !strcmp(text, "distil"),
                                                       .use_class = rt_guard_use_class(account),
                                                       .corpus = s->n_corpora};
    return RT_OK;
}

static int by_account(const void *a, const void *b)
{
    const rt_sample_row *x = a, *y = b;
    return x->account != y->account ? (x->account > y->account) - (x->account < y->account)
                                    : (x->requests > y->requests) - (x->requests < y->requests);
}

/* Appends the rows so that those of one account stand together, in order of time. */
static rt_status keep(rt_guard_sample *s, pending *p, const rt_guard *guard, const json_t *labels,
                      const char *path, rt_error *err)
{
    if (!grow((void **)&s->rows, s->n_rows + p->n + 1, sizeof *s->rows))
        return rt_error_set(err, RT_NO_MEMORY, "%.120s: no memory for its rows", path);
    if (p->n)
        qsort(p->rows, p->n, sizeof *p->rows, by_account);
    for (size_t i = 0; i < p->n;) {
        const rt_guard_account *account = rt_guard_account_at(guard, p->rows[i].account);
        const json_t *label = json_object_get(labels, account->name);
        const size_t first = i;
        while (i < p->n && p->rows[i].account == p->rows[first].account)
            i++;
        if (labels && !label)
            continue;
        if (add_account(s, account, label, path, err) != RT_OK)
            return err->status;
        s->accounts[s->n_accounts - 1].count = i - first;
        for (size_t k = first; k < i; k++) {
            s->rows[s->n_rows] = p->rows[k];
            s->rows[s->n_rows++].account = (uint32_t)(s->n_accounts - 1);
        }
    }
    return RT_OK;
}

rt_status rt_guard_sample_add(rt_guard_sample *sample, const char *path, const char *asn_path,
                              const char *labels_path, rt_error *err)
{
    static const rt_guard_reference nothing; /* scores do not matter here: features alone are kept */
    pending p = {0};
    json_t *labels = NULL;
    rt_guard *guard = NULL;
    rt_guard_replay_counts counts;
    const rt_guard_options options = {
        .reference = &nothing, .asn_path = asn_path, .on_check = on_check, .context = &p};
    /* accounts must not be dropped: their places are what rows are known by */
    rt_status status = labels_path ? read_labels(&labels, labels_path, err) : RT_OK;
    if (status == RT_OK)
        status = rt_guard_open(&guard, &options, err);
    if (status == RT_OK)
        status = rt_guard_replay(guard, path, &(rt_guard_replay_options){0}, &counts, err);
    if (status == RT_OK && p.failed)
        status = rt_error_set(err, RT_NO_MEMORY, "%.120s: no memory for its rows", path);
    if (status == RT_OK)
        status = keep(sample, &p, guard, labels, path, err);
    sample->n_corpora++;
    free(p.rows);
    json_decref(labels);
    rt_guard_close(guard);
    return status;
}
