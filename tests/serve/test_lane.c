/* Slots of a lane, and beginnings that are kept beyond them: the same bits, apart by account, within the
 * bound. */
#include "serve_help.h"

#include "base/rng.h"
#include "base/size.h"
#include "serve/lane.h"
#include "serve/prefix.h"

enum { TEXT = 90, SLOTS = 3 };
static int32_t text_ids[TEXT];

static rt_session *new_session(void)
{
    rt_session *session;
    rt_error err = {0};
    if (rt_session_open(&session, model, SLOTS, 0, &err) != RT_OK)
        fail_msg("%s", err.text);
    for (int i = 0; i < TEXT; i++)
        text_ids[i] = (i * 7 + i * i) % (int)model->config.n_vocab;
    return session;
}

static rt_prefix_store *new_store(rt_session *session, size_t bytes)
{
    rt_prefix_store *store;
    rt_error err = {0};
    if (rt_prefix_open(&store, session, bytes, &err) != RT_OK)
        fail_msg("%s", err.text);
    return store;
}

/* Tokens [have, n) of text_ids by blocks, as the server's prefill does, then the last one's logits. */
static void append(rt_session *session, size_t slot, size_t n, float *logits)
{
    rt_error err = {0};
    const size_t have = rt_session_length(session, slot);
    const rt_piece piece = {slot, text_ids + have, n - have};
    if (rt_session_append(session, &piece, 1, true, &err) != RT_OK)
        fail_msg("%s", err.text);
    const size_t row = n - have - 1;
    rt_session_logits(session, &row, 1, logits);
}

static void what_was_kept_continues_with_the_same_bits(void **state)
{
    (void)state;
    const size_t vocab = model->config.n_vocab, lengths[] = {1, 31, 32, 33, 64, 77};
    float *fresh = calloc(vocab, sizeof *fresh), *again = calloc(vocab, sizeof *again);
    assert_true(fresh && again);
    rt_session *session = new_session();
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        rt_prefix_store *store = new_store(session, 64 << 20);
        rt_session_truncate(session, 0, 0);
        append(session, 0, lengths[i], fresh);
        rt_prefix_keep(store, 1, 0, text_ids, lengths[i]);
        append(session, 0, TEXT, fresh);
        const rt_prefix_match match = rt_prefix_find(store, 1, text_ids, TEXT);
        assert_int_equal(match.n, lengths[i]);
        rt_session_truncate(session, 1, 0);
        rt_prefix_load(store, &match, 1);
        assert_int_equal(rt_session_length(session, 1), lengths[i]);
        append(session, 1, TEXT, again);
        assert_memory_equal(fresh, again, vocab * sizeof *fresh);
        assert_int_equal(rt_prefix_get_stats(store).tokens, lengths[i]);
        rt_prefix_close(store);
    }
    rt_session_close(session);
    free(fresh);
    free(again);
}

static void the_longest_common_beginning_is_found(void **state)
{
    (void)state;
    enum { KEPT = 60, ALPHABET = 2 };
    static int32_t kept[KEPT][TEXT];
    size_t n_kept[KEPT];
    rt_rng rng = rt_rng_make(5, 0);
    rt_session *session = new_session();
    rt_prefix_store *store = new_store(session, 64 << 20);
    float *logits = calloc(model->config.n_vocab, sizeof *logits);
    append(session, 0, TEXT, logits);
    free(logits);
    for (size_t t = 0; t < KEPT; t++) {
        /* half of the texts go on from a part of an earlier one */
        const size_t other = t ? rt_rng_below(&rng, t) : 0, shared_n = t % 2 ? rt_rng_below(&rng, TEXT) : 0;
        for (size_t i = 0; i < TEXT; i++)
            kept[t][i] = i < shared_n ? kept[other][i] : (int32_t)rt_rng_below(&rng, ALPHABET);
        n_kept[t] = 1 + rt_rng_below(&rng, TEXT);
        size_t best = 0;
        for (size_t k = 0; k < t; k++) {
            size_t same = 0;
            while (same < n_kept[k] && same < n_kept[t] && kept[k][same] == kept[t][same])
                same++;
            best = rt_size_max(best, same);
        }
        assert_int_equal(rt_prefix_find(store, 9, kept[t], n_kept[t]).n, best);
        rt_prefix_keep(store, 9, 0, kept[t], n_kept[t]);
        assert_int_equal(rt_prefix_find(store, 9, kept[t], n_kept[t]).n, n_kept[t]);
    }
    rt_prefix_close(store);
    rt_session_close(session);
}

static void a_loud_account_pushes_out_its_own(void **state)
{
    (void)state;
    float *logits = calloc(model->config.n_vocab, sizeof *logits);
    rt_session *session = new_session();
    append(session, 0, TEXT, logits);
    const size_t room = 6 * TEXT * rt_session_token_bytes(session);
    rt_prefix_store *store = new_store(session, room);
    rt_prefix_keep(store, 1, 0, text_ids, TEXT);
    int32_t other[TEXT];
    memcpy(other, text_ids, sizeof other);
    for (int i = 0; i < 200; i++) {
        other[0] = i;
        rt_prefix_keep(store, 2, 0, other, TEXT);
        assert_true(rt_prefix_get_stats(store).bytes <= room);
    }
    assert_true(rt_prefix_get_stats(store).evicted > 100);
    assert_int_equal(rt_prefix_find(store, 1, text_ids, TEXT).n, TEXT);
    assert_int_equal(rt_prefix_find(store, 2, other, TEXT).n, TEXT);
    other[0] = 0;
    assert_int_equal(rt_prefix_find(store, 2, other, TEXT).n, 0);
    /* a text that is larger than all the room leaves what fits of it, and nothing breaks */
    rt_prefix_store *narrow = new_store(session, 40 * rt_session_token_bytes(session) + 1024);
    rt_prefix_keep(narrow, 1, 0, text_ids, TEXT);
    assert_int_equal(rt_prefix_find(narrow, 1, text_ids, TEXT).n, RT_PREFIX_BLOCK);
    rt_prefix_store *none = new_store(session, 1);
    rt_prefix_keep(none, 1, 0, text_ids, TEXT);
    assert_int_equal(rt_prefix_find(none, 1, text_ids, TEXT).n, 0);
    rt_prefix_close(none);
    rt_prefix_close(narrow);
    rt_prefix_close(store);
    rt_session_close(session);
    free(logits);
}

/* ---- through a lane ---- */

static void on_job(void *context, rt_job *job)
{
    (void)context;
    (void)job;
}

static rt_job *push(rt_lane *lane, uint64_t scope, const char *prompt)
{
    rt_job_options options = {.tokens_max = 12, .n = 1, .top_logprobs = -1, .prompt_top_logprobs = -1};
    options.sampling = rt_sampling_default();
    options.ignore_eos = true;
    options.sampling.seed = 3;
    rt_token_list ids = {0};
    rt_error err = {0};
    rt_job *job;
    if (rt_tokenizer_encode(tokenizer, prompt, strlen(prompt), false, &ids, &err) != RT_OK ||
        rt_job_new(&job, &options, &ids, 1, &err) != RT_OK)
        fail_msg("%s", err.text);
    job->scope = scope;
    assert_true(rt_fair_push(&lane->queue, job));
    return job;
}

/* Runs one job to its end; its text, the caller frees; *cached: prompt tokens that were there. */
static char *run(rt_lane *lane, uint64_t scope, const char *prompt, size_t *cached)
{
    rt_job *job = push(lane, scope, prompt);
    rt_lane_sink sink = {.grown = on_job, .ended = on_job};
    while (job->n_finished < job->n_choices) {
        rt_lane_admit(lane, 0, &sink);
        (void)rt_lane_prefill(lane, 64, &sink);
        (void)rt_lane_decode(lane, &sink);
    }
    char *text =
        strndup(job->choices[0].text.data ? job->choices[0].text.data : "", job->choices[0].text.size);
    *cached = job->prompts[0].cached;
    rt_job_free(job);
    assert_non_null(text);
    return text;
}

static void answers_are_the_same_with_and_without_and_accounts_do_not_share(void **state)
{
    (void)state;
    static const char first[] = "the quick brown fox jumps over the lazy dog and runs home again",
                      second[] = "another text that has nothing of the first in it at all, not a word";
    rt_error err = {0};
    char *answers[2][4];
    for (size_t with = 0; with < 2; with++) {
        rt_lane lane;
        const rt_lane_options options = {
            .model = model, .tokenizer = tokenizer, .n_slots = 1, .prefix_bytes = with ? 16 << 20 : 0};
        if (rt_lane_open(&lane, &options, &err) != RT_OK)
            fail_msg("%s", err.text);
        size_t cached[4];
        answers[with][0] = run(&lane, 1, first, &cached[0]);
        answers[with][1] = run(&lane, 1, second, &cached[1]); /* takes the slot */
        answers[with][2] = run(&lane, 1, first, &cached[2]);
        answers[with][3] =
            run(&lane, 2, first, &cached[3]); /* another account, and the slot holds the text */
        assert_int_equal(cached[0], 0);
        assert_true(cached[1] < 4);
        assert_true(with ? cached[2] > 20 : cached[2] < 4);
        assert_int_equal(cached[3], 0);
        rt_lane_close(&lane);
        assert_string_equal(answers[with][0], answers[with][2]);
        assert_string_equal(answers[with][0], answers[with][3]);
    }
    for (size_t i = 0; i < 4; i++) {
        assert_string_equal(answers[0][i], answers[1][i]);
        free(answers[0][i]);
        free(answers[1][i]);
    }
}

static void a_cancelled_job_runs_no_further_step(void **state)
{
    (void)state;
    rt_error err = {0};
    rt_lane lane;
    const rt_lane_options options = {.model = model, .tokenizer = tokenizer, .n_slots = 1};
    rt_lane_sink sink = {.grown = on_job, .ended = on_job};
    if (rt_lane_open(&lane, &options, &err) != RT_OK)
        fail_msg("%s", err.text);
    rt_job *gone = push(&lane, 1, "a client that goes"), *next = push(&lane, 1, "one that waits");
    rt_lane_admit(&lane, 0, &sink);
    assert_true(rt_lane_prefill(&lane, 64, &sink));
    assert_true(rt_lane_decode(&lane, &sink));
    const size_t drawn = gone->choices[0].n_sampled;
    assert_int_equal(drawn, 2);
    atomic_store(&gone->cancelled, true);
    rt_lane_reap(&lane, 0, &sink); /* a round of the engine: reap, admit, prefill, decode */
    assert_int_equal(rt_lane_running(&lane), 0);
    assert_int_equal(gone->n_finished, 1);
    assert_int_equal(gone->choices[0].finish, RT_JOB_ABORTED);
    rt_lane_admit(&lane, 0, &sink);
    assert_ptr_equal(lane.slots[0].job, next);
    assert_true(rt_lane_prefill(&lane, 64, &sink));
    (void)rt_lane_decode(&lane, &sink);
    assert_int_equal(gone->choices[0].n_sampled, drawn);
    while (next->n_finished == 0)
        (void)rt_lane_decode(&lane, &sink);
    rt_job_free(gone);
    rt_job_free(next);
    rt_lane_close(&lane);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_kept_continues_with_the_same_bits),
        cmocka_unit_test(the_longest_common_beginning_is_found),
        cmocka_unit_test(a_loud_account_pushes_out_its_own),
        cmocka_unit_test(answers_are_the_same_with_and_without_and_accounts_do_not_share),
        cmocka_unit_test(a_cancelled_job_runs_no_further_step),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
