/* tests/account/test_guess.c - what the server does for a key does not tell how wrong it is: the same hashes,
 * the same comparisons, the same statements, counted by wrapping the libraries' functions (CMakeLists.txt).
 */
#include "account_help.h"

#include <sodium.h>
#include <sqlite3.h>

static int hashes, comparisons, statements;
static size_t hashed_bytes;

int __real_crypto_hash_sha256(unsigned char *out, const unsigned char *in, unsigned long long size);
int __wrap_crypto_hash_sha256(unsigned char *out, const unsigned char *in, unsigned long long size);
int __real_sodium_memcmp(const void *a, const void *b, size_t size);
int __wrap_sodium_memcmp(const void *a, const void *b, size_t size);
int __real_sqlite3_step(sqlite3_stmt *statement);
int __wrap_sqlite3_step(sqlite3_stmt *statement);
static _Thread_local bool counting;

int __wrap_crypto_hash_sha256(unsigned char *out, const unsigned char *in, unsigned long long size)
{
    if (counting) {
        hashes++;
        hashed_bytes += (size_t)size;
    }
    return __real_crypto_hash_sha256(out, in, size);
}

int __wrap_sodium_memcmp(const void *a, const void *b, size_t size)
{
    comparisons += counting;
    return __real_sodium_memcmp(a, b, size);
}

int __wrap_sqlite3_step(sqlite3_stmt *statement)
{
    statements += counting;
    return __real_sqlite3_step(statement);
}

typedef struct work {
    int hashes, comparisons, statements;
    size_t bytes;
} work;

static work work_of(rt_gate *gate, const char *key, const char *address, const char *code)
{
    rt_refusal why = {0};
    hashes = comparisons = statements = 0;
    hashed_bytes = 0;
    counting = true;
    const rt_caller *caller = rt_gate_authenticate(gate, key, address, &why);
    counting = false;
    if (code)
        assert_string_equal(why.code, code);
    else
        assert_non_null(caller);
    rt_caller_release(caller);
    return (work){hashes, comparisons, statements, hashed_bytes};
}

static void unknown_wrong_revoked_and_right_keys_take_the_same_work(void **state)
{
    (void)state;
    char where[300], wrong[100], unknown[100], tail[100];
    (void)snprintf(where, sizeof where, "%s", fresh_database(ON_SQLITE));
    rt_gate *gate = open_gate(where, NULL);
    const client c = make_client(rt_gate_desk(gate), NULL), old = make_client(rt_gate_desk(gate), NULL);
    char path[100];
    (void)snprintf(path, sizeof path, "/admin/v1/keys/%s", old.key);
    json_decref(desk_call(rt_gate_desk(gate), 200, "DELETE", path, NULL, NULL));
    (void)snprintf(wrong, sizeof wrong, "%s", c.secret); /* the first character of the secret part */
    wrong[16] = wrong[16] == 'A' ? 'B' : 'A';
    (void)snprintf(tail, sizeof tail, "%s", c.secret); /* and the last */
    tail[strlen(tail) - 1] = tail[strlen(tail) - 1] == 'A' ? 'B' : 'A';
    (void)snprintf(unknown, sizeof unknown, "%s", c.secret);
    memcpy(unknown + 6, "zzzzzzzz", 8);
    (void)work_of(gate, c.secret, "192.0.2.1", NULL); /* what has changed is read once */
    const work right = work_of(gate, c.secret, "192.0.2.1", NULL);
    assert_int_equal(right.hashes, 1);
    assert_int_equal(right.comparisons, 1);
    assert_int_equal(right.bytes, strlen(c.secret));
    const struct {
        const char *key, *code;
    } cases[] = {{wrong, "invalid_api_key"},
                 {tail, "invalid_api_key"},
                 {unknown, "invalid_api_key"},
                 {old.secret, "revoked_api_key"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const work w = work_of(gate, cases[i].key, "192.0.2.2", cases[i].code);
        assert_int_equal(w.hashes, right.hashes);
        assert_int_equal(w.comparisons, right.comparisons);
        assert_int_equal(w.statements, right.statements);
        assert_int_equal(w.bytes, right.bytes);
    }
    /* a text that is no key at all: as many hashes, comparisons and statements; its own length is no secret
     */
    const work shapeless = work_of(gate, "hello", "192.0.2.3", "invalid_api_key");
    assert_int_equal(shapeless.hashes, right.hashes);
    assert_int_equal(shapeless.comparisons, right.comparisons);
    assert_int_equal(shapeless.statements, right.statements);
    rt_gate_close(gate);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_wrong_revoked_and_right_keys_take_the_same_work),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, start_databases, stop_databases);
}
