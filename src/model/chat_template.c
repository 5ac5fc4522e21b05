/* model/chat_template.c - a parsed chat template: tokens are cut, nodes made, constants kept. */
#include "model/chat_template.h"

#include <stdlib.h>
#include <string.h>

#include "model/template_ast.h"

struct rt_chat_template {
    char *source; /* nodes point into it */
    rt_arena arena;
    json_t *constants;
    node *statements;
};

/* Line ends become \n, as Jinja reads them. */
static char *normalise(const char *source, size_t *size)
{
    char *out = malloc(strlen(source) + 1);
    size_t n = 0;
    for (const char *p = source; out && *p; p++)
        if (*p == '\r')
            out[n++] = '\n', p += p[1] == '\n';
        else
            out[n++] = *p;
    if (out)
        out[n] = '\0';
    *size = n;
    return out;
}

rt_status rt_chat_template_parse(rt_chat_template **out, const char *source, rt_error *err)
{
    *out = NULL;
    const size_t length = strlen(source);
    if (length > TEMPLATE_BYTES_MAX)
        return rt_error_set(err, RT_INVALID,
                            "the chat template has %zu bytes, more than the %d that are read", length,
                            (int)TEMPLATE_BYTES_MAX);
    if (!rt_utf8_valid(source, length))
        return rt_error_set(err, RT_INVALID, "the chat template is not valid UTF-8");
    rt_chat_template *t = calloc(1, sizeof *t);
    size_t size = 0;
    token_list tokens = {0};
    rt_status status = t && (t->source = normalise(source, &size)) && (t->constants = json_array())
                           ? RT_OK
                           : rt_error_set(err, RT_NO_MEMORY, "no memory for the chat template");
    if (status == RT_OK) /* a node or a copied name for each byte, at the very most */
        status = rt_arena_init(&t->arena, (size + 64) * (2 * sizeof(node) + 128), err);
    if (status == RT_OK)
        status = rt_template_lex(&tokens, t->source, size, &t->arena, err);
    if (status == RT_OK)
        status = rt_template_parse_tokens(&t->statements, &tokens, &t->arena, t->constants, err);
    free(tokens.items);
    if (status != RT_OK) {
        rt_chat_template_free(t);
        return status;
    }
    *out = t;
    return RT_OK;
}

void rt_chat_template_free(rt_chat_template *t)
{
    if (!t)
        return;
    json_decref(t->constants);
    rt_arena_deinit(&t->arena);
    free(t->source);
    free(t);
}

rt_status rt_chat_template_render(const rt_chat_template *t, const json_t *variables, rt_text *out,
                                  rt_error *err)
{
    return rt_template_run(t->statements, variables, out, err);
}
