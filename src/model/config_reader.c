/* model/config_reader.c - see config_reader.h. */
#include "model/config_reader.h"

const json_t *rt_config_look(const rt_config_reader *in, const char *key)
{
    const json_t *value = key ? json_object_get(in->object, key) : NULL;
    return json_is_null(value) ? NULL : value;
}

void rt_config_bad_type(rt_config_reader *in, const char *key, const char *wanted)
{
    in->status = rt_error_set(in->err, RT_CORRUPT, "%s: %s%s must be %s", in->where, in->inside, key, wanted);
}

size_t rt_config_size(rt_config_reader *in, const char *key, size_t absent)
{
    const json_t *value = rt_config_look(in, key);
    if (!value || in->status != RT_OK)
        return absent;
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        rt_config_bad_type(in, key, "a whole number, not negative");
        return absent;
    }
    return (size_t)json_integer_value(value);
}

double rt_config_number(rt_config_reader *in, const char *key, double absent)
{
    const json_t *value = rt_config_look(in, key);
    if (!value || in->status != RT_OK)
        return absent;
    if (!json_is_number(value)) {
        rt_config_bad_type(in, key, "a number");
        return absent;
    }
    return json_number_value(value);
}

bool rt_config_bool(rt_config_reader *in, const char *key, bool absent)
{
    const json_t *value = rt_config_look(in, key);
    if (!value || in->status != RT_OK)
        return absent;
    if (!json_is_boolean(value)) {
        rt_config_bad_type(in, key, "true or false");
        return absent;
    }
    return json_is_true(value);
}

const char *rt_config_string(rt_config_reader *in, const char *key, const char *absent)
{
    const json_t *value = rt_config_look(in, key);
    if (!value || in->status != RT_OK)
        return absent;
    if (!json_is_string(value)) {
        rt_config_bad_type(in, key, "a string");
        return absent;
    }
    return json_string_value(value);
}

/* A token id: a number, a list (the first counts: the tokenizer knows the other ends), or absent. */
int rt_config_id(rt_config_reader *in, const char *key, int absent)
{
    const json_t *value = rt_config_look(in, key);
    if (!value || in->status != RT_OK)
        return absent;
    if (json_is_array(value))
        value = json_array_get(value, 0);
    if (!json_is_integer(value) || json_integer_value(value) < -1 || json_integer_value(value) > INT32_MAX) {
        rt_config_bad_type(in, key, "a token id or a list of them");
        return absent;
    }
    return (int)json_integer_value(value);
}

/* An object under a key as a rt_config_reader of its own; false when there is none. */
bool rt_config_enter(rt_config_reader *out, rt_config_reader *in, const char *key, const char *inside)
{
    const json_t *value = rt_config_look(in, key);
    if (!value || in->status != RT_OK)
        return false;
    if (!json_is_object(value)) {
        rt_config_bad_type(in, key, "an object");
        return false;
    }
    *out = (rt_config_reader){.object = value, .where = in->where, .inside = inside, .err = in->err};
    return true;
}
