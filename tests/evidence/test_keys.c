/* tests/evidence/test_keys.c - key files are secret, never overwritten, checked; derived keys differ; plans
 * show every change; texts come in many forms. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/json.h"
#include "evidence/keys.h"
#include "evidence/plan.h"
#include "evidence/texts.h"

static char folder[] = "/tmp/retort-keys-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

static rt_mark_key new_key(rt_scheme scheme)
{
    rt_mark_key key;
    rt_error err = {0};
    rt_watermark mark = rt_watermark_default(scheme);
    mark.n_vocab = 1000;
    mark.n_keys = scheme == RT_SCHEME_HF_SYNTHID ? 30 : 0;
    if (rt_mark_key_new(&key, "", &mark, 1700000000, &err) != RT_OK)
        fail_msg("%s", err.text);
    return key;
}

static void every_schemes_key_is_read_back_and_its_file_is_closed_to_others(void **state)
{
    (void)state;
    for (int s = 0; s < RT_SCHEME_COUNT; s++) {
        const rt_mark_key key = new_key((rt_scheme)s);
        rt_mark_key back;
        rt_error err = {0};
        char path[128], a[65], b[65];
        struct stat info;
        (void)snprintf(path, sizeof path, "%s/k.json", folder);
        assert_int_equal(rt_mark_key_write(&key, path, &err), RT_OK);
        assert_int_equal(stat(path, &info), 0);
        assert_int_equal(info.st_mode & 0777, 0600);
        assert_int_equal(rt_mark_key_write(&key, path, &err), RT_BUSY);
        assert_int_equal(rt_mark_key_read(&back, path, &err), RT_OK);
        rt_mark_key_commitment(a, &key);
        rt_mark_key_commitment(b, &back);
        assert_string_equal(a, b);
        if (s != RT_SCHEME_HF_KGW && s != RT_SCHEME_HF_SYNTHID) /* theirs is in numbers */
            assert_memory_equal(key.mark.key, back.mark.key, sizeof key.mark.key);
        assert_int_equal(chmod(path, 0644), 0);
        assert_int_equal(rt_mark_key_read(&back, path, &err), RT_FORBIDDEN);
        assert_int_equal(unlink(path), 0);
    }
}

static void what_is_shown_of_a_key_does_not_hold_it(void **state)
{
    (void)state;
    const rt_mark_key key = new_key(RT_SCHEME_TOURNAMENT);
    char hex[33];
    for (size_t i = 0; i < 16; i++)
        (void)snprintf(hex + 2 * i, 3, "%02x", key.mark.key[i]);
    json_t *shown = rt_mark_key_public(&key);
    char *text = json_dumps(shown, 0);
    assert_null(strstr(text, hex));
    assert_non_null(strstr(text, "commitment"));
    free(text);
    json_decref(shown);
}

static void keys_of_accounts_and_schemes_differ_and_are_the_same_again(void **state)
{
    (void)state;
    const rt_mark_key key = new_key(RT_SCHEME_TOURNAMENT);
    rt_watermark a, b, again;
    rt_error err = {0};
    assert_int_equal(rt_mark_key_for_account(&a, &key.mark, "alice", &err), RT_OK);
    assert_int_equal(rt_mark_key_for_account(&b, &key.mark, "bob", &err), RT_OK);
    assert_int_equal(rt_mark_key_for_account(&again, &key.mark, "alice", &err), RT_OK);
    assert_memory_not_equal(a.key, b.key, 16);
    assert_memory_not_equal(a.key, key.mark.key, 16);
    assert_memory_equal(a.key, again.key, 16);
    assert_int_equal(rt_mark_key_for_scheme(&b, &key.mark, RT_SCHEME_KGW, &err), RT_OK);
    assert_int_equal(b.scheme, RT_SCHEME_KGW);
    assert_memory_not_equal(b.key, key.mark.key, 16);
}

static void keys_from_public_code_are_known(void **state)
{
    (void)state;
    rt_watermark kgw = rt_watermark_default(RT_SCHEME_HF_KGW),
                 native = rt_watermark_default(RT_SCHEME_TOURNAMENT);
    assert_true(rt_mark_key_is_public(&kgw)); /* 15485863 */
    for (size_t i = 0; i < 16; i++)
        native.key[i] = (uint8_t)i;
    assert_true(rt_mark_key_is_public(&native));
    const rt_mark_key fresh = new_key(RT_SCHEME_TOURNAMENT), synthid = new_key(RT_SCHEME_HF_SYNTHID);
    assert_false(rt_mark_key_is_public(&fresh.mark));
    assert_false(rt_mark_key_is_public(&synthid.mark));
}

static void any_change_of_a_sealed_plan_shows(void **state)
{
    (void)state;
    rt_error err = {0};
    bool intact;
    json_t *plan =
        json_pack("{s:i,s:[s],s:i}", "retort_evidence_plan", 1, "tests", "closed", "sampled_tokens", 1000);
    assert_int_equal(rt_evidence_plan_seal(plan, &err), RT_OK);
    assert_int_equal(rt_evidence_plan_check(plan, &intact, "plan", &err), RT_OK);
    assert_true(intact);
    (void)json_object_set_new(plan, "sampled_tokens", json_integer(2000));
    assert_int_equal(rt_evidence_plan_check(plan, &intact, "plan", &err), RT_OK);
    assert_false(intact);
    (void)json_object_set_new(plan, "surprise", json_integer(1));
    assert_int_equal(rt_evidence_plan_check(plan, &intact, "plan", &err), RT_CORRUPT);
    (void)json_object_del(plan, "surprise");
    (void)json_object_set_new(plan, "tests", json_pack("[s]", "horoscope"));
    assert_int_equal(rt_evidence_plan_check(plan, &intact, "plan", &err), RT_CORRUPT);
    json_decref(plan);
}

static void words_grow_with_p_only_as_far_as_their_conditions_hold(void **state)
{
    (void)state;
    rt_verdict_facts f = {.log10_p = -20,
                          .calibrated = true,
                          .key_check = true,
                          .second_test = true,
                          .replicated = true,
                          .plan_first = true};
    assert_string_equal(rt_verdict_words(&f), "very strong evidence");
    f.replicated = false;
    assert_string_equal(rt_verdict_words(&f), "strong evidence");
    f.second_test = false;
    assert_string_equal(rt_verdict_words(&f), "indication");
    f.calibrated = false;
    assert_string_equal(rt_verdict_words(&f), "not excluded");
    f = (rt_verdict_facts){.log10_p = -20, .none_combined = true, .calibrated = true};
    assert_string_equal(rt_verdict_words(&f), "not excluded");
    f.log10_p = 0;
    assert_string_equal(rt_verdict_words(&f), "not tested");
    f.none_combined = false;
    f.log10_p = -1;
    assert_string_equal(rt_verdict_words(&f), "no evidence found");
}

static void texts_come_plain_as_rows_and_as_ids(void **state)
{
    (void)state;
    static const char rows[] = "{\"ids\":[1,2,3]}\n\n{\"completion\":\"yes\",\"prompt\":\"really?\"}\n"
                               "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},"
                               "{\"role\":\"assistant\",\"content\":\"a\"}]}\n";
    rt_texts texts = {0};
    rt_error err = {0};
    assert_int_equal(rt_texts_parse(&texts, rows, sizeof rows - 1, RT_TEXTS_AUTO, "rows", &err), RT_OK);
    assert_int_equal(texts.count, 3);
    assert_int_equal(texts.list[0].ids.count, 3);
    assert_string_equal(texts.list[1].text, "yes");
    assert_string_equal(texts.list[2].prompt, "q");
    assert_int_equal(rt_texts_encode(&texts, NULL, NULL, &err), RT_INVALID);
    rt_texts_deinit(&texts);
    assert_int_equal(rt_texts_parse(&texts, "{\"ids\":[-1]}", 12, RT_TEXTS_AUTO, "rows", &err), RT_CORRUPT);
    assert_int_equal(rt_texts_parse(&texts, "{\"other\":1}", 11, RT_TEXTS_AUTO, "rows", &err), RT_CORRUPT);
    rt_texts_deinit(&texts);
    assert_int_equal(rt_texts_parse(&texts, "plain", 5, RT_TEXTS_AUTO, "text", &err), RT_OK);
    assert_string_equal(texts.list[0].text, "plain");
    rt_texts_deinit(&texts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_schemes_key_is_read_back_and_its_file_is_closed_to_others),
        cmocka_unit_test(what_is_shown_of_a_key_does_not_hold_it),
        cmocka_unit_test(keys_of_accounts_and_schemes_differ_and_are_the_same_again),
        cmocka_unit_test(keys_from_public_code_are_known),
        cmocka_unit_test(any_change_of_a_sealed_plan_shows),
        cmocka_unit_test(words_grow_with_p_only_as_far_as_their_conditions_hold),
        cmocka_unit_test(texts_come_plain_as_rows_and_as_ids),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
