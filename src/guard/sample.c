/* guard/sample.c - recorded traffic becomes rows of features with labels; see train.h. */
#include "guard/sample.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
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

rt_status rt_sample_labels(json_t **out, const char *path, rt_error *err)
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
    const char *kind = json_string_value(json_object_get(label, "kind"));
    rt_sample_account *a = &s->accounts[s->n_accounts++];
    *a = (rt_sample_account){.first = s->n_rows,
                             .group = rt_hash64(group, strlen(group), 11),
                             .attacker = text && !strcmp(text, "distil"),
                             .use_class = rt_guard_use_class(account),
                             .corpus = s->n_corpora};
    memcpy(a->name, account->name, sizeof a->name);
    (void)snprintf(a->kind, sizeof a->kind, "%s", kind ? kind : "");
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
    rt_status status = labels_path ? rt_sample_labels(&labels, labels_path, err) : RT_OK;
    if (status == RT_OK)
        status = rt_guard_open(&guard, &options, err);
    if (status == RT_OK)
        status = rt_guard_replay(guard, path, &(rt_guard_replay_options){0}, &counts, err);
    /* who came too seldom to be judged is one of those of whom nothing is known */
    for (size_t i = 0; status == RT_OK && i < rt_guard_count(guard); i++) {
        const rt_guard_account *account = rt_guard_account_at(guard, i);
        float features[RT_GUARD_FEATURES];
        rt_guard_measure(account, features);
        if (account->n < account->next_check && account->last_score < -1e8F && account->n)
            on_check(&p, account, features);
    }
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

/* ---- kept features: header, accounts, rows, hash of it all */

typedef struct file_header {
    char magic[8];
    uint64_t meaning; /* of the features' names and the classifier's table */
    uint64_t n_accounts, n_rows, n_corpora;
} file_header;

/* Features of another build mean other things. */
static uint64_t meaning(void)
{
    uint64_t hash = rt_hash64(rt_elicit_builtin(), sizeof(rt_elicit_table), sizeof(rt_sample_account));
    for (size_t f = 0; f < rt_guard_feature_count(); f++) {
        const char *signal = rt_guard_feature_signal(f)->name, *name = rt_guard_feature_name(f);
        hash = rt_hash64(signal, strlen(signal), hash);
        hash = rt_hash64(name, strlen(name), hash);
    }
    return hash;
}

rt_status rt_guard_sample_write(const rt_guard_sample *sample, const char *path, rt_error *err)
{
    rt_writer writer;
    const file_header header = {"rtsample", meaning(), sample->n_accounts, sample->n_rows, sample->n_corpora};
    const size_t accounts = sample->n_accounts * sizeof *sample->accounts,
                 rows = sample->n_rows * sizeof *sample->rows;
    uint64_t hash = rt_hash64(&header, sizeof header, 0);
    if (rt_writer_open(&writer, path, err) != RT_OK)
        return err->status;
    hash = rt_hash64(sample->rows, rows, rt_hash64(sample->accounts, accounts, hash));
    if (rt_writer_write(&writer, &header, sizeof header, err) != RT_OK ||
        rt_writer_write(&writer, sample->accounts, accounts, err) != RT_OK ||
        rt_writer_write(&writer, sample->rows, rows, err) != RT_OK ||
        rt_writer_write(&writer, &hash, sizeof hash, err) != RT_OK) {
        rt_writer_abort(&writer);
        return err->status;
    }
    return rt_writer_commit(&writer, err);
}

static rt_status check_file(const rt_file *file, file_header *header, const char *path, rt_error *err)
{
    uint64_t stored;
    if (file->size < sizeof *header + sizeof stored)
        return rt_error_set(err, RT_CORRUPT, "%.200s: is cut short", path);
    memcpy(header, file->data, sizeof *header);
    if (memcmp(header->magic, "rtsample", 8) != 0)
        return rt_error_set(err, RT_CORRUPT, "%.200s: is not a file of `guard features`", path);
    if (header->meaning != meaning())
        return rt_error_set(err, RT_INVALID, "%.200s: was made by another build; make it again", path);
    const size_t room = file->size - sizeof *header - sizeof stored;
    if (header->n_accounts > room / sizeof(rt_sample_account) ||
        header->n_rows > room / sizeof(rt_sample_row) ||
        header->n_accounts * sizeof(rt_sample_account) + header->n_rows * sizeof(rt_sample_row) != room)
        return rt_error_set(err, RT_CORRUPT, "%.200s: has %zu bytes, which is not what its header says", path,
                            file->size);
    memcpy(&stored, file->data + file->size - sizeof stored, sizeof stored);
    const uint8_t *accounts = (const uint8_t *)file->data + sizeof *header;
    const size_t account_bytes = (size_t)header->n_accounts * sizeof(rt_sample_account);
    const uint64_t hash = rt_hash64(accounts + account_bytes, room - account_bytes,
                                    rt_hash64(accounts, account_bytes, rt_hash64(header, sizeof *header, 0)));
    bool right = hash == stored;
    for (size_t a = 0; right && a < header->n_accounts; a++) {
        rt_sample_account one;
        memcpy(&one, accounts + a * sizeof one, sizeof one);
        right = one.count > 0 && one.first <= header->n_rows && one.count <= header->n_rows - one.first &&
                one.use_class >= 0 && one.use_class < RT_GUARD_CLASSES && !one.name[sizeof one.name - 1] &&
                !one.kind[sizeof one.kind - 1] && one.corpus < header->n_corpora;
    }
    return right ? RT_OK : rt_error_set(err, RT_CORRUPT, "%.200s: its checksum does not hold", path);
}

rt_status rt_guard_sample_read(rt_guard_sample *s, const char *path, rt_error *err)
{
    rt_file file;
    file_header header = {.n_rows = 0};
    if (rt_file_map(&file, path, err) != RT_OK)
        return err->status;
    rt_status status = check_file(&file, &header, path, err);
    const size_t n = (size_t)header.n_accounts, n_rows = (size_t)header.n_rows;
    if (status == RT_OK && (!grow((void **)&s->accounts, s->n_accounts + n + 1, sizeof *s->accounts) ||
                            !grow((void **)&s->rows, s->n_rows + n_rows + 1, sizeof *s->rows)))
        status = rt_error_set(err, RT_NO_MEMORY, "%.200s: no memory for its %zu rows", path, n_rows);
    if (status == RT_OK) {
        rt_sample_account *accounts = s->accounts + s->n_accounts;
        rt_sample_row *rows = s->rows + s->n_rows;
        memcpy(accounts, file.data + sizeof header, n * sizeof *accounts);
        memcpy(rows, file.data + sizeof header + n * sizeof *accounts, n_rows * sizeof *rows);
        for (size_t a = 0; a < n; a++) {
            accounts[a].first += s->n_rows;
            accounts[a].corpus += s->n_corpora;
        }
        for (size_t i = 0; i < n_rows; i++)
            rows[i].account += (uint32_t)s->n_accounts;
        s->n_accounts += n;
        s->accounts_capacity = s->n_accounts + 1;
        s->n_rows += n_rows;
        s->n_corpora += (uint32_t)header.n_corpora;
    }
    rt_file_unmap(&file);
    return status;
}
