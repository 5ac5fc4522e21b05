/* tests/model/test_safetensors.c - safetensors files and folders: what is written is read, and no bytes
 * do harm. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "model/safetensors_write.h"
#include "weights_help.h"

static void make_file(rt_text *t, const char *header, size_t data_size)
{
    rt_text_clear(t);
    put_u64(t, strlen(header));
    rt_text_puts(t, header);
    for (size_t i = 0; i < data_size; i++)
        rt_text_append(t, "\1", 1);
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

static const char sample[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                             "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[8,20]},"
                             "\"a.b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                             "\"none\":{\"dtype\":\"I64\",\"shape\":[0,4],\"data_offsets\":[20,20]},"
                             "\"one\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[20,21]}}   ";
enum { SAMPLE_DATA = 21 };

static void tensors_are_listed_with_their_shapes(void **state)
{
    (void)state;
    rt_text t = {0};
    rt_error err = {0};
    rt_weights *w;
    make_file(&t, sample, SAMPLE_DATA);
    assert_int_equal(rt_weights_open_memory(&w, t.data, t.size, "sample", &err), RT_OK);
    assert_int_equal(rt_weights_get_format(w), RT_FORMAT_SAFETENSORS);
    assert_int_equal(rt_weights_count(w), 4);
    assert_int_equal(rt_weights_meta_count(w), 0);
    const rt_weight *b = rt_weights_find(w, "b"), *one = rt_weights_find(w, "one");
    assert_true(b && b->dtype == RT_BF16 && b->n_dims == 2 && b->shape[0] == 2 && b->shape[1] == 3 &&
                b->bytes == 12);
    assert_ptr_equal(b->data, t.data + 8 + strlen(sample) + 8);
    assert_true(one && one->n_dims == 0 && one->bytes == 1);
    assert_null(rt_weights_find(w, "__metadata__"));
    assert_null(rt_weights_config_json(w));
    rt_weights_close(w);
    rt_text_deinit(&t);
}

static void a_file_cut_at_any_byte_is_an_error(void **state)
{
    (void)state;
    rt_text t = {0};
    make_file(&t, sample, SAMPLE_DATA);
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
    make_file(&t, sample, SAMPLE_DATA);
    for (size_t bit = 0; bit < t.size * 8; bit++) {
        rt_error err = {0};
        t.data[bit / 8] = (char)(t.data[bit / 8] ^ 1 << bit % 8);
        (void)try_open(t.data, t.size, &err);
        t.data[bit / 8] = (char)(t.data[bit / 8] ^ 1 << bit % 8);
    }
    rt_text_deinit(&t);
}

typedef struct header_case {
    const char *header;
    size_t data_size;
    rt_status status;
    const char *word; /* that the sentence holds */
} header_case;

#define ENTRY(dtype, shape, offsets)                                                                         \
    "{\"w\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" offsets "]}}"
static const header_case header_cases[] = {
    {ENTRY("F32", "2", "0,8"), 8, RT_OK, ""},
    {"{}", 0, RT_OK, ""},
    {ENTRY("F32", "2", "0,8"), 7, RT_CORRUPT, "past the file"},
    {ENTRY("F32", "2", "0,8"), 9, RT_CORRUPT, "last 1 bytes"},
    {ENTRY("F32", "2", "4,12"), 12, RT_CORRUPT, "4 bytes before it"},
    {ENTRY("F32", "2", "0,9"), 9, RT_CORRUPT, "span 9"},
    {ENTRY("F32", "2", "8,0"), 8, RT_CORRUPT, "data_offsets"},
    {ENTRY("F32", "2", "0"), 8, RT_CORRUPT, "data_offsets"},
    {ENTRY("F32", "2", "0,-8"), 8, RT_CORRUPT, "data_offsets"},
    {ENTRY("F32", "2", "0,8.0"), 8, RT_CORRUPT, "data_offsets"},
    {ENTRY("F32", "-2", "0,8"), 8, RT_CORRUPT, "dimension 0"},
    {ENTRY("F32", "2.0", "0,8"), 8, RT_CORRUPT, "dimension 0"},
    {ENTRY("F32", "1,1,1,1,2", "0,8"), 8, RT_UNSUPPORTED, "5 dimensions"},
    {ENTRY("F32", "4611686018427387904,4", "0,8"), 8, RT_CORRUPT, "overflow"},
    {ENTRY("F32", "4611686018427387904", "0,8"), 8, RT_CORRUPT, "overflow"},
    {ENTRY("F32", "4611686018427387904,0,9", "0,0"), 0, RT_CORRUPT, "overflow"},
    {ENTRY("F32", "99999999999999999999", "0,8"), 8, RT_CORRUPT, "JSON"},
    {ENTRY("F8_E5M2", "2", "0,2"), 2, RT_UNSUPPORTED, "F8_E5M2"},
    {ENTRY("Q4_0", "32", "0,18"), 18, RT_UNSUPPORTED, "Q4_0"},
    {ENTRY("f32", "2", "0,8"), 8, RT_UNSUPPORTED, "f32"},
    {"{\"w\":{}}", 0, RT_CORRUPT, "no dtype"},
    {"{\"w\":3}", 0, RT_CORRUPT, "no dtype"},
    {"{\"w\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, RT_CORRUPT, "no shape"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[]}}", 4, RT_CORRUPT, "data_offsets"},
    {"{\"\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, RT_CORRUPT, "name"},
    {"{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
     "\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
     2, RT_CORRUPT, "duplicate"},
    {"{\"v\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
     "\"w\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
     3, RT_CORRUPT, "overlap"},
    {"{\"__metadata__\":[]}", 0, RT_CORRUPT, "__metadata__"},
    {"{\"__metadata__\":{\"a\":{}}}", 0, RT_CORRUPT, "__metadata__"},
    {"{\"w\\u0000\":{}}", 0, RT_CORRUPT, "JSON"},
    {"{\"w\xff\":{}}", 0, RT_CORRUPT, "JSON"},
    {"{} {}", 0, RT_CORRUPT, "JSON"},
    {"[]", 0, RT_CORRUPT, "safetensors"},
    {"{\"w\":[[[[[[[[[[]]]]]]]]]]}", 0, RT_CORRUPT, "brackets"},
    {"{\"w\":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}", 0,
     RT_CORRUPT, "commas"},
};

static void headers_that_contradict_themselves_are_named(void **state)
{
    (void)state;
    rt_text t = {0};
    for (size_t i = 0; i < sizeof header_cases / sizeof *header_cases; i++) {
        const header_case *c = &header_cases[i];
        rt_error err = {0};
        make_file(&t, c->header, c->data_size);
        const rt_status status = try_open(t.data, t.size, &err);
        if (status != c->status || !strstr(err.text, c->word))
            fail_msg("%s: %s \"%s\"", c->header, rt_status_name(status), err.text);
    }
    rt_text_deinit(&t);
}

static void claims_beyond_the_file_are_refused_before_memory_is_taken(void **state)
{
    (void)state;
    static const uint64_t huge[] = {100,        1u << 31,      (uint64_t)1 << 60, (uint64_t)1 << 63,
                                    UINT64_MAX, UINT64_MAX - 7};
    const uint64_t before = rt_peak_memory_bytes();
    rt_text t = {0};
    rt_error err = {0};
    for (size_t i = 0; i < sizeof huge / sizeof *huge; i++) {
        rt_text_clear(&t);
        put_u64(&t, huge[i]);
        rt_text_puts(&t, "{\"w\":{}}");
        assert_int_equal(try_open(t.data, t.size, &err), RT_CORRUPT);
    }
    /* text that a JSON parser would blow up to a hundred times its size, and one that is nested without end
     */
    static const char *const dense[] = {"[],", "{},", "\"\",", "[", "{\"a\":"};
    for (size_t i = 0; i < sizeof dense / sizeof *dense; i++) {
        enum { SIZE = 1 << 20 };
        rt_text_clear(&t);
        put_u64(&t, SIZE);
        rt_text_puts(&t, "{\"w\":[");
        while (t.size < SIZE + 8)
            rt_text_puts(&t, dense[i]);
        assert_int_equal(try_open(t.data, SIZE + 8, &err), RT_CORRUPT);
    }
    assert_true(rt_peak_memory_bytes() - before < (uint64_t)64 << 20);
    rt_text_deinit(&t);
}

/* A folder of its own for each test; whatever files are in it are removed afterwards. */
static const char *const leftovers[] = {"model.safetensors",
                                        "x-1.safetensors",
                                        "x-2.safetensors",
                                        "config.json",
                                        "model.safetensors.index.json",
                                        "m.gguf"};

static int make_place(void **state)
{
    char *dir = malloc(DIR_NAME_MAX);
    assert_true(dir && make_dir(dir));
    *state = dir;
    return 0;
}

static int drop_place(void **state)
{
    for (size_t i = 0; i < sizeof leftovers / sizeof *leftovers; i++) {
        char *path = rt_path_join(*state, leftovers[i]);
        (void)unlink(path);
        free(path);
    }
    assert_int_equal(rmdir(*state), 0); /* fails when anything else was left there */
    free(*state);
    return 0;
}

static void put_text(const char *dir, const char *name, const char *text)
{
    rt_error err = {0};
    char *path = rt_path_join(dir, name);
    assert_int_equal(rt_file_write(path, text, strlen(text), &err), RT_OK);
    free(path);
}

/* A file with F32 tensors of one element, named by the letters, whose value is the letter's number. */
static void put_letters(const char *dir, const char *name, const char *letters)
{
    static const size_t one[] = {1};
    rt_safetensors_writer *writer;
    rt_error err = {0};
    char *path = rt_path_join(dir, name);
    assert_int_equal(rt_safetensors_writer_open(&writer, path, &err), RT_OK);
    for (const char *p = letters; *p; p++)
        assert_int_equal(rt_safetensors_writer_tensor(writer, (char[]){*p, 0}, RT_F32, 1, one, &err), RT_OK);
    assert_int_equal(rt_safetensors_writer_begin(writer, &err), RT_OK);
    for (const char *p = letters; *p; p++) {
        const float value = (float)*p;
        assert_int_equal(rt_safetensors_writer_data(writer, &value, sizeof value, &err), RT_OK);
    }
    assert_int_equal(rt_safetensors_writer_commit(writer, &err), RT_OK);
    free(path);
}

static void expect_letters(const char *dir, const char *letters)
{
    rt_weights *w;
    rt_error err = {0};
    if (rt_weights_open(&w, dir, &err) != RT_OK)
        fail_msg("%s", err.text);
    assert_int_equal(rt_weights_count(w), strlen(letters));
    for (const char *p = letters; *p; p++) {
        float value;
        const rt_weight *weight = rt_weights_find(w, (char[]){*p, 0});
        assert_true(weight && weight->bytes == sizeof value);
        memcpy(&value, weight->data, sizeof value);
        assert_true(value == (float)*p);
    }
    rt_weights_close(w);
}

static void expect_refusal(const char *path, rt_status status, const char *word)
{
    rt_weights *w;
    rt_error err = {0};
    assert_int_equal(rt_weights_open(&w, path, &err), status);
    assert_null(w);
    if (!strstr(err.text, word) || !strstr(err.text, path))
        fail_msg("\"%s\" does not say \"%s\"", err.text, word);
}

static void what_is_written_is_read(void **state)
{
    static const size_t shape[] = {2, 3}, scalar[] = {0};
    static const float wide[6] = {1, 2, 3, 4, 5, 6};
    static const rt_bf16 narrow[6] = {1, 2, 3, 4, 5, 6};
    rt_safetensors_writer *writer;
    rt_error err = {0};
    rt_weights *w;
    char *path = rt_path_join(*state, "model.safetensors");
    assert_int_equal(rt_safetensors_writer_open(&writer, path, &err), RT_OK);
    assert_int_equal(rt_safetensors_writer_tensor(writer, "quote\" \xc3\xa4", RT_F32, 2, shape, &err), RT_OK);
    assert_int_equal(rt_safetensors_writer_tensor(writer, "narrow", RT_BF16, 2, shape, &err), RT_OK);
    assert_int_equal(rt_safetensors_writer_tensor(writer, "none", RT_F32, 1, scalar, &err), RT_OK);
    assert_int_equal(rt_safetensors_writer_tensor(writer, "flag", RT_BOOL, 0, NULL, &err), RT_OK);
    assert_int_equal(rt_safetensors_writer_begin(writer, &err), RT_OK);
    assert_int_equal(rt_safetensors_writer_data(writer, wide, 5, &err), RT_OK);
    assert_int_equal(rt_safetensors_writer_data(writer, (const char *)wide + 5, sizeof wide - 5, &err),
                     RT_OK);
    assert_int_equal(rt_safetensors_writer_data(writer, narrow, sizeof narrow, &err), RT_OK);
    assert_int_equal(rt_safetensors_writer_data(writer, "\1", 1, &err), RT_OK);
    assert_int_equal(rt_safetensors_writer_commit(writer, &err), RT_OK);
    if (rt_weights_open(&w, path, &err) != RT_OK)
        fail_msg("%s", err.text);
    assert_int_equal(rt_weights_count(w), 4);
    assert_memory_equal(rt_weights_find(w, "quote\" \xc3\xa4")->data, wide, sizeof wide);
    assert_memory_equal(rt_weights_find(w, "narrow")->data, narrow, sizeof narrow);
    assert_int_equal((uintptr_t)rt_weights_at(w, 0)->data % 8, 0);
    rt_weights_close(w);
    free(path);
}

static void a_misused_writer_says_how(void **state)
{
    static const size_t one[] = {1};
    rt_safetensors_writer *writer;
    rt_error err = {0};
    char *path = rt_path_join(*state, "model.safetensors");
    assert_int_equal(rt_safetensors_writer_open(&writer, path, &err), RT_OK);
    assert_int_equal(rt_safetensors_writer_tensor(writer, "q", RT_Q8_0, 1, one, &err), RT_INVALID);
    assert_int_equal(rt_safetensors_writer_tensor(writer, "__metadata__", RT_F32, 1, one, &err), RT_INVALID);
    assert_int_equal(rt_safetensors_writer_tensor(writer, "half", RT_BF16, 1, one, &err), RT_OK);
    assert_int_equal(rt_safetensors_writer_tensor(writer, "full", RT_F32, 1, one, &err), RT_OK);
    assert_int_equal(rt_safetensors_writer_begin(writer, &err), RT_INVALID);
    assert_non_null(strstr(err.text, "wider types first"));
    rt_safetensors_writer_abort(writer);
    assert_int_equal(rt_safetensors_writer_open(&writer, path, &err), RT_OK);
    assert_int_equal(rt_safetensors_writer_tensor(writer, "bad\xff", RT_F32, 1, one, &err), RT_OK);
    assert_int_equal(rt_safetensors_writer_begin(writer, &err), RT_INVALID);
    rt_safetensors_writer_abort(writer);
    assert_int_equal(rt_safetensors_writer_open(&writer, path, &err), RT_OK);
    assert_int_equal(rt_safetensors_writer_tensor(writer, "w", RT_F32, 1, one, &err), RT_OK);
    assert_int_equal(rt_safetensors_writer_begin(writer, &err), RT_OK);
    assert_int_equal(rt_safetensors_writer_data(writer, "12345", 5, &err), RT_INVALID);
    assert_int_equal(rt_safetensors_writer_commit(writer, &err), RT_INVALID);
    assert_false(rt_path_exists(path));
    free(path);
}

static void a_full_disk_is_an_error_that_leaves_nothing(void **state)
{
    static float data[1 << 16];
    static const size_t shape[] = {1 << 16};
    struct rlimit old, small;
    rt_safetensors_writer *writer;
    rt_error err = {0};
    char *path = rt_path_join(*state, "model.safetensors");
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    for (rlim_t limit = 0; limit < 200000; limit += 50000) {
        small = (struct rlimit){.rlim_cur = limit, .rlim_max = old.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        assert_int_equal(rt_safetensors_writer_open(&writer, path, &err), RT_OK);
        assert_int_equal(rt_safetensors_writer_tensor(writer, "w", RT_F32, 1, shape, &err), RT_OK);
        rt_status status = rt_safetensors_writer_begin(writer, &err);
        if (status == RT_OK)
            status = rt_safetensors_writer_data(writer, data, sizeof data, &err);
        rt_safetensors_writer_abort(writer);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
        assert_int_equal(status, RT_IO);
        assert_non_null(strstr(err.text, path));
        assert_false(rt_path_exists(path));
    }
    (void)signal(SIGXFSZ, handler);
    free(path); /* dropping the folder proves that no temporary file is left */
}

static void a_folder_gives_its_config_and_its_one_file(void **state)
{
    const char *dir = *state;
    rt_weights *w;
    rt_error err = {0};
    expect_refusal(dir, RT_NOT_FOUND, "no .safetensors or .gguf");
    put_letters(dir, "x-1.safetensors", "ab");
    expect_letters(dir, "ab");
    put_letters(dir, "x-2.safetensors", "c");
    expect_refusal(dir, RT_INVALID, "several .safetensors");
    put_letters(dir, "model.safetensors", "xyz"); /* beside other files: this is the model */
    put_text(dir, "config.json", "{\"model_type\": \"llama\"}");
    expect_letters(dir, "xyz");
    assert_int_equal(rt_weights_open(&w, dir, &err), RT_OK);
    assert_string_equal(json_string_value(json_object_get(rt_weights_config_json(w), "model_type")), "llama");
    rt_weights_close(w);
    put_text(dir, "config.json", "{\"a\": 1, \"a\": 2}");
    expect_refusal(dir, RT_CORRUPT, "config.json");
    put_text(dir, "config.json", "[]");
    expect_refusal(dir, RT_CORRUPT, "not a JSON object");
}

static void an_index_places_tensors_in_shards(void **state)
{
    const char *dir = *state;
    put_letters(dir, "x-1.safetensors", "abz"); /* z is elsewhere by the index, and q nowhere */
    put_letters(dir, "x-2.safetensors", "czq");
    put_text(dir, "model.safetensors.index.json",
             "{\"metadata\":{\"total_size\":16},\"weight_map\":{\"a\":\"x-1.safetensors\",\"b\":\"x-1."
             "safetensors\","
             "\"c\":\"x-2.safetensors\",\"z\":\"x-2.safetensors\"}}");
    expect_letters(dir, "abcz");
}

static void an_index_that_lies_or_leaves_its_folder_is_refused(void **state)
{
    static const struct {
        const char *text, *word;
        rt_status status;
    } cases[] = {
        {"{\"weight_map\":{\"a\":\"../x-1.safetensors\"}}", "plain name", RT_CORRUPT},
        {"{\"weight_map\":{\"a\":\"/x-1.safetensors\"}}", "plain name", RT_CORRUPT},
        {"{\"weight_map\":{\"a\":\"sub/x-1.safetensors\"}}", "plain name", RT_CORRUPT},
        {"{\"weight_map\":{\"a\":\"..\"}}", "plain name", RT_CORRUPT},
        {"{\"weight_map\":{\"a\":\".safetensors\"}}", "plain name", RT_CORRUPT},
        {"{\"weight_map\":{\"a\":\"\"}}", "plain name", RT_CORRUPT},
        {"{\"weight_map\":{\"a\":7}}", "plain name", RT_CORRUPT},
        {"{\"weight_map\":{\"a\":\"model.safetensors.index.json\"}}", "plain name", RT_CORRUPT}, /* itself */
        {"{\"weight_map\":{\"a\":\"gone.safetensors\"}}", "gone.safetensors", RT_NOT_FOUND},
        {"{\"weight_map\":{\"a\":\"x-1.safetensors\",\"m\":\"x-1.safetensors\"}}", "\"m\" is not in",
         RT_CORRUPT},
        {"{\"weight_map\":[]}", "weight_map", RT_CORRUPT},
        {"{}", "weight_map", RT_CORRUPT},
        {"[]", "not an object", RT_CORRUPT},
        {"{\"weight_map\":{\"a\":\"x-1.safetensors\",\"a\":\"x-1.safetensors\"}}", "duplicate", RT_CORRUPT},
        {"", "JSON", RT_CORRUPT},
    };
    const char *dir = *state;
    put_letters(dir, "x-1.safetensors", "ab");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_text(dir, "model.safetensors.index.json", cases[i].text);
        expect_refusal(dir, cases[i].status, cases[i].word);
    }
}

static void links_that_go_in_circles_and_folders_in_place_of_files_are_errors(void **state)
{
    const char *dir = *state;
    char *path = rt_path_join(dir, "model.safetensors");
    assert_int_equal(symlink("model.safetensors", path), 0);
    expect_refusal(dir, RT_IO, "cannot open");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0777), 0);
    expect_refusal(dir, RT_INVALID, "not a regular file");
    assert_int_equal(rmdir(path), 0);
    free(path);
}

/* As in fuzz/fuzz_safetensors.c: a byte that counts the data, then the header's text. */
static void open_corpus_file(const unsigned char *data, size_t size)
{
    rt_text file = {0};
    rt_error err = {0};
    if (size == 0)
        return;
    put_u64(&file, size - 1);
    rt_text_append(&file, data + 1, size - 1);
    for (int i = 0; i < data[0]; i++)
        rt_text_append(&file, "", 1);
    (void)try_open(file.data, file.size, &err);
    rt_text_deinit(&file);
    (void)try_open(data, size, &err);
}

static void what_fuzzing_found_interesting_does_no_harm(void **state)
{
    (void)state;
    assert_true(each_of_corpus("safetensors", open_corpus_file) > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_are_listed_with_their_shapes),
        cmocka_unit_test(a_file_cut_at_any_byte_is_an_error),
        cmocka_unit_test(any_flipped_bit_gives_an_error_or_a_file_that_can_be_walked),
        cmocka_unit_test(headers_that_contradict_themselves_are_named),
        cmocka_unit_test(what_fuzzing_found_interesting_does_no_harm),
        cmocka_unit_test(claims_beyond_the_file_are_refused_before_memory_is_taken),
        cmocka_unit_test_setup_teardown(what_is_written_is_read, make_place, drop_place),
        cmocka_unit_test_setup_teardown(a_misused_writer_says_how, make_place, drop_place),
        cmocka_unit_test_setup_teardown(a_full_disk_is_an_error_that_leaves_nothing, make_place, drop_place),
        cmocka_unit_test_setup_teardown(a_folder_gives_its_config_and_its_one_file, make_place, drop_place),
        cmocka_unit_test_setup_teardown(an_index_places_tensors_in_shards, make_place, drop_place),
        cmocka_unit_test_setup_teardown(an_index_that_lies_or_leaves_its_folder_is_refused, make_place,
                                        drop_place),
        cmocka_unit_test_setup_teardown(links_that_go_in_circles_and_folders_in_place_of_files_are_errors,
                                        make_place, drop_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
