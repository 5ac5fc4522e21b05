/* base/json.c - see json.h. */
#include "base/json.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"

rt_status rt_json_parse(json_t **out, const char *data, size_t size, const char *where, rt_error *err)
{
    json_error_t json_err = {0};
    *out = json_loadb(data, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &json_err);
    if (*out)
        return RT_OK;
    if (json_error_code(&json_err) == json_error_out_of_memory)
        return rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory for its JSON", where);
    return rt_error_set(err, RT_CORRUPT, "%.300s:%d: is not valid JSON: %.150s", where, json_err.line,
                        json_err.text);
}

rt_status rt_json_read(json_t **out, const char *path, size_t size_max, rt_error *err)
{
    *out = NULL;
    char *data = NULL;
    size_t size = 0;
    if (rt_file_read(&data, &size, path, size_max, err) != RT_OK)
        return err->status;
    const rt_status status = rt_json_parse(out, data, size, path, err);
    free(data);
    return status;
}

static int write_chunk(const char *data, size_t size, void *context)
{
    rt_writer *writer = context;
    return fwrite(data, 1, size, writer->stream) == size ? 0 : -1;
}

rt_status rt_json_write(const char *path, const json_t *json, rt_error *err)
{
    rt_writer writer;
    if (rt_writer_open(&writer, path, err) != RT_OK)
        return err->status;
    if (json_dump_callback(json, write_chunk, &writer, JSON_INDENT(2) | JSON_ENCODE_ANY) != 0) {
        rt_writer_abort(&writer);
        return rt_error_set(
            err, RT_IO, "%.300s: cannot write the JSON: the disk is full, or a value has no JSON form", path);
    }
    (void)rt_writer_write(&writer, "\n", 1, err); /* a failure shows again in commit */
    return rt_writer_commit(&writer, err);
}

json_t *rt_json_text(const char *data, size_t size)
{
    if (rt_utf8_valid(data, size) && !memchr(data, '\0', size))
        return json_stringn(data, size);
    rt_text text = {0};
    for (size_t i = 0, n; i < size; i += n) {
        char encoded[4];
        uint32_t code = rt_utf8_decode(data + i, size - i, &n);
        if (code == 0)
            code = 0xFFFD;
        rt_text_append(&text, encoded, rt_utf8_encode(code, encoded));
    }
    json_t *out = text.failed ? NULL : json_stringn(text.data ? text.data : "", text.size);
    rt_text_deinit(&text);
    return out;
}

static rt_status wrong_member(const json_t *value, const char *key, const char *type, const char *where,
                              rt_error *err)
{
    if (!value)
        return rt_error_set(err, RT_CORRUPT, "%.200s: the key '%.80s' is missing", where, key);
    return rt_error_set(err, RT_CORRUPT, "%.200s: the key '%.80s' is not %s", where, key, type);
}

rt_status rt_json_get_string(const json_t *object, const char *key, const char **out, const char *where,
                             rt_error *err)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_string(value))
        return wrong_member(value, key, "a string", where, err);
    *out = json_string_value(value);
    return RT_OK;
}

rt_status rt_json_get_size(const json_t *object, const char *key, size_t *out, const char *where,
                           rt_error *err)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return wrong_member(value, key, "a whole number", where, err);
    *out = (size_t)json_integer_value(value);
    return RT_OK;
}

rt_status rt_json_get_real(const json_t *object, const char *key, double *out, const char *where,
                           rt_error *err)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value))
        return wrong_member(value, key, "a number", where, err);
    *out = json_number_value(value);
    return RT_OK;
}
