/* model/template_parse.c - tokens to nodes: statements by their keyword, expressions by precedence.
 *
 * IF: a the condition, list the body, b else (again an IF for elif); other statements say theirs above their
 * function. Precedence, loosest first: x if y else z; or; and; not; comparisons and in; ~; + -; * / // %;
 * filters and tests; unary -; **; calls, attributes and subscripts. */
#include <stdlib.h>
#include <string.h>

#include "model/template_ast.h"

struct template_parser {
    const token *at;
    rt_arena *arena;
    json_t *constants;
    rt_error *err;
    size_t depth;
};
typedef template_parser parser;

static node *parse_expression(parser *p);
static node *parse_unary(parser *p);
static bool parse_body(parser *p, node **list, const char *const *ends, size_t n_ends);

static node *fail(parser *p, const char *what)
{
    const token *t = p->at;
    if (p->err->status == RT_OK) {
        if (t->kind == TOKEN_END)
            (void)rt_error_set(p->err, RT_INVALID, "chat template, line %zu: %s, but the template ends",
                               t->line, what);
        else
            (void)rt_error_set(p->err, RT_INVALID, "chat template, line %zu: %s at '%.*s'", t->line, what,
                               (int)(t->size < 24 ? t->size : 24), t->data);
    }
    return NULL;
}

static node *unsupported(parser *p, const token *t)
{
    (void)rt_error_set(p->err, RT_UNSUPPORTED, "chat template, line %zu: {%% %.*s %%} is not supported",
                       t->line, (int)(t->size < 24 ? t->size : 24), t->data);
    return NULL;
}

static node *make(parser *p, node_kind kind)
{
    node *n = rt_arena_push(p->arena, 1, sizeof *n);
    if (!n) {
        (void)rt_error_set(p->err, RT_NO_MEMORY, "the chat template is too large");
        return NULL;
    }
    n->kind = kind;
    n->line = p->at->line;
    return n;
}

static const char *keep(parser *p, const char *data, size_t size)
{
    char *out = rt_arena_push_raw(p->arena, size + 1, 1);
    if (!out) {
        (void)rt_error_set(p->err, RT_NO_MEMORY, "the chat template is too large");
        return NULL;
    }
    memcpy(out, data, size);
    out[size] = '\0';
    return out;
}

static bool is(const token *t, token_kind kind, const char *what)
{
    return t->kind == kind && t->size == strlen(what) && memcmp(t->data, what, t->size) == 0;
}

static bool accept(parser *p, token_kind kind, const char *what)
{
    if (!is(p->at, kind, what))
        return false;
    p->at++;
    return true;
}

static bool expect(parser *p, token_kind kind, const char *what)
{
    char sentence[48];
    if (accept(p, kind, what))
        return true;
    (void)snprintf(sentence, sizeof sentence, "'%s' is expected", what);
    (void)fail(p, sentence);
    return false;
}

static node *constant(parser *p, json_t *json)
{
    node *n = make(p, NODE_CONST);
    if (n && json && json_array_append_new(p->constants, json) == 0) {
        n->constant = json;
        return n;
    }
    if (n)
        (void)rt_error_set(p->err, RT_INVALID, "chat template, line %zu: a text is not valid UTF-8",
                           p->at->line);
    return NULL;
}

/* name, with the token consumed */
static const char *take_name(parser *p)
{
    if (p->at->kind != TOKEN_NAME) {
        (void)fail(p, "a name is expected");
        return NULL;
    }
    const char *name = keep(p, p->at->data, p->at->size);
    p->at++;
    return name;
}

/* Comma-separated expressions up to a closing operator, which is consumed.  Keyword arguments become pairs.
 */
static bool parse_list(parser *p, node **first, const char *close, bool keywords)
{
    node **tail = first;
    while (!accept(p, TOKEN_OP, close)) {
        node *item;
        if (keywords && p->at->kind == TOKEN_NAME && is(p->at + 1, TOKEN_OP, "=")) {
            if (!(item = make(p, NODE_PAIR)) || !(item->name = take_name(p)))
                return false;
            p->at++;
            item->a = parse_expression(p);
            if (!item->a)
                return false;
        } else if (!(item = parse_expression(p))) {
            return false;
        }
        *tail = item;
        tail = &item->next;
        if (!accept(p, TOKEN_OP, ",") && !is(p->at, TOKEN_OP, close)) {
            (void)fail(p, "',' or the closing bracket is expected");
            return false;
        }
    }
    return true;
}

/* Wraps an item, so that a node that is in one list can be in another. */
static node *parse_dict(parser *p)
{
    node *n = make(p, NODE_DICT), **tail = n ? &n->list : NULL;
    while (n && !accept(p, TOKEN_OP, "}")) {
        node *pair = make(p, NODE_PAIR);
        if (!pair || !(pair->a = parse_expression(p)) || !expect(p, TOKEN_OP, ":") ||
            !(pair->b = parse_expression(p)))
            return NULL;
        *tail = pair;
        tail = &pair->next;
        if (!accept(p, TOKEN_OP, ",") && !is(p->at, TOKEN_OP, "}"))
            return fail(p, "',' or '}' is expected");
    }
    return n;
}

static node *parse_parenthesis(parser *p)
{
    if (is(p->at, TOKEN_OP, ")")) {
        p->at++;
        return make(p, NODE_LIST);
    }
    node *first = parse_expression(p);
    if (!first)
        return NULL;
    if (accept(p, TOKEN_OP, ")"))
        return first;
    node *tuple = make(p, NODE_LIST);
    if (!tuple || !expect(p, TOKEN_OP, ","))
        return NULL;
    tuple->list = first;
    return parse_list(p, &first->next, ")", false) ? tuple : NULL;
}

static node *parse_string(parser *p)
{
    rt_text text = {.size_max = TEMPLATE_BYTES_MAX};
    while (p->at->kind == TOKEN_STRING) { /* neighbours are joined */
        rt_text_append(&text, p->at->data, p->at->size);
        p->at++;
    }
    node *n = constant(p, json_stringn(text.data ? text.data : "", text.size));
    rt_text_deinit(&text);
    return n;
}

static node *parse_number(parser *p)
{
    char digits[32];
    size_t n = 0;
    for (size_t i = 0; i < p->at->size && n + 1 < sizeof digits; i++)
        if (p->at->data[i] != '_')
            digits[n++] = p->at->data[i];
    digits[n] = '\0';
    const bool real = p->at->kind == TOKEN_FLOAT;
    p->at++;
    return constant(p, real ? json_real(strtod(digits, NULL)) : json_integer(strtoll(digits, NULL, 10)));
}

static node *parse_primary(parser *p)
{
    const token *t = p->at;
    if (t->kind == TOKEN_STRING)
        return parse_string(p);
    if (t->kind == TOKEN_INT || t->kind == TOKEN_FLOAT)
        return parse_number(p);
    if (accept(p, TOKEN_OP, "("))
        return parse_parenthesis(p);
    if (accept(p, TOKEN_OP, "{"))
        return parse_dict(p);
    if (accept(p, TOKEN_OP, "[")) {
        node *n = make(p, NODE_LIST);
        return n && parse_list(p, &n->list, "]", false) ? n : NULL;
    }
    if (t->kind != TOKEN_NAME)
        return fail(p, "an expression is expected");
    static const struct {
        const char *word;
        int value;
    } words[] = {{"true", 1}, {"True", 1}, {"false", 0}, {"False", 0}, {"none", 2}, {"None", 2}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (accept(p, TOKEN_NAME, words[i].word))
            return constant(p, words[i].value == 2 ? json_null() : json_boolean(words[i].value));
    node *n = make(p, NODE_NAME);
    return n && (n->name = take_name(p)) ? n : NULL;
}

/* [expr], [start:stop:step] */
static node *parse_subscript(parser *p, node *object)
{
    node *parts[3] = {NULL};
    size_t part = 0;
    bool slice = false;
    while (!accept(p, TOKEN_OP, "]")) {
        if (accept(p, TOKEN_OP, ":")) {
            slice = true;
            if (++part > 2)
                return fail(p, "a slice has at most three parts");
        } else if (parts[part] || !(parts[part] = parse_expression(p))) {
            return fail(p, "']' is expected");
        }
    }
    node *n = make(p, slice ? NODE_SLICE : NODE_ITEM);
    if (!n || (!slice && !parts[0]))
        return fail(p, "an index is expected");
    n->a = object;
    if (!slice) {
        n->b = parts[0];
        return n;
    }
    for (size_t i = 0; i < 3; i++) { /* three children in order; a part that is left out is an empty GROUP */
        node *child = make(p, NODE_PAIR);
        if (!child)
            return NULL;
        child->a = parts[i];
        child->next = n->list;
        n->list = child; /* reversed: step, stop, start */
    }
    return n;
}

static node *parse_filter(parser *p, node *in)
{
    node *n = make(p, NODE_FILTER);
    if (!n || !(n->name = take_name(p)))
        return NULL;
    n->a = in;
    return !accept(p, TOKEN_OP, "(") || parse_list(p, &n->list, ")", true) ? n : NULL;
}

static node *parse_postfix(parser *p)
{
    node *n = parse_primary(p);
    while (n) {
        if (accept(p, TOKEN_OP, ".")) {
            node *outer = make(p, NODE_ATTRIBUTE);
            if (!outer)
                return NULL;
            outer->a = n;
            if (p->at->kind == TOKEN_INT) { /* x.0 is x[0] */
                outer->kind = NODE_ITEM;
                outer->b = parse_number(p);
                n = outer->b ? outer : NULL;
            } else {
                n = (outer->name = take_name(p)) ? outer : NULL;
            }
        } else if (accept(p, TOKEN_OP, "[")) {
            n = parse_subscript(p, n);
        } else if (accept(p, TOKEN_OP, "(")) {
            node *outer = make(p, NODE_CALL);
            if (!outer || !parse_list(p, &outer->list, ")", true))
                return NULL;
            outer->a = n;
            n = outer;
        } else {
            break;
        }
    }
    return n;
}

static node *parse_test(parser *p, node *in)
{
    node *n = make(p, NODE_TEST);
    if (!n)
        return NULL;
    n->negated = accept(p, TOKEN_NAME, "not");
    n->a = in;
    if (!(n->name = take_name(p)))
        return NULL;
    if (accept(p, TOKEN_OP, "("))
        return parse_list(p, &n->list, ")", true) ? n : NULL;
    /* `x is divisibleby 3`: one argument without brackets */
    const token *t = p->at;
    const bool word = t->kind == TOKEN_NAME && !is(t, TOKEN_NAME, "and") && !is(t, TOKEN_NAME, "or") &&
                      !is(t, TOKEN_NAME, "if") && !is(t, TOKEN_NAME, "else") && !is(t, TOKEN_NAME, "is") &&
                      !is(t, TOKEN_NAME, "not") && !is(t, TOKEN_NAME, "in");
    if (word || t->kind == TOKEN_STRING || t->kind == TOKEN_INT || t->kind == TOKEN_FLOAT)
        n->list = parse_postfix(p);
    return word && !n->list ? NULL : n;
}

static node *binary(parser *p, const char *op, node *a, node *b)
{
    node *n = a && b ? make(p, NODE_BINARY) : NULL;
    if (n) {
        n->name = op;
        n->a = a;
        n->b = b;
    }
    return n;
}

static node *parse_power(parser *p)
{
    node *n = parse_postfix(p);
    if (n && accept(p, TOKEN_OP, "**"))
        n = binary(p, "**", n, parse_unary(p));
    return n;
}

/* A sign binds closer than a filter: -5 | abs is 5. */
static node *parse_signed(parser *p)
{
    if (++p->depth > TEMPLATE_DEPTH_MAX)
        return fail(p, "expressions are nested too deeply");
    node *n;
    if (accept(p, TOKEN_OP, "-")) {
        n = make(p, NODE_NEGATE);
        if (n && !(n->a = parse_signed(p)))
            n = NULL;
    } else if (accept(p, TOKEN_OP, "+")) {
        n = parse_signed(p);
    } else {
        n = parse_power(p);
    }
    p->depth--;
    return n;
}

static node *parse_unary(parser *p)
{
    if (++p->depth > TEMPLATE_DEPTH_MAX)
        return fail(p, "expressions are nested too deeply");
    node *n = parse_signed(p);
    while (n) { /* filters and tests bind to the operand before them */
        if (accept(p, TOKEN_OP, "|"))
            n = parse_filter(p, n);
        else if (accept(p, TOKEN_NAME, "is"))
            n = parse_test(p, n);
        else
            break;
    }
    p->depth--;
    return n;
}

typedef node *(*parse_fn)(parser *p);

static node *parse_level(parser *p, parse_fn lower, const char *const *ops, size_t n_ops)
{
    node *n = lower(p);
    for (size_t i = 0; n && i < n_ops;) {
        if (accept(p, TOKEN_OP, ops[i])) {
            n = binary(p, ops[i], n, lower(p));
            i = 0;
        } else {
            i++;
        }
    }
    return n;
}

static node *parse_product(parser *p)
{
    static const char *const ops[] = {"*", "/", "//", "%"};
    return parse_level(p, parse_unary, ops, 4);
}

static node *parse_sum(parser *p)
{
    static const char *const ops[] = {"+", "-"};
    return parse_level(p, parse_product, ops, 2);
}

static node *parse_concat(parser *p)
{
    static const char *const ops[] = {"~"};
    return parse_level(p, parse_sum, ops, 1);
}

/* One comparison; more in a chain (a < b < c) are joined by AND. */
static node *parse_comparison(parser *p)
{
    static const char *const ops[] = {"==", "!=", "<=", ">=", "<", ">"};
    node *left = parse_concat(p), *all = NULL;
    while (left) {
        const char *op = NULL;
        bool negated = false;
        for (size_t i = 0; i < 6 && !op; i++)
            if (accept(p, TOKEN_OP, ops[i]))
                op = ops[i];
        if (!op && is(p->at, TOKEN_NAME, "not") && is(p->at + 1, TOKEN_NAME, "in")) {
            p->at++;
            negated = true;
        }
        if (!op && accept(p, TOKEN_NAME, "in"))
            op = "in";
        if (!op)
            break;
        node *right = parse_concat(p), *one = right ? make(p, NODE_COMPARE) : NULL;
        if (!one)
            return NULL;
        *one = (node){
            .kind = NODE_COMPARE, .line = one->line, .name = op, .a = left, .b = right, .negated = negated};
        if (all) {
            node *both = make(p, NODE_AND);
            if (!both)
                return NULL;
            both->a = all;
            both->b = one;
            one = both;
        }
        all = one;
        left = right;
    }
    return left && all ? all : left;
}

static node *parse_not(parser *p)
{
    if (!is(p->at, TOKEN_NAME, "not"))
        return parse_comparison(p);
    if (++p->depth > TEMPLATE_DEPTH_MAX)
        return fail(p, "expressions are nested too deeply");
    p->at++;
    node *n = make(p, NODE_NOT);
    if (n && !(n->a = parse_not(p)))
        n = NULL;
    p->depth--;
    return n;
}

static node *parse_logic(parser *p, parse_fn lower, const char *word, node_kind kind)
{
    node *n = lower(p);
    while (n && accept(p, TOKEN_NAME, word)) {
        node *right = lower(p), *outer = right ? make(p, kind) : NULL;
        if (!outer)
            return NULL;
        outer->a = n;
        outer->b = right;
        n = outer;
    }
    return n;
}

static node *parse_and(parser *p) { return parse_logic(p, parse_not, "and", NODE_AND); }
static node *parse_or(parser *p) { return parse_logic(p, parse_and, "or", NODE_OR); }

static node *parse_expression(parser *p)
{
    if (++p->depth > TEMPLATE_DEPTH_MAX)
        return fail(p, "expressions are nested too deeply");
    node *n = parse_or(p);
    while (n && accept(p, TOKEN_NAME, "if")) {
        node *choice = make(p, NODE_CHOICE);
        if (!choice || !(choice->a = parse_or(p)))
            return NULL;
        choice->b = n;
        if (accept(p, TOKEN_NAME, "else") && !(choice->c = parse_expression(p)))
            return NULL;
        n = choice;
    }
    p->depth--;
    return n;
}

/* An expression, or several with commas between: a tuple. */
static node *parse_tuple(parser *p)
{
    node *first = parse_expression(p);
    if (!first || !is(p->at, TOKEN_OP, ","))
        return first;
    node *tuple = make(p, NODE_LIST), *last = first;
    if (!tuple)
        return NULL;
    tuple->list = first;
    while (accept(p, TOKEN_OP, ",")) {
        if (!(last->next = parse_expression(p)))
            return NULL;
        last = last->next;
    }
    return tuple;
}

/* ---- statements ---- */

static bool end_block(parser *p)
{
    if (p->at->kind == TOKEN_BLOCK_END) {
        p->at++;
        return true;
    }
    (void)fail(p, "'%}' is expected");
    return false;
}

static node *parse_if(parser *p)
{
    static const char *const ends[] = {"elif", "else", "endif"};
    node *n = make(p, NODE_IF);
    if (!n || !(n->a = parse_expression(p)) || !end_block(p) || !parse_body(p, &n->list, ends, 3))
        return NULL;
    if (accept(p, TOKEN_NAME, "elif")) {
        n->b = parse_if(p);
        return n->b ? n : NULL;
    }
    if (accept(p, TOKEN_NAME, "else")) {
        if (!end_block(p) || !(n->b = make(p, NODE_GROUP)) || !parse_body(p, &n->b->list, ends + 2, 1))
            return NULL;
    }
    return expect(p, TOKEN_NAME, "endif") && end_block(p) ? n : NULL;
}

/* NAME[, NAME ...] as a list of NAME nodes */
static node *parse_targets(parser *p)
{
    node *list = make(p, NODE_LIST), **tail = list ? &list->list : NULL;
    const bool bracket = list && accept(p, TOKEN_OP, "(");
    do {
        node *name = list ? make(p, NODE_NAME) : NULL;
        if (!name || !(name->name = take_name(p)))
            return NULL;
        *tail = name;
        tail = &name->next;
    } while (accept(p, TOKEN_OP, ","));
    return !bracket || expect(p, TOKEN_OP, ")") ? list : NULL;
}

/* FOR: c the targets, a what is walked, b the filter, list the body, c->b a GROUP for else. */
static node *parse_for(parser *p)
{
    static const char *const ends[] = {"else", "endfor"};
    node *n = make(p, NODE_FOR);
    if (!n || !(n->c = parse_targets(p)) || !expect(p, TOKEN_NAME, "in") || !(n->a = parse_or(p)))
        return NULL;
    if (accept(p, TOKEN_NAME, "if") && !(n->b = parse_expression(p)))
        return NULL;
    if (is(p->at, TOKEN_NAME, "recursive"))
        return unsupported(p, p->at);
    if (!end_block(p) || !parse_body(p, &n->list, ends, 2))
        return NULL;
    if (accept(p, TOKEN_NAME, "else")) {
        if (!end_block(p) || !(n->c->b = make(p, NODE_GROUP)) || !parse_body(p, &n->c->b->list, ends + 1, 1))
            return NULL;
    }
    return expect(p, TOKEN_NAME, "endfor") && end_block(p) ? n : NULL;
}

/* SET: c the targets (or a an ATTRIBUTE of a namespace), b the value. */
static node *parse_set(parser *p)
{
    static const char *const ends[] = {"endset"};
    node *n = make(p, NODE_SET);
    if (!n)
        return NULL;
    if (p->at->kind == TOKEN_NAME && is(p->at + 1, TOKEN_OP, ".")) {
        node *object = make(p, NODE_NAME);
        n->a = make(p, NODE_ATTRIBUTE);
        if (!object || !n->a || !(object->name = take_name(p)))
            return NULL;
        p->at++;
        n->a->a = object;
        if (!(n->a->name = take_name(p)))
            return NULL;
    } else if (!(n->c = parse_targets(p))) {
        return NULL;
    }
    if (accept(p, TOKEN_OP, "="))
        return (n->b = parse_tuple(p)) && end_block(p) ? n : NULL;
    n->kind = NODE_SET_BLOCK; /* {% set x %}...{% endset %}, b: filters around an empty place */
    if (accept(p, TOKEN_OP, "|")) {
        do {
            n->b = parse_filter(p, n->b);
        } while (n->b && accept(p, TOKEN_OP, "|"));
        if (!n->b)
            return NULL;
    }
    return end_block(p) && parse_body(p, &n->list, ends, 1) && expect(p, TOKEN_NAME, "endset") && end_block(p)
               ? n
               : NULL;
}

/* MACRO: name, c a LIST of PAIRs (name, default in a), list the body. */
static node *parse_macro(parser *p)
{
    static const char *const ends[] = {"endmacro"};
    node *n = make(p, NODE_MACRO);
    if (!n || !(n->name = take_name(p)) || !expect(p, TOKEN_OP, "(") || !(n->c = make(p, NODE_LIST)))
        return NULL;
    node **tail = &n->c->list;
    while (!accept(p, TOKEN_OP, ")")) {
        node *parameter = make(p, NODE_PAIR);
        if (!parameter || !(parameter->name = take_name(p)))
            return NULL;
        if (accept(p, TOKEN_OP, "=") && !(parameter->a = parse_expression(p)))
            return NULL;
        *tail = parameter;
        tail = &parameter->next;
        if (!accept(p, TOKEN_OP, ",") && !is(p->at, TOKEN_OP, ")"))
            return fail(p, "',' or ')' is expected");
    }
    if (!end_block(p) || !parse_body(p, &n->list, ends, 1) || !expect(p, TOKEN_NAME, "endmacro"))
        return NULL;
    if (p->at->kind == TOKEN_NAME)
        p->at++;
    return end_block(p) ? n : NULL;
}

static node *parse_filter_block(parser *p)
{
    static const char *const ends[] = {"endfilter"};
    node *n = make(p, NODE_FILTER_BLOCK);
    if (!n)
        return NULL;
    do {
        n->b = parse_filter(p, n->b);
    } while (n->b && accept(p, TOKEN_OP, "|"));
    return n->b && end_block(p) && parse_body(p, &n->list, ends, 1) && expect(p, TOKEN_NAME, "endfilter") &&
                   end_block(p)
               ? n
               : NULL;
}

/* {% generation %} marks the answer for trainers: its body is output as it is. */
static node *parse_generation(parser *p)
{
    static const char *const ends[] = {"endgeneration"};
    node *n = make(p, NODE_GROUP);
    return n && end_block(p) && parse_body(p, &n->list, ends, 1) && expect(p, TOKEN_NAME, "endgeneration") &&
                   end_block(p)
               ? n
               : NULL;
}

static node *parse_block(parser *p)
{
    static const struct {
        const char *word;
        parse_fn parse;
    } blocks[] = {{"if", parse_if},
                  {"for", parse_for},
                  {"set", parse_set},
                  {"macro", parse_macro},
                  {"filter", parse_filter_block},
                  {"generation", parse_generation}};
    const token *word = p->at;
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        if (accept(p, TOKEN_NAME, blocks[i].word))
            return blocks[i].parse(p);
    const bool leaves = accept(p, TOKEN_NAME, "break"), skips = !leaves && accept(p, TOKEN_NAME, "continue");
    if (leaves || skips) {
        node *n = make(p, leaves ? NODE_BREAK : NODE_CONTINUE);
        return n && end_block(p) ? n : NULL;
    }
    return unsupported(p, word);
}

static node *parse_statement(parser *p)
{
    const token *t = p->at++;
    if (t->kind == TOKEN_TEXT) {
        node *n = make(p, NODE_TEXT);
        if (n) {
            n->name = t->data;
            n->name_size = t->size;
        }
        return n;
    }
    if (t->kind == TOKEN_BLOCK_BEGIN)
        return parse_block(p);
    if (t->kind != TOKEN_OUTPUT_BEGIN)
        return fail(p, "text or a tag is expected");
    node *n = make(p, NODE_OUTPUT);
    if (!n || !(n->a = parse_tuple(p)))
        return NULL;
    if (p->at->kind != TOKEN_OUTPUT_END)
        return fail(p, "'}}' is expected");
    p->at++;
    return n;
}

/* Statements up to a block whose keyword is among `ends`; p->at is then that keyword. */
static bool parse_body(parser *p, node **list, const char *const *ends, size_t n_ends)
{
    if (++p->depth > TEMPLATE_DEPTH_MAX) {
        (void)fail(p, "blocks are nested too deeply");
        return false;
    }
    for (node **tail = list;;) {
        if (p->at->kind == TOKEN_END) {
            p->depth--;
            if (n_ends)
                (void)fail(p, "a block is not closed");
            return n_ends == 0;
        }
        if (p->at->kind == TOKEN_BLOCK_BEGIN) {
            for (size_t i = 0; i < n_ends; i++) {
                if (is(p->at + 1, TOKEN_NAME, ends[i])) {
                    p->at++;
                    p->depth--;
                    return true;
                }
            }
        }
        if (!(*tail = parse_statement(p)))
            return false;
        tail = &(*tail)->next;
    }
}

rt_status rt_template_parse_tokens(node **out, const token_list *tokens, rt_arena *arena, json_t *constants,
                                   rt_error *err)
{
    *err = (rt_error){0};
    parser p = {.at = tokens->items, .arena = arena, .constants = constants, .err = err};
    return parse_body(&p, out, NULL, 0) ? RT_OK : err->status;
}
