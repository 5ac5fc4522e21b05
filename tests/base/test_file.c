/* tests/base/test_file.c - files are replaced whole or not at all: after a kill, on a full disk, in a folder
 * that cannot be written, with a second process about. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"

static char *folder; /* fresh for each test */

static int make_folder(void **state)
{
    (void)state;
    char name[] = "/tmp/retort-test-XXXXXX";
    folder = mkdtemp(name) ? strdup(name) : NULL;
    return folder ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[200];
    (void)snprintf(command, sizeof command, "chmod -R u+w %s && rm -rf %s", folder, folder);
    const int rc = system(command);
    free(folder);
    return rc;
}

static char *inside(const char *name)
{
    char *path = rt_path_join(folder, name);
    assert_non_null(path);
    return path;
}

static size_t count_entries(void)
{
    char command[200];
    (void)snprintf(command, sizeof command, "exit $(ls -A %s | wc -l)", folder);
    return (size_t)WEXITSTATUS(system(command));
}

static void what_is_written_is_read_back_and_no_other_file_stays(void **state)
{
    (void)state;
    rt_error err = {0};
    char *path = inside("a.bin"), *data = NULL;
    size_t size = 0;
    assert_int_equal(rt_file_write(path, "one\0two", 7, &err), RT_OK);
    assert_int_equal(rt_file_read(&data, &size, path, 7, &err), RT_OK);
    assert_int_equal(size, 7);
    assert_memory_equal(data, "one\0two", 8); /* and a NUL after it */
    free(data);
    assert_int_equal(rt_file_read(&data, &size, path, 6, &err), RT_INVALID);
    assert_null(data);
    assert_int_equal(rt_file_write(path, "", 0, &err), RT_OK);
    rt_file map;
    assert_int_equal(rt_file_map(&map, path, &err), RT_OK);
    assert_int_equal(map.size, 0);
    assert_non_null(map.data);
    rt_file_unmap(&map);
    assert_int_equal(count_entries(), 1);
    free(path);
}

static void what_is_no_regular_file_is_refused_by_name(void **state)
{
    (void)state;
    rt_error err = {0};
    rt_file map;
    char *path = inside("missing");
    assert_int_equal(rt_file_map(&map, path, &err), RT_NOT_FOUND);
    assert_non_null(strstr(err.text, "missing"));
    assert_int_equal(rt_file_map(&map, folder, &err), RT_INVALID);
    assert_int_equal(rt_file_map(&map, "/dev/zero", &err), RT_INVALID);
    free(path);
}

static void folders_are_made_with_their_parents_and_a_file_in_the_way_is_an_error(void **state)
{
    (void)state;
    rt_error err = {0};
    char *deep = inside("a/b//c/"), *file = inside("f"), *below = inside("f/g");
    assert_int_equal(rt_dir_make(deep, &err), RT_OK);
    assert_true(rt_path_is_dir(deep));
    assert_int_equal(rt_dir_make(deep, &err), RT_OK);
    assert_int_equal(rt_file_write(file, "x", 1, &err), RT_OK);
    assert_int_equal(rt_dir_make(file, &err), RT_IO);
    assert_int_equal(rt_dir_make(below, &err), RT_IO);
    free(deep);
    free(file);
    free(below);
}

/* Writes versions of one file until it is killed; each version is 64 Ki words of its number. */
static void write_for_ever(const char *path)
{
    enum { WORDS = 1 << 16 };
    uint32_t *words = malloc(WORDS * sizeof *words);
    rt_error err;
    for (uint32_t version = 1; words; version++) {
        for (size_t i = 0; i < WORDS; i++)
            words[i] = version;
        if (rt_file_write(path, words, WORDS * sizeof *words, &err) != RT_OK)
            _exit(1);
    }
    _exit(1);
}

static void a_kill_at_any_moment_leaves_a_whole_old_or_new_file(void **state)
{
    (void)state;
    rt_error err = {0};
    char *path = inside("checkpoint"), *data = NULL;
    size_t size = 0, versions = 0;
    for (int turn = 0; turn < 40; turn++) {
        const pid_t child = fork();
        if (child == 0)
            write_for_ever(path);
        assert_true(child > 0);
        const struct timespec pause = {0, 1000000L + 700000L * turn};
        (void)nanosleep(&pause, NULL);
        (void)kill(child, SIGKILL);
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        if (!rt_path_exists(path))
            continue; /* killed before the first was whole */
        assert_int_equal(rt_file_read(&data, &size, path, 1 << 20, &err), RT_OK);
        assert_int_equal(size, 1 << 18);
        uint32_t first, word;
        memcpy(&first, data, sizeof first);
        for (size_t i = 0; i < size; i += sizeof word) {
            memcpy(&word, data + i, sizeof word);
            assert_int_equal(word, first);
        }
        versions++;
        free(data);
    }
    assert_true(versions > 0);
    free(path);
}

static void a_full_disk_is_an_error_and_the_old_file_stays(void **state)
{
    (void)state;
    rt_error err = {0};
    char *path = inside("a"), *data = NULL;
    size_t size = 0;
    assert_int_equal(rt_file_write(path, "old", 3, &err), RT_OK);
    const pid_t child = fork();
    if (child == 0) { /* a limit on the size of files fails writes in the way that a full disk does */
        const struct rlimit limit = {4096, 4096};
        (void)signal(SIGXFSZ, SIG_IGN);
        (void)setrlimit(RLIMIT_FSIZE, &limit);
        char *large = calloc(1, 100000);
        json_t *json = json_stringn_nocheck(large, 0);
        json_t *list = json_array();
        for (int i = 0; i < 20000; i++)
            (void)json_array_append_new(list, json_integer(i));
        json_decref(json);
        const bool refused = rt_file_write(path, large, 100000, &err) == RT_IO && strstr(err.text, path) &&
                             rt_json_write(path, list, &err) == RT_IO && strstr(err.text, path);
        _exit(refused ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(rt_file_read(&data, &size, path, 100, &err), RT_OK);
    assert_string_equal(data, "old");
    assert_int_equal(count_entries(), 1); /* nothing half-written stays */
    free(data);
    free(path);
}

static void a_folder_that_cannot_be_written_is_an_error_that_names_the_file(void **state)
{
    (void)state;
    char *path = inside("a");
    assert_int_equal(chmod(folder, 0555), 0);
    const pid_t child = fork();
    if (child == 0) {
        rt_error err = {0};
        if (geteuid() == 0 && setuid(65534) != 0) /* root may write everywhere */
            _exit(2);
        const bool refused = rt_file_write(path, "x", 1, &err) == RT_IO && strstr(err.text, path);
        _exit(refused ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(chmod(folder, 0755), 0);
    free(path);
    if (WEXITSTATUS(status) == 2) {
        print_message("root cannot become another user here\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void a_failed_writer_leaves_nothing_and_may_be_aborted_twice(void **state)
{
    (void)state;
    rt_error err = {0};
    rt_writer writer;
    char *path = inside("a"), *below = inside("a/b");
    assert_int_equal(rt_writer_open(&writer, path, &err), RT_OK);
    assert_int_equal(rt_writer_write(&writer, "abc", 3, &err), RT_OK);
    assert_false(rt_path_exists(path));
    rt_writer_abort(&writer);
    rt_writer_abort(&writer);
    assert_int_equal(count_entries(), 0);
    assert_int_equal(rt_writer_open(&writer, below, &err), RT_NOT_FOUND);
    rt_writer_abort(&writer);
    free(path);
    free(below);
}

static void a_second_process_is_told_that_the_folder_is_busy_and_by_whom(void **state)
{
    (void)state;
    rt_error err = {0};
    rt_lock lock, again;
    int pipe_ends[2];
    char ready;
    assert_int_equal(pipe(pipe_ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        const bool held = rt_lock_acquire(&lock, folder, &err) == RT_OK && write(pipe_ends[1], "x", 1) == 1;
        (void)pause();
        _exit(held);
    }
    assert_int_equal(read(pipe_ends[0], &ready, 1), 1);
    char pid[32];
    (void)snprintf(pid, sizeof pid, "process %ld;", (long)child);
    assert_int_equal(rt_lock_acquire(&lock, folder, &err), RT_BUSY);
    assert_non_null(strstr(err.text, pid));
    assert_false(lock.held);
    rt_lock_release(&lock);
    (void)kill(child, SIGKILL); /* the lock ends with its process, however it ends */
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(rt_lock_acquire(&lock, folder, &err), RT_OK);
    assert_int_equal(rt_lock_acquire(&again, folder, &err), RT_BUSY); /* also within one process */
    rt_lock_release(&lock);
    assert_int_equal(rt_lock_acquire(&again, folder, &err), RT_OK);
    rt_lock_release(&again);
    (void)close(pipe_ends[0]);
    (void)close(pipe_ends[1]);
}

static void sha256_gives_the_published_values(void **state)
{
    (void)state;
    rt_error err = {0};
    char hex[65], *path = inside("abc");
    rt_sha256_hex(hex, "", 0); /* FIPS 180-4's examples */
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_int_equal(rt_file_write(path, "abc", 3, &err), RT_OK);
    assert_int_equal(rt_sha256_file(hex, path, &err), RT_OK);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    free(path);
}

static void json_survives_a_file_and_what_is_wrong_in_it_is_named_with_its_line(void **state)
{
    (void)state;
    rt_error err = {0};
    char *path = inside("a.json");
    json_t *json = json_pack("{s:f,s:I,s:o}", "x", 0.1 + 0.2, "n", (json_int_t)1 << 53, "t",
                             rt_json_text("\xff"
                                          "a\0\xE2\x82\xAC",
                                          6));
    assert_int_equal(rt_json_write(path, json, &err), RT_OK);
    json_t *back = NULL;
    assert_int_equal(rt_json_read(&back, path, 1000, &err), RT_OK);
    assert_true(json_equal(json, back));
    assert_string_equal(json_string_value(json_object_get(back, "t")), "\xEF\xBF\xBD"
                                                                       "a\xEF\xBF\xBD\xE2\x82\xAC");
    size_t n = 0;
    double x = 0;
    const char *s = NULL;
    assert_int_equal(rt_json_get_size(back, "n", &n, "a.json", &err), RT_OK);
    assert_int_equal(rt_json_get_real(back, "x", &x, "a.json", &err), RT_OK);
    assert_true(x == 0.1 + 0.2);
    assert_int_equal(rt_json_get_string(back, "n", &s, "a.json", &err), RT_CORRUPT);
    assert_string_equal(err.text, "a.json: the key 'n' is not a string");
    assert_int_equal(rt_json_get_string(back, "y", &s, "a.json", &err), RT_CORRUPT);
    assert_string_equal(err.text, "a.json: the key 'y' is missing");
    json_decref(json);
    json_decref(back);
    static const char *const wrong[] = {
        "", "{", "{\"a\": 1,\n \"a\": 2}", "[1] x", "\"\\u0000\"", "nul", "[1e999]", "\xff"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(rt_json_parse(&back, wrong[i], strlen(wrong[i]), "w.json", &err), RT_CORRUPT);
        assert_null(back);
        assert_non_null(strstr(err.text, "w.json:"));
    }
    free(path);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_written_is_read_back_and_no_other_file_stays),
        TEST(what_is_no_regular_file_is_refused_by_name),
        TEST(folders_are_made_with_their_parents_and_a_file_in_the_way_is_an_error),
        TEST(a_kill_at_any_moment_leaves_a_whole_old_or_new_file),
        TEST(a_full_disk_is_an_error_and_the_old_file_stays),
        TEST(a_folder_that_cannot_be_written_is_an_error_that_names_the_file),
        TEST(a_failed_writer_leaves_nothing_and_may_be_aborted_twice),
        TEST(a_second_process_is_told_that_the_folder_is_busy_and_by_whom),
        TEST(sha256_gives_the_published_values),
        TEST(json_survives_a_file_and_what_is_wrong_in_it_is_named_with_its_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
