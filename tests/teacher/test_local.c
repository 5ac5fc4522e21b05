/* tests/teacher/test_local.c - a model file as teacher: answers and scores, the same from memory and from
 * disk, whatever else is in the batch. */
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
#include "model/session.h"
#include "teacher/local.h"

#define OK(call)                                                                                             \
    do {                                                                                                     \
        if ((call) != RT_OK)                                                                                 \
            fail_msg("%s", err.text);                                                                        \
    } while (0)

enum { VOCAB = 97, TEXTS = 7, TEXT_MAX = 60 };
static char folder[] = "/tmp/retort-local-"
                       "XX"
                       "XX"
                       "XX";
static rt_pool *pool;

/* The golden model with a tokenizer: each id above 0 is one printable byte, 0 ends an answer. */
static int make_folder(void **state)
{
    (void)state;
    static const char *const files[] = {"config.json", "model.safetensors"};
    rt_error err = {0};
    char from[512], to[512], word[2] = {0};
    if (!mkdtemp(folder) || rt_pool_open(&pool, 2, &err) != RT_OK)
        return 1;
    for (size_t i = 0; i < 2; i++) {
        (void)snprintf(from, sizeof from, RT_TEST_SOURCE_DIR "/tests/golden/engine/llama/%s", files[i]);
        (void)snprintf(to, sizeof to, "%s/%s", folder, files[i]);
        if (symlink(from, to) != 0)
            return 1;
    }
    json_t *vocab = json_object();
    (void)json_object_set_new(vocab, "<|endoftext|>", json_integer(0));
    for (int id = 1; id < 95; id++) {
        word[0] = (char)(32 + id);
        (void)json_object_set_new(vocab, word, json_integer(id));
    }
    (void)json_object_set_new(vocab, "\xC4\xA0", json_integer(95)); /* a blank */
    (void)json_object_set_new(vocab, "\xC4\x8A", json_integer(96)); /* a new line */
    json_t *json =
        json_pack("{s:s, s:n, s:n, s:[{s:i, s:s, s:b, s:b, s:b, s:b, s:b}], s:{s:s, s:b, s:b}, s:{s:s}, "
                  "s:{s:s, s:o, s:[]}}",
                  "version", "1.0", "normalizer", "post_processor", "added_tokens", "id", 0, "content",
                  "<|endoftext|>", "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1,
                  "pre_tokenizer", "type", "ByteLevel", "add_prefix_space", 0, "use_regex", 1, "decoder",
                  "type", "ByteLevel", "model", "type", "BPE", "vocab", vocab, "merges");
    (void)snprintf(to, sizeof to, "%s/tokenizer.json", folder);
    const rt_status status = rt_json_write(to, json, &err);
    json_decref(json);
    return status != RT_OK;
}

static int drop_folder(void **state)
{
    (void)state;
    static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json"};
    char path[512];
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        (void)unlink(path);
    }
    rt_pool_close(pool);
    return rmdir(folder);
}

static rt_teacher *open_teacher(bool stream, size_t n_slots, size_t batch_tokens)
{
    rt_error err = {0};
    rt_teacher *teacher;
    const rt_local_options options = {.precision = RT_PRECISION_F32,
                                      .stream = stream,
                                      .n_slots = n_slots,
                                      .n_positions = 100,
                                      .batch_tokens = batch_tokens,
                                      .seed = 3};
    OK(rt_local_open(&teacher, folder, &options, pool, &err));
    return teacher;
}

/* ---- score ---- */

typedef struct scored {
    int32_t ids[TEXTS][TEXT_MAX];
    size_t lengths[TEXTS], next, ended, refused;
    float dense[TEXTS][TEXT_MAX][VOCAB];
    float tail[TEXTS][TEXT_MAX], sum[TEXTS][TEXT_MAX];
    size_t last_position[TEXTS], counts[VOCAB];
    bool bad_id;
} scored;

static scored *make_texts(void)
{
    scored *s = calloc(1, sizeof *s);
    for (size_t t = 0; t < TEXTS; t++) {
        s->lengths[t] = 2 + t * 9;
        for (size_t i = 0; i < s->lengths[t]; i++)
            s->ids[t][i] = (int32_t)(1 + (i * 13 + t * 5) % 90);
    }
    return s;
}

static rt_next next_text(void *context, rt_score_ask *out)
{
    scored *s = context;
    static const int32_t outside[] = {1, 97};
    if (s->bad_id && s->next == 1) {
        s->bad_id = false;
        *out = (rt_score_ask){99, outside, 2};
        return RT_NEXT_TAKE;
    }
    if (s->next == TEXTS)
        return RT_NEXT_END;
    *out = (rt_score_ask){s->next, s->ids[s->next], s->lengths[s->next]};
    s->next++;
    return RT_NEXT_TAKE;
}

static bool keep_dense(void *context, uint64_t tag, size_t first, size_t n, const float *logits,
                       size_t n_vocab)
{
    scored *s = context;
    assert_int_equal(n_vocab, VOCAB);
    assert_int_equal(first, s->last_position[tag] + 1);
    for (size_t i = 0; i < n; i++)
        memcpy(s->dense[tag][first + i], logits + i * VOCAB, VOCAB * sizeof *logits);
    s->last_position[tag] = first + n - 1;
    return true;
}

static bool keep_row(void *context, uint64_t tag, size_t position, const rt_score_row *row)
{
    scored *s = context;
    assert_int_equal(position, s->last_position[tag] + 1);
    s->last_position[tag] = position;
    size_t drawn = 0;
    double mass = 0;
    for (size_t i = 0; i < row->n; i++) {
        assert_true(row->ids[i] < VOCAB && (i == 0 || i == row->n_topk || row->ids[i] > row->ids[i - 1]));
        mass += i < row->n_topk ? exp((double)row->logq[i]) : 0;
        drawn += row->counts ? row->counts[i] : 0;
        s->counts[row->ids[i]] += row->counts ? row->counts[i] : 0;
        const float z = s->dense[tag][position][row->ids[i]];
        assert_true(fabsf(z - row->log_z - row->logq[i]) < 1e-4f);
    }
    assert_int_equal(drawn, row->n_draws);
    assert_true(fabs(mass + exp((double)row->tail_logprob) - 1) < 1e-5);
    return true;
}

static void end_text(void *context, uint64_t tag, rt_status status, const rt_error *why)
{
    scored *s = context;
    if (status != RT_OK) {
        assert_int_equal(tag, 99);
        assert_non_null(strstr(why->text, "outside the vocabulary"));
        s->refused++;
    }
    s->ended++;
}

static scored *score_dense(bool stream, size_t batch_tokens)
{
    rt_error err = {0};
    rt_teacher *teacher = open_teacher(stream, 0, batch_tokens);
    scored *s = make_texts();
    const rt_score_options options = {.dense = true};
    const rt_score_calls calls = {.next = next_text, .dense = keep_dense, .end = end_text, .context = s};
    OK(rt_teacher_score(teacher, &options, &calls, &err));
    assert_int_equal(s->ended, TEXTS);
    rt_teacher_close(teacher);
    return s;
}

static void scores_do_not_depend_on_batches_or_on_the_disk(void **state)
{
    (void)state;
    scored *a = score_dense(false, 0), *b = score_dense(true, 0), *c = score_dense(true, 1);
    for (size_t t = 0; t < TEXTS; t++)
        assert_int_equal(a->last_position[t], a->lengths[t] - 1);
    assert_memory_equal(a->dense, b->dense, sizeof a->dense);
    assert_memory_equal(a->dense, c->dense, sizeof a->dense);
    free(a);
    free(b);
    free(c);
}

static void scores_are_those_of_a_session(void **state)
{
    (void)state;
    rt_error err = {0};
    rt_weights *weights;
    rt_model *model;
    rt_session *session;
    scored *s = score_dense(false, 0);
    float *out = calloc(TEXT_MAX * VOCAB, sizeof *out);
    OK(rt_weights_open(&weights, folder, &err));
    OK(rt_model_open(&model, weights, RT_PRECISION_F32, pool, &err));
    OK(rt_session_open(&session, model, 1, 100, &err));
    OK(rt_session_score(session, 0, s->ids[4], s->lengths[4], out, &err));
    for (size_t i = 0; i + 1 < s->lengths[4]; i++)
        for (size_t v = 0; v < VOCAB; v++)
            assert_true(fabsf(out[i * VOCAB + v] - s->dense[4][i + 1][v]) < 1e-4f);
    free(out);
    free(s);
    rt_session_close(session);
    rt_model_close(model);
    rt_weights_close(weights);
}

static void sparse_rows_keep_the_likeliest_and_unbiased_draws(void **state)
{
    (void)state;
    rt_error err = {0};
    rt_teacher *teacher = open_teacher(false, 0, 0);
    scored *s = score_dense(false, 0);
    s->next = s->ended = 0;
    s->bad_id = true;
    memset(s->last_position, 0, sizeof s->last_position);
    const rt_score_options options = {.top_k = 5, .n_draws = 2000, .draw_power = 1, .seed = 11};
    const rt_score_calls calls = {.next = next_text, .row = keep_row, .end = end_text, .context = s};
    OK(rt_teacher_score(teacher, &options, &calls, &err));
    assert_int_equal(s->refused, 1);
    double rows = 0, expected[VOCAB] = {0};
    for (size_t t = 0; t < TEXTS; t++)
        for (size_t i = 1; i < s->lengths[t]; i++, rows++) {
            double sum = 0;
            for (size_t v = 0; v < VOCAB; v++)
                sum += exp((double)s->dense[t][i][v]);
            for (size_t v = 0; v < VOCAB; v++)
                expected[v] += exp((double)s->dense[t][i][v]) / sum * 2000;
        }
    for (size_t v = 0; v < VOCAB; v++) /* five standard deviations */
        assert_true(fabs((double)s->counts[v] - expected[v]) < 5 * sqrt(expected[v]) + 5);
    const rt_score_options nothing = {.draw_power = 1};
    assert_int_equal(rt_teacher_score(teacher, &nothing, &calls, &err), RT_INVALID);
    free(s);
    rt_teacher_close(teacher);
}

/* ---- ask ---- */

enum { ASKS = 9 };
typedef struct asked {
    const char *bodies[ASKS];
    size_t n, next, done;
    char texts[ASKS][256], finish[ASKS][24];
    rt_status status[ASKS];
    rt_usage usage[ASKS];
    char error[ASKS][256];
    double worst_sum;
    size_t n_logprobs;
} asked;

static rt_next next_ask(void *context, rt_ask *out)
{
    asked *a = context;
    if (a->next == a->n)
        return RT_NEXT_END;
    *out = (rt_ask){.tag = a->next, .body = json_loads(a->bodies[a->next], 0, NULL)};
    assert_non_null(out->body);
    a->next++;
    return RT_NEXT_TAKE;
}

static void keep_reply(void *context, uint64_t tag, const rt_answered *r)
{
    asked *a = context;
    a->done++;
    a->status[tag] = r->status;
    a->usage[tag] = r->usage;
    (void)snprintf(a->texts[tag], 256, "%s", r->text.data ? r->text.data : "");
    (void)snprintf(a->finish[tag], 24, "%s", r->finish);
    (void)snprintf(a->error[tag], 256, "%.255s", r->error_text);
    if (r->status == RT_OK)
        assert_int_equal(r->n_ids, r->usage.completion);
    for (size_t i = 0; i < r->n_tokens; i++) {
        double sum = r->tokens[i].n_top ? (double)r->tokens[i].tail : 1;
        for (size_t k = 0; k < r->tokens[i].n_top; k++)
            sum += exp((double)r->alternatives[r->tokens[i].top + k].logprob);
        a->worst_sum = fmax(a->worst_sum, fabs(sum - 1));
        assert_true(r->tokens[i].chosen.logprob <= 0);
        assert_int_equal(r->tokens[i].chosen.id, r->ids[i]);
    }
    a->n_logprobs += r->n_tokens;
}

static void ask_all(asked *a, bool stream, size_t n_slots)
{
    rt_error err = {0};
    rt_teacher *teacher = open_teacher(stream, n_slots, 0);
    a->next = a->done = 0;
    const rt_ask_calls calls = {.next = next_ask, .done = keep_reply, .context = a};
    OK(rt_teacher_ask(teacher, &calls, &err));
    assert_int_equal(a->done, a->n);
    rt_teacher_close(teacher);
}

static void an_answer_depends_on_its_prompt_and_seed_alone(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{\"prompt\":\"abc\",\"max_tokens\":20,\"seed\":1}",
        "{\"prompt\":\"hello there\",\"max_tokens\":20,\"seed\":2,\"temperature\":0.7,\"top_p\":0.9}",
        "{\"prompt\":\"abc\",\"max_tokens\":20,\"seed\":1}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"what\"}],\"max_tokens\":12,\"temperature\":0}",
        "{\"prompt\":\"zzz\",\"max_tokens\":20,\"frequency_penalty\":1}",
        "{\"prompt\":[5,6,7],\"max_tokens\":8,\"seed\":4,\"logprobs\":3}",
    };
    asked *a = calloc(3, sizeof *a);
    for (size_t k = 0; k < 3; k++) {
        a[k].n = sizeof bodies / sizeof bodies[0];
        memcpy(a[k].bodies, bodies, sizeof bodies);
        ask_all(&a[k], k == 2, k == 0 ? 1 : 4);
    }
    for (size_t i = 0; i < a[0].n; i++) {
        assert_int_equal(a[0].status[i], RT_OK);
        assert_string_equal(a[0].texts[i], a[1].texts[i]);
        assert_string_equal(a[0].texts[i], a[2].texts[i]);
        assert_string_equal(a[0].finish[i], a[1].finish[i]);
    }
    assert_string_equal(a[0].texts[0], a[0].texts[2]);
    assert_int_equal(a[0].usage[0].prompt, 3);
    assert_true(a[0].n_logprobs > 0 && a[0].worst_sum < 1e-5);
    free(a);
}

static void a_stop_text_ends_an_answer_before_it(void **state)
{
    (void)state;
    asked *a = calloc(1, sizeof *a);
    char body[256], wanted[32];
    a->n = 1;
    a->bodies[0] = "{\"prompt\":\"abc\",\"max_tokens\":30,\"seed\":1,\"temperature\":2}";
    ask_all(a, false, 1);
    assert_true(strlen(a->texts[0]) > 8);
    (void)snprintf(wanted, sizeof wanted, "%.5s", a->texts[0]);
    json_t *stop = json_pack("{s:s, s:i, s:i, s:i, s:[s#]}", "prompt", "abc", "max_tokens", 30, "seed", 1,
                             "temperature", 2, "stop", a->texts[0] + 5, 2);
    assert_non_null(stop);
    char *text = json_dumps(stop, 0);
    (void)snprintf(body, sizeof body, "%s", text);
    a->bodies[0] = body;
    ask_all(a, false, 1);
    assert_true(strlen(a->texts[0]) <= 5 && strncmp(wanted, a->texts[0], strlen(a->texts[0])) == 0);
    assert_string_equal(a->finish[0], "stop");
    free(text);
    json_decref(stop);
    free(a);
}

static void requests_that_make_no_sense_are_answered_with_the_reason(void **state)
{
    (void)state;
    asked *a = calloc(1, sizeof *a);
    static const char *const bodies[] = {
        "{\"prompt\":\"abc\",\"n\":2}",
        "{\"prompt\":\"\"}",
        "{\"max_tokens\":3}",
        "{\"prompt\":[1,97]}",
        "{\"prompt\":\"a\",\"temperature\":-1}",
        "{\"prompt\":\"a\",\"stop\":[\"\"]}",
        "{\"prompt\":\"abc\",\"max_tokens\":0}",
        "[]",
    };
    a->n = sizeof bodies / sizeof bodies[0];
    memcpy(a->bodies, bodies, sizeof bodies);
    ask_all(a, false, 3);
    for (size_t i = 0; i < a->n; i++) {
        assert_int_equal(a->status[i], i == 6 ? RT_OK : RT_INVALID);
        assert_true(i == 6 || a->error[i][0]);
    }
    assert_string_equal(a->finish[6], "length");
    free(a);
}

static rt_status stop_at_once(void *context, const rt_teacher_state *now, rt_error *err)
{
    const asked *a = context;
    (void)now;
    return a->next >= 2 ? rt_error_set(err, RT_STOPPED, "enough") : RT_OK;
}

static void a_drain_answers_what_was_taken(void **state)
{
    (void)state;
    rt_error err = {0};
    asked *a = calloc(1, sizeof *a);
    a->n = 4;
    for (size_t i = 0; i < a->n; i++)
        a->bodies[i] = "{\"prompt\":\"abc\",\"max_tokens\":10}";
    rt_teacher *teacher = open_teacher(false, 2, 0);
    const rt_ask_calls calls = {.next = next_ask, .done = keep_reply, .tick = stop_at_once, .context = a};
    assert_int_equal(rt_teacher_ask(teacher, &calls, &err), RT_STOPPED);
    assert_int_equal(a->done, a->next);
    assert_true(a->done >= 2 && a->done < 4);
    rt_teacher_close(teacher);
    free(a);
}

static void what_is_known_of_it_is_told(void **state)
{
    (void)state;
    rt_teacher *teacher = open_teacher(false, 0, 0), *other = open_teacher(true, 0, 0);
    const rt_teacher_info *info = rt_teacher_info_of(teacher);
    assert_string_equal(info->kind, "local");
    assert_int_equal(info->n_vocab, VOCAB);
    assert_int_equal(strlen(info->tokenizer_hash), 64);
    assert_string_equal(info->fingerprint, rt_teacher_info_of(other)->fingerprint);
    rt_teacher_close(teacher);
    rt_teacher_close(other);
    rt_error err = {0};
    const rt_local_options options = {.precision = RT_PRECISION_F32};
    assert_int_equal(rt_local_open(&teacher, "/nowhere", &options, pool, &err), RT_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_known_of_it_is_told),
        cmocka_unit_test(scores_do_not_depend_on_batches_or_on_the_disk),
        cmocka_unit_test(scores_are_those_of_a_session),
        cmocka_unit_test(sparse_rows_keep_the_likeliest_and_unbiased_draws),
        cmocka_unit_test(an_answer_depends_on_its_prompt_and_seed_alone),
        cmocka_unit_test(a_stop_text_ends_an_answer_before_it),
        cmocka_unit_test(requests_that_make_no_sense_are_answered_with_the_reason),
        cmocka_unit_test(a_drain_answers_what_was_taken),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
