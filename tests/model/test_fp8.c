/* tests/model/test_fp8.c - checkpoints of 8-bit floats with a scale for each block, as DeepSeek-V3's files
 * have them: the same tensors, to the last bit, as a folder that holds the products in float32. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "model/config.h"
#include "model/safetensors_write.h"
#include "model/stream.h"
#include "tensor/quant.h"

enum { BLOCK_ROWS = 12, BLOCK_COLS = 20 }; /* divide no side of the golden models */

static const char *why(const rt_error *err) { return err->text; }
#define OK(call)                                                                                             \
    do {                                                                                                     \
        if ((call) != RT_OK)                                                                                 \
            fail_msg("%s", why(&err));                                                                       \
    } while (0)

/* The format by its definition: 1 sign, 4 exponent (bias 7), 3 fraction bits; no infinities. */
static double value_of(unsigned code)
{
    const int exponent = (int)(code >> 3 & 15), fraction = (int)(code & 7);
    const double magnitude = exponent ? ldexp(8 + fraction, exponent - 10) : ldexp(fraction, -9);
    if ((code & 0x7F) == 0x7F)
        return NAN;
    return code & 0x80 ? -magnitude : magnitude;
}

static void every_code_has_its_value(void **state)
{
    (void)state;
    unsigned char codes[256];
    float values[256];
    for (unsigned i = 0; i < 256; i++)
        codes[i] = (unsigned char)i;
    rt_dequantise(values, codes, RT_F8_E4M3, 256);
    for (unsigned i = 0; i < 256; i++) {
        const double want = value_of(i);
        assert_true(isnan(want) ? isnan(values[i]) : (double)values[i] == want);
    }
    assert_true(values[0x7E] == 448 && values[1] == 0x1p-9f && signbit(values[0x80]));
}

/* What a checkpoint may do wrong. */
typedef enum fault { SOUND, NO_SCALE, WRONG_SHAPE, WRONG_TYPE, A_NAN } fault;

typedef struct pair { /* two folders: 8 bits, and the products */
    char dir[64];
    char *eight, *plain;
} pair;

static bool is_eight(const rt_weight *w)
{
    return w->n_dims == 2 && !strstr(w->name, "embed") && !strstr(w->name, "lm_head") &&
           !strstr(w->name, "mlp.gate.");
}

static float scale_of(const char *name, size_t block_row, size_t block_col)
{
    return 0.003f * (float)(1 + (strlen(name) * 7 + block_row * 5 + block_col * 3) % 11);
}

static size_t blocks(size_t n, size_t side) { return n / side + (n % side != 0); }

static unsigned char nearest_code(float x)
{
    unsigned best = 0;
    for (unsigned code = 0; code < 256; code++)
        if (!isnan(value_of(code)) && fabs(value_of(code) - (double)x) < fabs(value_of(best) - (double)x))
            best = code;
    return (unsigned char)best;
}

typedef struct folder_writer {
    rt_safetensors_writer *eight, *plain;
    const rt_weights *from;
    fault wrong;
} folder_writer;

static void declare(folder_writer *f, rt_error *err_out)
{
    rt_error err = {0};
    char name[192];
    /* wider types first */
    for (size_t i = 0; i < rt_weights_count(f->from); i++) {
        const rt_weight *w = rt_weights_at(f->from, i);
        OK(rt_safetensors_writer_tensor(f->plain, w->name, RT_F32, w->n_dims, w->shape, &err));
        if (!is_eight(w)) {
            OK(rt_safetensors_writer_tensor(f->eight, w->name, RT_F32, w->n_dims, w->shape, &err));
            continue;
        }
        size_t shape[] = {blocks(w->shape[0], BLOCK_ROWS), blocks(w->shape[1], BLOCK_COLS)};
        shape[1] += f->wrong == WRONG_SHAPE;
        (void)snprintf(name, sizeof name, "%s_scale_inv", w->name);
        if (f->wrong != NO_SCALE)
            OK(rt_safetensors_writer_tensor(f->eight, name, f->wrong == WRONG_TYPE ? RT_I32 : RT_F32, 2,
                                            shape, &err));
    }
    for (size_t i = 0; i < rt_weights_count(f->from); i++) {
        const rt_weight *w = rt_weights_at(f->from, i);
        if (is_eight(w))
            OK(rt_safetensors_writer_tensor(f->eight, w->name, RT_F8_E4M3, 2, w->shape, &err));
    }
    OK(rt_safetensors_writer_begin(f->eight, &err));
    OK(rt_safetensors_writer_begin(f->plain, &err));
    *err_out = err;
}

/* The codes of one matrix, its scales, and their products. */
static void encode(const rt_weight *w, unsigned char *codes, float *scales, float *products)
{
    const size_t cols = w->shape[1], scale_cols = blocks(cols, BLOCK_COLS);
    for (size_t r = 0; r < w->shape[0]; r++)
        for (size_t c = 0; c < cols; c++) {
            float x;
            memcpy(&x, (const float *)w->data + r * cols + c, sizeof x);
            const float scale = scale_of(w->name, r / BLOCK_ROWS, c / BLOCK_COLS);
            scales[r / BLOCK_ROWS * scale_cols + c / BLOCK_COLS] = scale;
            codes[r * cols + c] = nearest_code(x / scale);
            products[r * cols + c] = (float)value_of(codes[r * cols + c]) * scale;
        }
}

static void put_all(folder_writer *f)
{
    rt_error err = {0};
    const size_t n = rt_weights_count(f->from);
    unsigned char **codes = calloc(n, sizeof *codes);
    for (size_t i = 0; i < n; i++) {
        const rt_weight *w = rt_weights_at(f->from, i);
        const size_t count = w->bytes / sizeof(float);
        if (!is_eight(w)) {
            OK(rt_safetensors_writer_data(f->plain, w->data, w->bytes, &err));
            OK(rt_safetensors_writer_data(f->eight, w->data, w->bytes, &err));
            continue;
        }
        const size_t n_scales = blocks(w->shape[0], BLOCK_ROWS) * blocks(w->shape[1], BLOCK_COLS);
        const size_t extra = f->wrong == WRONG_SHAPE ? blocks(w->shape[0], BLOCK_ROWS) : 0;
        float *scales = calloc(n_scales + extra, sizeof *scales), *products = calloc(count, sizeof *products);
        codes[i] = calloc(count, 1);
        encode(w, codes[i], scales, products);
        if (f->wrong == A_NAN)
            codes[i][count / 2] = 0xFF;
        OK(rt_safetensors_writer_data(f->plain, products, count * sizeof *products, &err));
        if (f->wrong != NO_SCALE)
            OK(rt_safetensors_writer_data(f->eight, scales, (n_scales + extra) * sizeof *scales, &err));
        free(scales);
        free(products);
    }
    for (size_t i = 0; i < n; i++)
        if (codes[i]) {
            OK(rt_safetensors_writer_data(f->eight, codes[i],
                                          rt_weights_at(f->from, i)->bytes / sizeof(float), &err));
            free(codes[i]);
        }
    free(codes);
    OK(rt_safetensors_writer_commit(f->eight, &err));
    OK(rt_safetensors_writer_commit(f->plain, &err));
}

static void write_config(const char *folder, const rt_weights *from, bool eight)
{
    rt_error err = {0};
    json_t *config = json_deep_copy(rt_weights_config_json(from));
    if (eight)
        (void)json_object_set_new(config, "quantization_config",
                                  json_pack("{s:s, s:s, s:s, s:[i, i]}", "activation_scheme", "dynamic",
                                            "fmt", "e4m3", "quant_method", "fp8", "weight_block_size",
                                            BLOCK_ROWS, BLOCK_COLS));
    char *path = rt_path_join(folder, "config.json");
    OK(rt_json_write(path, config, &err));
    free(path);
    json_decref(config);
}

static void pair_open(pair *p, const char *family, fault wrong)
{
    rt_error err = {0};
    char from[256];
    rt_weights *weights;
    (void)snprintf(from, sizeof from, RT_TEST_SOURCE_DIR "/tests/golden/engine/%s", family);
    (void)snprintf(p->dir, sizeof p->dir, "/tmp/retort-test-fp8-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    p->eight = rt_path_join(p->dir, "eight");
    p->plain = rt_path_join(p->dir, "plain");
    OK(rt_dir_make(p->eight, &err));
    OK(rt_dir_make(p->plain, &err));
    OK(rt_weights_open(&weights, from, &err));
    folder_writer f = {.from = weights, .wrong = wrong};
    char *a = rt_path_join(p->eight, "model.safetensors"), *b = rt_path_join(p->plain, "model.safetensors");
    OK(rt_safetensors_writer_open(&f.eight, a, &err));
    OK(rt_safetensors_writer_open(&f.plain, b, &err));
    declare(&f, &err);
    put_all(&f);
    write_config(p->eight, weights, true);
    write_config(p->plain, weights, false);
    free(a);
    free(b);
    rt_weights_close(weights);
}

static void pair_close(pair *p)
{
    char command[128];
    (void)snprintf(command, sizeof command, "rm -r '%s'", p->dir);
    assert_int_equal(system(command), 0);
    free(p->eight);
    free(p->plain);
}

static void same_tensors(const pair *p)
{
    rt_error err = {0};
    rt_weights *eight, *plain;
    rt_model_config a, b;
    OK(rt_weights_open(&eight, p->eight, &err));
    OK(rt_weights_open(&plain, p->plain, &err));
    OK(rt_model_config_read(&a, eight, &err));
    OK(rt_model_config_read(&b, plain, &err));
    size_t compared = 0;
    for (size_t l = 0; l < a.n_layers; l++)
        for (int which = 0; which < rt_role_span(&a); which++) {
            rt_canonical x, y;
            size_t rows, cols;
            if (which >= (int)RT_ROLE_COUNT && !rt_role_is_expert(rt_role_of(which)))
                continue;
            rt_role_shape(&a, l, which, &rows, &cols);
            if (!cols)
                continue;
            OK(rt_canonical_layer(&x, eight, &a, l, which, &err));
            OK(rt_canonical_layer(&y, plain, &b, l, which, &err));
            assert_int_equal(x.dtype, RT_F32);
            assert_memory_equal(x.data, y.data, rows * cols * sizeof(float));
            free(x.owned);
            free(y.owned);
            compared++;
        }
    assert_true(compared >= 7 * a.n_layers);
    rt_weights_close(eight);
    rt_weights_close(plain);
}

static void last_logits(float *out, const rt_model *model)
{
    static const int32_t ids[] = {5, 17, 3, 44, 80, 12, 9};
    enum { N = sizeof ids / sizeof ids[0] };
    const rt_segment segment = {.count = N};
    const rt_batch batch = {ids, N, &segment, 1};
    const size_t row = N - 1;
    rt_pass *pass;
    rt_error err = {0};
    OK(rt_pass_open(&pass, model, 64, false, &err));
    rt_forward(model, pass, &batch, NULL, NULL);
    rt_logits(model, pass, &row, 1, out);
    rt_pass_close(pass);
}

static void same_logits(const pair *p, rt_precision precision, bool streamed)
{
    rt_error err = {0};
    rt_weights *weights;
    rt_model *model;
    rt_pool *pool;
    float logits[2][128];
    OK(rt_pool_open(&pool, 2, &err));
    for (int i = 0; i < 2; i++) {
        const bool headers = streamed && i == 0;
        const char *folder = i ? p->plain : p->eight;
        OK((headers ? rt_weights_open_headers : rt_weights_open)(&weights, folder, &err));
        if (headers)
            OK(rt_model_open_streamed(&model, weights, precision, pool, NULL, &err));
        else
            OK(rt_model_open(&model, weights, precision, pool, &err));
        last_logits(logits[i], model);
        rt_model_close(model);
        rt_weights_close(weights);
    }
    assert_memory_equal(logits[0], logits[1], 97 * sizeof logits[0][0]);
    rt_pool_close(pool);
}

static void eight_bits_give_the_products_to_the_last_bit(void **state)
{
    (void)state;
    static const char *const families[] = {"deepseek_v3", "llama", "qwen3"};
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        pair p;
        pair_open(&p, families[i], SOUND);
        same_tensors(&p);
        same_logits(&p, RT_PRECISION_F32, false);
        same_logits(&p, RT_PRECISION_BF16, false);
        same_logits(&p, RT_PRECISION_INT8, false);
        if (i > 0) /* experts are not run from disk */
            same_logits(&p, RT_PRECISION_BF16, true);
        pair_close(&p);
    }
}

static void damaged_checkpoints_are_named(void **state)
{
    (void)state;
    static const struct {
        fault wrong;
        rt_status status;
        const char *says;
    } cases[] = {
        {NO_SCALE, RT_NOT_FOUND, "q_proj.weight_scale_inv is missing"},
        {WRONG_SHAPE, RT_MISMATCH, "_scale_inv has the shape"},
        {WRONG_TYPE, RT_UNSUPPORTED, "_scale_inv must be F32"},
        {A_NAN, RT_NOT_FINITE, "holds a NaN"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pair p;
        rt_error err = {0};
        rt_weights *weights;
        rt_model_config config;
        rt_layout layout;
        pair_open(&p, "llama", cases[i].wrong);
        OK(rt_weights_open(&weights, p.eight, &err));
        rt_status status = rt_model_config_read(&config, weights, &err);
        if (status == RT_OK) {
            OK(rt_layout_build(&layout, &config, &err));
            float *values = calloc(layout.total, sizeof *values);
            status = rt_params_load(values, &layout, &config, weights, &config, NULL, NULL, &err);
            free(values);
            rt_layout_free(&layout);
        }
        assert_int_equal(status, cases[i].status);
        if (!strstr(err.text, cases[i].says))
            fail_msg("'%s' does not say '%s'", err.text, cases[i].says);
        rt_weights_close(weights);
        pair_close(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_its_value),
        cmocka_unit_test(eight_bits_give_the_products_to_the_last_bit),
        cmocka_unit_test(damaged_checkpoints_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
