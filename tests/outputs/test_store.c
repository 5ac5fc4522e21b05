/* tests/outputs/test_store.c - the store: what was flushed is there, once, whatever happened afterwards. */
#include "outputs/store_help.h"

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "outputs/reader.h"

typedef struct place {
    char dir[64];
} place;

static int place_make(void **state)
{
    place *p = calloc(1, sizeof *p);
    (void)snprintf(p->dir, sizeof p->dir, "/tmp/retort-test-store-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    *state = p;
    return 0;
}

static int place_remove(void **state)
{
    place *p = *state;
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf '%s'", p->dir);
    (void)!system(command);
    free(p);
    return 0;
}

static json_t *make_facts(const char *teacher)
{
    const rt_rls_header h = small_header();
    return json_pack("{s:{s:s,s:s},s:{s:f},s:o}", "teacher", "name", teacher, "terms", "none", "sampling",
                     "temperature", 1.0, "logits", rt_rls_facts(&h));
}

static rt_store *open_store(const char *dir)
{
    rt_error err = {0};
    rt_store *store;
    json_t *facts = make_facts("made up");
    must(rt_store_open(&store, dir, facts, "the test", &err), &err);
    json_decref(facts);
    return store;
}

static void add_texts(rt_store *store, size_t from, size_t to)
{
    rt_error err = {0};
    for (size_t i = from; i < to; i++) {
        bool added;
        json_t *row = json_pack("{s:s,s:s,s:I}", "prompt", "say a number", "completion", "one", "sample",
                                (json_int_t)i);
        must(rt_store_add_text(store, row, &added, &err), &err);
        json_decref(row);
        assert_true(added);
    }
}

static rt_status count_row(void *context, const json_t *row, rt_error *err)
{
    (void)err;
    size_t *seen = context;
    assert_true(json_is_string(json_object_get(row, "completion")));
    ++*seen;
    return RT_OK;
}

static void check_store(const char *dir, size_t texts, size_t documents)
{
    rt_error err = {0};
    rt_reader *reader;
    const rt_rls_header h = small_header();
    must(rt_reader_open(&reader, dir, &err), &err);
    size_t seen = 0;
    must(rt_reader_texts(reader, count_row, &seen, &err), &err);
    assert_int_equal(seen, texts);
    assert_int_equal(rt_reader_documents(reader), documents);
    rt_store_document got = {0}, want = {0};
    for (size_t i = 0; i < documents; i++) {
        must(rt_reader_document(reader, i, &got, &err), &err);
        make_document(&want, &h, got.number, got.n_tokens);
        assert_same_document(&got, &want, &h);
    }
    rt_store_document_deinit(&got);
    rt_store_document_deinit(&want);
    rt_reader_close(reader);
}

static void add_documents(rt_store *store, size_t from, size_t to)
{
    rt_error err = {0};
    const rt_rls_header h = small_header();
    rt_store_document doc = {0};
    for (size_t i = from; i < to; i++) {
        bool added;
        make_document(&doc, &h, i, 5 + i * 7 % 40);
        must(rt_store_add_document(store, &doc, &added, &err), &err);
        assert_true(added);
    }
    rt_store_document_deinit(&doc);
}

static void what_was_added_is_read_again(void **state)
{
    const place *p = *state;
    rt_error err = {0};
    rt_store *store = open_store(p->dir);
    add_texts(store, 0, 50);
    add_documents(store, 0, 20);
    must(rt_store_close(store, &err), &err);
    check_store(p->dir, 50, 20);
    store = open_store(p->dir);
    assert_int_equal(rt_store_texts(store), 50);
    assert_int_equal(rt_store_documents(store), 20);
    add_texts(store, 50, 60);
    add_documents(store, 20, 33);
    must(rt_store_close(store, &err), &err);
    check_store(p->dir, 60, 33);
}

static void a_row_that_is_there_is_not_written_again(void **state)
{
    const place *p = *state;
    rt_error err = {0};
    rt_store *store = open_store(p->dir);
    add_texts(store, 0, 5);
    add_documents(store, 0, 5);
    must(rt_store_close(store, &err), &err);
    store = open_store(p->dir);
    const rt_rls_header h = small_header();
    rt_store_document doc = {0};
    for (size_t i = 0; i < 5; i++) {
        bool added = true, has = false;
        make_document(&doc, &h, i, 5 + i * 7 % 40);
        must(rt_store_has_document(store, doc.ids, doc.mask, doc.n_tokens, &has, &err), &err);
        assert_true(has);
        must(rt_store_add_document(store, &doc, &added, &err), &err);
        assert_false(added);
        json_t *row = json_pack("{s:I,s:s,s:s}", "sample", (json_int_t)i, "prompt", "say a number",
                                "completion", "one"); /* members in another order */
        must(rt_store_add_text(store, row, &added, &err), &err);
        assert_false(added);
        json_decref(row);
    }
    rt_store_document_deinit(&doc);
    must(rt_store_close(store, &err), &err);
    check_store(p->dir, 5, 5);
}

static void a_key_of_the_callers_own_names_a_row(void **state)
{
    const place *p = *state;
    rt_error err = {0};
    rt_store *store = open_store(p->dir);
    bool added, has;
    json_t *row = json_pack("{s:s,s:s}", "key", "request 7, sample 0", "completion", "a");
    must(rt_store_add_text(store, row, &added, &err), &err);
    assert_true(added);
    must(rt_store_has_text(store, "request 7, sample 0", &has, &err), &err);
    assert_true(has);
    must(rt_store_has_text(store, "request 7, sample 1", &has, &err), &err);
    assert_false(has);
    (void)json_object_set_new(row, "completion", json_string("b"));
    must(rt_store_add_text(store, row, &added, &err), &err);
    assert_false(added);
    json_decref(row);
    must(rt_store_close(store, &err), &err);
}

static void a_line_of_text_is_a_row_under_its_key(void **state)
{
    const place *p = *state;
    rt_error err = {0};
    static const char line[] = "{\"id\":\"a-1\",\"completion\":\"b\"}";
    for (unsigned run = 0; run < 2; run++) {
        rt_store *store = open_store(p->dir);
        bool added;
        must(rt_store_add_line(store, line, sizeof line - 1, "a-1", &added, &err), &err);
        assert_int_equal(added, run == 0);
        assert_int_equal(rt_store_add_line(store, "{}\n{}", 5, "x", &added, &err), RT_INVALID);
        assert_int_equal(rt_store_texts(store), 1);
        must(rt_store_close(store, &err), &err);
    }
    check_store(p->dir, 1, 0);
}

static void other_outputs_are_refused_by_name(void **state)
{
    const place *p = *state;
    rt_error err = {0};
    must(rt_store_close(open_store(p->dir), &err), &err);
    rt_store *store;
    json_t *facts = make_facts("somebody else");
    assert_int_equal(rt_store_open(&store, p->dir, facts, "the test", &err), RT_MISMATCH);
    assert_non_null(strstr(err.text, "teacher.name"));
    assert_non_null(strstr(err.text, "somebody else"));
    assert_null(store);
    json_decref(facts);
    must(rt_store_open(&store, p->dir, NULL, "the test", &err), &err); /* the refusal changed nothing */
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(rt_store_manifest(store), "teacher"), "name")),
        "made up");
    must(rt_store_close(store, &err), &err);
}

static void a_second_writer_is_told_who_is_there(void **state)
{
    const place *p = *state;
    rt_error err = {0};
    rt_store *store = open_store(p->dir), *second;
    char pid[24];
    (void)snprintf(pid, sizeof pid, "process %ld", (long)getpid());
    assert_int_equal(rt_store_open(&second, p->dir, NULL, "the test", &err), RT_BUSY);
    assert_non_null(strstr(err.text, pid));
    must(rt_store_close(store, &err), &err);
}

/* A writer that tells by a pipe how much it has flushed, until it is killed. */
static void write_until_killed(const char *dir, size_t from, int pipe_end)
{
    rt_error err = {0};
    rt_store *store = open_store(dir);
    const rt_rls_header h = small_header();
    rt_store_document doc = {0};
    for (size_t i = from;; i++) {
        bool added;
        make_document(&doc, &h, i, 5 + i * 7 % 40);
        json_t *row = json_pack("{s:s,s:I}", "completion", "one", "sample", (json_int_t)i);
        if (rt_store_add_document(store, &doc, &added, &err) != RT_OK ||
            rt_store_add_text(store, row, &added, &err) != RT_OK)
            _exit(1);
        json_decref(row);
        if (i % 3 == 0) {
            const size_t done = i + 1;
            if (rt_store_flush(store, &err) != RT_OK || write(pipe_end, &done, sizeof done) != sizeof done)
                _exit(1);
        }
    }
}

static void a_killed_writer_loses_nothing_that_was_flushed(void **state)
{
    const place *p = *state;
    rt_error err = {0};
    size_t flushed = 0;
    for (unsigned round = 0; round < 8; round++) {
        int ends[2];
        assert_int_equal(pipe(ends), 0);
        const pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            (void)close(ends[0]);
            write_until_killed(p->dir, flushed, ends[1]);
        }
        (void)close(ends[1]);
        size_t done;
        for (unsigned k = 0; k < 3 + round % 3; k++)
            if (read(ends[0], &done, sizeof done) == sizeof done)
                flushed = done;
        (void)kill(pid, SIGKILL);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        while (read(ends[0], &done, sizeof done) == sizeof done)
            flushed = done;
        (void)close(ends[0]);
        rt_reader *reader;
        must(rt_reader_open(&reader, p->dir, &err), &err);
        size_t seen = 0;
        must(rt_reader_texts(reader, count_row, &seen, &err), &err);
        const size_t documents = rt_reader_documents(reader);
        rt_reader_close(reader);
        assert_true(seen >= flushed && documents >= flushed);
        check_store(p->dir, seen, documents);
        must(rt_store_close(open_store(p->dir), &err), &err); /* opening and closing alone does no harm */
        flushed = documents < seen ? documents : seen;
    }
}

static void a_full_disk_is_told_and_what_was_flushed_stays(void **state)
{
    const place *p = *state;
    rt_error err = {0};
    const pid_t pid = fork(); /* the limit is for good */
    assert_true(pid >= 0);
    if (pid == 0) {
        rt_store *store = open_store(p->dir);
        add_documents(store, 0, 10);
        if (rt_store_flush(store, &err) != RT_OK)
            _exit(1);
        const struct rlimit limit = {3000, 3000};
        (void)signal(SIGXFSZ, SIG_IGN);
        if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
            _exit(2);
        add_documents(store, 10, 30);
        if (rt_store_flush(store, &err) != RT_IO)
            _exit(3);
        _exit(strstr(err.text, "cannot write") ? 0 : 4);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    check_store(p->dir, 0, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_added_is_read_again, place_make, place_remove),
        cmocka_unit_test_setup_teardown(a_row_that_is_there_is_not_written_again, place_make, place_remove),
        cmocka_unit_test_setup_teardown(a_key_of_the_callers_own_names_a_row, place_make, place_remove),
        cmocka_unit_test_setup_teardown(a_line_of_text_is_a_row_under_its_key, place_make, place_remove),
        cmocka_unit_test_setup_teardown(other_outputs_are_refused_by_name, place_make, place_remove),
        cmocka_unit_test_setup_teardown(a_second_writer_is_told_who_is_there, place_make, place_remove),
        cmocka_unit_test_setup_teardown(a_killed_writer_loses_nothing_that_was_flushed, place_make,
                                        place_remove),
        cmocka_unit_test_setup_teardown(a_full_disk_is_told_and_what_was_flushed_stays, place_make,
                                        place_remove),
    };
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
