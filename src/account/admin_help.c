/* account/admin_help.c - what handlers of the admin API use: values of body and query, lists, versions, the
 * trail. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "account/admin_internal.h"

const char *query_get(const call *c, const char *name)
{
    for (size_t i = 0; i < c->n_query; i++)
        if (strcmp(c->query[i].name, name) == 0)
            return c->query[i].value;
    return "";
}

rt_status query_count(call *c, const char *name, int64_t fallback, int64_t max, int64_t *out, rt_error *err)
{
    const char *text = query_get(c, name);
    char *end;
    *out = fallback;
    if (!*text)
        return RT_OK;
    const long long n = strtoll(text, &end, 10);
    if (*end || text[0] < '0' || text[0] > '9' || n > max) {
        c->param = name;
        return rt_error_set(err, RT_INVALID, "%s: expected a whole number from 0 to %lld", name,
                            (long long)max);
    }
    *out = n;
    return RT_OK;
}

const json_t *body_get(const call *c, const char *key)
{
    const json_t *value = json_object_get(c->body, key);
    return json_is_null(value) ? NULL : value;
}

rt_status body_text(call *c, const char *key, size_t size_max, bool lines, const char *fallback,
                    const char **out, rt_error *err)
{
    const json_t *value = body_get(c, key);
    c->param = key;
    if (!value && !fallback)
        return rt_error_set(err, RT_INVALID, "%s: is missing", key);
    *out = fallback;
    if (value) {
        const char *text = json_string_value(value);
        const size_t size = json_string_length(value);
        if (!text || size > size_max || strlen(text) != size || (!fallback && size == 0))
            return rt_error_set(err, RT_INVALID, "%s: expected a text of %s%zu bytes", key,
                                fallback ? "at most " : "1 to ", size_max);
        for (size_t i = 0; i < size; i++)
            if (((unsigned char)text[i] < ' ' && !(lines && (text[i] == '\n' || text[i] == '\t'))) ||
                text[i] == 127)
                return rt_error_set(err, RT_INVALID, "%s: a control character is not allowed", key);
        *out = text;
    }
    c->param = NULL;
    return RT_OK;
}

static rt_status body_number(call *c, const char *key, int64_t max, int64_t *out, rt_error *err)
{
    const json_t *value = body_get(c, key);
    *out = value && json_is_integer(value) ? json_integer_value(value) : value ? -1 : 0;
    if (*out >= 0 && *out <= max && !(value && *out == 0))
        return RT_OK;
    c->param = key;
    return rt_error_set(err, RT_INVALID, "%s: expected a whole number of seconds from 1 to %lld", key,
                        (long long)max);
}

rt_status body_time(call *c, const char *key, int64_t *out, rt_error *err)
{
    if (body_number(c, key, 253402300799, out, err) != RT_OK) /* the year 9999 */
        return err->status;
    if (*out == 0 || *out > c->now_s)
        return RT_OK;
    c->param = key;
    return rt_error_set(err, RT_INVALID, "%s: that time (Unix seconds) is over", key);
}

rt_status body_seconds(call *c, const char *key, int64_t *out, rt_error *err)
{
    return body_number(c, key, (int64_t)100 * 366 * 86400, out, err);
}

rt_status next_version(call *c, int64_t *version, rt_error *err)
{
    bool found;
    return rt_db_get_int(c->db, "UPDATE counters SET n = n + 1 WHERE name = 'generation' RETURNING n", NULL,
                         0, version, &found, err);
}

rt_status audit(call *c, const char *action, const char *subject, json_t *detail, rt_error *err)
{
    return rt_audit_append(c->db, &c->desk->secrets, c->now_ms, c->actor, action, subject, detail, err);
}

rt_status list_take(void *context, const rt_sql_row *row, rt_error *err)
{
    list *l = context;
    if (!l->data)
        l->data = json_array();
    if ((int64_t)json_array_size(l->data) >= l->limit) {
        l->has_more = true;
        return RT_OK;
    }
    json_t *item = l->make(row);
    return json_array_append_new(l->data, item) == 0
               ? RT_OK
               : rt_error_set(err, RT_NO_MEMORY, "no memory for a list");
}

json_t *list_json(list *l)
{
    json_t *data = l->data ? l->data : json_array(), *last = NULL;
    const size_t count = json_array_size(data);
    if (count > 0)
        last = json_object_get(json_array_get(data, count - 1), "id");
    return json_pack("{s:s, s:o, s:b, s:O?}", "object", "list", "data", data, "has_more", l->has_more,
                     "last_id", last);
}

json_t *int_or_null(const rt_sql_row *row, int column)
{
    return rt_sql_row_is_null(row, column) ? json_null()
                                           : json_integer((json_int_t)rt_sql_row_int(row, column));
}

json_t *text_or_null(const rt_sql_row *row, int column)
{
    const char *text = rt_sql_row_text(row, column);
    return rt_sql_row_is_null(row, column) ? json_null() : rt_json_text(text, strlen(text));
}

json_t *json_or_null(const rt_sql_row *row, int column)
{
    json_t *out = rt_sql_row_is_null(row, column)
                      ? NULL
                      : json_loads(rt_sql_row_text(row, column), JSON_DECODE_ANY, NULL);
    return out ? out : json_null();
}

typedef struct one {
    json_t *(*make)(const rt_sql_row *row);
    json_t *out;
} one;

static rt_status take_one(void *context, const rt_sql_row *row, rt_error *err)
{
    one *o = context;
    (void)err;
    if (!o->out)
        o->out = o->make(row);
    return RT_OK;
}

rt_status get_one(call *c, const char *sql, const char *id, json_t *(*make)(const rt_sql_row *row),
                  const char *what, json_t **out, rt_error *err)
{
    one o = {.make = make};
    const rt_sql_value value = rt_sql_text(id);
    if (rt_db_run(c->db, sql, &value, 1, take_one, &o, NULL, err) != RT_OK) {
        json_decref(o.out);
        return err->status;
    }
    *out = o.out;
    return o.out ? RT_OK : rt_error_set(err, RT_NOT_FOUND, "there is no %s '%s'", what, id);
}
