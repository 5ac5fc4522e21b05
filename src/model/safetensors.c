/* model/safetensors.c - reads safetensors: one file, or the shards that an index names.
 *
 *   u64 header size, header, data
 *   header: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ...,
 *            "__metadata__": {"key": "value", ...}}         offsets count from the data's first byte
 *   index:  {"weight_map": {"name": "model-00001-of-00002.safetensors", ...}, ...}
 *
 * The data must be covered without holes or overlaps, as the format demands. */
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "model/weights_parts.h"

enum { JSON_BYTES_MAX = 64 << 20, SHARDS_MAX = 4096 };

/* Jansson needs up to 100 bytes for a byte of text such as "[[[[": so before it sees a foreign text, its
 * punctuation is counted.  The densest honest header, {"a":{"dtype":"U8","shape":[],"data_offsets":[0,0]},
 * has a bracket for 16 bytes and a comma for 8, and is 3 deep. */
static bool json_is_plausible(const char *text, size_t size)
{
    enum { DEPTH_MAX = 8 };
    size_t depth = 0, opened = 0, commas = 0;
    bool quoted = false;
    for (size_t i = 0; i < size; i++) {
        const char c = text[i];
        if (quoted) {
            if (c == '\\')
                i++;
            else if (c == '"')
                quoted = false;
        } else if (c == '"') {
            quoted = true;
        } else if (c == '{' || c == '[') {
            opened++;
            if (++depth > DEPTH_MAX)
                return false;
        } else if (c == '}' || c == ']') {
            if (depth-- == 0)
                return false;
        } else if (c == ',') {
            commas++;
        }
    }
    return opened <= size / 16 + 8 && commas <= size / 6 + 8;
}

static rt_status parse_object(json_t **out, const char *text, size_t size, rt_error *err)
{
    json_error_t problem;
    *out = NULL;
    if (size > JSON_BYTES_MAX)
        return rt_error_set(err, RT_CORRUPT, "a header of %zu bytes; at most %d are read", size,
                            JSON_BYTES_MAX);
    if (!json_is_plausible(text, size))
        return rt_error_set(err, RT_CORRUPT,
                            "the header has more brackets or commas than tensors could need");
    json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES, &problem);
    if (!json)
        return rt_error_set(err, RT_CORRUPT, "its JSON: line %d, column %d: %.200s", problem.line,
                            problem.column, problem.text);
    if (!json_is_object(json)) {
        json_decref(json);
        return rt_error_set(err, RT_CORRUPT, "its JSON is not an object");
    }
    *out = json;
    return RT_OK;
}

static bool to_size(const json_t *json, size_t *out)
{
    if (!json_is_integer(json) || json_integer_value(json) < 0)
        return false;
    *out = (size_t)json_integer_value(json);
    return true;
}

static rt_status read_dtype(rt_dtype *out, const json_t *json, const char *shown, rt_error *err)
{
    const char *name = json_string_value(json);
    char dtype[64];
    if (!name)
        return rt_error_set(err, RT_CORRUPT, "tensor \"%s\": has no dtype", shown);
    if (!rt_dtype_from_name(out, name) || rt_dtype_is_quantised(*out) ||
        strcmp(rt_dtype_get(*out)->name, name) != 0)
        return rt_error_set(err, RT_UNSUPPORTED, "tensor \"%s\": dtype \"%s\" cannot be read here", shown,
                            rt_name_shown(dtype, name, strlen(name)));
    return RT_OK;
}

static rt_status read_entry(rt_weights *weights, const char *name, const json_t *entry,
                            const unsigned char *data, size_t size, rt_error *err)
{
    rt_weight weight = {0};
    char shown[64];
    (void)rt_name_shown(shown, name, strlen(name));
    const json_t *shape = json_object_get(entry, "shape"), *offsets = json_object_get(entry, "data_offsets");
    if (read_dtype(&weight.dtype, json_object_get(entry, "dtype"), shown, err) != RT_OK)
        return err->status;
    if (!json_is_array(shape))
        return rt_error_set(err, RT_CORRUPT, "tensor \"%s\": has no shape", shown);
    weight.n_dims = json_array_size(shape);
    if (weight.n_dims > RT_DIMS_MAX)
        return rt_error_set(err, RT_UNSUPPORTED, "tensor \"%s\": %zu dimensions; at most %d are read", shown,
                            weight.n_dims, RT_DIMS_MAX);
    for (size_t i = 0; i < weight.n_dims; i++)
        if (!to_size(json_array_get(shape, i), &weight.shape[i]))
            return rt_error_set(err, RT_CORRUPT, "tensor \"%s\": dimension %zu is not a whole number", shown,
                                i);
    size_t begin, end;
    if (json_array_size(offsets) != 2 || !to_size(json_array_get(offsets, 0), &begin) ||
        !to_size(json_array_get(offsets, 1), &end) || begin > end)
        return rt_error_set(err, RT_CORRUPT, "tensor \"%s\": its data_offsets are not [begin, end]", shown);
    if (rt_weights_append(weights, name, strlen(name), &weight, data, size, begin, err) != RT_OK)
        return err->status;
    const size_t bytes = weights->list[weights->count - 1].bytes;
    if (bytes != end - begin)
        return rt_error_set(err, RT_CORRUPT,
                            "tensor \"%s\": its shape needs %zu bytes, its data_offsets span %zu", shown,
                            bytes, end - begin);
    return RT_OK;
}

static rt_status check_metadata(const json_t *json, rt_error *err)
{
    const char *key;
    const json_t *value;
    if (!json_is_object(json))
        return rt_error_set(err, RT_CORRUPT, "__metadata__ is not an object");
    json_object_foreach((json_t *)(uintptr_t)json, key, value) if (
        !json_is_string(value)) return rt_error_set(err, RT_CORRUPT,
                                                    "__metadata__ holds a value that is not a string");
    return RT_OK;
}

rt_status rt_safetensors_read(rt_weights *weights, const unsigned char *data, size_t size, rt_error *err)
{
    const size_t first = weights->count;
    uint64_t header;
    if (size < sizeof header + 2)
        return rt_error_set(err, RT_CORRUPT, "%zu bytes are no safetensors or GGUF file", size);
    memcpy(&header, data, sizeof header);
    if (header > size - sizeof header || data[sizeof header] != '{')
        return rt_error_set(err, RT_CORRUPT,
                            "neither begins as GGUF nor has a safetensors header within its %zu bytes", size);
    json_t *json;
    if (parse_object(&json, (const char *)data + sizeof header, header, err) != RT_OK)
        return err->status;
    data += sizeof header + header;
    size = (weights->whole ? weights->whole : size) - sizeof header - header;
    rt_status status = RT_OK;
    const char *name;
    json_t *entry;
    json_object_foreach(json, name, entry)
    {
        status = strcmp(name, "__metadata__") == 0 ? check_metadata(entry, err)
                                                   : read_entry(weights, name, entry, data, size, err);
        if (status != RT_OK)
            break;
    }
    json_decref(json);
    return status == RT_OK ? rt_weights_check_layout(weights, first, data, size, true, err) : status;
}

/* A shard's name must be a plain file name: the folder is all that an index may open. */
static bool shard_name_is_safe(const char *name)
{
    static const char ending[] = ".safetensors";
    const size_t n = strlen(name), m = sizeof ending - 1;
    return n > m && n < 256 && name[0] != '.' && !strchr(name, '/') && strcmp(name + n - m, ending) == 0;
}

/* Keeps the tensors from `first` on that the index places in this shard: it may hold others too. */
static void keep_mapped(rt_weights *weights, size_t first, const json_t *map, const char *shard)
{
    size_t kept = first;
    for (size_t i = first; i < weights->count; i++) {
        const char *where = json_string_value(json_object_get(map, weights->list[i].name));
        if (where && strcmp(where, shard) == 0)
            weights->list[kept++] = weights->list[i];
        else
            free((char *)(uintptr_t)weights->list[i].name);
    }
    weights->count = kept;
}

static rt_status read_shard(rt_weights *weights, const char *dir, const char *shard, const json_t *map,
                            rt_error *err)
{
    const size_t first = weights->count;
    if (weights->n_files == SHARDS_MAX)
        return rt_error_set(err, RT_CORRUPT, "names more than %d files", SHARDS_MAX);
    char *path = rt_path_join(dir, shard);
    if (!path)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a name");
    const rt_file *file = rt_weights_map(weights, path, err);
    rt_status status = file ? rt_safetensors_read(weights, file->data, file->size, err) : err->status;
    if (file && status != RT_OK)
        status = rt_error_within(err, path);
    if (status == RT_OK)
        keep_mapped(weights, first, map, shard);
    free(path);
    return status;
}

static rt_status check_complete(const rt_weights *weights, const json_t *map, rt_error *err)
{
    if (weights->count == json_object_size(map))
        return RT_OK;
    rt_name_index index = {0};
    rt_status status = RT_OK;
    char shown[64];
    const char *name;
    json_t *shard;
    for (size_t i = 0; i < weights->count && status == RT_OK; i++)
        if (!rt_name_index_add(&index, weights->list[i].name, strlen(weights->list[i].name)))
            status = rt_error_set(err, RT_NO_MEMORY, "no memory for an index of %zu tensors", weights->count);
    (void)rt_name_index_seal(&index);
    json_object_foreach((json_t *)(uintptr_t)map, name, shard)
    {
        size_t position;
        if (status == RT_OK && !rt_name_index_find(&index, name, strlen(name), &position))
            status =
                rt_error_set(err, RT_CORRUPT, "tensor \"%s\" is not in %.100s, where the index places it",
                             rt_name_shown(shown, name, strlen(name)), json_string_value(shard));
    }
    rt_name_index_deinit(&index);
    return status;
}

static rt_status read_shards(rt_weights *weights, const char *dir, const json_t *map, rt_error *err)
{
    json_t *seen = json_object(); /* the shards read so far */
    rt_status status = seen ? RT_OK : rt_error_set(err, RT_NO_MEMORY, "no memory for the list of files");
    const char *name;
    json_t *value;
    char shown[64];
    json_object_foreach((json_t *)(uintptr_t)map, name, value)
    {
        const char *shard = json_string_value(value);
        if (status != RT_OK)
            break;
        if (!shard || !shard_name_is_safe(shard))
            status = rt_error_set(err, RT_CORRUPT,
                                  "tensor \"%s\": its file is not a plain name that ends in .safetensors",
                                  rt_name_shown(shown, name, strlen(name)));
        else if (json_object_get(seen, shard))
            continue;
        else if (json_object_set_new(seen, shard, json_true()) != 0)
            status = rt_error_set(err, RT_NO_MEMORY, "no memory for the list of files");
        else
            status = read_shard(weights, dir, shard, map, err);
    }
    json_decref(seen);
    return status == RT_OK ? check_complete(weights, map, err) : status;
}

rt_status rt_safetensors_read_index(rt_weights *weights, const char *dir, const char *index_path,
                                    rt_error *err)
{
    rt_file file;
    json_t *json = NULL;
    weights->format = RT_FORMAT_SAFETENSORS;
    if (rt_file_map(&file, index_path, err) != RT_OK)
        return err->status;
    rt_status status = parse_object(&json, (const char *)file.data, file.size, err);
    if (status == RT_OK) {
        const json_t *map = json_object_get(json, "weight_map");
        status = json_is_object(map) ? read_shards(weights, dir, map, err)
                                     : rt_error_set(err, RT_CORRUPT, "has no object \"weight_map\"");
    }
    json_decref(json);
    rt_file_unmap(&file);
    return status == RT_OK ? RT_OK : rt_error_within(err, index_path);
}
