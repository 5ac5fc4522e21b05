/* tests/outputs/test_store_memory.c - every allocation of writing and reading a store fails once: a sentence,
 * no crash, and what was flushed before is still there.
 *
 * malloc and its kin are this program's own here, in front of the C library's; a sanitizer's allocator cannot
 * be put behind them, so the sweep is left out under one. */
#include "outputs/store_help.h"

#include <errno.h>
#include <unistd.h>

#include "outputs/check.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define OTHER_ALLOCATOR
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define OTHER_ALLOCATOR
#endif

static long allocations_left = -1; /* negative: none fails */
static unsigned long failed;
static bool only_one; /* fails; else all that follow do, too */

#ifndef OTHER_ALLOCATOR
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *at, size_t size);

static bool fails(void)
{
    if (allocations_left < 0)
        return false;
    if (allocations_left > 0) {
        allocations_left--;
        return false;
    }
    failed++;
    errno = ENOMEM;
    if (only_one)
        allocations_left = -1;
    return true;
}

void *malloc(size_t size) { return fails() ? NULL : __libc_malloc(size); }
void *calloc(size_t n, size_t size) { return fails() ? NULL : __libc_calloc(n, size); }
void *realloc(void *at, size_t size) { return fails() ? NULL : __libc_realloc(at, size); }
#endif

static rt_store_document docs[4];

/* Opens, adds, flushes, adds, closes; then reads everything. *flushed: rows that a flush has acknowledged. */
static rt_status work(const char *dir, const json_t *facts, const json_t *row, size_t *flushed, rt_error *err)
{
    rt_store *store;
    if (rt_store_open(&store, dir, facts, "the test", err) != RT_OK)
        return err->status;
    bool added;
    rt_status status = rt_store_add_text(store, row, &added, err);
    for (size_t i = 0; i < 4 && status == RT_OK; i++) {
        status = rt_store_add_document(store, &docs[i], &added, err);
        if (status == RT_OK && i == 1 && (status = rt_store_flush(store, err)) == RT_OK)
            *flushed = 2;
    }
    rt_error later;
    const rt_status closed = rt_store_close(store, status == RT_OK ? err : &later);
    if (status == RT_OK && closed == RT_OK)
        *flushed = 4;
    status = status == RT_OK ? closed : status;
    rt_store_totals totals;
    json_t *stat = NULL;
    if (status == RT_OK && (status = rt_store_verify(dir, NULL, NULL, &totals, err)) == RT_OK)
        status = rt_store_stat(&stat, dir, 10, err);
    json_decref(stat);
    return status;
}

static void check_what_is_there(const char *dir, size_t flushed)
{
    rt_error err = {0};
    rt_reader *reader;
    const rt_status status = rt_reader_open(&reader, dir, &err);
    if (status == RT_NOT_FOUND && flushed == 0)
        return; /* not even a manifest */
    must(status, &err);
    assert_true(rt_reader_documents(reader) >= flushed);
    const rt_rls_header h = small_header();
    rt_store_document got = {0};
    for (size_t i = 0; i < rt_reader_documents(reader); i++) {
        must(rt_reader_document(reader, i, &got, &err), &err);
        assert_same_document(&got, &docs[got.number], &h);
    }
    rt_store_document_deinit(&got);
    rt_reader_close(reader);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
#ifdef OTHER_ALLOCATOR
    print_message("skipped: the allocator of this build is not the C library's\n");
    skip();
#endif
    const rt_rls_header h = small_header();
    json_t *facts = json_pack("{s:{s:s},s:o}", "teacher", "name", "made up", "logits", rt_rls_facts(&h)),
           *row = json_pack("{s:s,s:s}", "prompt", "a", "completion", "b");
    for (size_t i = 0; i < 4; i++)
        make_document(&docs[i], &h, i, 9 + i);
    bool done = false;
    long n = 0;
    for (unsigned turn = 0; !done; turn++) { /* alone first, then with all that follow */
        only_one = turn % 2 == 0;
        n = turn / 2;
        rt_error err = {0};
        char dir[] = "/tmp/retort-test-memory-XXXXXX", command[96];
        size_t flushed = 0;
        assert_non_null(mkdtemp(dir));
        failed = 0;
        allocations_left = n;
        const rt_status status = work(dir, facts, row, &flushed, &err);
        allocations_left = -1;
        done = failed == 0;
        assert_true(!done || status == RT_OK);
        if (status != RT_OK)
            assert_true(err.text[0] != '\0');
        if (done)
            must(status, &err);
        check_what_is_there(dir, flushed);
        (void)snprintf(command, sizeof command, "rm -rf '%s'", dir);
        (void)!system(command);
        assert_true(n < 20000);
    }
    for (size_t i = 0; i < 4; i++)
        rt_store_document_deinit(&docs[i]);
    json_decref(facts);
    json_decref(row);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation_may_fail)};
    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
