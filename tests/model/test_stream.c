/* tests/model/test_stream.c - a model whose layers come from disk gives the bits of the model in memory. */
#include "export_help.h"

#include "base/file.h"
#include "model/export.h"
#include "model/session.h"
#include "model/stream.h"

enum { N_BATCHES = 3, TOKENS_MAX = 100 };
static const size_t batch_tokens[N_BATCHES] = {70, 9, 100}; /* the middle one goes the way of small batches */

typedef struct world {
    int32_t ids[N_BATCHES][TOKENS_MAX];
    rt_segment segments[N_BATCHES][2];
    rt_batch batches[N_BATCHES];
    size_t n_tokens;
} world;

/* Two texts a batch. */
static void make_world(world *w, size_t n_vocab)
{
    w->n_tokens = 0;
    for (size_t b = 0; b < N_BATCHES; b++) {
        const size_t n = batch_tokens[b], first = n / 2;
        for (size_t i = 0; i < n; i++)
            w->ids[b][i] = (int32_t)((i * 31 + b * 7 + 5) % n_vocab);
        w->segments[b][0] = (rt_segment){.begin = 0, .count = first};
        w->segments[b][1] = (rt_segment){.begin = first, .count = n - first};
        w->batches[b] = (rt_batch){w->ids[b], n, w->segments[b], 2};
        w->n_tokens += n;
    }
}

static const char *why(const rt_error *err) { return err->text; }
#define OK(call)                                                                                             \
    do {                                                                                                     \
        if ((call) != RT_OK)                                                                                 \
            fail_msg("%s", why(&err));                                                                       \
    } while (0)

/* Final states of all batches and the logits of the last rows of the last one. */
static void run_many(const rt_model *model, world *w, float *states, float *logits)
{
    rt_error err = {0};
    rt_pass *pass;
    static const size_t rows[] = {0, 57, 99};
    OK(rt_pass_open(&pass, model, TOKENS_MAX, false, &err));
    rt_forward_many(model, pass, w->batches, N_BATCHES, states);
    OK(rt_stream_check(model, &err));
    const size_t last = batch_tokens[N_BATCHES - 1];
    rt_pass_set_hidden(model, pass, states + (w->n_tokens - last) * model->config.n_embd, last);
    rt_logits(model, pass, rows, 3, logits);
    rt_pass_close(pass);
}

static void run_each(const rt_model *model, world *w, float *states, float *logits)
{
    rt_error err = {0};
    rt_pass *pass;
    static const size_t rows[] = {0, 57, 99};
    OK(rt_pass_open(&pass, model, TOKENS_MAX, false, &err));
    for (size_t b = 0; b < N_BATCHES; b++) {
        rt_forward(model, pass, &w->batches[b], NULL, NULL);
        memcpy(states, rt_pass_hidden(pass), batch_tokens[b] * model->config.n_embd * sizeof *states);
        states += batch_tokens[b] * model->config.n_embd;
    }
    rt_logits(model, pass, rows, 3, logits);
    rt_pass_close(pass);
}

static void compare(const char *path, rt_precision precision, size_t memory_bytes)
{
    rt_error err = {0};
    rt_weights *whole, *headers;
    rt_model *model, *streamed;
    rt_pool *pool;
    world *w = calloc(1, sizeof *w);
    OK(rt_pool_open(&pool, 2, &err));
    OK(rt_weights_open(&whole, path, &err));
    OK(rt_weights_open_headers(&headers, path, &err));
    OK(rt_model_open(&model, whole, precision, pool, &err));
    const rt_stream_options options = {.memory_bytes = memory_bytes};
    OK(rt_model_open_streamed(&streamed, headers, precision, pool, &options, &err));
    make_world(w, model->config.n_vocab);
    const size_t d = model->config.n_embd, vocab = model->config.n_vocab;
    float *a = calloc(w->n_tokens * d, sizeof *a), *b = calloc(w->n_tokens * d, sizeof *b);
    float *za = calloc(3 * vocab, sizeof *za), *zb = calloc(3 * vocab, sizeof *zb);
    run_each(model, w, a, za);
    for (int again = 0; again < 2; again++) {
        run_many(streamed, w, b, zb);
        assert_memory_equal(a, b, w->n_tokens * d * sizeof *a);
        assert_memory_equal(za, zb, 3 * vocab * sizeof *za);
    }
    run_each(streamed, w, b, zb);
    assert_memory_equal(a, b, w->n_tokens * d * sizeof *a);
    const rt_stream_stats stats = rt_stream_stats_of(streamed);
    assert_true(stats.bytes > 0 && stats.layers >= model->config.n_layers);
    free(a);
    free(b);
    free(za);
    free(zb);
    free(w);
    rt_model_close(model);
    rt_model_close(streamed);
    rt_weights_close(whole);
    rt_weights_close(headers);
    rt_pool_close(pool);
}

static void every_family_gives_the_same_bits_from_disk(void **state)
{
    (void)state;
    static const char *const names[] = {"llama", "qwen2", "qwen3", "gemma3", "gpt2", "llama_untied_rope3"};
    char path[512];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        compare(golden_path(path, names[i]), RT_PRECISION_F32, 0);
        compare(golden_path(path, names[i]), RT_PRECISION_BF16, 0);
    }
}

/* Just enough for the layers: the embedding and the head are read row by row. */
static size_t least_memory(const char *path, rt_precision precision)
{
    rt_error err = {0};
    size_t low = 0, high = 64 << 20;
    rt_weights *headers;
    OK(rt_weights_open_headers(&headers, path, &err));
    while (high - low > 64) {
        const size_t middle = (low + high) / 2;
        const rt_stream_options options = {.memory_bytes = middle};
        rt_model *model;
        if (rt_model_open_streamed(&model, headers, precision, NULL, &options, &err) == RT_OK)
            high = middle;
        else
            low = middle;
        rt_model_close(model);
    }
    rt_weights_close(headers);
    return high;
}

static void with_the_least_memory_tables_are_read_by_rows(void **state)
{
    char folder[512], file[512];
    rt_error err = {0};
    static const char *const names[] = {"llama", "qwen3", "llama_untied_rope3"};
    static const rt_dtype types[] = {RT_Q8_0, RT_Q4_0, RT_F16};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const rt_export_options options = {.type = types[i]};
        (void)work_path(file, state, "m.gguf");
        OK(rt_export_path(golden_path(folder, names[i]), file, &options, &err));
        for (rt_precision p = RT_PRECISION_F32; p <= RT_PRECISION_INT8; p++) {
            compare(file, p, least_memory(file, p));
            compare(file, p, 0);
        }
        compare(folder, RT_PRECISION_BF16, least_memory(folder, RT_PRECISION_BF16));
    }
}

static void too_little_memory_is_one_sentence(void **state)
{
    (void)state;
    char path[512];
    rt_error err = {0};
    rt_weights *headers;
    rt_model *model;
    const rt_stream_options options = {.memory_bytes = 1000};
    OK(rt_weights_open_headers(&headers, golden_path(path, "llama"), &err));
    assert_int_equal(rt_model_open_streamed(&model, headers, RT_PRECISION_BF16, NULL, &options, &err),
                     RT_NO_MEMORY);
    assert_null(model);
    assert_non_null(strstr(err.text, "allow more memory"));
    rt_weights_close(headers);
}

static void a_session_decodes_from_disk(void **state)
{
    (void)state;
    char path[512];
    rt_error err = {0};
    rt_weights *whole, *headers;
    rt_model *model, *streamed;
    rt_session *s, *t;
    (void)golden_path(path, "qwen3");
    OK(rt_weights_open(&whole, path, &err));
    OK(rt_weights_open_headers(&headers, path, &err));
    OK(rt_model_open(&model, whole, RT_PRECISION_BF16, NULL, &err));
    OK(rt_model_open_streamed(&streamed, headers, RT_PRECISION_BF16, NULL, NULL, &err));
    OK(rt_session_open(&s, model, 1, 64, &err));
    OK(rt_session_open(&t, streamed, 1, 64, &err));
    const size_t vocab = model->config.n_vocab, slot = 0;
    float *a = calloc(vocab, sizeof *a), *b = calloc(vocab, sizeof *b);
    const int32_t ids[] = {1, 5, 9, 3};
    OK(rt_session_prefill(s, 0, ids, 4, a, &err));
    OK(rt_session_prefill(t, 0, ids, 4, b, &err));
    for (int32_t id = 10; id < 14; id++) {
        assert_memory_equal(a, b, vocab * sizeof *a);
        OK(rt_session_decode(s, &slot, &id, 1, a, &err));
        OK(rt_session_decode(t, &slot, &id, 1, b, &err));
    }
    free(a);
    free(b);
    rt_session_close(s);
    rt_session_close(t);
    rt_model_close(model);
    rt_model_close(streamed);
    rt_weights_close(whole);
    rt_weights_close(headers);
}

/* Headers, whatever their length, are read without the data: the same tensors as the whole file shows. */
static void headers_alone_list_the_same_tensors(void **state)
{
    char file[512], folder[512];
    rt_error err = {0};
    const rt_export_options options = {.type = RT_Q8_0};
    OK(rt_export_path(golden_path(folder, "llama"), work_path(file, state, "h.gguf"), &options, &err));
    const char *const paths[] = {file, folder};
    for (size_t p = 0; p < 2; p++) {
        rt_weights *whole, *headers;
        OK(rt_weights_open(&whole, paths[p], &err));
        OK(rt_weights_open_headers(&headers, paths[p], &err));
        assert_int_equal(rt_weights_count(whole), rt_weights_count(headers));
        for (size_t i = 0; i < rt_weights_count(whole); i++) {
            const rt_weight *a = rt_weights_at(whole, i), *b = rt_weights_at(headers, i);
            assert_string_equal(a->name, b->name);
            assert_true(a->bytes == b->bytes && a->offset == b->offset && a->dtype == b->dtype);
            if (a->n_dims > 1) {
                assert_null(b->data);
                unsigned char *raw = malloc(a->bytes);
                OK(rt_file_read_at(raw, a->bytes, rt_weights_file_path(headers, b->file), b->offset, &err));
                assert_memory_equal(raw, a->data, a->bytes);
                free(raw);
            } else {
                assert_memory_equal(a->data, b->data, a->bytes);
            }
        }
        rt_weights_close(whole);
        rt_weights_close(headers);
    }
}

static void a_file_cut_in_use_is_found(void **state)
{
    char file[512], folder[512];
    rt_error err = {0};
    const rt_export_options options = {.type = RT_Q8_0};
    rt_weights *headers;
    rt_model *model;
    rt_pass *pass;
    OK(rt_export_path(golden_path(folder, "llama"), work_path(file, state, "cut.gguf"), &options, &err));
    OK(rt_weights_open_headers(&headers, file, &err));
    OK(rt_model_open_streamed(&model, headers, RT_PRECISION_INT8, NULL, NULL, &err));
    OK(rt_pass_open(&pass, model, TOKENS_MAX, false, &err));
    size_t first = SIZE_MAX;
    for (size_t i = 0; i < rt_weights_count(headers); i++)
        if (rt_weights_at(headers, i)->n_dims > 1 && rt_weights_at(headers, i)->offset < first)
            first = rt_weights_at(headers, i)->offset;
    assert_int_equal(truncate(file, (off_t)first), 0);
    world *w = calloc(1, sizeof *w);
    float *states = calloc(1000 * model->config.n_embd, sizeof *states);
    make_world(w, model->config.n_vocab);
    rt_forward_many(model, pass, w->batches, N_BATCHES, states);
    rt_forward_many(model, pass, w->batches, N_BATCHES, states); /* what was read ahead is used up by now */
    assert_int_equal(rt_stream_check(model, &err), RT_CORRUPT);
    assert_non_null(strstr(err.text, "cut"));
    free(w);
    free(states);
    rt_pass_close(pass);
    rt_model_close(model);
    rt_weights_close(headers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_alone_list_the_same_tensors),
        cmocka_unit_test(every_family_gives_the_same_bits_from_disk),
        cmocka_unit_test(with_the_least_memory_tables_are_read_by_rows),
        cmocka_unit_test(too_little_memory_is_one_sentence),
        cmocka_unit_test(a_session_decodes_from_disk),
        cmocka_unit_test(a_file_cut_in_use_is_found),
    };
    return cmocka_run_group_tests(tests, make_work, drop_work);
}
