/* tests/outputs/test_prompts.c - prompts in every form become requests; what is none is named with its line.
 * Also prices, near duplicates and refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "outputs/instruct.h"
#include "outputs/minhash.h"
#include "outputs/price.h"
#include "outputs/prompts.h"
#include "outputs/refusal.h"

static void each_form_becomes_its_request(void **state)
{
    (void)state;
    static const struct {
        const char *line, *body;
        bool completions;
    } cases[] = {
        {"{\"prompt\":\"a\"}", "{\"messages\":[{\"content\":\"a\",\"role\":\"user\"}]}", false},
        {"{\"prompt\":\"a\",\"system\":\"s\"}",
         "{\"messages\":[{\"content\":\"s\",\"role\":\"system\"},{\"content\":\"a\",\"role\":\"user\"}]}",
         false},
        {"{\"prompt\":\"a\"}", "{\"prompt\":\"a\"}", true},
        {"{\"prompt\":[1,2]}", "{\"prompt\":[1,2]}", true},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"}]}",
         "{\"messages\":[{\"content\":\"a\",\"role\":\"user\"}]}", false},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"<think>"
         "x</think>\\nb\","
         "\"reasoning_content\":\"y\"},{\"role\":\"user\",\"content\":\"c\"}]}",
         "{\"messages\":[{\"content\":\"a\",\"role\":\"user\"},{\"content\":\"b\",\"role\":\"assistant\"},{"
         "\"content\":\"c\",\"role\":"
         "\"user\"}]}",
         false},
        {"{\"conversations\":[{\"from\":\"system\",\"value\":\"s\"},{\"from\":\"human\",\"value\":\"a\"},{"
         "\"from\":\"gpt\",\"value\":"
         "\"b\"}]}",
         "{\"messages\":[{\"content\":\"s\",\"role\":\"system\"},{\"content\":\"a\",\"role\":\"user\"}]}",
         false},
        {"{\"instruction\":\"a\",\"input\":\"b\",\"output\":\"c\"}",
         "{\"messages\":[{\"content\":\"a\\n\\nb\",\"role\":\"user\"}]}", false},
        {"{\"instruction\":\"a\",\"input\":\"\"}", "{\"messages\":[{\"content\":\"a\",\"role\":\"user\"}]}",
         false},
        {"{\"custom_id\":\"i\",\"method\":\"POST\",\"url\":\"/v1/"
         "completions\",\"body\":{\"prompt\":\"a\",\"max_tokens\":3,\"stream\":"
         "true,\"n\":2}}",
         "{\"max_tokens\":3,\"prompt\":\"a\"}", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const rt_prompt_options options = {.completions = cases[i].completions};
        rt_prompt_row row;
        rt_error err = {0};
        assert_int_equal(
            rt_prompt_row_parse(&row, cases[i].line, strlen(cases[i].line), &options, "f:1", &err), RT_OK);
        char *body = json_dumps(row.body, JSON_COMPACT | JSON_SORT_KEYS);
        assert_string_equal(body, cases[i].body);
        free(body);
        rt_prompt_row_deinit(&row);
    }
}

static void what_is_no_prompt_is_named_with_its_place(void **state)
{
    (void)state;
    static const struct {
        const char *line, *words;
    } cases[] = {
        {"{", "f:7: is not valid JSON"},
        {"[]", "no object"},
        {"{\"text\":\"a\"}", "no prompt"},
        {"{\"prompt\":\"\"}", "the prompt is empty"},
        {"{\"prompt\":7}", "the prompt is empty"},
        {"{\"prompt\":[1]}", "--completions"},
        {"{\"messages\":[]}", "messages is empty"},
        {"{\"messages\":[{\"role\":\"user\"}]}", "no content"},
        {"{\"messages\":[{\"role\":\"bot\",\"content\":\"a\"}]}", "'bot' is no role"},
        {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"}]}", "nothing that was asked"},
        {"{\"conversations\":[{\"from\":\"x\",\"value\":\"a\"}]}", "a turn of conversations"},
        {"{\"instruction\":\"\"}", "the instruction"},
        {"{\"custom_id\":\"a\",\"method\":\"GET\",\"url\":\"/v1/completions\",\"body\":{\"prompt\":\"a\"}}",
         "POST"},
        {"{\"custom_id\":\"a\",\"url\":\"/v1/embeddings\",\"body\":{\"prompt\":\"a\"}}", "can be asked"},
        {"{\"custom_id\":\"a\",\"url\":\"/v1/chat/completions\",\"body\":{\"prompt\":\"a\"}}", "has to hold"},
        {"{\"custom_id\":\"a\",\"url\":\"/v1/completions\",\"body\":{\"prompt\":\"a\",\"n\":0}}",
         "out of range"}};
    const rt_prompt_options options = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        rt_prompt_row row;
        rt_error err = {0};
        assert_int_equal(
            rt_prompt_row_parse(&row, cases[i].line, strlen(cases[i].line), &options, "f:7", &err),
            RT_CORRUPT);
        assert_non_null(strstr(err.text, cases[i].words));
    }
}

static void files_are_read_line_by_line_blank_lines_and_marks_left_out(void **state)
{
    (void)state;
    char path[] = "/tmp/retort-prompts-XXXXXX.txt";
    const int fd = mkstemps(path, 4);
    assert_true(fd >= 0);
    FILE *stream = fdopen(fd, "w");
    (void)fprintf(stream, "\xEF\xBB\xBF"
                          "first\r\n\n  \nsecond");
    (void)fclose(stream);
    const char *items[] = {path, path};
    const rt_strings paths = {items, 2};
    const rt_prompt_options options = {.completions = true};
    rt_prompt_reader *reader;
    rt_prompt_row row;
    rt_error err = {0};
    static const char *const wanted[] = {"first", "second", "first", "second"};
    assert_int_equal(rt_prompt_reader_open(&reader, &paths, &options, &err), RT_OK);
    bool more = true;
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(rt_prompt_reader_next(reader, &row, &more, &err), RT_OK);
        assert_true(more);
        assert_string_equal(json_string_value(json_object_get(row.body, "prompt")), wanted[i]);
        assert_int_equal(row.line, i % 2 ? 4 : 1);
        rt_prompt_row_deinit(&row);
    }
    assert_int_equal(rt_prompt_reader_next(reader, &row, &more, &err), RT_OK);
    assert_false(more);
    rt_prompt_reader_close(reader);
    (void)unlink(path);
}

static void prices_come_from_a_table_and_limits_have_a_unit(void **state)
{
    (void)state;
    char path[] = "/tmp/retort-prices-XXXXXX.yaml";
    const int fd = mkstemps(path, 5);
    FILE *stream = fdopen(fd, "w");
    (void)fprintf(
        stream,
        "currency: eur\nmodels:\n  some-model: {input: 2, output: 8}\n  bad: {input: x, output: 1}\n");
    (void)fclose(stream);
    rt_price price;
    rt_error err = {0};
    assert_int_equal(rt_price_read(&price, path, "some-model", &err), RT_OK);
    assert_float_equal((float)rt_price_of(&price, 1000000, 500000, 250000), 4.0F, 1e-6F);
    assert_string_equal(price.currency, "eur");
    assert_int_equal(rt_price_read(&price, path, "some-modle", &err), RT_NOT_FOUND);
    assert_non_null(strstr(err.text, "did you mean 'some-model'"));
    assert_int_equal(rt_price_read(&price, path, "bad", &err), RT_INVALID);
    (void)unlink(path);
    rt_spend_max max;
    assert_int_equal(rt_spend_max_parse(&max, "25usd", &err), RT_OK);
    assert_true(max.money > 24.9 && max.money < 25.1 && strcmp(max.currency, "usd") == 0);
    assert_int_equal(rt_spend_max_parse(&max, "$2.5", &err), RT_OK);
    assert_int_equal(rt_spend_max_parse(&max, "2Mtok", &err), RT_OK);
    assert_int_equal(max.tokens, 2000000);
    static const char *const wrong[] = {"", "25", "-1usd", "usd", "0usd", "infusd", "5 apples"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_int_equal(rt_spend_max_parse(&max, wrong[i], &err), RT_INVALID);
}

static void alike_texts_are_found_and_others_are_not(void **state)
{
    (void)state;
    rt_near near = {0};
    rt_error err = {0};
    uint64_t like;
    char text[400];
    for (uint64_t i = 1; i <= 2000; i++) { /* texts of random words have little in common */
        size_t n = 0;
        for (uint64_t w = 0; w < 30; w++)
            n += (size_t)snprintf(text + n, sizeof text - n, "%llx ",
                                  (unsigned long long)(i * 2654435761U * (w + 1) % 99991));
        assert_int_equal(rt_near_add(&near, text, n, 0.8, i, &like, &err), RT_OK);
        assert_int_equal(like, 0);
    }
    text[strlen(text) - 3] = 'Z'; /* the last once more, but for a letter */
    assert_int_equal(rt_near_add(&near, text, strlen(text), 0.8, 9999, &like, &err), RT_OK);
    assert_int_equal(like, 2000);
    rt_near_deinit(&near);
}

static void refusals_are_known_by_how_they_begin(void **state)
{
    (void)state;
    static const char *const yes[] = {"I'm sorry, but I can\xE2\x80\x99t help with that.",
                                      "I cannot assist with this.",
                                      "As an AI language model, I do not have opinions."};
    static const char *const no[] = {"", "Sure: 1, 2, 3.", "The letter says that he is sorry."};
    for (size_t i = 0; i < 3; i++) {
        assert_non_null(rt_refusal_find(yes[i], strlen(yes[i])));
        assert_null(rt_refusal_find(no[i], strlen(no[i])));
    }
}

static void the_tasks_of_a_list_are_cut_out_and_what_was_said_before_is_left_out(void **state)
{
    (void)state;
    rt_tasks tasks = {0};
    rt_error err = {0};
    size_t n;
    static const char seed[] = "Write a poem about the sea in four lines.";
    static const char answer[] =
        "Sure! Here they are:\n\n1. **Explain how a bicycle stays upright.**\n2) Task: \"Name five rivers\n"
        "   of Europe, longest first.\"\n- Write a poem about the sea in four lines!\n3. Short\n\nThat is "
        "all.";
    assert_int_equal(rt_tasks_add(&tasks, seed, sizeof seed - 1, NULL, &err), RT_OK);
    tasks.n_seeds = 1;
    assert_int_equal(rt_tasks_take(&tasks, answer, sizeof answer - 1, &n, &err), RT_OK);
    assert_int_equal(n, 2);
    assert_string_equal(tasks.items[1], "Explain how a bicycle stays upright.");
    assert_string_equal(tasks.items[2], "Name five rivers\n   of Europe, longest first.");
    rt_text first = {0}, second = {0};
    rt_tasks_request(&first, &tasks, 1, 2, 3);
    rt_tasks_request(&second, &tasks, 1, 2, 3);
    assert_string_equal(first.data, second.data);
    assert_non_null(strstr(first.data, seed));
    rt_text_deinit(&first);
    rt_text_deinit(&second);
    rt_tasks_deinit(&tasks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_form_becomes_its_request),
        cmocka_unit_test(what_is_no_prompt_is_named_with_its_place),
        cmocka_unit_test(files_are_read_line_by_line_blank_lines_and_marks_left_out),
        cmocka_unit_test(prices_come_from_a_table_and_limits_have_a_unit),
        cmocka_unit_test(alike_texts_are_found_and_others_are_not),
        cmocka_unit_test(the_tasks_of_a_list_are_cut_out_and_what_was_said_before_is_left_out),
        cmocka_unit_test(refusals_are_known_by_how_they_begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
