/* outputs/sparse.c - rows one after the other in memory, and the checks of settings; see sparse.h. */
#include "outputs/sparse.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"

float rt_sparse_weight(const rt_sparse_row *row, size_t i, double t)
{
    if (!row->n_draws || !row->counts[i])
        return 0;
    const double share = (double)row->counts[i] / row->n_draws;
    /* q/s = q^(1-t) sum q^t */
    return (float)(t == 1 ? share : share * exp((1 - t) * (double)row->logq[i] + (double)row->log_s));
}

rt_status rt_sparse_settings_check(const rt_sparse_settings *s, rt_error *err)
{
    if (s->n_vocab == 0 || s->n_vocab > UINT32_MAX / 2)
        return rt_error_set(err, RT_INVALID, "a vocabulary of %zu ids cannot be recorded", s->n_vocab);
    if (s->topk > RT_TOPK_MAX)
        return rt_error_set(err, RT_INVALID, "top-k %zu is more than the %d that a row can hold", s->topk,
                            RT_TOPK_MAX);
    if (s->draws > RT_DRAWS_MAX)
        return rt_error_set(err, RT_INVALID, "%zu draws are more than the %d that a row can hold", s->draws,
                            RT_DRAWS_MAX);
    if (!(s->proposal >= 0 && s->proposal <= 4))
        return rt_error_set(err, RT_INVALID, "the exponent %g of the proposal q^t is not in 0..4",
                            s->proposal);
    return RT_OK;
}

size_t rt_sparse_entries_max(const rt_sparse_settings *s)
{
    return rt_size_min(s->topk, s->n_vocab) + rt_size_min(s->draws, s->n_vocab);
}

/* ---- rows in memory that grows ---- */

void rt_sparse_rows_clear(rt_sparse_rows *rows) { rows->n_rows = 0; }

void rt_sparse_rows_deinit(rt_sparse_rows *rows)
{
    free(rows->heads);
    free(rows->begins);
    free(rows->ids);
    free(rows->logq);
    free(rows->counts);
    *rows = (rt_sparse_rows){0};
}

static size_t entries_of(const rt_sparse_rows *rows) { return rows->n_rows ? rows->begins[rows->n_rows] : 0; }

static bool grow(void *data, size_t count, size_t size)
{
    void **at = data, *grown = count <= SIZE_MAX / size ? realloc(*at, count * size) : NULL;
    if (grown)
        *at = grown;
    return grown != NULL;
}

rt_status rt_sparse_rows_reserve(rt_sparse_rows *rows, size_t more_rows, size_t more_entries, rt_error *err)
{
    size_t n_rows, n_entries;
    bool ok = rt_size_add(rows->n_rows, more_rows, &n_rows) && n_rows < SIZE_MAX / 4 &&
              rt_size_add(entries_of(rows), more_entries, &n_entries) && n_entries < SIZE_MAX / 4;
    if (ok && (n_rows > rows->rows_capacity || !rows->begins)) {
        const size_t wanted = rt_size_max(n_rows, rows->rows_capacity * 2 + 64);
        ok = grow(&rows->heads, wanted, sizeof *rows->heads) &&
             grow(&rows->begins, wanted + 1, sizeof *rows->begins);
        rows->rows_capacity = ok ? wanted : rows->rows_capacity;
    }
    if (ok && (n_entries > rows->entries_capacity || !rows->ids)) {
        const size_t wanted = rt_size_max(n_entries, rows->entries_capacity * 2 + 1024);
        ok = grow(&rows->ids, wanted, sizeof *rows->ids) && grow(&rows->logq, wanted, sizeof *rows->logq) &&
             grow(&rows->counts, wanted, sizeof *rows->counts);
        rows->entries_capacity = ok ? wanted : rows->entries_capacity;
    }
    return ok ? RT_OK
              : rt_error_set(err, RT_NO_MEMORY, "no memory for %zu rows of log-probabilities", more_rows);
}

rt_status rt_sparse_rows_add(rt_sparse_rows *rows, const rt_sparse_row *row, rt_error *err)
{
    if (rt_sparse_rows_reserve(rows, 1, row->n, err) != RT_OK)
        return err->status;
    const size_t at = entries_of(rows);
    if (row->n) {
        memcpy(rows->ids + at, row->ids, row->n * sizeof *row->ids);
        memcpy(rows->logq + at, row->logq, row->n * sizeof *row->logq);
        memcpy(rows->counts + at, row->counts, row->n * sizeof *row->counts);
    }
    rows->heads[rows->n_rows] = (rt_sparse_head){.n = row->n,
                                                 .n_topk = row->n_topk,
                                                 .n_draws = row->n_draws,
                                                 .tail_logprob = row->tail_logprob,
                                                 .log_z = row->log_z,
                                                 .log_s = row->log_s};
    rows->begins[rows->n_rows] = at;
    rows->begins[++rows->n_rows] = at + row->n;
    return RT_OK;
}

rt_sparse_row rt_sparse_rows_at(const rt_sparse_rows *rows, size_t index)
{
    const rt_sparse_head *head = &rows->heads[index];
    const size_t at = rows->begins[index];
    return (rt_sparse_row){.ids = rows->ids + at,
                           .logq = rows->logq + at,
                           .counts = rows->counts + at,
                           .n = head->n,
                           .n_topk = head->n_topk,
                           .n_draws = head->n_draws,
                           .tail_logprob = head->tail_logprob,
                           .log_z = head->log_z,
                           .log_s = head->log_s};
}
