/* tests/model/test_gguf.c - GGUF files: what is written is read, and no bytes do harm. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "model/gguf_write.h"
#include "weights_help.h"

static void put_meta(rt_text *t, const char *key, rt_meta_type type)
{
    put_string(t, key);
    put_u32(t, (uint32_t)type);
}

static void put_head(rt_text *t, uint32_t version, uint64_t n_tensors, uint64_t n_meta)
{
    rt_text_puts(t, "GGUF");
    put_u32(t, version);
    put_u64(t, n_tensors);
    put_u64(t, n_meta);
}

static void put_tensor(rt_text *t, const char *name, uint32_t type, uint64_t cols, uint64_t rows,
                       uint64_t offset)
{
    put_string(t, name);
    put_u32(t, 2);
    put_u64(t, cols);
    put_u64(t, rows);
    put_u32(t, type);
    put_u64(t, offset);
}

static void put_padding(rt_text *t, size_t step)
{
    while (t->size % step)
        rt_text_append(t, "", 1);
}

/* One entry of each type, strings past one mark of the index, nested arrays; two tensors. */
static void put_sample(rt_text *t)
{
    static const char numbers[8] = {-2, -1, -1, -1, -1, -1, -1, -1};
    static const unsigned char bytes_of[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    char key[32];
    put_head(t, 3, 2, 13 + 2);
    for (int type = 0; type < RT_META_COUNT; type++) {
        (void)snprintf(key, sizeof key, "type.%d", type);
        put_meta(t, key, (rt_meta_type)type);
        if (type == RT_META_STRING) {
            put_string(t, "text");
        } else if (type == RT_META_ARRAY) {
            put_u32(t, RT_META_ARRAY);
            put_u64(t, 2);
            put_u32(t, RT_META_STRING);
            put_u64(t, 1);
            put_string(t, "inner");
            put_u32(t, RT_META_U8);
            put_u64(t, 3);
            rt_text_puts(t, "abc");
        } else {
            rt_text_append(t, type == RT_META_BOOL ? "\1" : numbers, bytes_of[type]);
        }
    }
    put_meta(t, "words", RT_META_ARRAY);
    put_u32(t, RT_META_STRING);
    put_u64(t, 70);
    for (int i = 0; i < 70; i++) {
        (void)snprintf(key, sizeof key, "word %d", i);
        put_string(t, key);
    }
    put_meta(t, "kinds", RT_META_ARRAY);
    put_u32(t, RT_META_I32);
    put_u64(t, 2);
    put_u32(t, 7);
    put_u32(t, (uint32_t)-9);
    put_tensor(t, "a.weight", 0, 3, 2, 0);
    put_tensor(t, "b.weight", 8, 32, 1, 32);
    put_padding(t, 32);
    for (int i = 0; i < 32 + 34; i++)
        rt_text_append(t, "\0", 1);
}

/* Opens a copy that ends where the heap block ends, so that ASan sees each byte read past it. */
static rt_status try_open(const void *data, size_t size, rt_error *err)
{
    void *copy = malloc(size ? size : 1);
    rt_weights *weights;
    assert_non_null(copy);
    memcpy(copy, data, size);
    const rt_status status = rt_weights_open_memory(&weights, copy, size, "sample", err);
    if (status == RT_OK)
        (void)walk(weights);
    else
        assert_true(weights == NULL && strncmp(err->text, "sample: ", 8) == 0);
    rt_weights_close(weights);
    free(copy);
    return status;
}

static void expect(const rt_text *t, rt_status status, const char *word)
{
    rt_error err = {0};
    assert_int_equal(try_open(t->data, t->size, &err), status);
    if (!strstr(err.text, word))
        fail_msg("\"%s\" does not say \"%s\"", err.text, word);
}

static void metadata_of_each_type_are_read(void **state)
{
    (void)state;
    rt_text t = {0};
    rt_error err = {0};
    rt_weights *w;
    const char *s;
    size_t n;
    uint64_t u;
    double d;
    bool b;
    put_sample(&t);
    assert_int_equal(rt_weights_open_memory(&w, t.data, t.size, "sample", &err), RT_OK);
    assert_int_equal(rt_weights_get_format(w), RT_FORMAT_GGUF);
    assert_int_equal(rt_weights_meta_count(w), 15);
    assert_true(rt_weights_meta_u64(w, "type.0", &u) && u == 254);
    assert_false(rt_weights_meta_u64(w, "type.1", &u)); /* -2 */
    assert_true(rt_weights_meta_f64(w, "type.1", &d) && d == -2);
    assert_true(rt_weights_meta_u64(w, "type.2", &u) && u == 65534);
    assert_true(rt_weights_meta_f64(w, "type.3", &d) && d == -2);
    assert_true(rt_weights_meta_u64(w, "type.4", &u) && u == 4294967294u);
    assert_true(rt_weights_meta_f64(w, "type.5", &d) && d == -2);
    assert_true(rt_weights_meta_f64(w, "type.6", &d) && d != d);
    assert_true(rt_weights_meta_bool(w, "type.7", &b) && b);
    assert_false(rt_weights_meta_u64(w, "type.7", &u));
    assert_true(rt_weights_meta_string(w, "type.8", &s, &n) && n == 4 && memcmp(s, "text", 4) == 0);
    assert_true(rt_weights_meta_array(w, "type.9", &n) && n == 2);
    assert_true(rt_weights_meta_u64(w, "type.10", &u) && u == UINT64_MAX - 1);
    assert_true(rt_weights_meta_f64(w, "type.11", &d) && d == -2);
    assert_true(rt_weights_meta_f64(w, "type.12", &d) && d != d);
    assert_false(rt_weights_meta_u64(w, "absent", &u) || rt_weights_meta_bool(w, "type.0", &b) ||
                 rt_weights_meta_string(w, "type.0", &s, &n) || rt_weights_meta_array(w, "type.8", &n));
    assert_true(rt_weights_meta_array(w, "words", &n) && n == 70);
    for (size_t i = 70; i-- > 0;) {
        char word[32];
        (void)snprintf(word, sizeof word, "word %zu", i);
        assert_true(rt_weights_meta_array_string(w, "words", i, &s, &n));
        assert_true(n == strlen(word) && memcmp(s, word, n) == 0);
    }
    assert_false(rt_weights_meta_array_string(w, "words", 70, &s, &n));
    assert_true(rt_weights_meta_array_f64(w, "kinds", 1, &d) && d == -9);
    assert_false(rt_weights_meta_array_f64(w, "words", 0, &d) ||
                 rt_weights_meta_array_f64(w, "kinds", 2, &d));
    rt_weights_close(w);
    rt_text_deinit(&t);
}

static void tensors_have_row_major_shapes_and_are_found_by_name(void **state)
{
    (void)state;
    rt_text t = {0};
    rt_error err = {0};
    rt_weights *w;
    put_sample(&t);
    assert_int_equal(rt_weights_open_memory(&w, t.data, t.size, "sample", &err), RT_OK);
    assert_int_equal(rt_weights_count(w), 2);
    const rt_weight *a = rt_weights_find(w, "a.weight"), *b = rt_weights_find(w, "b.weight");
    assert_ptr_equal(a, rt_weights_at(w, 0));
    assert_ptr_equal(b, rt_weights_at(w, 1));
    assert_null(rt_weights_find(w, "c.weight"));
    assert_true(a->n_dims == 2 && a->shape[0] == 2 && a->shape[1] == 3 && a->bytes == 24 &&
                a->dtype == RT_F32);
    assert_true(b->bytes == 34 && (const char *)b->data == t.data + t.size - 34);
    rt_weights_close(w);
    rt_text_deinit(&t);
}

static void a_file_cut_at_any_byte_is_an_error(void **state)
{
    (void)state;
    rt_text t = {0};
    put_sample(&t);
    for (size_t size = 0; size < t.size; size++) {
        rt_error err = {0};
        assert_int_not_equal(try_open(t.data, size, &err), RT_OK);
        assert_true(err.text[0] != '\0');
    }
    rt_text_deinit(&t);
}

static void any_flipped_bit_gives_an_error_or_a_file_that_can_be_walked(void **state)
{
    (void)state;
    rt_text t = {0};
    put_sample(&t);
    for (size_t bit = 0; bit < t.size * 8; bit++) {
        rt_error err = {0};
        t.data[bit / 8] = (char)(t.data[bit / 8] ^ 1 << bit % 8);
        (void)try_open(t.data, t.size, &err);
        t.data[bit / 8] = (char)(t.data[bit / 8] ^ 1 << bit % 8);
    }
    rt_text_deinit(&t);
}

static void claims_beyond_the_file_are_refused_before_memory_is_taken(void **state)
{
    (void)state;
    static const uint64_t huge[] = {
        1000, 1u << 31, (uint64_t)1 << 40, (uint64_t)1 << 60, (uint64_t)1 << 63, UINT64_MAX};
    const uint64_t before = rt_peak_memory_bytes();
    for (size_t i = 0; i < sizeof huge / sizeof *huge; i++) {
        const uint64_t n = huge[i];
        rt_text t = {0};
        put_head(&t, 3, n, 0);
        expect(&t, RT_CORRUPT, "too many");
        rt_text_clear(&t);
        put_head(&t, 3, 0, n);
        expect(&t, RT_CORRUPT, "too many");
        rt_text_clear(&t);
        put_head(&t, 3, 0, 1);
        put_u64(&t, n); /* a key's length */
        rt_text_puts(&t, "general.name");
        expect(&t, RT_CORRUPT, "claims");
        for (int type = 0; type < RT_META_COUNT; type++) {
            rt_text_clear(&t);
            put_head(&t, 3, 0, 1);
            put_meta(&t, "list", RT_META_ARRAY);
            put_u32(&t, (uint32_t)type);
            put_u64(&t, n);
            put_u64(&t, 0);
            expect(&t, RT_CORRUPT, "list");
        }
        rt_text_clear(&t);
        put_head(&t, 3, 1, 0);
        put_tensor(&t, "w", 0, n, n, 0);
        put_padding(&t, 32);
        expect(&t, RT_CORRUPT, "w");
        rt_text_clear(&t);
        put_head(&t, 3, 1, 0);
        put_tensor(&t, "w", 0, 1, 1, n / 32 * 32);
        put_padding(&t, 32);
        expect(&t, RT_CORRUPT, "past the file");
        rt_text_deinit(&t);
    }
    assert_true(rt_peak_memory_bytes() - before < (uint64_t)16 << 20);
}

static void put_two_tensors(rt_text *t, const char *first, const char *second, uint64_t offset, uint32_t type)
{
    rt_text_clear(t);
    put_head(t, 3, 2, 0);
    put_tensor(t, first, 0, 8, 1, 0);
    put_tensor(t, second, type, 8, 1, offset);
    put_padding(t, 32);
    for (int i = 0; i < 64; i++)
        rt_text_append(t, "", 1);
}

static void records_that_contradict_themselves_are_named(void **state)
{
    (void)state;
    rt_text t = {0};
    put_two_tensors(&t, "w", "v", 32, 0);
    expect(&t, RT_OK, "");
    put_two_tensors(&t, "w", "w", 32, 0);
    expect(&t, RT_CORRUPT, "twice");
    put_two_tensors(&t, "w", "v", 0, 0);
    expect(&t, RT_CORRUPT, "overlap");
    put_two_tensors(&t, "w", "v", 20, 0);
    expect(&t, RT_CORRUPT, "alignment");
    put_two_tensors(&t, "w", "v", 32, 2);
    expect(&t, RT_CORRUPT, "multiple of the 32");
    put_two_tensors(&t, "w", "v", 32, 19);
    expect(&t, RT_UNSUPPORTED, "type 19");
    put_two_tensors(&t, "w", "", 32, 0);
    expect(&t, RT_CORRUPT, "name");
    rt_text_clear(&t);
    put_head(&t, 3, 1, 0);
    put_string(&t, "w");
    put_u32(&t, 5);
    for (int i = 0; i < 7; i++)
        put_u64(&t, 1);
    expect(&t, RT_CORRUPT, "5 dimensions");
    rt_text_deinit(&t);
}

static void metadata_that_contradict_themselves_are_named(void **state)
{
    (void)state;
    static const uint32_t alignments[] = {0, 3, 48, 1u << 21};
    rt_text t = {0};
    put_head(&t, 3, 0, 2);
    for (int i = 0; i < 2; i++) {
        put_meta(&t, "key", RT_META_U32);
        put_u32(&t, 1);
    }
    expect(&t, RT_CORRUPT, "twice");
    rt_text_clear(&t);
    put_head(&t, 3, 0, 1);
    put_meta(&t, "flag", RT_META_BOOL);
    rt_text_append(&t, "\2\0", 2);
    expect(&t, RT_CORRUPT, "neither 0 nor 1");
    rt_text_clear(&t);
    put_head(&t, 3, 0, 1);
    put_meta(&t, "odd", (rt_meta_type)RT_META_COUNT);
    put_u64(&t, 0);
    expect(&t, RT_CORRUPT, "type 13");
    for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++) {
        rt_text_clear(&t);
        put_head(&t, 3, 0, 1);
        put_meta(&t, "general.alignment", RT_META_U32);
        put_u32(&t, alignments[i]);
        expect(&t, RT_CORRUPT, "general.alignment");
    }
    rt_text_deinit(&t);
}

static void versions_that_are_not_read_are_named(void **state)
{
    (void)state;
    rt_text t = {0};
    put_head(&t, 2, 0, 0);
    expect(&t, RT_OK, "");
    rt_text_clear(&t);
    put_head(&t, 1, 0, 0);
    expect(&t, RT_UNSUPPORTED, "version 1");
    rt_text_clear(&t);
    put_head(&t, 0x03000000, 0, 0);
    expect(&t, RT_UNSUPPORTED, "big-endian");
    rt_text_deinit(&t);
}

static void arrays_nested_without_end_are_refused(void **state)
{
    (void)state;
    rt_text t = {0};
    put_head(&t, 3, 0, 1);
    put_meta(&t, "deep", RT_META_ARRAY);
    for (int i = 0; i < 100000; i++) {
        put_u32(&t, RT_META_ARRAY);
        put_u64(&t, 1);
    }
    expect(&t, RT_CORRUPT, "nested");
    rt_text_deinit(&t);
}

typedef struct place {
    char dir[64], file[96];
} place;

static int make_place(void **state)
{
    place *p = calloc(1, sizeof *p);
    assert_non_null(p);
    assert_true(make_dir(p->dir));
    (void)snprintf(p->file, sizeof p->file, "%s/model.gguf", p->dir);
    *state = p;
    return 0;
}

static int drop_place(void **state)
{
    place *p = *state;
    (void)unlink(p->file);
    assert_int_equal(rmdir(p->dir), 0); /* fails when anything else was left there */
    free(p);
    return 0;
}

/* Writes what `from` holds, its data `piece` bytes at a time. */
static rt_status copy_out(const rt_weights *from, const char *path, size_t piece, rt_error *err)
{
    rt_gguf_writer *writer;
    if (rt_gguf_writer_open(&writer, path, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < rt_weights_meta_count(from); i++)
        rt_gguf_writer_put(writer, rt_weights_meta_at(from, i));
    for (size_t i = 0; i < rt_weights_count(from); i++) {
        const rt_weight *w = rt_weights_at(from, i);
        assert_int_equal(rt_gguf_writer_tensor(writer, w->name, w->dtype, w->n_dims, w->shape, err), RT_OK);
    }
    assert_int_equal(rt_gguf_writer_begin(writer, err), RT_OK);
    for (size_t i = 0; i < rt_weights_count(from); i++) {
        const rt_weight *w = rt_weights_at(from, i);
        for (size_t at = 0; at < w->bytes; at += piece) {
            const size_t size = w->bytes - at < piece ? w->bytes - at : piece;
            if (rt_gguf_writer_data(writer, (const char *)w->data + at, size, err) != RT_OK) {
                rt_gguf_writer_abort(writer);
                return err->status;
            }
        }
    }
    return rt_gguf_writer_commit(writer, err);
}

static void what_was_read_is_written_back_byte_for_byte(void **state)
{
    const place *p = *state;
    rt_text t = {0};
    rt_error err = {0};
    rt_weights *w;
    char *back;
    size_t size;
    put_sample(&t);
    put_padding(&t, 32); /* writers pad the last tensor too */
    assert_int_equal(rt_weights_open_memory(&w, t.data, t.size, "sample", &err), RT_OK);
    assert_int_equal(copy_out(w, p->file, 7, &err), RT_OK);
    rt_weights_close(w);
    assert_int_equal(rt_file_read(&back, &size, p->file, 1 << 20, &err), RT_OK);
    assert_int_equal(size, t.size);
    assert_memory_equal(back, t.data, size);
    free(back);
    rt_text_deinit(&t);
}

static void what_is_put_is_read_and_alignment_is_obeyed(void **state)
{
    const place *p = *state;
    static const size_t shape[] = {3, 1, 2, 4}, empty[] = {0};
    static const int32_t kinds[] = {4, -4};
    static float data[24] = {1, 2, 3}, more[3] = {9, 8, 7};
    rt_gguf_writer *writer;
    rt_error err = {0};
    rt_weights *w;
    const char *s;
    size_t n;
    uint64_t u;
    double d;
    bool b;
    assert_int_equal(rt_gguf_writer_open(&writer, p->file, &err), RT_OK);
    rt_gguf_writer_u32(writer, "general.alignment", 128);
    rt_gguf_writer_string(writer, "general.name", "small");
    rt_gguf_writer_f32(writer, "eps", 0.5f);
    rt_gguf_writer_bool(writer, "tied", true);
    rt_gguf_writer_numbers(writer, "kinds", RT_META_I32, kinds, 2);
    rt_gguf_writer_strings(writer, "words", 2);
    rt_gguf_writer_strings_add(writer, "one", 3);
    rt_gguf_writer_strings_add(writer, "a\0b", 3);
    assert_int_equal(rt_gguf_writer_tensor(writer, "w", RT_F32, 4, shape, &err), RT_OK);
    assert_int_equal(rt_gguf_writer_tensor(writer, "none", RT_F32, 1, empty, &err), RT_OK);
    assert_int_equal(rt_gguf_writer_tensor(writer, "v", RT_F32, 1, shape, &err), RT_OK);
    assert_int_equal(rt_gguf_writer_begin(writer, &err), RT_OK);
    assert_int_equal(rt_gguf_writer_data(writer, data, sizeof data, &err), RT_OK);
    assert_int_equal(rt_gguf_writer_data(writer, more, sizeof more, &err), RT_OK);
    assert_int_equal(rt_gguf_writer_commit(writer, &err), RT_OK);
    assert_int_equal(rt_weights_open(&w, p->dir, &err), RT_OK); /* the folder's lone .gguf */
    assert_int_equal(rt_weights_count(w), 3);
    const rt_weight *read = rt_weights_find(w, "w"), *last = rt_weights_find(w, "v");
    assert_true(read->n_dims == 4 && read->shape[0] == 3 && read->shape[3] == 4);
    assert_memory_equal(read->data, data, sizeof data);
    assert_memory_equal(last->data, more, sizeof more);
    assert_int_equal((uintptr_t)read->data % 128, 0);
    assert_int_equal((uintptr_t)last->data % 128, 0);
    assert_int_equal(rt_weights_find(w, "none")->bytes, 0);
    assert_true(rt_weights_meta_string(w, "general.name", &s, &n) && n == 5);
    assert_true(rt_weights_meta_u64(w, "general.alignment", &u) && u == 128);
    assert_true(rt_weights_meta_f64(w, "eps", &d) && d == 0.5);
    assert_true(rt_weights_meta_bool(w, "tied", &b) && b);
    assert_true(rt_weights_meta_array_f64(w, "kinds", 1, &d) && d == -4);
    assert_true(rt_weights_meta_array_string(w, "words", 1, &s, &n) && n == 3 && memcmp(s, "a\0b", 3) == 0);
    assert_null(rt_weights_config_json(w));
    rt_weights_close(w);
}

static void a_misused_writer_says_how(void **state)
{
    const place *p = *state;
    static const size_t odd[] = {2, 33}, whole[] = {2, 32}, wide[] = {SIZE_MAX, 32};
    static const unsigned char data[72];
    rt_gguf_writer *writer;
    rt_error err = {0};
    assert_int_equal(rt_gguf_writer_open(&writer, p->file, &err), RT_OK);
    assert_int_equal(rt_gguf_writer_tensor(writer, "w", RT_Q8_0, 2, odd, &err), RT_INVALID);
    assert_int_equal(rt_gguf_writer_tensor(writer, "w", RT_Q8_0, 2, wide, &err), RT_INVALID);
    assert_int_equal(rt_gguf_writer_tensor(writer, "w", RT_BOOL, 2, whole, &err), RT_INVALID);
    assert_int_equal(rt_gguf_writer_tensor(writer, "", RT_F32, 2, whole, &err), RT_INVALID);
    assert_int_equal(rt_gguf_writer_data(writer, data, 1, &err), RT_INVALID);
    assert_int_equal(rt_gguf_writer_tensor(writer, "w", RT_Q8_0, 2, whole, &err), RT_OK);
    assert_int_equal(rt_gguf_writer_begin(writer, &err), RT_OK);
    assert_int_equal(rt_gguf_writer_tensor(writer, "late", RT_F32, 2, whole, &err), RT_INVALID);
    assert_int_equal(rt_gguf_writer_data(writer, data, 69, &err), RT_INVALID);
    assert_int_equal(rt_gguf_writer_data(writer, data, 60, &err), RT_OK);
    assert_int_equal(rt_gguf_writer_commit(writer, &err), RT_INVALID);
    assert_non_null(strstr(err.text, "60 of its 68"));

    assert_int_equal(rt_gguf_writer_open(&writer, p->file, &err), RT_OK);
    rt_gguf_writer_u32(writer, "key", 1);
    rt_gguf_writer_u32(writer, "key", 2);
    assert_int_equal(rt_gguf_writer_begin(writer, &err), RT_INVALID);
    rt_gguf_writer_abort(writer);
    assert_int_equal(rt_gguf_writer_open(&writer, p->file, &err), RT_OK);
    rt_gguf_writer_strings(writer, "words", 1);
    assert_int_equal(rt_gguf_writer_begin(writer, &err), RT_INVALID);
    rt_gguf_writer_abort(writer);
    assert_int_equal(rt_gguf_writer_open(&writer, p->file, &err), RT_OK);
    assert_int_equal(rt_gguf_writer_tensor(writer, "w", RT_Q8_0, 2, whole, &err), RT_OK);
    assert_int_equal(rt_gguf_writer_tensor(writer, "w", RT_F32, 2, whole, &err), RT_OK);
    assert_int_equal(rt_gguf_writer_begin(writer, &err), RT_INVALID);
    rt_gguf_writer_abort(writer);
    assert_false(rt_path_exists(p->file));
}

static void a_full_disk_is_an_error_that_leaves_the_old_file(void **state)
{
    const place *p = *state;
    static float data[1 << 16];
    static const size_t shape[] = {1 << 16};
    struct rlimit old, small;
    rt_gguf_writer *writer;
    rt_error err = {0};
    char *back;
    size_t size;
    assert_int_equal(rt_file_write(p->file, "old", 3, &err), RT_OK);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = (struct rlimit){.rlim_cur = 8192, .rlim_max = old.rlim_max};
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(rt_gguf_writer_open(&writer, p->file, &err), RT_OK);
    assert_int_equal(rt_gguf_writer_tensor(writer, "w", RT_F32, 1, shape, &err), RT_OK);
    assert_int_equal(rt_gguf_writer_begin(writer, &err), RT_OK);
    rt_status status = RT_OK;
    for (size_t i = 0; i < sizeof data && status == RT_OK; i += 1024)
        status = rt_gguf_writer_data(writer, (const char *)data + i, 1024, &err);
    rt_gguf_writer_abort(writer);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    (void)signal(SIGXFSZ, handler);
    assert_int_equal(status, RT_IO);
    assert_non_null(strstr(err.text, p->file));
    assert_int_equal(rt_file_read(&back, &size, p->file, 100, &err), RT_OK);
    assert_true(size == 3 && memcmp(back, "old", 3) == 0);
    free(back);
}

static void a_file_that_cannot_be_made_or_read_is_named(void **state)
{
    const place *p = *state;
    rt_gguf_writer *writer;
    rt_weights *w;
    rt_error err = {0};
    assert_int_equal(rt_gguf_writer_open(&writer, "/nowhere/at/all.gguf", &err), RT_NOT_FOUND);
    assert_null(writer);
    assert_non_null(strstr(err.text, "/nowhere/at/all.gguf"));
    assert_int_equal(rt_weights_open(&w, p->file, &err), RT_NOT_FOUND);
    assert_int_equal(rt_weights_open(&w, p->dir, &err), RT_NOT_FOUND);
    assert_int_equal(rt_weights_open(&w, "/dev/zero", &err), RT_INVALID);
    assert_int_equal(rt_file_write(p->file, "", 0, &err), RT_OK);
    assert_int_equal(rt_weights_open(&w, p->file, &err), RT_CORRUPT);
    assert_null(w);
}

static void a_real_model_opens_and_its_embedding_decodes(void **state)
{
    (void)state;
    char path[512];
    const char *model = getenv("RETORT_TEST_MODEL"), *home = getenv("RETORT_HOME"), *user = getenv("HOME");
    rt_error err = {0};
    rt_weights *w;
    float row[576], sum = 0;
    const char *s;
    size_t n;
    if (model)
        (void)snprintf(path, sizeof path, "%s", model);
    else
        (void)snprintf(path, sizeof path, "%s%s/models/SmolLM2-135M-Instruct.Q4_1.gguf",
                       home   ? home
                       : user ? user
                              : "",
                       home ? "" : "/.cache/retort");
    if (!rt_path_exists(path)) {
        print_message("skipped: no model at %s (retort pull smollm2, or set RETORT_TEST_MODEL)\n", path);
        skip();
    }
    assert_int_equal(rt_weights_open(&w, path, &err), RT_OK);
    assert_int_equal(rt_weights_count(w), 272);
    const rt_weight *embed = rt_weights_find(w, "token_embd.weight");
    assert_true(embed && embed->shape[0] == 49152 && embed->shape[1] == 576);
    rt_dequantise(row, embed->data, embed->dtype, 576);
    for (size_t i = 0; i < 576; i++)
        sum += row[i] * row[i];
    assert_true(sum > 0.1f && sum < 100.0f);
    assert_true(rt_weights_meta_array_string(w, "tokenizer.ggml.merges", 48899, &s, &n));
    assert_true(n == 8 && memcmp(s, "ect able", 8) == 0);
    rt_weights_close(w);
}

static void open_corpus_file(const unsigned char *data, size_t size)
{
    rt_error err = {0};
    (void)try_open(data, size, &err);
}

static void what_fuzzing_found_interesting_does_no_harm(void **state)
{
    (void)state;
    assert_true(each_of_corpus("gguf", open_corpus_file) > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metadata_of_each_type_are_read),
        cmocka_unit_test(tensors_have_row_major_shapes_and_are_found_by_name),
        cmocka_unit_test(a_file_cut_at_any_byte_is_an_error),
        cmocka_unit_test(any_flipped_bit_gives_an_error_or_a_file_that_can_be_walked),
        cmocka_unit_test(what_fuzzing_found_interesting_does_no_harm),
        cmocka_unit_test(claims_beyond_the_file_are_refused_before_memory_is_taken),
        cmocka_unit_test(records_that_contradict_themselves_are_named),
        cmocka_unit_test(metadata_that_contradict_themselves_are_named),
        cmocka_unit_test(versions_that_are_not_read_are_named),
        cmocka_unit_test(arrays_nested_without_end_are_refused),
        cmocka_unit_test_setup_teardown(what_was_read_is_written_back_byte_for_byte, make_place, drop_place),
        cmocka_unit_test_setup_teardown(what_is_put_is_read_and_alignment_is_obeyed, make_place, drop_place),
        cmocka_unit_test_setup_teardown(a_misused_writer_says_how, make_place, drop_place),
        cmocka_unit_test_setup_teardown(a_full_disk_is_an_error_that_leaves_the_old_file, make_place,
                                        drop_place),
        cmocka_unit_test_setup_teardown(a_file_that_cannot_be_made_or_read_is_named, make_place, drop_place),
        cmocka_unit_test(a_real_model_opens_and_its_embedding_decodes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
