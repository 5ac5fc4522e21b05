/* cli/watermark_accounts.c - see watermark_accounts.h.
 *
 * The keys of accounts that have no part in a text are random keys to it: their p-values show on this very
 * text whether the null holds, so no further random keys are drawn. */
#include "cli/watermark_accounts.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/size.h"
#include "base/text.h"
#include "base/unpack.h"
#include "evidence/combine.h"
#include "evidence/detect.h"

enum { BEST = 10, ACCOUNTS_MAX = 1000000, NAME_MAX_BYTES = 200 };
static const double named_at = -5; /* log10 of the corrected p from which on an account is named: "strong" */

static rt_status add(cli_accounts *a, const char *name, size_t size, const uint8_t key[RT_PRF_KEY_BYTES],
                     rt_error *err)
{
    if (a->count == ACCOUNTS_MAX)
        return rt_error_set(err, RT_INVALID, "more than %d accounts; test them in several runs",
                            ACCOUNTS_MAX);
    if (a->count == a->capacity) {
        const size_t capacity = 2 * a->capacity + 256;
        char **names = realloc(a->names, capacity * sizeof *names);
        if (names)
            a->names = names;
        uint8_t(*keys)[RT_PRF_KEY_BYTES] = names ? realloc(a->keys, capacity * sizeof *keys) : NULL;
        if (!keys)
            return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu accounts", capacity);
        a->keys = keys;
        a->capacity = capacity;
    }
    a->names[a->count] = strndup(name, size);
    if (!a->names[a->count])
        return rt_error_set(err, RT_NO_MEMORY, "no memory for an account");
    memcpy(a->keys[a->count++], key, RT_PRF_KEY_BYTES);
    return RT_OK;
}

static rt_status read_names(cli_accounts *a, const char *path, const rt_mark_key *master, rt_error *err)
{
    rt_text data = {.size_max = (size_t)256 << 20};
    rt_status status = rt_file_read_unpacked(&data, path, err);
    if (status == RT_OK && data.size && memchr(data.data, 0, data.size))
        status = rt_error_set(err, RT_CORRUPT, "%.300s: is no list of accounts, one a line", path);
    size_t line = 0;
    for (const char *at = data.data, *end = at ? at + data.size : NULL; status == RT_OK && at && at < end;) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t n = (size_t)((newline ? newline : end) - at);
        const char *next = at + n + 1;
        char name[NAME_MAX_BYTES + 1];
        rt_watermark own;
        line++;
        while (n > 0 && strchr(" \t\r", at[n - 1]))
            n--;
        if (n > NAME_MAX_BYTES) {
            status = rt_error_set(err, RT_CORRUPT, "%.300s:%zu: an account's name has at most %d bytes", path,
                                  line, NAME_MAX_BYTES);
        } else if (n > 0) {
            memcpy(name, at, n);
            name[n] = 0;
            status = rt_mark_key_for_account(&own, &master->mark, name, err);
            if (status == RT_OK)
                status = add(a, name, n, own.key, err);
        }
        at = next;
    }
    a->mark = master->mark;
    rt_text_deinit(&data);
    return status;
}

static bool same_settings(const rt_watermark *a, const rt_watermark *b)
{
    return a->scheme == b->scheme && a->h == b->h && a->layers == b->layers && a->gamma == b->gamma;
}

static rt_status read_keys(cli_accounts *a, const char *path, rt_error *err)
{
    DIR *folder = opendir(path);
    rt_status status =
        folder ? RT_OK : rt_error_set(err, RT_IO, "%.300s: cannot be opened: %s", path, strerror(errno));
    for (const struct dirent *entry; status == RT_OK && (entry = readdir(folder));) {
        const size_t n = strlen(entry->d_name);
        rt_mark_key key;
        if (n < 6 || strcmp(entry->d_name + n - 5, ".json") != 0)
            continue;
        char *file = rt_path_join(path, entry->d_name);
        status = file ? rt_mark_key_read(&key, file, err)
                      : rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
        if (status == RT_OK && a->count > 0 && !same_settings(&key.mark, &a->mark))
            status =
                rt_error_set(err, RT_MISMATCH,
                             "%.300s: is of another scheme or other settings than the folder's other keys; "
                             "test them in runs of their own",
                             file);
        if (status == RT_OK)
            status = add(a, key.id, strlen(key.id), key.mark.key, err);
        if (status == RT_OK)
            a->mark = key.mark;
        free(file);
    }
    if (folder)
        (void)closedir(folder);
    return status;
}

static int by_text(const void *a, const void *b, void *names)
{
    char *const *list = names;
    return strcmp(list[*(const size_t *)a], list[*(const size_t *)b]);
}

static rt_status check_names(const cli_accounts *a, const char *path, rt_error *err)
{
    size_t *order = malloc((a->count + 1) * sizeof *order);
    if (!order)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu accounts", a->count);
    for (size_t i = 0; i < a->count; i++)
        order[i] = i;
    qsort_r(order, a->count, sizeof *order, by_text, a->names);
    rt_status status = a->count ? RT_OK : rt_error_set(err, RT_INVALID, "%.300s: holds no account", path);
    for (size_t i = 1; status == RT_OK && i < a->count; i++)
        if (strcmp(a->names[order[i]], a->names[order[i - 1]]) == 0)
            status = rt_error_set(err, RT_CORRUPT, "%.300s: account '%.100s' stands there twice", path,
                                  a->names[order[i]]);
    free(order);
    return status;
}

rt_status cli_accounts_open(cli_accounts *out, const char *path, const rt_mark_key *master, rt_error *err)
{
    struct stat info;
    *out = (cli_accounts){0};
    if (stat(path, &info) != 0)
        return rt_error_set(err, RT_NOT_FOUND, "%.300s: cannot be read: %s", path, strerror(errno));
    const bool folder = S_ISDIR(info.st_mode);
    if (!folder && !master)
        return rt_error_set(
            err, RT_INVALID,
            "detect: the keys of the accounts in %.300s are derived from one: --key is missing", path);
    if ((folder ? read_keys(out, path, err) : read_names(out, path, master, err)) != RT_OK)
        return err->status;
    return check_names(out, path, err);
}

void cli_accounts_close(cli_accounts *a)
{
    for (size_t i = 0; i < a->count; i++)
        free(a->names[i]);
    free(a->names);
    free(a->keys);
    *a = (cli_accounts){0};
}

static int by_value(const void *a, const void *b, void *values)
{
    const double *list = values, x = list[*(const size_t *)a], y = list[*(const size_t *)b];
    return (x > y) - (x < y);
}

static json_t *row_of(const cli_accounts *a, size_t i, const double *z, const double *log10_p)
{
    char p[RT_P_TEXT];
    const double corrected = fmin(0, log10_p[i] + log10((double)a->count));
    rt_p_text(p, corrected);
    return json_pack("{s:s,s:f,s:f,s:f,s:s}", "account", a->names[i], "z", z[i], "log10_p", log10_p[i],
                     "log10_p_corrected", corrected, "p_corrected", p);
}

static const char *words_of(size_t named, double corrected)
{
    return named > 0 ? "named: the text carries the key of an account"
           : corrected > log10(0.05)
               ? "none: no account's key is found in the text, which does not say that no "
                 "account's answers are in it"
               : "none named: the least p, times the number of accounts, is under 0.05 and above "
                 "1e-5; more text would tell";
}

/* How the p-values of the accounts that are not named lie: uniform, where the null holds. */
static json_t *null_of(const double *log10_p, const size_t *order, size_t from, size_t n)
{
    double *p = malloc((n + 1) * sizeof *p);
    size_t below2 = 0, below3 = 0, m = 0;
    for (size_t i = from; p && i < n; i++) {
        p[m] = pow(10, log10_p[order[i]]);
        below2 += p[m] < 0.01;
        below3 += p[m] < 0.001;
        m++;
    }
    json_t *o = p && m > 0 ? json_pack("{s:I,s:f,s:f,s:f}", "accounts", (json_int_t)m, "ks_p",
                                       rt_ks_p(rt_ks_statistic(p, m), m), "below_1e_2",
                                       (double)below2 / (double)m, "below_1e_3", (double)below3 / (double)m)
                           : json_null();
    free(p);
    return o;
}

json_t *cli_accounts_json(const cli_accounts *a, const rt_pairs *pairs, rt_pool *pool, rt_error *err)
{
    const size_t n = a->count;
    double *z = malloc((n + 1) * sizeof *z), *log10_p = malloc((n + 1) * sizeof *log10_p);
    size_t *order = malloc((n + 1) * sizeof *order), named = 0;
    json_t *o = NULL;
    const rt_status status = z && log10_p && order
                                 ? rt_detect_keys(z, log10_p, pairs, &a->mark,
                                                  (const uint8_t(*)[RT_PRF_KEY_BYTES])a->keys, n, pool, err)
                                 : rt_error_set(err, RT_NO_MEMORY, "no memory for %zu accounts", n);
    if (status == RT_OK) {
        for (size_t i = 0; i < n; i++)
            order[i] = i;
        qsort_r(order, n, sizeof *order, by_value, log10_p);
        while (named < n && log10_p[order[named]] + log10((double)n) <= named_at)
            named++;
        json_t *best = json_array(), *names = json_array();
        for (size_t i = 0; i < rt_size_min(n, BEST); i++)
            (void)json_array_append_new(best, row_of(a, order[i], z, log10_p));
        for (size_t i = 0; i < named; i++)
            (void)json_array_append_new(names, json_string(a->names[order[i]]));
        o = json_pack("{s:I,s:I,s:I,s:s,s:o,s:s,s:o,s:o}", "accounts", (json_int_t)n, "n",
                      (json_int_t)rt_pairs_count(pairs), "n_seen", (json_int_t)rt_pairs_seen(pairs), "scheme",
                      rt_scheme_word(a->mark.scheme), "named", names, "words",
                      words_of(named, log10_p[order[0]] + log10((double)n)), "best", best, "null",
                      null_of(log10_p, order, named, n));
        if (!o)
            (void)rt_error_set(err, RT_NO_MEMORY, "no memory for a result");
    }
    free(z);
    free(log10_p);
    free(order);
    return o;
}

void cli_accounts_print(const json_t *o)
{
    const json_t *null = json_object_get(o, "null"), *row;
    size_t i;
    (void)printf("%s\n%d accounts, n %d of %d places\n", json_string_value(json_object_get(o, "words")),
                 (int)json_integer_value(json_object_get(o, "accounts")),
                 (int)json_integer_value(json_object_get(o, "n")),
                 (int)json_integer_value(json_object_get(o, "n_seen")));
    json_array_foreach(json_object_get(o, "best"), i, row)(void) printf(
        "  %-40s z %6.2f, log10 p %8.2f, for all accounts %s\n",
        json_string_value(json_object_get(row, "account")), json_number_value(json_object_get(row, "z")),
        json_number_value(json_object_get(row, "log10_p")),
        json_string_value(json_object_get(row, "p_corrected")));
    if (json_is_object(null))
        (void)printf("null, by the other accounts' keys: KS p %.3g, %.2f%% below 0.01, %.2f%% below 0.001\n",
                     json_number_value(json_object_get(null, "ks_p")),
                     100 * json_number_value(json_object_get(null, "below_1e_2")),
                     100 * json_number_value(json_object_get(null, "below_1e_3")));
}
