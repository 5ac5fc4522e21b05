/* account/admin_usage.c - what was used: sums by time and by account, key, model; single requests.
 *
 * Sums by hour and day are kept beside the ledger (ledger.c), so a question about days reads days.  When the
 * borders asked for are not those of an hour or a day the rows themselves are added up: the answer is exact
 * in each case. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "account/admin_internal.h"
#include "account/ledger.h"
#include "base/text.h"

enum { MINUTE_S = 60, HOUR_S = 3600, DAY_S = 86400, ROWS_MAX = 100000 };

typedef struct usage_query {
    int64_t from, to, bucket_s;
    const char *account, *key, *model;
    bool by_account, by_key, by_model;
} usage_query;

/* Unix seconds, or a UTC time as 2026-11-25, 2026-11-25T10:00:00Z. */
static bool parse_time(const char *text, int64_t *out)
{
    char *end;
    struct tm t = {0};
    if (text[0] >= '0' && text[0] <= '9' && strlen(text) <= 12) {
        *out = strtoll(text, &end, 10);
        if (*end == '\0')
            return true;
    }
    const char *rest = strptime(text, "%Y-%m-%d", &t);
    if (rest && *rest == 'T')
        rest = strptime(rest, "T%H:%M:%S", &t);
    if (!rest || (*rest && strcmp(rest, "Z") != 0))
        return false;
    *out = (int64_t)timegm(&t);
    return *out >= 0;
}

static rt_status query_time(call *c, const char *name, int64_t fallback, int64_t *out, rt_error *err)
{
    const char *text = query_get(c, name);
    *out = fallback;
    if (!*text || parse_time(text, out))
        return RT_OK;
    c->param = name;
    return rt_error_set(err, RT_INVALID, "%s: expected Unix seconds or a time such as 2026-11-25T10:00:00Z",
                        name);
}

static rt_status read_groups(call *c, usage_query *q, rt_error *err)
{
    const char *text = query_get(c, "group_by");
    while (*text) {
        const size_t size = strcspn(text, ",");
        if (size == 7 && strncmp(text, "account", 7) == 0)
            q->by_account = true;
        else if (size == 3 && strncmp(text, "key", 3) == 0)
            q->by_key = true;
        else if (size == 5 && strncmp(text, "model", 5) == 0)
            q->by_model = true;
        else {
            c->param = "group_by";
            return rt_error_set(err, RT_INVALID,
                                "group_by: expected account, key, model, or several with commas");
        }
        text += size + (text[size] == ',');
    }
    return RT_OK;
}

static rt_status read_query(call *c, const char *account, usage_query *q, rt_error *err)
{
    const char *bucket = query_get(c, "bucket");
    *q = (usage_query){.bucket_s = DAY_S,
                       .account = account ? account : query_get(c, "account"),
                       .key = query_get(c, "key"),
                       .model = query_get(c, "model")};
    if (strcmp(bucket, "1m") == 0)
        q->bucket_s = MINUTE_S;
    else if (strcmp(bucket, "1h") == 0)
        q->bucket_s = HOUR_S;
    else if (*bucket && strcmp(bucket, "1d") != 0) {
        c->param = "bucket";
        return rt_error_set(err, RT_INVALID, "bucket: expected 1m, 1h or 1d");
    }
    /* By default all days, the last week by hours, the last day by minutes. */
    const int64_t back = q->bucket_s == DAY_S ? c->now_s : q->bucket_s == HOUR_S ? 7 * DAY_S : DAY_S;
    if (query_time(c, "from", (c->now_s - back) / q->bucket_s * q->bucket_s, &q->from, err) != RT_OK ||
        query_time(c, "to", (c->now_s / DAY_S + 1) * DAY_S, &q->to, err) != RT_OK)
        return err->status;
    return read_groups(c, q, err);
}

/* The widest sums that begin and end at the borders asked for; 0: the rows themselves. */
static int64_t sums_width(const usage_query *q)
{
    if (q->bucket_s == DAY_S && q->from % DAY_S == 0 && q->to % DAY_S == 0)
        return DAY_S;
    return q->bucket_s >= HOUR_S && q->from % HOUR_S == 0 && q->to % HOUR_S == 0 ? HOUR_S : 0;
}

typedef struct usage_rows {
    const usage_query *query;
    json_t *data;
    bool has_more;
} usage_rows;

static rt_status take_usage(void *context, const rt_sql_row *row, rt_error *err)
{
    usage_rows *rows = context;
    const usage_query *q = rows->query;
    if (json_array_size(rows->data) >= ROWS_MAX) {
        rows->has_more = true;
        return RT_OK;
    }
    const int64_t start = rt_sql_row_int(row, 0);
    json_t *item =
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:I, s:I}", "start", (json_int_t)start, "end",
                  (json_int_t)(start + q->bucket_s), "requests", (json_int_t)rt_sql_row_int(row, 1),
                  "input_tokens", (json_int_t)rt_sql_row_int(row, 2), "cached_tokens",
                  (json_int_t)rt_sql_row_int(row, 3), "output_tokens", (json_int_t)rt_sql_row_int(row, 4),
                  "cost", (double)rt_sql_row_int(row, 5) / RT_NANO_USD, "errors",
                  (json_int_t)rt_sql_row_int(row, 6), "limited", (json_int_t)rt_sql_row_int(row, 7));
    int column = 8;
    if (q->by_account)
        (void)json_object_set_new(item, "account", text_or_null(row, column++));
    if (q->by_key)
        (void)json_object_set_new(item, "key", text_or_null(row, column++));
    if (q->by_model)
        (void)json_object_set_new(item, "model", text_or_null(row, column++));
    return json_array_append_new(rows->data, item) == 0
               ? RT_OK
               : rt_error_set(err, RT_NO_MEMORY, "no memory for the usage");
}

/* Rows that are not in the sums yet (ledger.h), as lines of sums. */
#define ROWS_AS_SUMS                                                                                         \
    "SELECT w.width, at / 1000 / w.width * w.width, account, key_id, CASE WHEN http IN (400, 404) THEN '' "  \
    "ELSE model END, 1, input, cached, output, cost, CASE WHEN http >= 400 AND http <> 429 AND http <> 499 " \
    "THEN 1 ELSE 0 END, CASE WHEN http = 429 THEN 1 ELSE 0 END FROM ledger, (SELECT 3600 AS width UNION "    \
    "ALL SELECT 86400) AS w WHERE id > (SELECT n FROM counters WHERE name = 'summed')"

/* The statement is put together from constant parts; values are parameters. */
static void statement(rt_text *sql, const rt_db *db, const usage_query *q, int64_t width,
                      rt_sql_value *values, size_t *n_values)
{
    const char *at = width ? "start" : "at / 1000";
    *n_values = 0;
    rt_text_printf(sql, "SELECT %s / %d * %d AS bucket, ", at, (int)q->bucket_s, (int)q->bucket_s);
    rt_text_puts(
        sql, width
                 ? "SUM(requests), SUM(input), SUM(cached), SUM(output), SUM(cost), SUM(errors), SUM(limited)"
                 : "COUNT(*), SUM(input), SUM(cached), SUM(output), SUM(cost), SUM(CASE WHEN http >= 400 AND "
                   "http <> 429 AND http <> 499 THEN 1 ELSE 0 END), SUM(CASE WHEN http = 429 THEN 1 ELSE 0 "
                   "END)");
    rt_text_printf(sql, "%s%s%s FROM %s WHERE ", q->by_account ? ", account" : "",
                   q->by_key ? ", key_id" : "", q->by_model ? ", model" : "",
                   !width                ? "ledger"
                   : rt_db_is_shared(db) ? "sums"
                                         : "(SELECT * FROM sums UNION ALL " ROWS_AS_SUMS ") AS all_sums");
    if (width) {
        values[(*n_values)++] = rt_sql_int(width);
        rt_text_puts(sql, "width = $1 AND start >= $2 AND start < $3");
    } else {
        rt_text_puts(sql, "at >= $1 AND at < $2");
    }
    values[(*n_values)++] = rt_sql_int(width ? q->from : q->from * 1000);
    values[(*n_values)++] = rt_sql_int(width ? q->to : q->to * 1000);
    const struct {
        const char *column, *value;
    } filters[] = {{"account", q->account}, {"key_id", q->key}, {"model", q->model}};
    for (size_t i = 0; i < 3; i++)
        if (*filters[i].value) {
            values[(*n_values)++] = rt_sql_text(filters[i].value);
            rt_text_printf(sql, " AND %s = $%zu", filters[i].column, *n_values);
        }
    rt_text_puts(sql, " GROUP BY bucket");
    rt_text_printf(sql, "%s%s%s ORDER BY bucket", q->by_account ? ", account" : "",
                   q->by_key ? ", key_id" : "", q->by_model ? ", model" : "");
}

rt_status usage_of(call *c, const char *account, rt_error *err)
{
    usage_query q;
    rt_sql_value values[8];
    size_t n_values;
    rt_text sql = {0};
    if (read_query(c, account, &q, err) != RT_OK)
        return err->status;
    usage_rows rows = {.query = &q, .data = json_array()};
    statement(&sql, c->db, &q, sums_width(&q), values, &n_values);
    const rt_status status = sql.failed || !rows.data
                                 ? rt_error_set(err, RT_NO_MEMORY, "no memory for the usage")
                                 : rt_db_run(c->db, sql.data, values, n_values, take_usage, &rows, NULL, err);
    rt_text_deinit(&sql);
    c->out = json_pack("{s:s, s:o, s:b, s:n}", "object", "list", "data", rows.data, "has_more", rows.has_more,
                       "last_id");
    return status;
}

rt_status usage_list(call *c, rt_error *err) { return usage_of(c, NULL, err); }

/* --- single requests --- */

static json_t *request_json(const rt_sql_row *row)
{
    char id[24];
    (void)snprintf(id, sizeof id, "%lld", (long long)rt_sql_row_int(row, 0));
    json_t *mark = json_null();
    if (*rt_sql_row_text(row, 19))
        mark = json_pack("{s:s, s:s, s:I, s:f, s:b}", "scheme", rt_sql_row_text(row, 19), "key",
                         rt_sql_row_text(row, 20), "h", (json_int_t)rt_sql_row_int(row, 21), "own_share",
                         rt_sql_row_real(row, 22), "marked", (int)rt_sql_row_int(row, 23));
    return json_pack(
        "{s:s, s:s, s:o, s:f, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:f, s:b, s:f, s:f, s:o, s:o, "
        "s:o, s:o}",
        "object", "request", "id", id, "request", text_or_null(row, 1), "at",
        (double)rt_sql_row_int(row, 2) / 1000, "account", text_or_null(row, 3), "key", text_or_null(row, 4),
        "endpoint", text_or_null(row, 5), "model", text_or_null(row, 6), "status", int_or_null(row, 7),
        "outcome", text_or_null(row, 8), "input_tokens", int_or_null(row, 9), "cached_tokens",
        int_or_null(row, 10), "output_tokens", int_or_null(row, 11), "cost",
        (double)rt_sql_row_int(row, 12) / RT_NANO_USD, "estimated", (int)rt_sql_row_int(row, 13), "ttft_ms",
        (double)rt_sql_row_int(row, 14) / 1000, "total_ms", (double)rt_sql_row_int(row, 15) / 1000, "address",
        text_or_null(row, 16), "agent", text_or_null(row, 17), "user_hash", text_or_null(row, 18),
        "watermark", mark);
}

/* The newest first; after: the id of the last one seen. */
rt_status requests_list(call *c, rt_error *err)
{
    list l = {.make = request_json};
    int64_t after, from, to;
    if (query_count(c, "limit", 100, 10000, &l.limit, err) != RT_OK ||
        query_count(c, "after", INT64_MAX, INT64_MAX, &after, err) != RT_OK ||
        query_time(c, "from", 0, &from, err) != RT_OK ||
        query_time(c, "to", c->now_s + DAY_S, &to, err) != RT_OK)
        return err->status;
    const rt_sql_value values[] = {rt_sql_int(after),
                                   rt_sql_int(from * 1000),
                                   rt_sql_int(to * 1000),
                                   rt_sql_int(l.limit + 1),
                                   rt_sql_text(query_get(c, "account")),
                                   rt_sql_text(query_get(c, "key"))};
#define REQUESTS(condition)                                                                                  \
    "SELECT id, request, at, account, key_id, endpoint, model, http, outcome, input, cached, output, cost, " \
    "estimated, "                                                                                            \
    "ttft_us, total_us, address, agent, user_hash, mark_scheme, mark_key, mark_h, mark_own, marked FROM "    \
    "ledger "                                                                                                \
    "WHERE id < $1 AND at >= $2 AND at < "                                                                   \
    "$3" condition " ORDER BY id DESC LIMIT $4"
    const bool account = *query_get(c, "account"), key = *query_get(c, "key");
    const rt_status status =
        account || key
            ? rt_db_run(c->db, REQUESTS(" AND ($5 = '' OR account = $5) AND ($6 = '' OR key_id = $6)"),
                        values, 6, list_take, &l, NULL, err)
            : rt_db_run(c->db, REQUESTS(""), values, 4, list_take, &l, NULL, err);
    c->out = list_json(&l);
    return status;
}

typedef struct sealed_prompt {
    call *c;
    json_t *out;
} sealed_prompt;

static rt_status take_prompt(void *context, const rt_sql_row *row, rt_error *err)
{
    sealed_prompt *p = context;
    size_t size = 0;
    const char *id = rt_sql_row_text(row, 0);
    json_t *text = json_null();
    if (!rt_sql_row_is_null(row, 3)) {
        const void *sealed = rt_sql_row_blob(row, 3, &size);
        char *plain = size >= RT_SEAL_OVERHEAD ? malloc(size - RT_SEAL_OVERHEAD + 1) : NULL;
        rt_status status =
            plain ? rt_secrets_unseal(&p->c->desk->secrets, (unsigned char *)plain, sealed, size, id, err)
                  : rt_error_set(err, RT_CORRUPT, "a sealed prompt is too short");
        if (status == RT_OK)
            text = rt_json_text(plain, size - RT_SEAL_OVERHEAD);
        free(plain);
        if (status != RT_OK)
            return status;
    }
    p->out = json_pack("{s:s, s:s, s:s, s:s, s:o, s:o}", "object", "prompt", "request", id, "account",
                       rt_sql_row_text(row, 1), "hash", rt_sql_row_text(row, 2), "text", text, "expires",
                       int_or_null(row, 4));
    return RT_OK;
}

/* What was kept of one request's prompt; id: the request's, "req_...". */
rt_status requests_prompt(call *c, rt_error *err)
{
    sealed_prompt p = {.c = c};
    const rt_sql_value value = rt_sql_text(c->id);
    if (rt_db_run(c->db, "SELECT request, account, hash, sealed, expires FROM prompts WHERE request = $1",
                  &value, 1, take_prompt, &p, NULL, err) != RT_OK)
        return err->status;
    c->out = p.out;
    return p.out ? RT_OK : rt_error_set(err, RT_NOT_FOUND, "nothing is kept of the prompt of '%s'", c->id);
}
