/* model/template_ast.h - what the parts of the chat template interpreter share: tokens, nodes, values.
 *
 * template_lex.c cuts the source into tokens, template_parse.c makes nodes of them, template_eval.c runs the
 * nodes, template_builtins.c holds filters, tests, functions and methods.  Internal to the model room. */
#ifndef RT_MODEL_TEMPLATE_AST_H
#define RT_MODEL_TEMPLATE_AST_H

#include <jansson.h>

#include "base/arena.h"
#include "base/text.h"

enum { TEMPLATE_BYTES_MAX = 1 << 20, TEMPLATE_DEPTH_MAX = 120 };

typedef enum token_kind {
    TOKEN_END,
    TOKEN_TEXT,
    TOKEN_OUTPUT_BEGIN, /* {{ */
    TOKEN_OUTPUT_END,
    TOKEN_BLOCK_BEGIN, /* {% */
    TOKEN_BLOCK_END,
    TOKEN_NAME,
    TOKEN_STRING, /* data: without quotes, escapes undone */
    TOKEN_INT,
    TOKEN_FLOAT,
    TOKEN_OP, /* one or two characters */
} token_kind;

typedef struct token {
    token_kind kind;
    const char *data; /* in the source or the arena */
    size_t size;
    size_t line;
} token;

typedef struct token_list {
    token *items;
    size_t count, capacity;
} token_list;

/* Tokens of the source as transformers sets Jinja up: trim_blocks and lstrip_blocks, one newline at the end
 * dropped. */
rt_status rt_template_lex(token_list *out, const char *source, size_t size, rt_arena *arena, rt_error *err);

typedef enum node_kind {
    /* statements */
    NODE_TEXT,
    NODE_OUTPUT,
    NODE_IF,
    NODE_FOR,
    NODE_SET,
    NODE_SET_BLOCK,
    NODE_MACRO,
    NODE_FILTER_BLOCK,
    NODE_GROUP,
    NODE_BREAK,
    NODE_CONTINUE,
    /* expressions */
    NODE_CONST,
    NODE_NAME,
    NODE_LIST,
    NODE_DICT,
    NODE_ATTRIBUTE,
    NODE_ITEM,
    NODE_SLICE,
    NODE_CALL,
    NODE_FILTER,
    NODE_TEST,
    NODE_NOT,
    NODE_NEGATE,
    NODE_BINARY,
    NODE_COMPARE,
    NODE_AND,
    NODE_OR,
    NODE_CHOICE,
    NODE_PAIR, /* a key and a value; a keyword argument or a macro's parameter with `name` */
} node_kind;

typedef struct node {
    node_kind kind;
    size_t line;
    const char *name;       /* NUL-terminated, in the arena */
    size_t name_size;       /* of NODE_TEXT */
    struct node *a, *b, *c; /* operands, see template_parse.c */
    struct node *list;      /* first of a list of statements, items or arguments */
    struct node *next;      /* in the list that holds this node */
    json_t *constant;       /* owned by the template */
    bool negated;           /* NODE_TEST; NODE_COMPARE with "not in" */
} node;

typedef struct template_parser template_parser;
/* The statements of the whole template.  Constants are appended to `constants`, which owns them. */
rt_status rt_template_parse_tokens(node **out, const token_list *tokens, rt_arena *arena, json_t *constants,
                                   rt_error *err);

/* ---- values ---- */

typedef enum value_kind {
    VALUE_UNDEFINED,
    VALUE_JSON,
    VALUE_NAMESPACE,
    VALUE_MACRO,
    VALUE_FUNCTION
} value_kind;

typedef struct value {
    value_kind kind;
    json_t *json; /* VALUE_JSON: the value; VALUE_NAMESPACE: its attributes. A reference of its own. */
    const node *macro;
    int function; /* index of a built-in function */
} value;

enum { TEMPLATE_ARGS_MAX = 16 };
typedef struct call_args {
    value positional[TEMPLATE_ARGS_MAX];
    size_t count;
    const char *names[TEMPLATE_ARGS_MAX];
    value named[TEMPLATE_ARGS_MAX];
    size_t n_named;
} call_args;

typedef struct evaluator evaluator;

value rt_value_json(json_t *json); /* takes the reference; NULL (no memory) becomes undefined */
value rt_value_text(const char *data, size_t size);
value rt_value_copy(const value *v);
void rt_value_drop(value *v);
bool rt_value_truthy(const value *v);
/* Python's str() and repr(). */
void rt_value_print(rt_text *out, const value *v);
void rt_value_repr(rt_text *out, const json_t *json);
/* -1, 0, 1; *ok false when the two have no order. */
int rt_value_order(const json_t *a, const json_t *b, bool *ok);
bool rt_value_equal(const value *a, const value *b);
/* An argument by position or name; NULL when it is not given. */
const value *rt_argument(const call_args *args, size_t position, const char *name);
rt_status rt_template_fail(evaluator *e, size_t line, const char *fmt, ...) RT_PRINTF(3, 4);

/* Counts the values inside `json` as steps: shared parts count each time they are reached, so that neither
 * copies nor comparisons of what a template builds can outgrow the limit. */
rt_status rt_template_charge(evaluator *e, const json_t *json, size_t line);

/* template_builtins.c.  On failure the error is set and *out undefined. */
rt_status rt_template_filter(evaluator *e, value *out, const char *name, const value *in,
                             const call_args *args, size_t line);
rt_status rt_template_test(evaluator *e, bool *out, const char *name, const value *in, const call_args *args,
                           size_t line);
int rt_template_function_index(const char *name); /* -1: none */
rt_status rt_template_function(evaluator *e, value *out, int index, const call_args *args, size_t line);
rt_status rt_template_method(evaluator *e, value *out, const value *object, const char *name,
                             const call_args *args, size_t line);
/* template_eval.c */
rt_status rt_template_attribute(evaluator *e, value *out, const value *object, const char *name, size_t line);
rt_status rt_template_run(const node *statements, const json_t *variables, rt_text *out, rt_error *err);

#endif
