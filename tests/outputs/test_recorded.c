/* tests/outputs/test_recorded.c - what was recorded against the student that is to learn from it: every
 * difference is named. */
#include "outputs/store_help.h"

#include <sodium.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "outputs/record_scores.h"
#include "outputs/recorded.h"

/* A byte-level tokenizer of `letters` and an end token, padded to `padded` ids. */
static rt_tokenizer *make_tokenizer(const char *letters, size_t padded, const char *chat_template,
                                    const char *end)
{
    rt_error err = {0};
    rt_text vocab = {0}, config = {0};
    char dir[] = "/tmp/retort-test-recorded-XXXXXX", path[96];
    assert_non_null(mkdtemp(dir));
    const size_t n = strlen(letters);
    for (size_t i = 0; i < n; i++)
        rt_text_printf(&vocab, "\"%c\": %zu, ", letters[i], i);
    for (size_t i = n + 2; i < padded; i++)
        rt_text_printf(&vocab, "\"[PAD%zu]\": %zu, ", i, i);
    rt_text_printf(
        &config,
        "{\"added_tokens\": [{\"id\": %zu, \"content\": \"<end>\", \"special\": true, \"single_word\": "
        "false, "
        "\"lstrip\": false, \"rstrip\": false, \"normalized\": false}, {\"id\": %zu, \"content\": "
        "\"<stop>\", "
        "\"special\": true, \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": "
        "false}], \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
        "\"use_regex\": true}, \"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\", "
        "\"vocab\": {%s\"<end>\": %zu, \"<stop>\": %zu}, \"merges\": []}}",
        n, n + 1, vocab.data, n, n + 1);
    (void)snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    must(rt_file_write(path, config.data, config.size, &err), &err);
    rt_text_clear(&config);
    rt_text_printf(&config, "{\"eos_token\": \"%s\", \"chat_template\": \"%s\"}", end, chat_template);
    (void)snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
    must(rt_file_write(path, config.data, config.size, &err), &err);
    rt_tokenizer *t;
    must(rt_tokenizer_open(&t, dir, &err), &err);
    (void)unlink(path);
    (void)snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    (void)unlink(path);
    (void)rmdir(dir);
    rt_text_deinit(&vocab);
    rt_text_deinit(&config);
    return t;
}

static void set_hash(unsigned char out[32], const char *hex)
{
    size_t n;
    assert_int_equal(sodium_hex2bin(out, 32, hex, 64, NULL, &n, NULL), 0);
}

static rt_rls_header recorded_with(const rt_tokenizer *t, size_t n_logits)
{
    rt_rls_header h = small_header();
    h.n_vocab = (uint32_t)rt_tokenizer_real_size(t);
    h.n_logits = (uint32_t)n_logits;
    h.end_id = rt_tokenizer_eos(t);
    set_hash(h.tokenizer_hash, rt_tokenizer_hash(t));
    const char *source = rt_tokenizer_chat_template(t);
    char hex[65];
    rt_sha256_hex(hex, source, strlen(source));
    set_hash(h.template_hash, hex);
    return h;
}

static void the_same_model_fits_without_a_word(void **state)
{
    (void)state;
    rt_error err = {0};
    char note[RT_RECORDED_NOTE];
    rt_tokenizer *t = make_tokenizer("abcdef", 8, "{{ messages }}", "<end>");
    const rt_rls_header h = recorded_with(t, 8);
    must(rt_recorded_match(&h, &(rt_recorded_student){.tokenizer = t}, note, &err), &err);
    assert_string_equal(note, "");
    rt_tokenizer_close(t);
}

static void padded_vocabularies_fit_and_are_mentioned(void **state)
{
    (void)state;
    rt_error err = {0};
    char note[RT_RECORDED_NOTE];
    rt_tokenizer *large = make_tokenizer("abcdef", 64, "{{ messages }}", "<end>"),
                 *small = make_tokenizer("abcdef", 32, "{{ messages }}", "<end>");
    assert_int_equal(rt_tokenizer_size(large), 64);
    assert_int_equal(rt_tokenizer_real_size(large), 8);
    assert_string_equal(rt_tokenizer_hash(large), rt_tokenizer_hash(small));
    const rt_rls_header h = recorded_with(large, 64);
    must(rt_recorded_match(&h, &(rt_recorded_student){.tokenizer = small, .n_logits = 32}, note, &err), &err);
    assert_non_null(strstr(note, "64"));
    assert_non_null(strstr(note, "32"));
    assert_non_null(strstr(note, "8 real ids agree"));
    rt_tokenizer_close(large);
    rt_tokenizer_close(small);
}

static void another_tokenizer_is_refused(void **state)
{
    (void)state;
    rt_error err = {0};
    char note[RT_RECORDED_NOTE];
    rt_tokenizer *teacher = make_tokenizer("abcdef", 8, "{{ messages }}", "<end>"),
                 *student = make_tokenizer("abcdeg", 8, "{{ messages }}", "<end>");
    const rt_rls_header h = recorded_with(teacher, 8);
    assert_int_equal(rt_recorded_match(&h, &(rt_recorded_student){.tokenizer = student}, note, &err),
                     RT_MISMATCH);
    assert_non_null(strstr(err.text, "tokenizer"));
    rt_rls_header unknown =
        h; /* from an API that does not say: ids past the student's are found all the same */
    memset(unknown.tokenizer_hash, 0, 32);
    must(rt_recorded_match(&unknown, &(rt_recorded_student){.tokenizer = student}, note, &err), &err);
    assert_non_null(strstr(note, "does not say which tokenizer"));
    unknown.n_vocab = unknown.n_logits = 50;
    assert_int_equal(rt_recorded_match(&unknown, &(rt_recorded_student){.tokenizer = student}, note, &err),
                     RT_MISMATCH);
    assert_non_null(strstr(err.text, "50 ids"));
    rt_tokenizer_close(teacher);
    rt_tokenizer_close(student);
}

static void another_template_or_end_is_refused_unless_accepted(void **state)
{
    (void)state;
    rt_error err = {0};
    char note[RT_RECORDED_NOTE];
    rt_tokenizer *teacher = make_tokenizer("abcdef", 8, "{{ messages }}", "<end>"),
                 *other = make_tokenizer("abcdef", 8, "{{ messages }}!", "<end>"),
                 *stops = make_tokenizer("abcdef", 8, "{{ messages }}", "<stop>");
    const rt_rls_header h = recorded_with(teacher, 8);
    assert_int_equal(rt_recorded_match(&h, &(rt_recorded_student){.tokenizer = other}, note, &err),
                     RT_MISMATCH);
    assert_non_null(strstr(err.text, "chat template"));
    must(rt_recorded_match(&h, &(rt_recorded_student){.tokenizer = other, .any_template = true}, note, &err),
         &err);
    assert_non_null(strstr(note, "template"));
    assert_int_equal(rt_recorded_match(&h, &(rt_recorded_student){.tokenizer = stops}, note, &err),
                     RT_MISMATCH);
    assert_non_null(strstr(err.text, "end with id 6"));
    must(rt_recorded_match(&h, &(rt_recorded_student){.tokenizer = stops, .any_end = true}, note, &err),
         &err);
    assert_non_null(strstr(note, "end token"));
    rt_rls_header plain = h; /* plain text: no template was used */
    memset(plain.template_hash, 0, 32);
    must(rt_recorded_match(&plain, &(rt_recorded_student){.tokenizer = other}, note, &err), &err);
    rt_tokenizer_close(teacher);
    rt_tokenizer_close(other);
    rt_tokenizer_close(stops);
}

/* ---- as a teacher ---- */

typedef struct asker { /* what is asked, and what came */
    size_t next, n;
    const char *prompts[4];
    char answers[4][32];
    const rt_store_document *docs; /* to score */
    size_t rows, ended, missing;
} asker;

static rt_next next_prompt(void *context, rt_ask *out)
{
    asker *a = context;
    if (a->next == a->n)
        return RT_NEXT_END;
    *out = (rt_ask){.tag = a->next, .body = json_pack("{s:s}", "prompt", a->prompts[a->next])};
    a->next++;
    return RT_NEXT_TAKE;
}

static void keep_answer(void *context, uint64_t tag, const rt_answered *reply)
{
    asker *a = context;
    (void)snprintf(a->answers[tag], sizeof a->answers[tag], "%.20s %.8s",
                   reply->status == RT_OK ? reply->text.data : reply->error_code,
                   reply->status == RT_OK ? reply->finish : "");
}

static rt_next next_document(void *context, rt_score_ask *out)
{
    asker *a = context;
    if (a->next == a->n)
        return RT_NEXT_END;
    *out = (rt_score_ask){a->next, a->docs[a->next].ids, a->docs[a->next].n_tokens};
    a->next++;
    return RT_NEXT_TAKE;
}

static bool keep_row(void *context, uint64_t tag, size_t position, const rt_score_row *row)
{
    asker *a = context;
    const rt_sparse_row want = rt_sparse_rows_at(&a->docs[tag].rows, position - 1);
    assert_int_equal(row->n, want.n);
    assert_memory_equal(row->ids, want.ids, want.n * sizeof *want.ids);
    assert_memory_equal(row->counts, want.counts, want.n * sizeof *want.counts);
    a->rows++;
    return true;
}

static void keep_end(void *context, uint64_t tag, rt_status status, const rt_error *err)
{
    asker *a = context;
    (void)tag;
    a->ended++;
    a->missing += status == RT_NOT_FOUND && strstr(err->text, "no sequence of these") != NULL;
}

/* A document whose every token but the first is a target. */
static void make_full_document(rt_store_document *doc, const rt_rls_header *h, uint64_t number, size_t n)
{
    rt_error err = {0};
    make_document(doc, h, number, n);
    rt_sparse_rows one = doc->rows;
    doc->rows = (rt_sparse_rows){0};
    for (size_t i = 1; i < n; i++) {
        const rt_sparse_row row = rt_sparse_rows_at(&one, i % one.n_rows);
        must(rt_sparse_rows_add(&doc->rows, &row, &err), &err);
        doc->mask[i] = 1;
    }
    rt_sparse_rows_deinit(&one);
}

/* The store's rows by its score verb into another store; the third text is not in it. */
static void check_scores_are_recorded(rt_teacher *teacher, const rt_store_document *docs,
                                      const rt_rls_header *h)
{
    rt_error err = {0};
    char dir[] = "/tmp/retort-test-recorded-XXXXXX", command[96];
    assert_non_null(mkdtemp(dir));
    int32_t ids[80];
    uint8_t mask[80];
    size_t begins[4] = {0};
    for (size_t i = 0; i < 3; i++) {
        begins[i + 1] = begins[i] + docs[i].n_tokens;
        memcpy(ids + begins[i], docs[i].ids, docs[i].n_tokens * sizeof *ids);
        memcpy(mask + begins[i], docs[i].mask, docs[i].n_tokens);
    }
    const rt_record_texts texts = {ids, mask, begins, 3};
    const rt_record_scores_options options = {.score = {.top_k = 8, .n_draws = 12, .draw_power = 1},
                                              .in_flight_max = 2};
    json_t *facts = json_pack("{s:o}", "logits", rt_rls_facts(h));
    for (unsigned run = 0; run < 2; run++) { /* the second finds two texts there */
        rt_store *store;
        rt_record_progress done;
        must(rt_store_open(&store, dir, facts, "the test", &err), &err);
        assert_int_equal(rt_record_scores(store, teacher, &texts, &options, &done, &err), RT_NOT_FOUND);
        assert_non_null(strstr(err.text, "1 of 3 texts could not be scored"));
        assert_int_equal(done.docs_done, 2);
        assert_int_equal(done.docs_known, run ? 2 : 0);
        must(rt_store_close(store, &err), &err);
    }
    json_decref(facts);
    rt_reader *reader;
    must(rt_reader_open(&reader, dir, &err), &err);
    assert_int_equal(rt_reader_documents(reader), 2);
    rt_store_document got = {0};
    for (size_t i = 0; i < 2; i++) {
        must(rt_reader_document(reader, i, &got, &err), &err);
        assert_same_document(&got, &docs[got.number], h);
    }
    rt_store_document_deinit(&got);
    rt_reader_close(reader);
    (void)snprintf(command, sizeof command, "rm -rf '%s'", dir);
    (void)!system(command);
}

static void a_store_answers_and_scores_what_it_holds(void **state)
{
    (void)state;
    rt_error err = {0};
    const rt_rls_header h = small_header();
    char dir[] = "/tmp/retort-test-recorded-XXXXXX", command[96];
    assert_non_null(mkdtemp(dir));
    json_t *facts = json_pack("{s:{s:s,s:s},s:o}", "teacher", "name", "made up", "terms", "be kind", "logits",
                              rt_rls_facts(&h));
    rt_store *store;
    must(rt_store_open(&store, dir, facts, "the test", &err), &err);
    json_decref(facts);
    static const char *const rows[] = {
        "{\"prompt\":\"a\",\"completion\":\"one\",\"finish_reason\":\"length\"}",
        "{\"id\":\"7\",\"request\":{\"prompt\":\"a\",\"seed\":2},\"text\":\"two\"}"};
    for (size_t i = 0; i < 2; i++) {
        json_t *row = json_loads(rows[i], 0, NULL);
        must(rt_store_add_text(store, row, NULL, &err), &err);
        json_decref(row);
    }
    rt_store_document docs[3] = {{0}};
    for (size_t i = 0; i < 3; i++)
        make_full_document(&docs[i], &h, i, 20 + i);
    for (size_t i = 0; i < 2; i++)
        must(rt_store_add_document(store, &docs[i], NULL, &err), &err);
    must(rt_store_close(store, &err), &err);

    rt_teacher *teacher;
    must(rt_recorded_open(&teacher, dir, &err), &err);
    const rt_teacher_info *info = rt_teacher_info_of(teacher);
    assert_string_equal(info->kind, "recorded");
    assert_string_equal(info->name, "made up");
    assert_string_equal(info->terms, "be kind");
    assert_int_equal(info->n_vocab, 1000);
    assert_int_equal(strncmp(info->tokenizer_hash, "0102030405", 10), 0);
    asker a = {.n = 4, .prompts = {"a", "b", "a", "a"}};
    must(rt_teacher_ask(teacher, &(rt_ask_calls){next_prompt, keep_answer, NULL, &a}, &err), &err);
    assert_string_equal(a.answers[0], "one length");
    assert_string_equal(a.answers[1], "not_recorded ");
    assert_string_equal(a.answers[2], "two stop");
    assert_string_equal(a.answers[3], "not_recorded ");
    asker s = {.n = 3, .docs = docs};
    const rt_score_calls calls = {.next = next_document, .row = keep_row, .end = keep_end, .context = &s};
    must(rt_teacher_score(teacher, &(rt_score_options){.top_k = 8, .n_draws = 12, .draw_power = 1}, &calls,
                          &err),
         &err);
    assert_int_equal(s.rows, 19 + 20);
    assert_int_equal(s.ended, 3);
    assert_int_equal(s.missing, 1);
    assert_int_equal(rt_teacher_score(teacher, &(rt_score_options){.dense = true}, &calls, &err),
                     RT_UNSUPPORTED);
    check_scores_are_recorded(teacher, docs, &h);
    rt_teacher_close(teacher);
    for (size_t i = 0; i < 3; i++)
        rt_store_document_deinit(&docs[i]);
    (void)snprintf(command, sizeof command, "rm -rf '%s'", dir);
    (void)!system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_model_fits_without_a_word),
        cmocka_unit_test(padded_vocabularies_fit_and_are_mentioned),
        cmocka_unit_test(another_tokenizer_is_refused),
        cmocka_unit_test(another_template_or_end_is_refused_unless_accepted),
        cmocka_unit_test(a_store_answers_and_scores_what_it_holds),
    };
    return cmocka_run_group_tests_name("recorded", tests, NULL, NULL);
}
