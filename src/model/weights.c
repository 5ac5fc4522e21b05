/* model/weights.c - opening a file or folder of weights, and finding tensors in it. */
#include "model/weights.h"

#include <assert.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "model/weights_parts.h"

enum { CONFIG_BYTES_MAX = 4 << 20, HEADER_BYTES_FIRST = 1 << 18 };

static rt_status check_shape(const rt_weight *weight, size_t *bytes, const char *shown, rt_error *err)
{
    const rt_dtype_info *info = rt_dtype_get(weight->dtype);
    size_t elements = 1,
           extent = 1; /* the extent counts a zero as one, so that no dimension goes unchecked */
    for (size_t i = 0; i < weight->n_dims; i++) {
        if (!rt_size_mul(extent, rt_size_max(weight->shape[i], 1), &extent))
            return rt_error_set(err, RT_CORRUPT, "tensor \"%s\": its dimensions overflow", shown);
        elements *= weight->shape[i];
    }
    const size_t row = weight->n_dims ? weight->shape[weight->n_dims - 1] : 1;
    if (row % info->block_elements != 0)
        return rt_error_set(err, RT_CORRUPT,
                            "tensor \"%s\": a row has %zu elements, not a multiple of the %zu of a %s block",
                            shown, row, info->block_elements, info->name);
    if (!rt_dtype_bytes(bytes, weight->dtype, elements))
        return rt_error_set(err, RT_CORRUPT, "tensor \"%s\": its size overflows", shown);
    return RT_OK;
}

static rt_status grow(rt_weights *weights, rt_error *err)
{
    if (weights->count < weights->capacity)
        return RT_OK;
    const size_t capacity = weights->capacity + weights->capacity / 2 + 16;
    size_t bytes;
    rt_weight *list = NULL;
    if (rt_size_mul(capacity, sizeof *list, &bytes))
        list = realloc(weights->list, bytes);
    if (!list)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for a list of %zu tensors", capacity);
    weights->list = list;
    weights->capacity = capacity;
    return RT_OK;
}

rt_status rt_weights_append(rt_weights *weights, const char *name, size_t name_size, const rt_weight *weight,
                            const unsigned char *data, size_t data_size, size_t offset, rt_error *err)
{
    char shown[64];
    rt_weight added = *weight;
    (void)rt_name_shown(shown, name, name_size);
    if (name_size == 0 || name_size > RT_TENSOR_NAME_MAX || memchr(name, '\0', name_size))
        return rt_error_set(err, RT_CORRUPT, "tensor %zu: its name has %zu bytes (1 to %d are read) or a NUL",
                            weights->count, name_size, RT_TENSOR_NAME_MAX);
    if (check_shape(weight, &added.bytes, shown, err) != RT_OK || grow(weights, err) != RT_OK)
        return err->status;
    if (offset > data_size || added.bytes > data_size - offset)
        return rt_error_set(err, RT_CORRUPT,
                            "tensor \"%s\": %zu bytes at offset %zu end past the file's %zu bytes of data; "
                            "is the file whole?",
                            shown, added.bytes, offset, data_size);
    char *copy = strndup(name, name_size);
    if (!copy)
        return rt_error_set(err, RT_NO_MEMORY, "tensor \"%s\": no memory for its name", shown);
    added.name = copy;
    added.data = data + offset;
    if (weights->n_files > 0) { /* the file being read is the last one */
        added.file = weights->n_files - 1;
        added.offset = (size_t)((uintptr_t)added.data - (uintptr_t)weights->files[added.file].data);
    }
    weights->list[weights->count++] = added;
    return RT_OK;
}

typedef struct place { /* of a tensor's data */
    const unsigned char *begin;
    size_t bytes;
    const char *name;
} place;

static int compare_places(const void *a, const void *b)
{
    const place *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes; /* the empty ones first */
}

static rt_status check_places(const place *places, size_t n, const unsigned char *data, size_t size,
                              bool whole, rt_error *err)
{
    char shown[64], before[64];
    const unsigned char *end = data;
    for (size_t i = 0; i < n; i++) {
        const place *p = &places[i];
        (void)rt_name_shown(shown, p->name, strlen(p->name));
        if (p->begin < end)
            return rt_error_set(err, RT_CORRUPT, "tensors \"%s\" and \"%s\" overlap", shown,
                                rt_name_shown(before, places[i - 1].name, strlen(places[i - 1].name)));
        if (whole && p->begin != end)
            return rt_error_set(err, RT_CORRUPT, "tensor \"%s\": %zu bytes before it belong to no tensor",
                                shown, (size_t)(p->begin - end));
        end = p->begin + p->bytes;
    }
    if (whole && end != data + size)
        return rt_error_set(err, RT_CORRUPT, "the last %zu bytes of the file belong to no tensor",
                            (size_t)(data + size - end));
    return RT_OK;
}

rt_status rt_weights_check_layout(const rt_weights *weights, size_t first, const unsigned char *data,
                                  size_t size, bool whole, rt_error *err)
{
    const size_t n = weights->count - first;
    place *places = malloc((n + 1) * sizeof *places); /* n larger records are in memory: no overflow */
    if (!places)
        return rt_error_set(err, RT_NO_MEMORY, "no memory to order %zu tensors", n);
    for (size_t i = 0; i < n; i++) {
        const rt_weight *w = &weights->list[first + i];
        places[i] = (place){w->data, w->bytes, w->name};
    }
    qsort(places, n, sizeof *places, compare_places);
    const rt_status status = check_places(places, n, data, size, whole, err);
    free(places);
    return status;
}

static rt_status seal(rt_weights *weights, rt_error *err)
{
    for (size_t i = 0; i < weights->count; i++)
        if (!rt_name_index_add(&weights->index, weights->list[i].name, strlen(weights->list[i].name)))
            return rt_error_set(err, RT_NO_MEMORY, "no memory for an index of %zu tensors", weights->count);
    const rt_name_entry *twice = rt_name_index_seal(&weights->index);
    char shown[64];
    if (twice)
        return rt_error_set(err, RT_CORRUPT, "tensor \"%s\" is there twice",
                            rt_name_shown(shown, twice->name, twice->size));
    return RT_OK;
}

const rt_file *rt_weights_map(rt_weights *weights, const char *path, rt_error *err)
{
    rt_file *files = realloc(weights->files, (weights->n_files + 1) * sizeof *files);
    weights->files = files ? files : weights->files;
    char **paths = realloc(weights->paths, (weights->n_files + 1) * sizeof(*paths));
    weights->paths = paths ? paths : weights->paths;
    char *copy = strdup(path);
    if (!files || !paths || !copy) {
        free(copy);
        (void)rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory for its record", path);
        return NULL;
    }
    rt_file *file = &files[weights->n_files];
    const rt_status status = weights->header_max
                                 ? rt_file_map_head(file, &weights->whole, path, weights->header_max, err)
                                 : rt_file_map(file, path, err);
    if (status != RT_OK) {
        free(copy);
        return NULL;
    }
    weights->cut_short = weights->cut_short || weights->whole > file->size;
    paths[weights->n_files] = copy;
    return &files[weights->n_files++];
}

static rt_status read_one(rt_weights *weights, const unsigned char *data, size_t size, rt_error *err)
{
    const bool gguf = size >= 4 && memcmp(data, "GGUF", 4) == 0;
    weights->format = gguf ? RT_FORMAT_GGUF : RT_FORMAT_SAFETENSORS;
    const rt_status status =
        gguf ? rt_gguf_read(weights, data, size, err) : rt_safetensors_read(weights, data, size, err);
    return status == RT_OK ? RT_OK : rt_error_within(err, weights->path);
}

static rt_status read_file(rt_weights *weights, const char *path, rt_error *err)
{
    const rt_file *file = rt_weights_map(weights, path, err);
    if (!file)
        return err->status;
    return read_one(weights, file->data, file->size, err);
}

/* The one file of a folder with this ending: *out is malloc'd, or NULL when there is none. */
static rt_status lone_file(char **out, const char *dir, const char *ending, rt_error *err)
{
    *out = NULL;
    DIR *handle = opendir(dir);
    if (!handle)
        return rt_error_set(err, RT_IO, "%.300s: cannot read the folder", dir);
    rt_status status = RT_OK;
    const size_t m = strlen(ending);
    for (const struct dirent *entry; status == RT_OK && (entry = readdir(handle));) {
        const size_t n = strlen(entry->d_name);
        if (n <= m || entry->d_name[0] == '.' || strcmp(entry->d_name + n - m, ending) != 0)
            continue;
        if (*out)
            status = rt_error_set(err, RT_INVALID,
                                  "%.300s: holds several %s files; name one of them, or add "
                                  "model.safetensors.index.json",
                                  dir, ending);
        else if (!(*out = rt_path_join(dir, entry->d_name)))
            status = rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory for a name", dir);
    }
    (void)closedir(handle);
    if (status != RT_OK) {
        free(*out);
        *out = NULL;
    }
    return status;
}

static rt_status read_config(rt_weights *weights, const char *dir, rt_error *err)
{
    char *path = rt_path_join(dir, "config.json"), *text = NULL;
    size_t size = 0;
    rt_status status = RT_OK;
    json_error_t problem;
    if (!path)
        return rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory for a name", dir);
    if (!rt_path_exists(path))
        goto out;
    status = rt_file_read(&text, &size, path, CONFIG_BYTES_MAX, err);
    if (status != RT_OK)
        goto out;
    weights->config = json_loadb(text, size, JSON_REJECT_DUPLICATES, &problem);
    if (!weights->config)
        status = rt_error_set(err, RT_CORRUPT, "%.200s: line %d: %.150s", path, problem.line, problem.text);
    else if (!json_is_object(weights->config))
        status = rt_error_set(err, RT_CORRUPT, "%.300s: is not a JSON object", path);
out:
    free(text);
    free(path);
    return status;
}

/* Reads the named file of the folder if it is there; *found tells. */
static rt_status try_file(rt_weights *weights, const char *dir, const char *name, bool *found, rt_error *err)
{
    char *path = rt_path_join(dir, name);
    if (!path)
        return rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory for a name", dir);
    rt_status status = RT_OK;
    *found = rt_path_exists(path);
    if (*found && strstr(name, ".json"))
        status = rt_safetensors_read_index(weights, dir, path, err);
    else if (*found)
        status = read_file(weights, path, err);
    free(path);
    return status;
}

static rt_status try_lone(rt_weights *weights, const char *dir, const char *ending, bool *found,
                          rt_error *err)
{
    char *path;
    if (lone_file(&path, dir, ending, err) != RT_OK)
        return err->status;
    *found = path != NULL;
    const rt_status status = path ? read_file(weights, path, err) : RT_OK;
    free(path);
    return status;
}

/* An index wins over a single file, safetensors over GGUF. */
static rt_status read_folder(rt_weights *weights, const char *dir, rt_error *err)
{
    bool found = false;
    rt_status status = try_file(weights, dir, "model.safetensors.index.json", &found, err);
    if (status == RT_OK && !found)
        status = try_file(weights, dir, "model.safetensors", &found, err);
    if (status == RT_OK && !found)
        status = try_lone(weights, dir, ".safetensors", &found, err);
    if (status == RT_OK && !found)
        status = try_lone(weights, dir, ".gguf", &found, err);
    if (status != RT_OK)
        return status;
    if (!found)
        return rt_error_set(err, RT_NOT_FOUND, "%.300s: no .safetensors or .gguf file in this folder", dir);
    return weights->format == RT_FORMAT_SAFETENSORS ? read_config(weights, dir, err) : RT_OK;
}

static rt_weights *make(const char *path)
{
    rt_weights *weights = calloc(1, sizeof *weights);
    if (weights && !(weights->path = strdup(path))) {
        free(weights);
        return NULL;
    }
    return weights;
}

static rt_status finish(rt_weights **out, rt_weights *weights, rt_status status, rt_error *err)
{
    if (status == RT_OK && seal(weights, err) != RT_OK)
        status = rt_error_within(err, weights->path);
    if (status == RT_OK)
        *out = weights;
    else
        rt_weights_close(weights);
    return status;
}

static rt_status open_with(rt_weights **out, const char *path, size_t header_max, bool *cut_short,
                           rt_error *err)
{
    *out = NULL;
    rt_weights *weights = make(path);
    if (!weights)
        return rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory for its record", path);
    weights->header_max = header_max;
    const rt_status status =
        rt_path_is_dir(path) ? read_folder(weights, path, err) : read_file(weights, path, err);
    *cut_short = weights->cut_short;
    return finish(out, weights, status, err);
}

rt_status rt_weights_open(rt_weights **out, const char *path, rt_error *err)
{
    assert(out && path && err);
    bool unused;
    return open_with(out, path, 0, &unused, err);
}

/* Vectors (norms, biases, rope factors) and the scales of 8-bit weights are needed at every pass and small:
 * they are read at once. */
static bool is_small_and_needed(const rt_weight *w)
{
    static const char ending[] = "_scale_inv";
    const size_t n = strlen(w->name), m = sizeof ending - 1;
    enum { SCALES_BYTES_MAX = 16 << 20 };
    return w->n_dims <= 1 || (w->bytes <= SCALES_BYTES_MAX && n > m && strcmp(w->name + n - m, ending) == 0);
}

static rt_status read_vectors(rt_weights *weights, rt_error *err)
{
    weights->vectors = calloc(weights->count + 1, sizeof *weights->vectors);
    if (!weights->vectors)
        return rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory for a table", weights->path);
    for (size_t i = 0; i < weights->count; i++) {
        rt_weight *w = &weights->list[i];
        w->data = NULL;
        if (!is_small_and_needed(w))
            continue;
        if (!(weights->vectors[i] = malloc(w->bytes + 1)))
            return rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory for %zu bytes", weights->path,
                                w->bytes);
        if (rt_file_read_at(weights->vectors[i], w->bytes, weights->paths[w->file], w->offset, err) != RT_OK)
            return err->status;
        w->data = weights->vectors[i];
    }
    return RT_OK;
}

rt_status rt_weights_open_headers(rt_weights **out, const char *path, rt_error *err)
{
    assert(out && path && err);
    bool cut_short = true;
    rt_status status = RT_CORRUPT;
    /* how long a header is shows only when it has been read: try with more until it is whole */
    for (size_t head = HEADER_BYTES_FIRST; status != RT_OK && cut_short && head <= SIZE_MAX / 8; head *= 8)
        status = open_with(out, path, head, &cut_short, err);
    if (status == RT_OK && read_vectors(*out, err) != RT_OK) {
        rt_weights_close(*out);
        *out = NULL;
        return err->status;
    }
    return status;
}

bool rt_weights_is_headers(const rt_weights *weights) { return weights->header_max > 0; }

void rt_weights_place(rt_weights *weights, const rt_weight *weight, const void *data)
{
    const size_t index = (size_t)(weight - weights->list);
    assert(weights->header_max > 0 && index < weights->count);
    if (!weights->vectors[index])
        weights->list[index].data = data;
}

const char *rt_weights_file_path(const rt_weights *weights, size_t file)
{
    return file < weights->n_files ? weights->paths[file] : weights->path;
}

rt_status rt_weights_open_memory(rt_weights **out, const void *data, size_t size, const char *name,
                                 rt_error *err)
{
    assert(out && name && err && (data || !size));
    *out = NULL;
    rt_weights *weights = make(name);
    if (!weights)
        return rt_error_set(err, RT_NO_MEMORY, "%.300s: no memory for its record", name);
    return finish(out, weights, read_one(weights, data, size, err), err);
}

void rt_weights_close(rt_weights *weights)
{
    if (!weights)
        return;
    for (size_t i = 0; i < weights->count; i++)
        free((char *)(uintptr_t)weights->list[i].name);
    for (size_t i = 0; weights->vectors && i < weights->count; i++)
        free(weights->vectors[i]);
    for (size_t i = 0; i < weights->n_files; i++) {
        rt_file_unmap(&weights->files[i]);
        free(weights->paths[i]);
    }
    free(weights->vectors);
    free(weights->paths);
    rt_name_index_deinit(&weights->index);
    rt_meta_list_deinit(&weights->meta);
    json_decref(weights->config);
    free(weights->list);
    free(weights->files);
    free(weights->path);
    free(weights);
}

rt_weights_format rt_weights_get_format(const rt_weights *weights) { return weights->format; }
const char *rt_weights_path(const rt_weights *weights) { return weights->path; }
size_t rt_weights_count(const rt_weights *weights) { return weights->count; }
const json_t *rt_weights_config_json(const rt_weights *weights) { return weights->config; }

const rt_weight *rt_weights_at(const rt_weights *weights, size_t index)
{
    assert(index < weights->count);
    return &weights->list[index];
}

const rt_weight *rt_weights_find(const rt_weights *weights, const char *name)
{
    size_t position;
    return rt_name_index_find(&weights->index, name, strlen(name), &position) ? &weights->list[position]
                                                                              : NULL;
}
