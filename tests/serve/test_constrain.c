/* tests/serve/test_constrain.c - texts under a schema: what may be written is what the schema allows. */
#include "serve/constrain.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"

static rt_grammar *grammar_of(const char *schema)
{
    rt_error err = {0};
    rt_grammar *grammar = NULL;
    json_t *json = schema ? json_loads(schema, JSON_DECODE_ANY, NULL) : NULL;
    if (schema)
        assert_non_null(json);
    const rt_status status =
        schema ? rt_grammar_schema(&grammar, json, &err) : rt_grammar_object(&grammar, &err);
    if (status != RT_OK)
        fail_msg("%s", err.text);
    json_decref(json);
    return grammar;
}

/* -1: refused at some byte; 0: a beginning; 1: complete. */
static int run(const rt_grammar *grammar, const char *text)
{
    rt_grammar_state state;
    rt_grammar_begin(grammar, &state);
    for (; *text; text++)
        if (!rt_grammar_step(grammar, &state, (unsigned char)*text))
            return -1;
    return rt_grammar_complete(grammar, &state) ? 1 : 0;
}

static void texts_are_accepted_and_refused_as_the_schema_says(void **context)
{
    (void)context;
    static const struct {
        const char *schema, *text;
        int expected;
    } cases[] = {
        {NULL, "{}", 1},
        {NULL, "{\"a\": [1, -2.5e+3, \"x\\n\\u00e9\", null, true, {\"b\":[]}]}", 1},
        {NULL, "[]", -1},
        {NULL, " {}", -1},
        {NULL, "{} ", -1},
        {NULL, "{\"a\":01", -1},
        {NULL, "{\"a\":1.}", -1},
        {NULL, "{\"a\":\"\\ud800", -1},
        {NULL, "{\"a\":\"\\ue000\"}", 1},
        {NULL, "{\"a\":\"\xc3\xa9\"}", 1},
        {NULL, "{\"a\":\"\xc3\"", -1},
        {NULL, "{\"a\":\"\xed\xa0", -1},
        {NULL, "{\"a\":\"x\ny", -1},
        {NULL, "{\"a\":tru}", -1},
        {NULL, "{,", -1},
        {NULL, "{\"a\":1,}", -1},
        {NULL, "{\"a\":[1,]", -1},
        {"{\"type\":\"integer\"}", "-0", 1},
        {"{\"type\":\"integer\"}", "12", 1},
        {"{\"type\":\"integer\"}", "1.", -1},
        {"{\"type\":\"integer\"}", "-", 0},
        {"{\"type\":\"number\"}", "1.5E-7", 1},
        {"{\"type\":[\"string\",\"null\"]}", "null", 1},
        {"{\"type\":[\"string\",\"null\"]}", "t", -1},
        {"{\"enum\":[\"red\",\"green\",\"grey\",1,10]}", "\"grey\"", 1},
        {"{\"enum\":[\"red\",\"green\",\"grey\",1,10]}", "\"grew", -1},
        {"{\"enum\":[\"red\",\"green\",\"grey\",1,10]}", "1", 1},
        {"{\"enum\":[\"red\",\"green\",\"grey\",1,10]}", "10", 1},
        {"{\"enum\":[\"red\",\"green\",\"grey\",1,10]}", "11", -1},
        {"{\"const\":{\"a\":[1]}}", "{\"a\":[1]}", 1},
        {"{\"type\":\"array\",\"items\":{\"enum\":[1,10]},\"minItems\":1,\"maxItems\":2}", "[1, 10]", 1},
        {"{\"type\":\"array\",\"items\":{\"enum\":[1,10]},\"minItems\":1,\"maxItems\":2}", "[]", -1},
        {"{\"type\":\"array\",\"items\":{\"enum\":[1,10]},\"minItems\":1,\"maxItems\":2}", "[1,1,", -1},
        {"{\"type\":\"array\",\"maxItems\":0}", "[ ]", 1},
        {"{\"type\":\"array\",\"maxItems\":0}", "[1", -1},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"ab\":{\"type\":\"string\"}},"
         "\"required\":[\"a\"],\"additionalProperties\":false}",
         "{\"ab\":\"x\",\"a\":3}", 1},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"ab\":{\"type\":\"string\"}},"
         "\"required\":[\"a\"],\"additionalProperties\":false}",
         "{\"ab\":\"x\"}", -1},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"ab\":{\"type\":\"string\"}},"
         "\"required\":[\"a\"],\"additionalProperties\":false}",
         "{\"a\":1,\"a\"", -1},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"ab\":{\"type\":\"string\"}},"
         "\"required\":[\"a\"],\"additionalProperties\":false}",
         "{\"a\":1,\"ab\":\"\",", -1},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},\"additionalProperties\":false}",
         "{\"b", -1},
        {"{\"properties\":{\"a\":{\"type\":\"integer\"}}}", "{\"b\":\"free\",\"a\":1}", 1},
        {"{\"properties\":{\"a\":{\"type\":\"integer\"}}}", "{\"a\":\"", -1},
        {"{\"properties\":{\"a\":{\"type\":\"integer\"}}}", "{\"a\":1,\"a\"", -1},
        {"{\"properties\":{\"q\\\"x\":{\"type\":\"integer\"}}}", "{\"q\\\"x\":1}", 1},
        {"{\"properties\":{\"q\\\"x\":{\"type\":\"integer\"}}}", "{\"q\\\"y", -1},
        {"{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false}", "{ }", 1},
        {"{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false}", "{\"", -1},
        {"{\"type\":\"object\",\"required\":[\"k\"]}", "{}", -1},
        {"{\"type\":\"object\",\"required\":[\"k\"]}", "{\"k\":null}", 1},
        {"{\"$ref\":\"#/$defs/"
         "n\",\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"integer\"},"
         "\"next\":{\"$ref\":\"#/$defs/n\"}},\"required\":[\"v\"],\"additionalProperties\":false}}}",
         "{\"v\":1,\"next\":{\"v\":2,\"next\":{\"v\":3}}}", 1},
        {"{\"$ref\":\"#/$defs/"
         "n\",\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"integer\"},"
         "\"next\":{\"$ref\":\"#/$defs/n\"}},\"required\":[\"v\"],\"additionalProperties\":false}}}",
         "{\"v\":1,\"next\":{}", -1},
        {"true", "[1,{\"x\":\"y\"}]", 1},
        {"{}", "null", 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        rt_grammar *grammar = grammar_of(cases[i].schema);
        const int got = run(grammar, cases[i].text);
        if (got != cases[i].expected)
            fail_msg("%s under %s: %d, expected %d", cases[i].text,
                     cases[i].schema ? cases[i].schema : "json_object", got, cases[i].expected);
        rt_grammar_close(grammar);
    }
}

static void what_is_not_supported_is_named(void **context)
{
    (void)context;
    static const struct {
        const char *schema;
        rt_status status;
        const char *word;
    } cases[] = {
        {"{\"type\":\"string\",\"pattern\":\"a+\"}", RT_UNSUPPORTED, "pattern"},
        {"{\"properties\":{\"x\":{\"anyOf\":[]}}}", RT_UNSUPPORTED,
         "schema.properties.x: the keyword 'anyOf'"},
        {"{\"additionalProperties\":{\"type\":\"string\"}}", RT_UNSUPPORTED, "additionalProperties"},
        {"{\"type\":\"text\"}", RT_INVALID, "text"},
        {"{\"type\":[]}", RT_INVALID, "empty"},
        {"{\"enum\":[]}", RT_INVALID, "enum"},
        {"{\"type\":\"string\",\"enum\":[1]}", RT_INVALID, "enum"},
        {"{\"$ref\":\"#/nowhere\"}", RT_INVALID, "nowhere"},
        {"{\"$ref\":\"#\"}", RT_INVALID, "itself"},
        {"{\"type\":\"array\",\"minItems\":3,\"maxItems\":2}", RT_INVALID, "minItems"},
        {"{\"type\":\"array\",\"minItems\":-1}", RT_INVALID, "minItems"},
        {"{\"required\":[\"a\"],\"additionalProperties\":false}", RT_INVALID, "'a' is required"},
        {"3", RT_INVALID, "object"},
        {"false", RT_INVALID, "object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        rt_error err = {0};
        rt_grammar *grammar = NULL;
        json_t *json = json_loads(cases[i].schema, JSON_DECODE_ANY, NULL);
        assert_int_equal(rt_grammar_schema(&grammar, json, &err), cases[i].status);
        assert_null(grammar);
        if (!strstr(err.text, cases[i].word))
            fail_msg("%s: '%s' does not say '%s'", cases[i].schema, err.text, cases[i].word);
        json_decref(json);
    }
}

static void nesting_ends_before_it_cannot_be_closed(void **context)
{
    (void)context;
    rt_grammar *grammar = grammar_of("true");
    rt_grammar_state state;
    rt_grammar_begin(grammar, &state);
    size_t depth = 0;
    while (rt_grammar_step(grammar, &state, '['))
        depth++;
    assert_int_equal(depth, RT_GRAMMAR_DEPTH_MAX);
    char text[2 * RT_GRAMMAR_DEPTH_MAX + 1];
    memset(text, '[', depth);
    memset(text + depth, ']', depth);
    text[2 * depth] = '\0';
    assert_int_equal(run(grammar, text), 1);
    rt_grammar_close(grammar);
}

/* Bytes drawn at random among those allowed always end in JSON that a strict parser reads. */
static void random_texts_are_json(void **context)
{
    (void)context;
    static const char *const schemas[] = {
        NULL, "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"n\":{\"type\":"
              "\"number\"},\"tags\":"
              "{\"type\":\"array\",\"items\":{\"enum\":[\"a\",\"b\"]},\"minItems\":1,\"maxItems\":3},\"x\":{"
              "\"type\":"
              "[\"null\",\"boolean\"]}},\"required\":[\"tags\",\"n\"],\"additionalProperties\":false}"};
    for (size_t s = 0; s < 2; s++) {
        rt_grammar *grammar = grammar_of(schemas[s]);
        size_t done = 0;
        for (uint64_t trial = 0; trial < 300; trial++) {
            char text[4096];
            size_t size = 0;
            rt_rng rng = rt_rng_make(s + 1, trial);
            rt_grammar_state state;
            rt_grammar_begin(grammar, &state);
            while (!rt_grammar_complete(grammar, &state) && size < sizeof text - 1) {
                unsigned char allowed[256];
                size_t count = 0;
                for (unsigned c = 0; c < 256; c++) {
                    rt_grammar_state next;
                    rt_grammar_copy(&next, &state);
                    if (rt_grammar_step(grammar, &next,
                                        (unsigned char)c)) /* closing is likelier than the rest */
                        for (unsigned k = 0; k < (strchr("\"}],", (int)c) && c ? 16u : 1u) && count < 256;
                             k++)
                            allowed[count++] = (unsigned char)c;
                }
                assert_true(count > 0);
                const unsigned char c = allowed[rt_rng_below(&rng, count)];
                assert_true(rt_grammar_step(grammar, &state, c));
                text[size++] = (char)c;
            }
            if (!rt_grammar_complete(grammar, &state))
                continue;
            done++;
            json_error_t error;
            json_t *json = json_loadb(
                text, size, JSON_REJECT_DUPLICATES * (s == 1) | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
            /* a number too large for a double is JSON all the same */
            if (!json && json_error_code(&error) != json_error_numeric_overflow)
                fail_msg("%.*s: %s", (int)size, text, error.text);
            if (json && s == 1)
                assert_true(json_array_size(json_object_get(json, "tags")) >= 1);
            json_decref(json);
        }
        assert_true(done > 100);
        rt_grammar_close(grammar);
    }
}

/* The mask is what trying every token byte by byte gives. */
static void the_mask_is_that_of_every_token_tried(void **context)
{
    (void)context;
    rt_error err = {0};
    rt_tokenizer *tokenizer = NULL;
    assert_int_equal(rt_tokenizer_open(&tokenizer, RT_TEST_SOURCE_DIR "/data/teacher-small.gguf", &err),
                     RT_OK);
    const size_t n_vocab = rt_tokenizer_size(tokenizer) + 3; /* padded */
    rt_constrainer *constrainer = NULL;
    assert_int_equal(rt_constrainer_open(&constrainer, tokenizer, n_vocab, &err), RT_OK);
    float *logits = malloc(n_vocab * sizeof *logits);
    assert_non_null(logits);
    rt_grammar *grammar =
        grammar_of("{\"properties\":{\"the\":{\"type\":\"string\"},\"n\":{\"enum\":[1,12]}}}");
    static const char *const begins[] = {"",
                                         "{",
                                         "{\"",
                                         "{\"t",
                                         "{\"the\":",
                                         "{\"the\": \"",
                                         "{\"the\": \"\xc3",
                                         "{\"the\": \"\\",
                                         "{\"n\":1",
                                         "{\"n\":12",
                                         "{\"x\":-0",
                                         "{}"};
    for (size_t b = 0; b < sizeof begins / sizeof begins[0]; b++) {
        rt_grammar_state state;
        rt_grammar_begin(grammar, &state);
        for (const char *c = begins[b]; *c; c++)
            assert_true(rt_grammar_step(grammar, &state, (unsigned char)*c));
        for (size_t i = 0; i < n_vocab; i++)
            logits[i] = 1;
        const size_t allowed = rt_constrain(constrainer, grammar, &state, logits);
        size_t count = 0;
        for (size_t i = 0; i < n_vocab; i++) {
            bool may = false;
            if (i < rt_tokenizer_size(tokenizer)) {
                const bool control = rt_tokenizer_is_special(tokenizer, (int32_t)i);
                rt_grammar_state next;
                rt_grammar_copy(&next, &state);
                may = rt_constrain_accept(constrainer, grammar, &next, (int32_t)i) &&
                      (!control || rt_tokenizer_is_end(tokenizer, (int32_t)i));
            }
            count += may;
            if (may != !isinf(logits[i]))
                fail_msg("after '%s' token %zu: %d, expected %d", begins[b], i, !isinf(logits[i]), may);
        }
        assert_int_equal(allowed, count);
        assert_true(count > 0);
    }
    free(logits);
    rt_grammar_close(grammar);
    rt_constrainer_close(constrainer);
    rt_tokenizer_close(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_accepted_and_refused_as_the_schema_says),
        cmocka_unit_test(what_is_not_supported_is_named),
        cmocka_unit_test(nesting_ends_before_it_cannot_be_closed),
        cmocka_unit_test(random_texts_are_json),
        cmocka_unit_test(the_mask_is_that_of_every_token_tried),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
