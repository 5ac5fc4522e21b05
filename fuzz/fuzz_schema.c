/* fuzz/fuzz_schema.c - JSON schemas and texts under them.
 *
 * Up to the first NUL the input is a schema, the rest bytes of a text.  What the grammar calls complete must
 * be JSON for a strict parser. */
#include <stdlib.h>
#include <string.h>

#include "serve/json_grammar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const rt_grammar *grammar, const char *text, size_t size)
{
    rt_grammar_state state;
    rt_grammar_begin(grammar, &state);
    for (size_t i = 0; i < size; i++)
        if (!rt_grammar_step(grammar, &state, (unsigned char)text[i]))
            return;
    if (!rt_grammar_complete(grammar, &state))
        return;
    json_error_t error;
    json_t *json = json_loadb(text, size, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (!json && json_error_code(&error) != json_error_numeric_overflow)
        abort();
    json_decref(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    const char *border = memchr(text, 0, size);
    const size_t schema_size = border ? (size_t)(border - text) : size;
    json_t *schema = json_loadb(text, schema_size, JSON_DECODE_ANY, NULL);
    rt_error err = {0};
    rt_grammar *grammar = NULL;
    if (schema && rt_grammar_schema(&grammar, schema, &err) == RT_OK && border)
        check_text(grammar, border + 1, size - schema_size - 1);
    rt_grammar_close(grammar);
    json_decref(schema);
    return 0;
}
