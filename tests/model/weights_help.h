/* tests/model/weights_help.h - shared by the tests and fuzz targets of weight files: bytes put together
 * by hand, and a walk over everything that an opened file offers. */
#ifndef RT_TESTS_WEIGHTS_HELP_H
#define RT_TESTS_WEIGHTS_HELP_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "model/weights.h"
#include "tensor/quant.h"

static inline void put_u32(rt_text *t, uint32_t value) { rt_text_append(t, &value, sizeof value); }
static inline void put_u64(rt_text *t, uint64_t value) { rt_text_append(t, &value, sizeof value); }
static inline void put_string(rt_text *t, const char *s)
{
    put_u64(t, strlen(s));
    rt_text_puts(t, s);
}

static inline size_t walk_bytes(const void *data, size_t size) /* reads each byte, so that ASan sees it */
{
    const unsigned char *p = data;
    size_t sum = 0;
    for (size_t i = 0; i < size; i++)
        sum += p[i];
    return sum;
}

static inline size_t walk_array(const rt_weights *weights, const rt_meta *meta, const char *key)
{
    size_t count = 0, sum = 0, size;
    const char *data;
    double number;
    (void)rt_weights_meta_array(weights, key, &count);
    const size_t step = count / 64 + 1;
    for (size_t i = 0; i < count; i += step) {
        if (rt_weights_meta_array_string(weights, key, count - 1 - i, &data, &size))
            sum += walk_bytes(data, size);
        if (rt_weights_meta_array_f64(weights, key, i, &number))
            sum++;
    }
    return sum + meta->bytes;
}

static inline size_t walk_meta(const rt_weights *weights, const rt_meta *meta)
{
    char key[256];
    const char *data;
    size_t size, sum = walk_bytes(meta->key, meta->key_size) + walk_bytes(meta->data, meta->bytes);
    uint64_t whole;
    double number;
    bool truth;
    if (meta->key_size >= sizeof key)
        return sum;
    memcpy(key, meta->key, meta->key_size);
    key[meta->key_size] = '\0';
    if (rt_weights_meta_string(weights, key, &data, &size))
        sum += size;
    if (rt_weights_meta_u64(weights, key, &whole))
        sum += whole;
    if (rt_weights_meta_f64(weights, key, &number))
        sum++;
    if (rt_weights_meta_bool(weights, key, &truth))
        sum += truth;
    return meta->type == RT_META_ARRAY ? sum + walk_array(weights, meta, key) : sum;
}

/* A new folder under /tmp with a name of its own. */
enum { DIR_NAME_MAX = 64 };
static inline bool make_dir(char dir[DIR_NAME_MAX])
{
    const int n = snprintf(dir, DIR_NAME_MAX, "/tmp/retort-weights-");
    memset(dir + n, 'X', 6); /* what mkdtemp replaces */
    dir[n + 6] = '\0';
    return mkdtemp(dir) != NULL;
}

/* Every metadata entry, every tensor; at most 4096 elements of each tensor are dequantised. */
static inline size_t walk(const rt_weights *weights)
{
    size_t sum = 0;
    for (size_t i = 0; i < rt_weights_meta_count(weights); i++)
        sum += walk_meta(weights, rt_weights_meta_at(weights, i));
    for (size_t i = 0; i < rt_weights_count(weights); i++) {
        const rt_weight *w = rt_weights_at(weights, i);
        const rt_dtype_info *info = rt_dtype_get(w->dtype);
        const size_t blocks = w->bytes / info->block_bytes, most = 4096 / info->block_elements;
        const size_t n = (blocks < most ? blocks : most) * info->block_elements;
        float x[4096];
        rt_dequantise(x, w->data, w->dtype, n);
        sum += walk_bytes(w->data, w->bytes) + (rt_weights_find(weights, w->name) == w);
    }
    return sum;
}

#if defined(RT_TEST_SOURCE_DIR)
/* Calls open_one on each file of fuzz/corpus/<what>; returns how many there were. */
static inline size_t each_of_corpus(const char *what,
                                    void (*open_one)(const unsigned char *data, size_t size))
{
    char dir[512];
    size_t count = 0;
    (void)snprintf(dir, sizeof dir, "%s/fuzz/corpus/%s", RT_TEST_SOURCE_DIR, what);
    DIR *handle = opendir(dir);
    for (const struct dirent *entry; handle && (entry = readdir(handle));) {
        rt_file file;
        rt_error err = {0};
        char *path = rt_path_join(dir, entry->d_name);
        if (entry->d_name[0] != '.' && path && rt_file_map(&file, path, &err) == RT_OK) {
            open_one(file.data, file.size);
            rt_file_unmap(&file);
            count++;
        }
        free(path);
    }
    if (handle)
        (void)closedir(handle);
    return count;
}
#endif

#endif
