/* tests/teacher/test_answer.c - what servers answer is read as it was meant, and lies are seen. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "teacher/answer.h"
#include "teacher/remote.h"

static rt_answered reply;
static rt_error err;

static int set_up(void **state)
{
    (void)state;
    rt_answered_init(&reply);
    err = (rt_error){0};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    rt_answered_deinit(&reply);
    return 0;
}

static rt_status read_chat(const char *text)
{
    const rt_answer_wish wish = {.chat = true, .model = "m", .n_vocab = 100, .prompt_bytes = 40};
    rt_answered_reset(&reply);
    return rt_answer_read(&reply, &wish, text, strlen(text), &err);
}

static rt_status read_stream(const char *text)
{
    const rt_answer_wish wish = {.chat = true, .model = "m", .n_vocab = 100};
    rt_answered_reset(&reply);
    return rt_answer_read_stream(&reply, &wish, text, strlen(text), &err);
}

#define USAGE ",\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}"

static void what_is_no_answer_is_refused_with_a_sentence(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"", "not valid JSON"},
        {"<html>", "not valid JSON"},
        {"{\"choices\":[]} {}", "not valid JSON"},
        {"[]", "no object"},
        {"{}", "no choice"},
        {"{\"choices\":[]}", "no choice"},
        {"{\"choices\":[7]}", "no choice"},
        {"{\"choices\":[{\"index\":0}]}", "neither a message nor a text"},
        {"{\"error\":{\"message\":\"out of luck\"}}", "out of luck"},
        {"{\"choices\":[{\"text\":\"a\",\"logprobs\":{\"tokens\":[\"a\"],\"token_logprobs\":[]}}]}",
         "1 tokens and 0"},
        {"{\"choices\":[{\"text\":\"a\",\"logprobs\":{\"content\":[{\"token\":\"a\"}]}}]}", "no logprob"},
        {"{\"choices\":[{\"text\":\"a\",\"logprobs\":{\"content\":7}}]}", "neither content nor tokens"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_not_equal(read_chat(cases[i].text), RT_OK);
        assert_non_null(strstr(err.text, cases[i].words));
    }
}

static void reasoning_is_found_in_all_three_places(void **state)
{
    (void)state;
    static const struct {
        const char *message, *text, *reasoning;
        unsigned flags;
    } cases[] = {
        {"\"content\":\"b\",\"reasoning_content\":\"a\"", "b", "a", 0},
        {"\"content\":\"b\",\"reasoning\":\"a\"", "b", "a", 0},
        {"\"content\":\"<think>\\na\\n</think>\\n\\nb\"", "b", "a", 0},
        {"\"content\":\" a</think>b\"", "b", "a", 0},
        {"\"content\":\"<think>a b\"", "", "a b", RT_REPLY_OPEN_THINK},
        {"\"content\":\"say <think>x</think>\"", "say <think>x</think>", "", 0},
        {"\"content\":\"plain\"", "plain", "", 0},
        {"\"content\":[{\"type\":\"text\",\"text\":\"in \"},{\"type\":\"text\",\"text\":\"parts\"}]",
         "in parts", "", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[400];
        (void)snprintf(text, sizeof text,
                       "{\"choices\":[{\"message\":{%s},\"finish_reason\":\"stop\"}]" USAGE,
                       cases[i].message);
        assert_int_equal(read_chat(text), RT_OK);
        assert_string_equal(reply.text.data ? reply.text.data : "", cases[i].text);
        assert_string_equal(reply.reasoning.data ? reply.reasoning.data : "", cases[i].reasoning);
        assert_int_equal(reply.flags, cases[i].flags);
    }
}

static void log_probabilities_of_both_forms_give_bytes_ids_order_and_tail(void **state)
{
    (void)state;
    assert_int_equal(
        read_chat("{\"choices\":[{\"message\":{\"content\":\"\xC3\xA9!\"},\"logprobs\":{\"content\":["
                  "{\"token\":\"?\",\"bytes\":[195],\"logprob\":-0.5,\"top_logprobs\":[{\"token\":\"x\","
                  "\"logprob\":-2,\"id\":9},"
                  "{\"token\":\"?\",\"bytes\":[195],\"logprob\":-0.5,\"id\":4}]},"
                  "{\"token\":\"bytes:\\\\xa9!\",\"logprob\":-0.1,\"top_logprobs\":[]},"
                  "{\"token\":\"\\u00a9\",\"bytes\":[169,33],\"logprob\":-0.1}]}}]" USAGE),
        RT_OK);
    assert_int_equal(reply.n_tokens, 3);
    assert_int_equal(reply.tokens[0].n_top, 2);
    assert_int_equal(reply.alternatives[0].id, 4); /* the likelier first */
    assert_float_equal(reply.tokens[0].tail, 1 - expf(-0.5F) - expf(-2), 1e-6F);
    assert_true(isnan(reply.tokens[1].tail));
    assert_int_equal(
        read_chat(
            "{\"choices\":[{\"text\":\"ab\",\"logprobs\":{\"tokens\":[\"token_id:7\",\"bytes:\\\\x62\"],"
            "\"token_logprobs\":[null,-1],\"top_logprobs\":[null,{\"token_id:99\":-1,\"token_id:3\":-0.6}]}}"
            "]" USAGE),
        RT_OK);
    assert_int_equal(reply.tokens[0].chosen.id, 7);
    assert_true(isnan(reply.tokens[0].chosen.logprob));
    assert_memory_equal(reply.pool.data + reply.tokens[1].chosen.bytes, "b", 1);
    assert_int_equal(reply.alternatives[reply.tokens[1].top].id, 3);
}

static void tokens_spell_the_text_also_where_parts_of_it_are_not_shown(void **state)
{
    (void)state;
#define TOKEN(bytes) "{\"token\":\"?\",\"bytes\":[" bytes "],\"logprob\":-1}"
#define ANSWER(message, tokens)                                                                              \
    "{\"choices\":[{\"message\":{" message "},\"logprobs\":{\"content\":[" tokens "]}}]}"
    static const struct {
        const char *text;
        bool spells;
    } cases[] = {
        {ANSWER("\"content\":\"ab\"", TOKEN("97") "," TOKEN("98")), true},
        {ANSWER("\"content\":\"ab\"", TOKEN("97") "," TOKEN("99")), false},
        {ANSWER("\"content\":\"ab\"", TOKEN("97")), false},
        /* a stop string begins within a token */
        {ANSWER("\"content\":\"ab.\"", TOKEN("97,98") "," TOKEN("46,10,10")), true},
        /* cut off within a character, and bytes that are none */
        {ANSWER("\"content\":\"a\xEF\xBF\xBD\"", TOKEN("97") "," TOKEN("240,159")), true},
        {ANSWER("\"content\":\"\xEF\xBF\xBD"
                "b\"",
                TOKEN("255") "," TOKEN("98")),
         true},
        /* a control token that the text does not show: <s>; one that is text: <b> */
        {ANSWER("\"content\":\"ab\"", TOKEN("97") "," TOKEN("60,115,62") "," TOKEN("98")), true},
        {ANSWER("\"content\":\"<b>a\"", TOKEN("60,98,62") "," TOKEN("97")), true},
        {ANSWER("\"content\":\"ab\"", TOKEN("97") "," TOKEN("120,121,122") "," TOKEN("98")), false},
        /* reasoning was split off, with its tags: <t> r </t> a */
        {ANSWER(
             "\"content\":\"a\",\"reasoning_content\":\"r\"",
             TOKEN("60,116,62") "," TOKEN("114") "," TOKEN("60,47,116,62") "," TOKEN("10") "," TOKEN("97")),
         true},
        {ANSWER("\"content\":\"a\",\"reasoning_content\":\"x\"", TOKEN("114") "," TOKEN("97")), false},
        /* blanks that a server strips */
        {ANSWER("\"content\":\"a\"", TOKEN("32,97") "," TOKEN("10")), true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(read_chat(cases[i].text), RT_OK);
        if (((reply.flags & RT_REPLY_BYTES) == 0) != cases[i].spells)
            fail_msg("case %zu: %s", i, cases[i].text);
    }
}

static void usage_that_cannot_be_true_is_estimated_and_marked(void **state)
{
    (void)state;
    static const char *const usages[] = {
        "",
        ",\"usage\":{\"prompt_tokens\":-1,\"completion_tokens\":2}",
        ",\"usage\":{\"prompt_tokens\":1.5,\"completion_tokens\":2}",
        ",\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":0}",
        ",\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":99999999999999}",
        ",\"usage\":\"many\""};
    for (size_t i = 0; i < sizeof usages / sizeof usages[0]; i++) {
        char text[300];
        (void)snprintf(text, sizeof text, "{\"choices\":[{\"message\":{\"content\":\"eight by\"}}]%s}",
                       usages[i]);
        assert_int_equal(read_chat(text), RT_OK);
        assert_int_equal(reply.flags, RT_REPLY_USAGE);
        assert_int_equal(reply.usage.completion, 2);
        assert_int_equal(reply.usage.prompt, 10);
    }
}

static void ids_outside_the_vocabulary_are_dropped(void **state)
{
    (void)state;
    static const char *const lists[] = {"[1,100]", "[1,-1]", "[1,\"2\"]", "[1,99999999999]"};
    for (size_t i = 0; i < 4; i++) {
        char text[300];
        (void)snprintf(text, sizeof text, "{\"choices\":[{\"text\":\"ab\",\"token_ids\":%s}]" USAGE,
                       lists[i]);
        assert_int_equal(read_chat(text), RT_OK);
        assert_int_equal(reply.flags, RT_REPLY_IDS);
        assert_int_equal(reply.n_ids, 0);
    }
    assert_int_equal(
        read_chat("{\"prompt_token_ids\":[5],\"choices\":[{\"text\":\"ab\",\"token_ids\":[1,99]}]" USAGE),
        RT_OK);
    assert_int_equal(reply.n_ids, 2);
    assert_int_equal(reply.n_prompt_ids, 1);
}

static void a_model_may_answer_with_its_long_name_but_not_as_another(void **state)
{
    (void)state;
    assert_int_equal(read_chat("{\"model\":\"m-2024\",\"choices\":[{\"text\":\"a\"}]" USAGE), RT_OK);
    assert_int_equal(reply.flags, 0);
    assert_int_equal(read_chat("{\"model\":\"other\",\"choices\":[{\"text\":\"a\"}]" USAGE), RT_OK);
    assert_int_equal(reply.flags, RT_REPLY_MODEL);
}

#define PIECE(text) "data: {\"choices\":[{\"delta\":{\"content\":\"" text "\"}}]}\n\n"
#define LAST(tokens)                                                                                         \
    "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\r\n\r\n: ping\n\ndata: "                \
    "{\"choices\":[],\"usage\":"                                                                             \
    "{\"prompt_tokens\":1,\"completion_tokens\":" tokens "}}\n\ndata: [DONE]\n\n"

static void a_stream_gives_the_text_of_its_chunks(void **state)
{
    (void)state;
    assert_int_equal(read_stream(PIECE("ha") PIECE("ha") PIECE("!") LAST("4")), RT_OK);
    assert_string_equal(reply.text.data, "haha!"); /* text that repeats itself, and tokens enough for it */
    assert_string_equal(reply.finish, "stop");
    assert_int_equal(reply.usage.completion, 4);
}

static void a_stream_that_is_cut_or_doubled_is_no_answer(void **state)
{
    (void)state;
    static const char *const streams[] = {PIECE("a"),
                                          PIECE("a") "data: [DONE]",
                                          PIECE("a") PIECE("b") PIECE("b") LAST("3"),
                                          PIECE("a") PIECE("b") PIECE("a") PIECE("b") LAST("3"),
                                          "data: [DONE]\n\n",
                                          PIECE("a") "data: {\"error\":{\"message\":\"gone\"}}\n\n",
                                          PIECE("a") "data: {\n\n" LAST("2")};
    for (size_t i = 0; i < sizeof streams / sizeof streams[0]; i++)
        assert_int_not_equal(read_stream(streams[i]), RT_OK);
}

static void a_doubled_chunk_with_the_same_log_probabilities_is_left_out(void **state)
{
    (void)state;
#define SURE                                                                                                 \
    "data: "                                                                                                 \
    "{\"choices\":[{\"delta\":{\"content\":\"b\"},\"logprobs\":{\"content\":[{\"token\":\"b\",\"logprob\":-" \
    "0.123}]}}]}\n\n"
    assert_int_equal(read_stream(SURE SURE LAST("2")), RT_OK);
    assert_string_equal(reply.text.data, "b");
    assert_int_equal(reply.flags, RT_REPLY_DUPLICATE);
}

static void a_refusals_body_gives_code_and_sentence_in_every_form(void **state)
{
    (void)state;
    static const struct {
        const char *body, *code, *text;
    } cases[] = {{"{\"error\":{\"message\":\"a\",\"type\":\"t\",\"code\":\"c\"}}", "c", "a"},
                 {"{\"error\":{\"message\":\"a\",\"type\":\"insufficient_quota\",\"code\":null}}",
                  "insufficient_quota", "a"},
                 {"{\"error\":\"a\"}", "", "a"},
                 {"{\"detail\":\"a\"}", "", "a"},
                 {"{\"message\":\"a\",\"type\":\"t\"}", "t", "a"},
                 {"plain\nwords", "", "plain words"},
                 {"", "", ""}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        rt_answered_reset(&reply);
        rt_answer_read_error(&reply, cases[i].body, strlen(cases[i].body));
        assert_string_equal(reply.error_code, cases[i].code);
        assert_string_equal(reply.error_text, cases[i].text);
    }
}

static void an_address_is_understood_in_every_form(void **state)
{
    (void)state;
    static const struct {
        const char *url, *base, *endpoint;
    } cases[] = {{"http://h:1", "http://h:1/v1", ""},
                 {"http://h:1/", "http://h:1/v1", ""},
                 {"http://h:1/v1/", "http://h:1/v1", ""},
                 {"https://h/api/v1", "https://h/api/v1", ""},
                 {"https://h/v1/chat/completions", "https://h/v1", "chat"},
                 {"https://h/v1/completions", "https://h/v1", "completions"},
                 {"ftp://h", NULL, NULL},
                 {"h:1", NULL, NULL},
                 {"http://", NULL, NULL},
                 {"http://a b", NULL, NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *endpoint = NULL;
        char *base = rt_remote_base_url(cases[i].url, &endpoint, &err);
        if (cases[i].base) {
            assert_string_equal(base, cases[i].base);
            assert_string_equal(endpoint, cases[i].endpoint);
        } else {
            assert_null(base);
        }
        free(base);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(what_is_no_answer_is_refused_with_a_sentence),
        TEST(reasoning_is_found_in_all_three_places),
        TEST(log_probabilities_of_both_forms_give_bytes_ids_order_and_tail),
        TEST(tokens_spell_the_text_also_where_parts_of_it_are_not_shown),
        TEST(usage_that_cannot_be_true_is_estimated_and_marked),
        TEST(ids_outside_the_vocabulary_are_dropped),
        TEST(a_model_may_answer_with_its_long_name_but_not_as_another),
        TEST(a_stream_gives_the_text_of_its_chunks),
        TEST(a_stream_that_is_cut_or_doubled_is_no_answer),
        TEST(a_doubled_chunk_with_the_same_log_probabilities_is_left_out),
        TEST(a_refusals_body_gives_code_and_sentence_in_every_form),
        TEST(an_address_is_understood_in_every_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
