/* tests/student/test_across.c - a teacher with other tokens: borders, the map of ids, the start of an
 * embedding, gradients against differences, runs that resume. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/rng.h"
#include "model/tokenizer_train.h"
#include "student/init_vocab.h"
#include "student/run.h"

/* ---- tokenizers ---- */

static rt_tokenizer *learn(const char *pattern, size_t vocab, const char *text, const char *end)
{
    rt_error err = {0};
    rt_tokenizer_trainer *trainer;
    rt_tokenizer *out;
    rt_tokenizer_trained trained;
    const char *const special[] = {"<|begin|>", end};
    const rt_tokenizer_train_options options = {.pattern = pattern,
                                                .vocab = vocab,
                                                .special = special,
                                                .n_special = 2,
                                                .bos = 0,
                                                .eos = 1,
                                                .pad = -1};
    assert_int_equal(rt_tokenizer_trainer_open(&trainer, &options, &err), RT_OK);
    assert_int_equal(rt_tokenizer_trainer_add(trainer, text, strlen(text), &err), RT_OK);
    assert_int_equal(rt_tokenizer_trainer_finish(trainer, &out, &trained, &err), RT_OK);
    rt_tokenizer_trainer_close(trainer);
    return out;
}

static const char lesson[] =
    "the answer to the question is another question, and the other answers are answered there; "
    "wherever gathering weather gathers feathers, fathers bother neither mothers nor brothers; "
    "therefore the others ask again: what is the answer, whether it rains or whether it is warm? ";

static char *write_rows(char path[64])
{
    (void)snprintf(path, 64, "/tmp/retort-across-%d.jsonl", (int)getpid());
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    (void)fputs(
        "{\"prompt\": \"ask\", \"completion\": \"the other answer is there\", \"finish_reason\": \"stop\"}\n"
        "{\"prompt\": \"ask\", \"completion\": \"whether the question rains\", \"finish_reason\": "
        "\"length\"}\n"
        "{\"prompt\": \"ask\", \"completion\": \"cafe\\u0301 the answer\", \"finish_reason\": \"stop\"}\n"
        "{\"prompt\": \"ask\", \"completion\": \"\", \"finish_reason\": \"length\"}\n"
        "{\"text\": \"the others ask again whether it is warm or whether it is another question\"}\n",
        file);
    (void)fclose(file);
    return path;
}

/* The bytes of tokens [from, to) of a document. */
static void bytes_of(rt_text *out, const rt_documents *docs, size_t doc, size_t from, size_t to,
                     const rt_tokenizer *tokenizer)
{
    rt_error err = {0};
    rt_text_clear(out);
    assert_int_equal(
        rt_tokenizer_decode(tokenizer, docs->ids + docs->begins[doc] + from, to - from, false, out, &err),
        RT_OK);
    rt_text_append(out, "", 0);
}

static void borders_are_where_both_sides_have_said_the_same(void **state)
{
    (void)state;
    char path[64];
    rt_error err = {0};
    rt_tokenizer *small = learn("gpt2", 280, lesson, "<|end|>"),
                 *large = learn("qwen2", 330, lesson, "<|stop|>");
    rt_documents docs = {0};
    rt_across_text text = {0};
    const rt_document_options options = {.tokens_max = 20};
    const rt_documents_side a = {&docs, small, NULL}, b = {&text.docs, large, NULL};
    assert_int_equal(rt_documents_read_both(&a, &b, write_rows(path), &options, &err), RT_OK);
    (void)unlink(path);
    assert_true(docs.n_docs >= 5); /* the empty answer is in neither; the text may be split */
    assert_int_equal(docs.n_docs, text.docs.n_docs);
    assert_int_equal(rt_across_text_align(&text, &docs, small, large, &err), RT_OK);
    rt_text x = {0}, y = {0};
    size_t ends = 0;
    for (size_t doc = 0; doc < docs.n_docs; doc++) {
        size_t last = 0;
        assert_true(text.begins[doc + 1] > text.begins[doc] || doc == 2);
        for (size_t g = text.begins[doc]; g < text.begins[doc + 1]; g++) {
            const rt_aligned *group = &text.groups[g];
            assert_true(group->student_from >= last && group->student_from < group->student_to);
            last = group->student_to;
            for (size_t i = group->student_from; i < group->student_to; i++)
                assert_int_equal(docs.mask[docs.begins[doc] + i], 1);
            bytes_of(&x, &docs, doc, group->student_from, group->student_to, small);
            bytes_of(&y, &text.docs, doc, group->teacher_from, group->teacher_to, large);
            if (strcmp(x.data, "<|end|>") == 0) {
                assert_string_equal(y.data, "<|stop|>");
                ends++;
            } else {
                assert_string_equal(x.data, y.data);
                assert_null(
                    strstr(x.data, "\xCC\x81")); /* composed on one side: bytes differ from there on */
            }
        }
    }
    assert_int_equal(ends, 1); /* row 1 ends; row 3's end lies behind what differs */
    assert_true(text.n_diverged >= 1);
    rt_text_deinit(&x);
    rt_text_deinit(&y);
    rt_across_text_deinit(&text);
    rt_documents_deinit(&docs);
    rt_tokenizer_close(small);
    rt_tokenizer_close(large);
}

static void each_teacher_token_gives_its_mass_to_the_id_that_begins_it(void **state)
{
    (void)state;
    rt_error err = {0};
    rt_tokenizer *small = learn("gpt2", 280, lesson, "<|end|>"),
                 *large = learn("gpt2", 330, lesson, "<|stop|>");
    int32_t *map;
    assert_int_equal(rt_across_map(&map, 340, small, large, &err), RT_OK);
    assert_int_equal(map[0], 0); /* <|begin|> */
    assert_int_equal(map[1], 1); /* both end an answer */
    const int32_t n = (int32_t)rt_tokenizer_size(large);
    assert_true(n > 300);
    for (int32_t id = 2; id < n; id++) {
        size_t size, own;
        const char *text = rt_tokenizer_token_bytes(large, id, &size);
        assert_true(map[id] >= 2);
        const char *begin = rt_tokenizer_token_bytes(small, map[id], &own);
        assert_true(own <= size && memcmp(begin, text, own) == 0);
        rt_token_list ids = {0};
        assert_int_equal(rt_tokenizer_encode(small, text, size, false, &ids, &err), RT_OK);
        assert_int_equal(ids.ids[0], map[id]);
        rt_token_list_deinit(&ids);
    }
    for (int32_t id = n; id < 340; id++) /* pads of the output layer */
        assert_int_equal(map[id], -1);
    free(map);
    rt_tokenizer_close(small);
    rt_tokenizer_close(large);
}

/* ---- training ---- */

enum { STEPS = 5, BATCH = 96, STUDENT_VOCAB = 80 };
static const char identity[65] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

typedef struct world { /* a tiny teacher, a one-layer student with fewer ids, documents with borders drawn */
    rt_pool *pool;
    rt_weights *weights;
    rt_model *teacher;
    rt_documents docs;
    rt_across_text text;
    int32_t *map;
    rt_trainer *trainer;
    rt_dealer dealer;
    rt_deal deal;
    rt_across_deal across;
    char dir[64];
} world;

/* Documents of both sides with random ids; groups of one to three tokens, some tokens in none. */
static void make_text(world *w, bool same)
{
    rt_rng rng = rt_rng_make(5, 0);
    rt_error err = {0};
    rt_aligned *groups = calloc(4096, sizeof *groups);
    size_t *begins = calloc(64, sizeof *begins);
    w->text.groups = groups;
    w->text.begins = begins;
    for (size_t doc = 0; doc < 24; doc++) {
        int32_t a[60], b[60];
        uint8_t mask_a[60], mask_b[60];
        size_t n_a = 4, n_b = same ? 4 : 6; /* prompts */
        begins[doc] = w->text.n_groups;
        for (size_t g = 0; g < 12; g++) {
            const size_t more_a = same ? 1 : 1 + rt_rng_below(&rng, 3),
                         more_b = same ? 1 : 1 + rt_rng_below(&rng, 3);
            if (same || rt_rng_below(&rng, 4))
                groups[w->text.n_groups++] = (rt_aligned){n_a, n_a + more_a, n_b, n_b + more_b};
            n_a += more_a;
            n_b += more_b;
        }
        for (size_t i = 0; i < 60; i++) {
            a[i] = (int32_t)rt_rng_below(&rng, STUDENT_VOCAB - 4);
            b[i] = same ? a[i] : (int32_t)rt_rng_below(&rng, 96);
            mask_a[i] = i >= 4;
            mask_b[i] = i >= (same ? 4u : 6u);
        }
        assert_int_equal(rt_documents_add(&w->docs, a, mask_a, n_a, &err), RT_OK);
        assert_int_equal(rt_documents_add(&w->text.docs, b, mask_b, n_b, &err), RT_OK);
    }
    begins[24] = w->text.n_groups;
}

static void world_open(world *w, const rt_across_options *across, unsigned threads, rt_precision precision,
                       bool same)
{
    rt_error err = {0};
    memset(w, 0, sizeof *w);
    (void)snprintf(w->dir, sizeof w->dir, "/tmp/retort-test-across-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    assert_int_equal(rt_pool_open(&w->pool, threads, &err), RT_OK);
    assert_int_equal(rt_weights_open(&w->weights, RT_TEST_SOURCE_DIR "/tests/golden/engine/llama", &err),
                     RT_OK);
    assert_int_equal(rt_model_open(&w->teacher, w->weights, precision, w->pool, &err), RT_OK);
    make_text(w, same);
    rt_model_config config = w->teacher->config;
    config.n_layers = 1;
    if (!same)
        config.n_vocab = STUDENT_VOCAB;
    w->map = calloc(w->teacher->config.n_vocab, sizeof *w->map);
    for (size_t i = 0; i < w->teacher->config.n_vocab; i++)
        w->map[i] = same ? (int32_t)i : i % 11 == 3 ? -1 : (int32_t)((i * 7) % (STUDENT_VOCAB - 4));
    rt_trainer_options options = {
        .mix = {.n_terms = 2,
                .terms = {{0.7, {.kind = RT_LOSS_FKL, .tau = 2, .tau2 = true}},
                          {0.3, {.kind = RT_LOSS_CE, .tau = 1}}}},
        .adamw = {1e-2, 0.9, 0.95, 1e-8, 0.1},
        .schedule = {.kind = RT_SCHEDULE_COSINE, .warmup = 1, .total = STEPS, .floor = 0.1},
        .clip = 1,
        .precision = precision,
        .tokens_max = BATCH};
    if (across) {
        options.across = *across;
        options.across.map = w->map;
        options.n_real = same ? 0 : STUDENT_VOCAB - 4;
    }
    assert_int_equal(rt_trainer_open(&w->trainer, &config, w->teacher, &options, w->pool, &err), RT_OK);
    rt_params_init(w->trainer->values, &w->trainer->layout, &config, 7);
    rt_rng rng = rt_rng_make(8, 8); /* larger weights: the losses are far from flat */
    for (size_t i = 0; i < w->trainer->total; i++)
        if (w->trainer->values[i] != 0)
            w->trainer->values[i] += (float)(0.15 * rt_rng_normal(&rng));
    rt_trainer_sync(w->trainer);
    assert_int_equal(rt_dealer_init(&w->dealer, &w->docs, 3, BATCH, &err), RT_OK);
    w->dealer.beside = &w->text.docs;
    assert_int_equal(rt_deal_init(&w->deal, BATCH, &err), RT_OK);
    assert_int_equal(rt_across_deal_init(&w->across, BATCH, &err), RT_OK);
    rt_dealer_next(&w->dealer, &w->deal);
    assert_true(w->deal.n_documents > 1);
    if (across)
        rt_across_deal_fill(&w->across, &w->text, &w->docs, &w->deal);
    for (size_t i = 0; i < w->deal.targets.n; i++)
        w->deal.scales[i] = 1.0 / (double)w->deal.targets.n;
}

static void world_close(world *w)
{
    const char *names[] = {"checkpoint.safetensors", "log.jsonl"};
    for (size_t i = 0; i < 2; i++) {
        char path[128];
        (void)snprintf(path, sizeof path, "%s/%s", w->dir, names[i]);
        (void)unlink(path);
    }
    assert_int_equal(rmdir(w->dir), 0);
    rt_across_deal_deinit(&w->across);
    rt_deal_deinit(&w->deal);
    rt_dealer_deinit(&w->dealer);
    rt_trainer_close(w->trainer);
    rt_across_text_deinit(&w->text);
    rt_documents_deinit(&w->docs);
    free(w->map);
    rt_model_close(w->teacher);
    rt_weights_close(w->weights);
    rt_pool_close(w->pool);
}

static double loss_now(world *w)
{
    rt_error err = {0};
    memset(w->trainer->grads, 0, w->trainer->total * sizeof(float));
    memset(&w->trainer->sum, 0, sizeof w->trainer->sum);
    if (rt_trainer_accumulate(w->trainer, &w->deal.batch, &w->deal.targets, &err) != RT_OK)
        fail_msg("%s", err.text);
    return w->trainer->sum.loss;
}

/* The gradient's length along itself and along a random direction, against central differences. */
static void check_gradient(const rt_across_options *across)
{
    world w;
    world_open(&w, across, 1, RT_PRECISION_F32, false);
    const size_t total = w.trainer->total;
    float *start = malloc(total * sizeof *start), *grad = malloc(total * sizeof *grad);
    memcpy(start, w.trainer->values, total * sizeof *start);
    (void)loss_now(&w);
    memcpy(grad, w.trainer->grads, total * sizeof *grad);
    double length = 0;
    for (size_t i = 0; i < total; i++)
        length += (double)grad[i] * (double)grad[i];
    length = sqrt(length);
    assert_true(length > 1e-3);
    rt_rng rng = rt_rng_make(11, 1);
    double *direction = calloc(total, sizeof *direction);
    for (int turn = 0; turn < 3; turn++) {
        double along = 0, size = 0, losses[2];
        for (size_t i = 0; i < total; i++) { /* first the gradient itself, then half of it and noise */
            direction[i] = (double)grad[i] / length;
            if (turn && start[i] != 0)
                direction[i] += 2 * rt_rng_normal(&rng) / sqrt((double)total);
            size += direction[i] * direction[i];
        }
        for (size_t i = 0; i < total; i++)
            along += (double)grad[i] * direction[i] / sqrt(size);
        const double h = across->way == RT_ACROSS_ULD ? 1e-3 : 4e-3; /* it has kinks */
        for (int side = 0; side < 2; side++) {
            for (size_t i = 0; i < total; i++)
                w.trainer->values[i] =
                    (float)((double)start[i] + (side ? -h : h) * direction[i] / sqrt(size));
            losses[side] = loss_now(&w);
        }
        const double measured = (losses[0] - losses[1]) / (2 * h);
        if (fabs(measured - along) > (across->way == RT_ACROSS_ULD ? 0.02 : 0.01) * fabs(along) + 1e-4)
            fail_msg("way %d, turn %d: %g along the direction, %g measured", (int)across->way, turn, along,
                     measured);
    }
    free(direction);
    free(start);
    free(grad);
    world_close(&w);
}

static void gradients_agree_with_differences(void **state)
{
    (void)state;
    const rt_across_options ways[] = {{.way = RT_ACROSS_MAP, .ce = 1},
                                      {.way = RT_ACROSS_MAP, .ce = 0},
                                      {.way = RT_ACROSS_CHUNKS, .weight = 1, .ce = 0, .tau = INFINITY},
                                      {.way = RT_ACROSS_CHUNKS, .weight = 0.7, .ce = 0.5, .tau = INFINITY},
                                      {.way = RT_ACROSS_CHUNKS, .weight = 1, .ce = 0.2, .tau = 3},
                                      {.way = RT_ACROSS_ULD, .weight = 1.5, .ce = 0.5}};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++)
        check_gradient(&ways[i]);
}

static void one_tokenizer_twice_is_the_plain_loss(void **state)
{
    (void)state;
    const rt_across_options map = {.way = RT_ACROSS_MAP, .ce = 1};
    world plain, across;
    world_open(&plain, NULL, 1, RT_PRECISION_F32, true);
    world_open(&across, &map, 1, RT_PRECISION_F32, true);
    memcpy(across.trainer->values, plain.trainer->values, plain.trainer->total * sizeof(float));
    const double a = loss_now(&plain), b = loss_now(&across);
    assert_true(fabs(a - b) < 2e-5 * fabs(a));
    double worst = 0, largest = 0;
    for (size_t i = 0; i < plain.trainer->total; i++) {
        worst = fmax(worst, fabs((double)plain.trainer->grads[i] - (double)across.trainer->grads[i]));
        largest = fmax(largest, fabs((double)plain.trainer->grads[i]));
    }
    assert_true(worst < 1e-4 * largest);
    assert_true(fabs(plain.trainer->sum.kl_forward - across.trainer->sum.kl_forward) <
                1e-4 * plain.trainer->sum.kl_forward);
    world_close(&plain);
    world_close(&across);
}

static bool stop_at_two(void *context, const rt_run_progress *p) { return !context || p->steps_done != 2; }

static void run_whole(world *w, const rt_across_options *way, unsigned threads, rt_precision precision,
                      bool stop)
{
    rt_error err = {0};
    rt_run_state state;
    uint64_t resumed;
    world_open(w, way, threads, precision, false);
    rt_run_options options = {.dir = w->dir,
                              .identity = identity,
                              .seed = 9,
                              .steps = STEPS,
                              .micro_batches = 2,
                              .across = &w->text};
    rt_status status =
        rt_run(w->trainer, &w->docs, &options, stop_at_two, stop ? w : NULL, &state, &resumed, &err);
    if (!stop) {
        assert_int_equal(status, RT_OK);
        return;
    }
    assert_int_equal(status, RT_STOPPED);
    world again; /* another process: fresh weights, the folder of the first */
    world_open(&again, way, threads, precision, false);
    options.dir = w->dir;
    options.across = &again.text;
    status = rt_run(again.trainer, &again.docs, &options, NULL, NULL, &state, &resumed, &err);
    assert_int_equal(status, RT_OK);
    assert_int_equal(resumed, 2);
    memcpy(w->trainer->values, again.trainer->values, w->trainer->total * sizeof(float));
    world_close(&again);
}

static void stopped_runs_and_other_thread_counts_give_the_same_bits(void **state)
{
    (void)state;
    const rt_across_options ways[] = {{.way = RT_ACROSS_MAP, .ce = 1},
                                      {.way = RT_ACROSS_CHUNKS, .weight = 1, .ce = 0.5, .tau = INFINITY},
                                      {.way = RT_ACROSS_ULD, .weight = 1, .ce = 0.5}};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++)
        for (int bf16 = 0; bf16 < 2; bf16++) {
            const rt_precision precision = bf16 ? RT_PRECISION_BF16 : RT_PRECISION_F32;
            world whole, stopped, shared;
            run_whole(&whole, &ways[i], 1, precision, false);
            run_whole(&stopped, &ways[i], 1, precision, true);
            run_whole(&shared, &ways[i], 3, precision, false);
            const size_t bytes = whole.trainer->total * sizeof(float);
            assert_memory_equal(whole.trainer->values, stopped.trainer->values, bytes);
            assert_memory_equal(whole.trainer->values, shared.trainer->values, bytes);
            world_close(&whole);
            world_close(&stopped);
            world_close(&shared);
        }
}

/* ---- the start ---- */

static void a_new_token_starts_as_the_mean_of_its_pieces(void **state)
{
    (void)state;
    rt_error err = {0};
    rt_weights *weights;
    rt_model_config theirs;
    rt_layout from, to;
    rt_tokenizer *small = learn("gpt2", 300, lesson, "<|end|>"),
                 *large = learn("gpt2", 320, lesson, "<|stop|>");
    assert_int_equal(rt_weights_open(&weights, RT_TEST_SOURCE_DIR "/data/teacher-small.gguf", &err), RT_OK);
    assert_int_equal(rt_model_config_read(&theirs, weights, &err), RT_OK);
    rt_model_config ours = theirs;
    ours.n_vocab = rt_tokenizer_size(large) + 3;
    assert_int_equal(rt_layout_build(&from, &theirs, &err), RT_OK);
    assert_int_equal(rt_layout_build(&to, &ours, &err), RT_OK);
    float *a = calloc(from.total, sizeof *a), *b = calloc(to.total, sizeof *b);
    assert_int_equal(rt_params_load(a, &from, &theirs, weights, &theirs, NULL, NULL, &err), RT_OK);
    assert_int_equal(rt_params_load_inner(b, &to, &ours, weights, &theirs, NULL, NULL, &err), RT_OK);
    /* the file's rows are taken for those of `small`, as far as it has ids */
    assert_int_equal(rt_vocab_start(b, &to, large, weights, &theirs, small, &err), RT_OK);
    const size_t d = theirs.n_embd, n = theirs.n_vocab;
    const float *rows = a + rt_layout_global(&from, RT_GLOBAL_EMBED)->offset,
                *made = b + rt_layout_global(&to, RT_GLOBAL_EMBED)->offset;
    size_t several = 0;
    for (int32_t id = 0; id < (int32_t)rt_tokenizer_size(large) + 3; id++) {
        rt_token_list ids = {0};
        size_t size, used = 0;
        const bool real = id < (int32_t)rt_tokenizer_size(large);
        const char *text = real ? rt_tokenizer_token_bytes(large, id, &size) : "";
        if (real)
            assert_int_equal(rt_tokenizer_encode(small, text, size, id < 2, &ids, &err), RT_OK);
        if (id == 1) { /* ends answers there as well */
            ids.count = 1;
            ids.ids[0] = 1;
        }
        for (size_t i = 0; i < d; i++) {
            double sum = 0, mean = 0;
            used = 0;
            for (size_t k = 0; k < ids.count; k++)
                if ((size_t)ids.ids[k] < n) {
                    sum += (double)rows[(size_t)ids.ids[k] * d + i];
                    used++;
                }
            for (size_t r = 0; r < n && !used; r++)
                mean += (double)rows[r * d + i] / (double)n;
            assert_true(fabs((double)made[(size_t)id * d + i] - (used ? sum / (double)used : mean)) < 1e-6);
        }
        several += used > 1;
        rt_token_list_deinit(&ids);
    }
    assert_true(several > 5);
    const rt_param *norm = rt_layout_global(&to, RT_GLOBAL_NORM);
    assert_memory_equal(b + norm->offset, a + rt_layout_global(&from, RT_GLOBAL_NORM)->offset,
                        norm->count * sizeof *a); /* the rest is the file's */
    free(a);
    free(b);
    rt_layout_free(&from);
    rt_layout_free(&to);
    rt_weights_close(weights);
    rt_tokenizer_close(small);
    rt_tokenizer_close(large);
}

/* ---- sorted distributions ---- */

typedef struct plain_rank {
    double p;
    size_t id;
} plain_rank;

static int plainly(const void *a, const void *b)
{
    const plain_rank *x = a, *y = b;
    if (x->p != y->p)
        return x->p > y->p ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static void sort_plainly(plain_rank *out, const float *z, size_t n)
{
    double max = -HUGE_VAL, sum = 0;
    for (size_t i = 0; i < n; i++)
        max = fmax(max, (double)z[i]);
    for (size_t i = 0; i < n; i++)
        sum += exp((double)z[i] - max);
    for (size_t i = 0; i < n; i++)
        out[i] = (plain_rank){exp((double)z[i] - max) / sum, i};
    qsort(out, n, sizeof *out, plainly);
}

/* Rows with what makes an order hard: equal logits, both zeros, -inf, logits that differ and have one
 * probability, probabilities of 0. */
static void fill_row(float *z, size_t n, rt_rng *rng, int kind)
{
    for (size_t i = 0; i < n; i++) {
        const double x = rt_rng_normal(rng);
        const uint64_t pick = rt_rng_below(rng, 8);
        z[i] = (float)(kind == 0 ? 4 * x : kind == 1 ? round(2 * x) : kind == 2 ? 400 * x : 1e-30 * x);
        if (kind == 3 && pick == 0)
            z[i] = 20;
        if (kind && pick == 1)
            z[i] = rt_rng_below(rng, 2) ? 0.0F : -0.0F;
        if (kind && pick == 2 && i)
            z[i] = -INFINITY;
    }
}

static void sorted_distributions_are_those_of_a_plain_sort_to_the_last_bit(void **state)
{
    (void)state;
    enum { MOST = 3000 };
    rt_rng rng = rt_rng_make(21, 0);
    float *z = calloc(2 * MOST, sizeof *z), *zt = z + MOST;
    double *grad = calloc(2 * MOST, sizeof *grad), *wanted = grad + MOST;
    plain_rank *p = calloc(2 * MOST, sizeof *p), *q = p + MOST;
    void *work = malloc(rt_uld_work_bytes(MOST, MOST));
    assert_true(z && grad && p && work);
    for (int round = 0; round < 64; round++) {
        const size_t n = 1 + rt_rng_below(&rng, MOST), m = 1 + rt_rng_below(&rng, MOST);
        fill_row(z, n, &rng, round % 4);
        fill_row(zt, m, &rng, round / 4 % 4);
        sort_plainly(p, z, n);
        sort_plainly(q, zt, m);
        double loss = 0, mean = 0;
        for (size_t i = 0; i < n; i++) {
            const double d = p[i].p - (i < m ? q[i].p : 0);
            loss += fabs(d);
            wanted[p[i].id] = p[i].p * ((d > 0) - (d < 0));
            mean += wanted[p[i].id];
        }
        for (size_t i = n; i < m; i++)
            loss += q[i].p;
        for (size_t i = 0; i < n; i++)
            wanted[p[i].id] -= p[i].p * mean;
        const double got = rt_uld_row(z, n, zt, m, grad, work);
        assert_memory_equal(&got, &loss, sizeof got);
        for (size_t i = 0; i < n; i++)
            if (grad[i] != wanted[i])
                fail_msg("round %d: id %zu has %a, not %a", round, i, grad[i], wanted[i]);
    }
    free(z);
    free(grad);
    free(p);
    free(work);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sorted_distributions_are_those_of_a_plain_sort_to_the_last_bit),
        cmocka_unit_test(borders_are_where_both_sides_have_said_the_same),
        cmocka_unit_test(each_teacher_token_gives_its_mass_to_the_id_that_begins_it),
        cmocka_unit_test(gradients_agree_with_differences),
        cmocka_unit_test(one_tokenizer_twice_is_the_plain_loss),
        cmocka_unit_test(stopped_runs_and_other_thread_counts_give_the_same_bits),
        cmocka_unit_test(a_new_token_starts_as_the_mean_of_its_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
