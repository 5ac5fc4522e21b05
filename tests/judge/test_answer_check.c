/* tests/judge/test_answer_check.c - rows of each data set's shape become problems; right and wrong answers in
 * the ways in which models say them; programs that pass, fail, cheat and hang. */
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

#include "base/json.h"
#include "judge/answer.h"

static rt_answer_options options;

static rt_problem problem_of(const char *row)
{
    rt_error err = {0};
    json_t *json;
    rt_problem p;
    if (rt_json_parse(&json, row, strlen(row), "row", &err) != RT_OK ||
        rt_problem_of_row(&p, json, "row", &err) != RT_OK)
        fail_msg("%s", err.text);
    json_decref(json);
    return p;
}

static void refused(const char *row, const char *why)
{
    rt_error err = {0};
    json_t *json;
    rt_problem p;
    assert_int_equal(rt_json_parse(&json, row, strlen(row), "row", &err), RT_OK);
    assert_int_equal(rt_problem_of_row(&p, json, "problems.jsonl:7", &err), RT_INVALID);
    if (!strstr(err.text, why) || !strstr(err.text, "problems.jsonl:7"))
        fail_msg("%s", err.text);
    json_decref(json);
}

static rt_verdict verdict(const rt_problem *p, const char *answer, char *final)
{
    rt_error err = {0};
    rt_text text = {0};
    rt_verdict out;
    const rt_status status = rt_answer_check(&out, p, answer, strlen(answer), &options, &text, &err);
    if (status == RT_NOT_FOUND || status == RT_UNSUPPORTED) {
        print_message("%s\n", err.text);
        skip();
    }
    if (status != RT_OK)
        fail_msg("%s", err.text);
    if (final)
        (void)snprintf(final, 64, "%s", text.data ? text.data : "");
    rt_text_deinit(&text);
    return out;
}

static void expect(const char *row, const char *answer, rt_verdict want)
{
    rt_problem p = problem_of(row);
    const rt_verdict got = verdict(&p, answer, NULL);
    if (got != want)
        fail_msg("'%s': verdict %d, expected %d", answer, (int)got, (int)want);
    rt_problem_deinit(&p);
}

static void rows_are_told_by_their_fields(void **state)
{
    (void)state;
    static const struct {
        const char *row;
        rt_problem_kind kind;
        const char *prompt, *gold;
    } cases[] = {
        {"{\"question\": \"2+2?\", \"answer\": \"so\\n#### 4\"}", RT_PROBLEM_NUMBER, "2+2?", "4"},
        {"{\"question\": \"2+2?\", \"answer\": \"#### 1 no\\n#### 1,004\"}", RT_PROBLEM_NUMBER, "2+2?",
         "1,004"},
        {"{\"Body\": \"A has 2.\", \"Question\": \"How many?\", \"Answer\": 2.0}", RT_PROBLEM_NUMBER,
         "A has 2. How many?", "2"},
        {"{\"question\": \"q\", \"options\": [\"A)1\", \"B)2\"], \"correct\": \"B\"}", RT_PROBLEM_LETTER,
         "q\nA)1\nB)2", "B"},
        {"{\"input\": \"True and False is\", \"target\": \"False\"}", RT_PROBLEM_EXACT, "True and False is",
         "False"},
        {"{\"prompt\": \"p\", \"answer\": 3}", RT_PROBLEM_NUMBER, "p", "3"},
        {"{\"prompt\": \"p\", \"answer\": \"blue\"}", RT_PROBLEM_EXACT, "p", "blue"},
        {"{\"prompt\": \"p\", \"pattern\": \"^a+$\"}", RT_PROBLEM_PATTERN, "p", "^a+$"},
        {"{\"prompt\": \"p\", \"tests\": \"assert f(1)\"}", RT_PROBLEM_PROGRAM, "p", "assert f(1)"},
        {"{\"prompt\": \"p\", \"instruction_id_list\": [], \"kwargs\": []}", RT_PROBLEM_INSTRUCTIONS, "p",
         ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        rt_problem p = problem_of(cases[i].row);
        assert_int_equal(p.kind, cases[i].kind);
        assert_string_equal(p.prompt, cases[i].prompt);
        assert_string_equal(p.gold, cases[i].gold);
        rt_problem_deinit(&p);
    }
}

static void choices_have_contexts_and_endings(void **state)
{
    (void)state;
    static const struct {
        const char *row, *context, *ending; /* of the right one */
        size_t n, right;
    } cases[] = {
        {"{\"subject\": \"s\", \"question\": \"q\", \"choices\": [\"x\", \"y\"], \"answer\": \"B\"}",
         "q\nA. x\nB. y\nAnswer:", " B", 2, 1},
        {"{\"query\": \"q\", \"choices\": [\"x\", \"y\", \"z\"], \"gold\": 2}", "q\nAnswer:", " z", 3, 2},
        {"{\"question\": {\"stem\": \"q\", \"choices\": [{\"text\": \"x\", \"label\": \"1\"}, {\"text\": "
         "\"y\", "
         "\"label\": \"2\"}]}, \"answerKey\": \"1\"}",
         "q\nAnswer:", " x", 2, 0},
        {"{\"ctx\": \"He\", \"endings\": [\"ran.\", \"sat.\"], \"label\": \"1\"}", "He", " sat.", 2, 1},
        {"{\"context_options\": [\"so Ann\", \"so Bob\"], \"continuation\": \"left.\", \"gold\": 0}",
         "so Ann", " left.", 2, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        rt_problem p = problem_of(cases[i].row);
        assert_int_equal(p.kind, RT_PROBLEM_CHOICE);
        assert_int_equal(p.n_choices, cases[i].n);
        assert_int_equal(p.right, cases[i].right);
        assert_string_equal(p.contexts[p.right], cases[i].context);
        assert_string_equal(p.endings[p.right], cases[i].ending);
        rt_problem_deinit(&p);
    }
}

static void rows_that_cannot_be_checked_are_named(void **state)
{
    (void)state;
    refused("{\"question\": \"q\"}", "nothing can be checked");
    refused("{\"question\": \"q\", \"answer\": \"\"}", "nothing can be checked");
    refused("{\"answer\": 3}", "question or prompt");
    refused("{\"query\": \"q\", \"choices\": [\"x\", \"y\"], \"gold\": 2}", "none of the choices");
    refused("{\"query\": \"q\", \"choices\": [\"x\", \"y\"], \"gold\": -1}", "none of the choices");
    refused("{\"query\": \"q\", \"choices\": [\"x\"], \"gold\": 0}", "between 2 and 64");
    refused("{\"query\": \"q\", \"choices\": [\"x\", 3], \"gold\": 0}", "no text");
    refused("{\"entry_point\": \"f\"}", "prompt and test");
    refused("{\"test_list\": [], \"text\": \"t\"}", "at least one test");
    refused("{\"prompt\": \"p\", \"instruction_id_list\": [\"a\"], \"kwargs\": []}", "kwargs");
    refused("[1]", "must be an object");
}

#define NUMBER(gold) "{\"question\": \"q\", \"answer\": \"#### " gold "\"}"

static void numbers_are_found_where_models_put_them(void **state)
{
    (void)state;
    expect(NUMBER("18"), "She sells 9. 9 * 2 = 18. #### 18", RT_VERDICT_RIGHT);
    expect(NUMBER("18"), "The answer is $18.", RT_VERDICT_RIGHT);
    expect(NUMBER("18"), "... so the **answer is: 18** dollars, not 20.", RT_VERDICT_RIGHT);
    expect(NUMBER("18"), "We get \\boxed{18}.", RT_VERDICT_RIGHT);
    expect(NUMBER("0.75"), "\\boxed{\\frac{3}{4}}", RT_VERDICT_RIGHT);
    expect(NUMBER("0.75"), "Answer: 3/4", RT_VERDICT_RIGHT);
    expect(NUMBER("-5"), "#### -5", RT_VERDICT_RIGHT);
    expect(NUMBER("-5"), "It is 5.", RT_VERDICT_WRONG);
    expect(NUMBER("1,234.50"), "In all $1234.5", RT_VERDICT_RIGHT);
    expect(NUMBER("70000"), "#### 70,000", RT_VERDICT_RIGHT);
    expect(NUMBER("70"), "70,000", RT_VERDICT_WRONG);
    expect(NUMBER("18"), "First 3, then 15, in all 18", RT_VERDICT_RIGHT);
    expect(NUMBER("18"), "18 is what I get, then 19", RT_VERDICT_WRONG);
    expect(NUMBER("18"), "#### 17\nNo: #### 18", RT_VERDICT_RIGHT);
    expect(NUMBER("3"), "3.14", RT_VERDICT_WRONG);
    expect(NUMBER("18"), "I do not know.", RT_VERDICT_NONE);
    expect(NUMBER("18"), "", RT_VERDICT_NONE);
    expect(NUMBER("18"), "x18 v2.0.18 a_18", RT_VERDICT_NONE);
}

static void thoughts_do_not_count(void **state)
{
    (void)state;
    expect(NUMBER("18"), "<think>17? #### 17</think>#### 18", RT_VERDICT_RIGHT);
    expect(NUMBER("18"), "17? #### 17</think>It is 18", RT_VERDICT_RIGHT); /* the template opened it */
    expect(NUMBER("18"), "<think>#### 18", RT_VERDICT_NONE);               /* cut in mid-thought */
    expect(NUMBER("18"), "<think>#### 18</think>", RT_VERDICT_NONE);
    expect(NUMBER("18"), "<think>a</think>17<think>#### 18", RT_VERDICT_NONE);
}

static void equal_answers_have_equal_texts(void **state)
{
    (void)state;
    rt_problem p = problem_of(NUMBER("1234.5"));
    char a[64], b[64];
    assert_int_equal(verdict(&p, "#### 1,234.50", a), RT_VERDICT_RIGHT);
    assert_int_equal(verdict(&p, "it is $1234.5", b), RT_VERDICT_RIGHT);
    assert_string_equal(a, b);
    assert_int_equal(verdict(&p, "it is 7", b), RT_VERDICT_WRONG);
    assert_string_equal(b, "7");
    rt_problem_deinit(&p);
}

static void letters_words_and_patterns(void **state)
{
    (void)state;
    static const char letter[] = "{\"question\": \"q\", \"options\": [\"A)1\", \"B)2\"], \"correct\": \"B\"}";
    expect(letter, "The answer is (B).", RT_VERDICT_RIGHT);
    expect(letter, "The answer is B", RT_VERDICT_RIGHT);
    expect(letter, "A train leaves, so it must be (B)", RT_VERDICT_RIGHT);
    expect(letter, "B", RT_VERDICT_RIGHT);
    expect(letter, "The answer is A) because B is wrong", RT_VERDICT_WRONG);
    expect(letter, "none of them", RT_VERDICT_NONE);
    static const char words[] = "{\"input\": \"q\", \"target\": \"Two  words\"}";
    expect(words, "two words", RT_VERDICT_RIGHT);
    expect(words, "I think.\nThe answer is \"Two words\".", RT_VERDICT_RIGHT);
    expect(words, "Let me see.\n\n**Two words**", RT_VERDICT_RIGHT);
    expect(words, "three words", RT_VERDICT_WRONG);
    static const char pattern[] = "{\"prompt\": \"p\", \"pattern\": \"^[a-f]+$\"}";
    expect(pattern, "abc", RT_VERDICT_RIGHT);
    expect(pattern, "xyz", RT_VERDICT_WRONG);
    expect("{\"prompt\": \"p\", \"pattern\": \"^(a+)+$\"}",
           "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!", RT_VERDICT_STOPPED);
    rt_problem bad = problem_of("{\"prompt\": \"p\", \"pattern\": \"(\"}");
    rt_error err = {0};
    rt_verdict out;
    assert_int_equal(rt_answer_check(&out, &bad, "x", 1, &options, NULL, &err), RT_INVALID);
    rt_problem_deinit(&bad);
}

#define FUNCTION                                                                                             \
    "{\"prompt\": \"from typing import List\\n\\ndef twice(x):\\n    \\\"\\\"\\\" 2 x \\\"\\\"\\\"\\n\", "   \
    "\"entry_point\": \"twice\", "                                                                           \
    "\"test\": \"def check(f):\\n    assert f(3) == 6\\n    assert f(-1) == -2\\n\"}"
#define TASK                                                                                                 \
    "{\"text\": \"Write a function.\", \"test_list\": [\"assert half(4) == 2\", \"assert half(0) == "        \
    "zero\"], "                                                                                              \
    "\"test_setup_code\": \"zero = 0\"}"

static void programs_pass_fail_cheat_and_hang(void **state)
{
    (void)state;
    expect(FUNCTION, "```python\ndef twice(x):\n    return 2 * x\n```\nThat is it.", RT_VERDICT_RIGHT);
    expect(FUNCTION, "    return 2 * x\n", RT_VERDICT_RIGHT); /* a continuation */
    expect(
        FUNCTION,
        "Use it like:\n```\ntwice(3)\n```\nand\n```python\ndef twice(x):\n    return x + x\n```\n```\n6\n```",
        RT_VERDICT_RIGHT);
    expect(FUNCTION, "```python\ndef twice(x):\n    return x * x\n```", RT_VERDICT_WRONG);
    expect(FUNCTION, "I cannot write code.", RT_VERDICT_WRONG);
    expect(TASK, "```python\ndef half(x):\n    return x // 2\n```", RT_VERDICT_RIGHT);
    expect(TASK, "def half(x):\n    return x // 2", RT_VERDICT_RIGHT);
    expect(TASK, "```python\ndef half(x):\n    return x // 3", RT_VERDICT_WRONG);
    /* of several blocks: the first of python, before what uses it or tries again, and after a shell's */
    expect(TASK, "```python\ndef half(x):\n    return x // 2\n```\nUse it:\n```python\nprint(half(3))\n```",
           RT_VERDICT_RIGHT);
    expect(TASK, "```bash\npip install half\n```\n``` Python\ndef half(x):\n    return x // 2\n```",
           RT_VERDICT_RIGHT);
    expect(
        FUNCTION,
        "```python\ndef twice(x):\n    return 2 * x\n```\nOr:\n```python\ndef twice(x):\n    return x\n```",
        RT_VERDICT_RIGHT);
    expect(FUNCTION, "```\ndef twice(x):\n    ...\n```\nso\n```py\ndef twice(x):\n    return 2 * x\n```",
           RT_VERDICT_RIGHT);
    expect(FUNCTION, "```python\ntwice(3)\n```\nwith\n```\ndef twice(x):\n    return 2 * x\n```",
           RT_VERDICT_RIGHT);
    /* to end well before the tests is no pass */
    expect(TASK, "```python\nimport os\nos._exit(0)\n```", RT_VERDICT_WRONG);
    expect(TASK, "```python\nimport sys\nprint('passed')\nsys.exit(0)\n```", RT_VERDICT_WRONG);
    options.limits.wall_s = 1;
    expect(TASK, "```python\nwhile True: pass\n```", RT_VERDICT_STOPPED);
    options.limits.wall_s = 60;
    expect(TASK, "```python\nwhile True: print('x' * 1000)\n```", RT_VERDICT_STOPPED);
}

static void follows(const char *id, const char *args, const char *yes, const char *no)
{
    char row[512];
    (void)snprintf(row, sizeof row,
                   "{\"prompt\": \"p\", \"instruction_id_list\": [\"%s\"], \"kwargs\": [%s]}", id, args);
    rt_problem p = problem_of(row);
    if (verdict(&p, yes, NULL) != RT_VERDICT_RIGHT)
        fail_msg("%s: '%s' does not follow it", id, yes);
    if (no && verdict(&p, no, NULL) != RT_VERDICT_WRONG)
        fail_msg("%s: '%s' follows it", id, no);
    rt_problem_deinit(&p);
}

static void instructions_are_followed_or_not(void **state)
{
    (void)state;
    follows("punctuation:no_comma", "{}", "no commas here", "one, here");
    follows("keywords:forbidden_words", "{\"forbidden_words\": [\"rock\"]}", "rocket", "a Rock.");
    follows("keywords:existence", "{\"keywords\": [\"sea\", \"sky\"]}", "Sky over sea", "sky");
    follows("keywords:frequency", "{\"relation\": \"at least\", \"keyword\": \"go\", \"frequency\": 2}",
            "go, go", "go");
    follows("keywords:frequency", "{\"relation\": \"less than\", \"keyword\": \"go\", \"frequency\": 2}",
            "go", "go go");
    follows("keywords:letter_frequency",
            "{\"let_relation\": \"at least\", \"letter\": \"!\", \"let_frequency\": 2}", "a!!", "a!");
    follows("length_constraints:number_sentences", "{\"relation\": \"less than\", \"num_sentences\": 3}",
            "One of 3.5 kg. Two!", "One. Two. Three.");
    follows("length_constraints:number_words", "{\"relation\": \"at least\", \"num_words\": 3}",
            "one two three", "one two");
    follows("length_constraints:number_paragraphs", "{\"num_paragraphs\": 2}", "a\n***\nb", "a\n\nb");
    follows("length_constraints:nth_paragraph_first_word",
            "{\"first_word\": \"then\", \"num_paragraphs\": 2, \"nth_paragraph\": 2}",
            "First.\n\n\\\"Then, it", "Then.\n\nNot so");
    follows("combination:repeat_prompt", "{\"prompt_to_repeat\": \"Say it.\"}", "Say it. It", "It. Say it.");
    follows("combination:two_responses", "{}", "one ****** two", "one ****** one");
    follows("startend:quotation", "{}", "\"all of it\"", "\"part\" of it");
    follows("startend:end_checker", "{\"end_phrase\": \"Anything else?\"}", "Yes. anything else?",
            "Anything else? No.");
    follows("detectable_format:title", "{}", "<<A title>>\nText", "<< >>\nText");
    follows("detectable_format:number_highlighted_sections", "{\"num_highlights\": 2}", "*one* and **two**",
            "*one* two*");
    follows("detectable_format:number_bullet_lists", "{\"num_bullets\": 2}", "* a\n- b", "* a\n* b\n* c");
    follows("detectable_format:json_format", "{}", "```json\n{\"a\": 1}\n```", "{\"a\": 1} there");
    follows("detectable_format:multiple_sections", "{\"section_spliter\": \"PART\", \"num_sections\": 2}",
            "PART 1\nx\nPART 2\ny", "PART one PART 2");
    follows("detectable_format:constrained_response", "{}", "My answer is no.", "No.");
    follows("detectable_content:postscript", "{\"postscript_marker\": \"P.S.\"}", "So.\nP.S. and", "So.");
    follows("detectable_content:number_placeholders", "{\"num_placeholders\": 2}", "[name] [place]", "[name");
    follows("change_case:english_lowercase", "{}", "all small 1", "One");
    follows("change_case:english_capital", "{}", "ALL LARGE 1", "ONe");
    follows("change_case:capital_word_frequency",
            "{\"capital_relation\": \"less than\", \"capital_frequency\": 2}", "ONE Two", "ONE TWO");
    /* what cannot be checked is not counted as followed */
    rt_problem p = problem_of("{\"prompt\": \"p\", \"instruction_id_list\": [\"language:response_language\", "
                              "\"punctuation:no_comma\"], \"kwargs\": [{\"language\": \"kn\"}, {}]}");
    rt_instructions found;
    rt_error err = {0};
    assert_int_equal(rt_instructions_check(&found, &p, "a", 1, &err), RT_OK);
    assert_int_equal(found.asked, 1);
    assert_int_equal(found.followed, 1);
    assert_int_equal(found.unknown, 1);
    rt_problem_deinit(&p);
}

static void shared_sets_are_read_whole(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        rt_problem_kind kind;
    } sets[] = {{"gsm8k_test", RT_PROBLEM_NUMBER},
                {"svamp", RT_PROBLEM_NUMBER},
                {"aqua_test", RT_PROBLEM_LETTER},
                {"bbh", RT_PROBLEM_EXACT},
                {"humaneval", RT_PROBLEM_PROGRAM},
                {"mbpp", RT_PROBLEM_PROGRAM},
                {"ifeval_prompts", RT_PROBLEM_INSTRUCTIONS},
                {"mmlu_sample", RT_PROBLEM_CHOICE},
                {"arc_challenge_test", RT_PROBLEM_CHOICE},
                {"arc_easy", RT_PROBLEM_CHOICE},
                {"piqa_val", RT_PROBLEM_CHOICE},
                {"winogrande_val", RT_PROBLEM_CHOICE},
                {"hellaswag_val_sample", RT_PROBLEM_CHOICE}};
    size_t read = 0;
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        char path[512];
        (void)snprintf(path, sizeof path, RT_TEST_SOURCE_DIR "/../shared/data/text/%s.jsonl.zst",
                       sets[i].name);
        if (access(path, R_OK) != 0)
            continue;
        rt_problems problems;
        rt_error err = {0};
        if (rt_problems_read(&problems, path, 0, &err) != RT_OK)
            fail_msg("%s", err.text);
        for (size_t k = 0; k < problems.count; k++)
            assert_int_equal(problems.list[k].kind, sets[i].kind);
        read++;
        rt_problems_deinit(&problems);
    }
    if (!read)
        skip();
}

/* The data sets' own solutions pass their own tests. */
static void own_solutions_pass(void **state)
{
    (void)state;
    size_t checked = 0;
    for (int set = 0; set < 2; set++) {
        const char *path = set ? RT_TEST_SOURCE_DIR "/../shared/data/text/mbpp.jsonl.zst"
                               : RT_TEST_SOURCE_DIR "/../shared/data/text/humaneval.jsonl.zst";
        rt_problems problems;
        rt_error err = {0};
        if (access(path, R_OK) != 0)
            continue;
        assert_int_equal(rt_problems_read(&problems, path, 12, &err), RT_OK);
        for (size_t k = 0; k < problems.count; k++) {
            const char *code =
                json_string_value(json_object_get(problems.list[k].row, set ? "code" : "canonical_solution"));
            if (verdict(&problems.list[k], code, NULL) != RT_VERDICT_RIGHT)
                fail_msg("%s, line %zu: its own solution fails", path, problems.list[k].line);
            checked++;
        }
        rt_problems_deinit(&problems);
    }
    if (!checked)
        skip();
}

static int usual(void **state)
{
    (void)state;
    options = (rt_answer_options){.limits = rt_sandbox_limits_default()};
    options.limits.wall_s = 60;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_told_by_their_fields),
        cmocka_unit_test(choices_have_contexts_and_endings),
        cmocka_unit_test(rows_that_cannot_be_checked_are_named),
        cmocka_unit_test(numbers_are_found_where_models_put_them),
        cmocka_unit_test(thoughts_do_not_count),
        cmocka_unit_test(equal_answers_have_equal_texts),
        cmocka_unit_test(letters_words_and_patterns),
        cmocka_unit_test(programs_pass_fail_cheat_and_hang),
        cmocka_unit_test(instructions_are_followed_or_not),
        cmocka_unit_test(shared_sets_are_read_whole),
        cmocka_unit_test(own_solutions_pass),
    };
    return cmocka_run_group_tests(tests, usual, NULL);
}
