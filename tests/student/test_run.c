/* tests/student/test_run.c - training runs: the same bits however they are cut, shared out or batched. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <signal.h>
#include <unistd.h>

#include "base/file.h"
#include "base/rng.h"
#include "student/run.h"

static const char identity[65] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
static const char other_identity[65] = "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
enum { STEPS = 6, BATCH = 128 };

typedef struct world { /* a tiny teacher, a one-layer student of it, random text */
    rt_pool *pool;
    rt_weights *weights;
    rt_model *teacher;
    rt_documents docs;
    rt_trainer *trainer;
    rt_own own;
    char dir[64];
} world;

/* Half of the steps on the student's own answers, by this objective; NULL: none. */
static const rt_own_options *own_options;

/* Everything that a run can carry: features with projections, a weight and a temperature that move, TAID. */
static bool rich;

static void make_rich(rt_trainer_options *o)
{
    o->mix = (rt_loss_mix){
        .n_terms = 2,
        .terms = {{0.7, {.kind = RT_LOSS_TAID, .tau = 1, .t = 0.4}}, {0.3, {.kind = RT_LOSS_CE, .tau = 1}}}};
    o->course = (rt_course){.n_ramps = 1,
                            .ramps = {{.term = 1, .of = RT_RAMP_WEIGHT, .from = 0.3, .over = 1}},
                            .adaptive = true,
                            .taid = rt_taid_make(0.4, 1, 5e-4, 0.99, STEPS)};
    o->features = (rt_feature_options){.hidden_weight = 0.5,
                                       .hidden = RT_HIDDEN_COSINE,
                                       .projection = true,
                                       .n_pairs = 1,
                                       .pairs = {{0, 1}},
                                       .relation_weight = 0.5,
                                       .relations = RT_RELATION_Q | RT_RELATION_V,
                                       .relation_teacher = 1,
                                       .sequence_max = BATCH};
    o->seed = 3;
}

static void make_text(rt_documents *docs)
{
    rt_rng rng = rt_rng_make(5, 0);
    rt_error err = {0};
    for (size_t doc = 0; doc < 40; doc++) {
        int32_t ids[60];
        uint8_t mask[60];
        const size_t n = 5 + (size_t)rt_rng_below(&rng, 50);
        for (size_t i = 0; i < n; i++) {
            ids[i] = (int32_t)rt_rng_below(&rng, 96) + 1;
            mask[i] = i > n / 3;
        }
        assert_int_equal(rt_documents_add(docs, ids, mask, n, &err), RT_OK);
    }
}

static void world_open(world *w, unsigned threads, rt_precision precision, double lr)
{
    rt_error err = {0};
    memset(w, 0, sizeof *w);
    (void)snprintf(w->dir, sizeof w->dir, "/tmp/retort-test-run-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    assert_int_equal(rt_pool_open(&w->pool, threads, &err), RT_OK);
    assert_int_equal(rt_weights_open(&w->weights, RT_TEST_SOURCE_DIR "/tests/golden/engine/llama", &err),
                     RT_OK);
    assert_int_equal(rt_model_open(&w->teacher, w->weights, precision, w->pool, &err), RT_OK);
    make_text(&w->docs);
    rt_model_config config = w->teacher->config;
    config.n_layers = 1;
    rt_trainer_options options = {
        .mix = {.n_terms = 2,
                .terms = {{0.7, {.kind = RT_LOSS_FKL, .tau = 2, .tau2 = true}},
                          {0.3, {.kind = RT_LOSS_CE, .tau = 1}}}},
        .adamw = {lr, 0.9, 0.95, 1e-8, 0.1},
        .schedule = {.kind = RT_SCHEDULE_COSINE, .warmup = 1, .total = STEPS, .floor = 0.1},
        .clip = 1,
        .precision = precision,
        .tokens_max = BATCH};
    if (rich)
        make_rich(&options);
    assert_int_equal(rt_trainer_open(&w->trainer, &config, w->teacher, &options, w->pool, &err), RT_OK);
    const size_t map[] = {1};
    assert_int_equal(rt_params_load(w->trainer->values, &w->trainer->layout, &config, w->weights,
                                    &w->teacher->config, map, w->pool, &err),
                     RT_OK);
    rt_trainer_sync(w->trainer);
    if (own_options)
        assert_int_equal(rt_own_open(&w->own, own_options, &w->docs, NULL, BATCH, &err), RT_OK);
}

static void world_close(world *w)
{
    char command[128];
    rt_own_close(&w->own);
    rt_trainer_close(w->trainer);
    rt_documents_deinit(&w->docs);
    rt_model_close(w->teacher);
    rt_weights_close(w->weights);
    rt_pool_close(w->pool);
    const char *names[] = {"checkpoint.safetensors", "log.jsonl"};
    for (size_t i = 0; i < 2; i++) {
        (void)snprintf(command, sizeof command, "%s/%s", w->dir, names[i]);
        (void)unlink(command);
    }
    assert_int_equal(rmdir(w->dir), 0); /* nothing else was left behind */
}

typedef struct stop_at {
    uint64_t step;
} stop_at;

static bool stop_after(void *context, const rt_run_progress *p)
{
    return p->steps_done != ((const stop_at *)context)->step;
}

static rt_status run_in(world *w, const char *dir, size_t micro, stop_at *stop, uint64_t *resumed,
                        rt_error *err)
{
    rt_run_state state;
    const rt_run_options options = {.dir = dir,
                                    .identity = identity,
                                    .seed = 9,
                                    .steps = STEPS,
                                    .micro_batches = micro,
                                    .own = own_options ? &w->own : NULL};
    return rt_run(w->trainer, &w->docs, &options, stop ? stop_after : NULL, stop, &state, resumed, err);
}

static char *log_of(const char *dir)
{
    char path[128], *text;
    size_t size;
    rt_error err = {0};
    (void)snprintf(path, sizeof path, "%s/log.jsonl", dir);
    assert_int_equal(rt_file_read(&text, &size, path, 1 << 20, &err), RT_OK);
    return text;
}

static void assert_same_state(const world *a, const world *b)
{
    const size_t bytes = a->trainer->total * sizeof(float);
    assert_memory_equal(a->trainer->values, b->trainer->values, bytes);
    assert_memory_equal(a->trainer->m, b->trainer->m, bytes);
    assert_memory_equal(a->trainer->v, b->trainer->v, bytes);
}

static void resume_case(rt_precision precision)
{
    world whole, cut;
    rt_error err = {0};
    uint64_t resumed;
    world_open(&whole, 2, precision, 3e-3);
    assert_int_equal(run_in(&whole, whole.dir, 2, NULL, &resumed, &err), RT_OK);
    assert_int_equal(resumed, 0);
    world_open(&cut, 1, precision, 3e-3); /* another number of threads on top */
    char kept[64];
    memcpy(kept, cut.dir, sizeof kept);
    for (uint64_t step = 1; step < STEPS; step += 2) { /* a new process each time */
        stop_at stop = {step};
        assert_int_equal(run_in(&cut, kept, 2, &stop, &resumed, &err), RT_STOPPED);
        assert_non_null(strstr(err.text, "goes on"));
        char fresh[64];
        memcpy(fresh, cut.dir, sizeof fresh);
        if (strcmp(fresh, kept) != 0)
            assert_int_equal(rmdir(fresh), 0);
        memcpy(cut.dir, kept, sizeof kept);
        rt_own_close(&cut.own);
        rt_trainer_close(cut.trainer);
        cut.trainer = NULL;
        world next;
        world_open(&next, step % 3 ? 2 : 1, precision, 3e-3);
        rt_documents_deinit(&cut.docs);
        rt_model_close(cut.teacher);
        rt_weights_close(cut.weights);
        rt_pool_close(cut.pool);
        cut = next;
        cut.own.texts = &cut.docs;
    }
    assert_int_equal(run_in(&cut, kept, 2, NULL, &resumed, &err), RT_OK);
    assert_int_equal(resumed, STEPS - 1);
    assert_same_state(&whole, &cut);
    char *a = log_of(whole.dir), *b = log_of(kept);
    size_t lines = 0;
    for (const char *p = b; *p; p++)
        lines += *p == '\n';
    assert_int_equal(lines, STEPS);
    free(a);
    free(b);
    assert_int_equal(rmdir(cut.dir), 0);
    memcpy(cut.dir, kept, sizeof kept);
    world_close(&cut);
    world_close(&whole);
}

static void a_run_cut_at_any_step_gives_the_bits_of_the_whole_run_f32(void **state)
{
    (void)state;
    resume_case(RT_PRECISION_F32);
}

static void a_run_cut_at_any_step_gives_the_bits_of_the_whole_run_bf16(void **state)
{
    (void)state;
    resume_case(RT_PRECISION_BF16);
}

static void the_number_of_threads_changes_no_bit(void **state)
{
    (void)state;
    world one, three;
    rt_error err = {0};
    uint64_t resumed;
    world_open(&one, 1, RT_PRECISION_BF16, 3e-3);
    world_open(&three, 3, RT_PRECISION_BF16, 3e-3);
    assert_int_equal(run_in(&one, one.dir, 1, NULL, &resumed, &err), RT_OK);
    assert_int_equal(run_in(&three, three.dir, 1, NULL, &resumed, &err), RT_OK);
    assert_same_state(&one, &three);
    world_close(&one);
    world_close(&three);
}

static void features_and_courses_resume_bit_for_bit(void **state)
{
    rich = true;
    resume_case(RT_PRECISION_F32);
    resume_case(RT_PRECISION_BF16);
    the_number_of_threads_changes_no_bit(state);
    rich = false;
}

static rt_own_options own_case(bool sampled, rt_policy_kind kind)
{
    return (rt_own_options){
        .share = 0.7,
        .answers = 9,
        .tokens_max = 20,
        .document_max = 40,
        .temperature = 1,
        .top_p = 1,
        .objective = {.mix = {.n_terms = 1, .terms = {{1, {.kind = RT_LOSS_RKL, .tau = 1}}}}},
        .sampled = sampled,
        .policy = {.kind = kind, .clip_low = 0.2, .clip_high = 0.2, .cap = 2},
        .seed = 4};
}

static void steps_on_own_answers_resume_bit_for_bit(void **state)
{
    const rt_own_options cases[] = {own_case(false, RT_POLICY_IS), own_case(true, RT_POLICY_IS),
                                    own_case(true, RT_POLICY_CLIP), own_case(true, RT_POLICY_TRUNCATED)};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        own_options = &cases[i];
        resume_case(RT_PRECISION_F32);
        resume_case(RT_PRECISION_BF16);
        the_number_of_threads_changes_no_bit(state);
    }
    own_options = NULL;
}

static double mean_reverse_kl(const char *log, bool last_half)
{
    double sum = 0;
    size_t n = 0, step = 0;
    for (const char *line = log; *line; line = strchr(line, '\n') + 1, step++) {
        const char *at = strstr(line, "\"kl_reverse\":");
        if (!at || (step >= 3) != last_half)
            continue;
        sum += strtod(at + 13, NULL);
        n++;
    }
    assert_true(n > 0);
    return sum / (double)n;
}

/* On its own text the student comes nearer to the teacher, by each objective. */
static void the_reverse_kl_falls_on_own_answers(void **state)
{
    (void)state;
    for (int sampled = 0; sampled < 2; sampled++) {
        rt_own_options options = own_case(sampled != 0, RT_POLICY_IS);
        options.share = 1;
        options.answers = 24;
        own_options = &options;
        world w;
        rt_error err = {0};
        uint64_t resumed;
        world_open(&w, 2, RT_PRECISION_F32, 1e-2);
        assert_int_equal(run_in(&w, w.dir, 6, NULL, &resumed, &err), RT_OK);
        char *log = log_of(w.dir);
        const double first = mean_reverse_kl(log, false), last = mean_reverse_kl(log, true);
        if (!(last < first))
            fail_msg("sampled %d: reverse KL %g, then %g", sampled, first, last);
        assert_non_null(strstr(log, "\"own\":true"));
        assert_true(w.own.answers >= 24 && w.own.stopped == 0);
        free(log);
        world_close(&w);
    }
    own_options = NULL;
}

/* Every array of the set at hand is under a sum. */
static void damaged_own_answers_are_named(void **state)
{
    (void)state;
    const rt_own_options options = own_case(true, RT_POLICY_IS);
    own_options = &options;
    static const char *const names[] = {"own_ids", "own_mask", "own_logp", "own_begins"};
    world w;
    rt_error err = {0};
    uint64_t resumed;
    world_open(&w, 1, RT_PRECISION_F32, 3e-3);
    stop_at stop = {STEPS - 1};
    assert_int_equal(run_in(&w, w.dir, 1, &stop, &resumed, &err), RT_STOPPED);
    char path[128], *data;
    size_t size;
    (void)snprintf(path, sizeof path, "%s/checkpoint.safetensors", w.dir);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(rt_file_read(&data, &size, path, 1 << 24, &err), RT_OK);
        rt_weights *file;
        assert_int_equal(rt_weights_open(&file, path, &err), RT_OK);
        const rt_weight *part = rt_weights_find(file, names[i]);
        assert_true(part && part->bytes > 0);
        char *at = memmem(data, size, part->data, part->bytes);
        assert_non_null(at);
        at[part->bytes / 2] ^= 4;
        rt_weights_close(file);
        char *kept = NULL;
        size_t kept_size;
        assert_int_equal(rt_file_read(&kept, &kept_size, path, 1 << 24, &err), RT_OK);
        assert_int_equal(rt_file_write(path, data, size, &err), RT_OK);
        assert_int_equal(run_in(&w, w.dir, 1, NULL, &resumed, &err), RT_CORRUPT);
        assert_non_null(strstr(err.text, "own answers"));
        assert_int_equal(rt_file_write(path, kept, kept_size, &err), RT_OK);
        free(data);
        free(kept);
    }
    world_close(&w);
    own_options = NULL;
}

static void prompts_that_leave_no_room_are_refused(void **state)
{
    (void)state;
    rt_documents docs = {0};
    rt_own own;
    rt_error err = {0};
    const rt_own_options options = own_case(false, RT_POLICY_IS); /* 40 tokens, 20 of them the answer's */
    int32_t ids[40] = {0};
    uint8_t mask[40] = {0};
    mask[30] = 1;
    assert_int_equal(rt_documents_add(&docs, ids, mask, 40, &err), RT_OK); /* a prompt of 30 */
    memset(mask, 1, sizeof mask);
    assert_int_equal(rt_documents_add(&docs, ids, mask, 40, &err), RT_OK); /* none at all */
    assert_int_equal(rt_own_open(&own, &options, &docs, NULL, BATCH, &err), RT_INVALID);
    assert_non_null(strstr(err.text, "none of the 2 documents"));
    rt_documents_deinit(&docs);
}

static void a_checkpoint_of_other_settings_is_refused_and_kept(void **state)
{
    (void)state;
    world w;
    rt_error err = {0};
    uint64_t resumed;
    world_open(&w, 1, RT_PRECISION_F32, 3e-3);
    assert_int_equal(run_in(&w, w.dir, 1, NULL, &resumed, &err), RT_OK);
    rt_run_state at;
    const rt_run_options options = {
        .dir = w.dir, .identity = other_identity, .seed = 9, .steps = STEPS, .micro_batches = 1};
    assert_int_equal(rt_run(w.trainer, &w.docs, &options, NULL, NULL, &at, &resumed, &err), RT_MISMATCH);
    assert_non_null(strstr(err.text, "other settings"));
    assert_int_equal(run_in(&w, w.dir, 1, NULL, &resumed, &err), RT_OK); /* still there: nothing left to do */
    assert_int_equal(resumed, STEPS);
    world_close(&w);
}

static void a_damaged_checkpoint_is_named_and_never_used(void **state)
{
    (void)state;
    world w;
    rt_error err = {0};
    uint64_t resumed;
    world_open(&w, 1, RT_PRECISION_F32, 3e-3);
    assert_int_equal(run_in(&w, w.dir, 1, NULL, &resumed, &err), RT_OK);
    char path[128], *data;
    size_t size;
    (void)snprintf(path, sizeof path, "%s/checkpoint.safetensors", w.dir);
    assert_int_equal(rt_file_read(&data, &size, path, 1 << 28, &err), RT_OK);
    data[size / 2] ^= 4;
    assert_int_equal(rt_file_write(path, data, size, &err), RT_OK);
    assert_int_equal(run_in(&w, w.dir, 1, NULL, &resumed, &err), RT_CORRUPT);
    assert_non_null(strstr(err.text, "damaged"));
    assert_int_equal(rt_file_write(path, data, size / 3, &err), RT_OK);
    assert_true(run_in(&w, w.dir, 1, NULL, &resumed, &err) != RT_OK);
    free(data);
    world_close(&w);
}

static void a_full_disk_stops_the_run_and_keeps_the_last_checkpoint(void **state)
{
    (void)state;
    world w;
    rt_error err = {0};
    uint64_t resumed;
    world_open(&w, 1, RT_PRECISION_F32, 3e-3);
    stop_at stop = {2};
    assert_int_equal(run_in(&w, w.dir, 1, &stop, &resumed, &err), RT_STOPPED);
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 20000;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    const rt_status status = run_in(&w, w.dir, 1, NULL, &resumed, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    (void)signal(SIGXFSZ, handler);
    assert_int_equal(status, RT_IO);
    assert_int_equal(run_in(&w, w.dir, 1, NULL, &resumed, &err), RT_OK);
    assert_int_equal(resumed, 2);
    world_close(&w);
}

static void a_loss_that_is_not_finite_stops_with_step_and_keeps_the_checkpoint(void **state)
{
    (void)state;
    world w;
    rt_error err = {0};
    uint64_t resumed;
    world_open(&w, 1, RT_PRECISION_F32, 3e-3);
    stop_at stop = {1};
    assert_int_equal(run_in(&w, w.dir, 1, &stop, &resumed, &err), RT_STOPPED);
    const rt_param *norm = rt_layout_global(&w.trainer->layout, RT_GLOBAL_NORM);
    const float kept = w.trainer->values[norm->offset];
    ((float *)(size_t)w.teacher->norm)[3] = NAN; /* the teacher's outputs become NaN */
    assert_int_equal(run_in(&w, w.dir, 1, NULL, &resumed, &err), RT_NOT_FINITE);
    assert_non_null(strstr(err.text, "step 2"));
    assert_true(w.trainer->values[norm->offset] == kept);
    ((float *)(size_t)w.teacher->norm)[3] = 1;
    assert_int_equal(run_in(&w, w.dir, 1, NULL, &resumed, &err), RT_OK);
    assert_int_equal(resumed, 1);
    world_close(&w);
}

static void the_loss_falls(void **state)
{
    (void)state;
    world w;
    rt_error err = {0};
    uint64_t resumed;
    world_open(&w, 2, RT_PRECISION_BF16, 3e-3);
    assert_int_equal(run_in(&w, w.dir, 4, NULL, &resumed, &err), RT_OK);
    char *log = log_of(w.dir);
    size_t first = 0, last = 0; /* where the first and the last loss begin, past the key */
    for (size_t at = 0; log[at]; at++) {
        if (strncmp(log + at, "\"loss\":", 7) != 0)
            continue;
        last = at + 7;
        first = first ? first : last;
    }
    assert_true(first && strtod(log + last, NULL) < 0.95 * strtod(log + first, NULL));
    free(log);
    world_close(&w);
}

static void a_batch_is_a_function_of_seed_and_cursor(void **state)
{
    (void)state;
    rt_documents docs = {0};
    make_text(&docs);
    rt_dealer a, b;
    rt_deal da, db;
    rt_error err = {0};
    assert_int_equal(rt_dealer_init(&a, &docs, 3, BATCH, &err), RT_OK);
    assert_int_equal(rt_dealer_init(&b, &docs, 3, BATCH, &err), RT_OK);
    assert_int_equal(rt_deal_init(&da, BATCH, &err), RT_OK);
    assert_int_equal(rt_deal_init(&db, BATCH, &err), RT_OK);
    for (size_t i = 0; i < 40; i++) {
        b.cursor = a.cursor;
        rt_dealer_next(&a, &da);
        rt_dealer_next(&b, &db);
        assert_int_equal(da.batch.n_tokens, db.batch.n_tokens);
        assert_int_equal(da.batch.n_tokens % 32, 0);
        assert_true(da.batch.n_tokens <= BATCH);
        assert_memory_equal(da.ids, db.ids, da.batch.n_tokens * sizeof *da.ids);
        for (size_t k = 0; k < da.targets.n; k++) /* a label is the id that follows, within its document */
            assert_int_equal(da.labels[k], da.ids[da.rows[k] + 1]);
    }
    assert_true(a.cursor > docs.n_docs); /* more than one epoch was dealt */
    rt_dealer_deinit(&a);
    rt_dealer_deinit(&b);
    rt_deal_deinit(&da);
    rt_deal_deinit(&db);
    rt_documents_deinit(&docs);
}

static void text_without_a_target_and_documents_too_long_are_refused(void **state)
{
    (void)state;
    rt_documents docs = {0};
    rt_dealer dealer;
    rt_error err = {0};
    const int32_t ids[100] = {0};
    const uint8_t none[100] = {0};
    assert_int_equal(rt_dealer_init(&dealer, &docs, 1, BATCH, &err), RT_INVALID);
    assert_int_equal(rt_documents_add(&docs, ids, none, 100, &err), RT_OK);
    assert_int_equal(rt_dealer_init(&dealer, &docs, 1, BATCH, &err), RT_INVALID);
    assert_int_equal(rt_documents_add(&docs, ids, NULL, 100, &err), RT_OK);
    assert_int_equal(rt_dealer_init(&dealer, &docs, 1, 64, &err), RT_INVALID);
    assert_non_null(strstr(err.text, "100 tokens"));
    rt_documents_deinit(&docs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_cut_at_any_step_gives_the_bits_of_the_whole_run_f32),
        cmocka_unit_test(a_run_cut_at_any_step_gives_the_bits_of_the_whole_run_bf16),
        cmocka_unit_test(the_number_of_threads_changes_no_bit),
        cmocka_unit_test(features_and_courses_resume_bit_for_bit),
        cmocka_unit_test(steps_on_own_answers_resume_bit_for_bit),
        cmocka_unit_test(the_reverse_kl_falls_on_own_answers),
        cmocka_unit_test(damaged_own_answers_are_named),
        cmocka_unit_test(prompts_that_leave_no_room_are_refused),
        cmocka_unit_test(a_checkpoint_of_other_settings_is_refused_and_kept),
        cmocka_unit_test(a_damaged_checkpoint_is_named_and_never_used),
        cmocka_unit_test(a_full_disk_stops_the_run_and_keeps_the_last_checkpoint),
        cmocka_unit_test(a_loss_that_is_not_finite_stops_with_step_and_keeps_the_checkpoint),
        cmocka_unit_test(the_loss_falls),
        cmocka_unit_test(a_batch_is_a_function_of_seed_and_cursor),
        cmocka_unit_test(text_without_a_target_and_documents_too_long_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
