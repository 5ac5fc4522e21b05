/* model/template_eval.c - evaluates the expressions of a chat template.
 *
 * Variables live in one stack of (name, value); a for loop or a macro call remembers how high the stack was
 * and drops what it added.  A macro sees its own variables and the template's outermost ones.  Steps, output
 * and the depth of calls are bounded, so that a hostile template ends. */
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "model/template_eval.h"

rt_status rt_template_fail(evaluator *e, size_t line, const char *fmt, ...)
{
    char what[400];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    return rt_error_set(e->err, RT_INVALID, "chat template, line %zu: %s", line, what);
}

rt_status rt_template_step(evaluator *e, size_t line)
{
    if (++e->steps > STEPS_MAX)
        return rt_template_fail(e, line, "it takes more than %d steps", (int)STEPS_MAX);
    if (e->out->failed)
        return rt_template_fail(e, line, "its output is too long");
    return RT_OK;
}

static void count_values(evaluator *e, const json_t *json, size_t depth)
{
    if (++e->steps > STEPS_MAX || depth > TEMPLATE_DEPTH_MAX) {
        e->steps = (size_t)STEPS_MAX + 1;
        return;
    }
    for (size_t i = 0; i < json_array_size(json) && e->steps <= STEPS_MAX; i++)
        count_values(e, json_array_get(json, i), depth + 1);
    const char *key;
    json_t *item;
    json_object_foreach((json_t *)(size_t)json, key, item) if (e->steps <= STEPS_MAX)
        count_values(e, item, depth + 1);
}

rt_status rt_template_charge(evaluator *e, const json_t *json, size_t line)
{
    if (json_is_array(json) || json_is_object(json))
        count_values(e, json, 0);
    return rt_template_step(e, line);
}

/* ---- variables ---- */

static variable *find(evaluator *e, const char *name, size_t down_to)
{
    for (size_t i = e->count; i-- > down_to;) {
        if (i >= e->globals && i < e->macro_base)
            continue;
        if (strcmp(e->stack[i].name, name) == 0)
            return &e->stack[i];
    }
    return NULL;
}

/* Takes the value. */
rt_status rt_template_assign(evaluator *e, const char *name, value v, size_t line)
{
    variable *there = find(e, name, e->scope);
    if (there) {
        rt_value_drop(&there->value);
        there->value = v;
        return RT_OK;
    }
    if (e->count == VARIABLES_MAX) {
        rt_value_drop(&v);
        return rt_template_fail(e, line, "it sets too many variables");
    }
    e->stack[e->count++] = (variable){name, v};
    return RT_OK;
}

void rt_template_drop_to(evaluator *e, size_t count)
{
    while (e->count > count)
        rt_value_drop(&e->stack[--e->count].value);
}

value rt_template_look_up(evaluator *e, const char *name)
{
    const variable *there = find(e, name, 0);
    if (there)
        return rt_value_copy(&there->value);
    json_t *given = json_object_get(e->variables, name);
    if (given)
        return rt_value_json(json_incref(given));
    const int function = rt_template_function_index(name);
    return function >= 0 ? (value){.kind = VALUE_FUNCTION, .function = function} : (value){0};
}

/* ---- expressions ---- */

rt_status rt_template_attribute(evaluator *e, value *out, const value *object, const char *name, size_t line)
{
    *out = (value){0};
    if (object->kind == VALUE_UNDEFINED)
        return rt_template_fail(e, line, "'%s' is asked of something that is undefined", name);
    if (object->kind == VALUE_NAMESPACE || json_is_object(object->json))
        *out = rt_value_json(json_incref(json_object_get(object->json, name)));
    return RT_OK;
}

static json_int_t clamp_index(json_int_t i, json_int_t n, json_int_t low, json_int_t high)
{
    if (i < 0)
        i += n;
    return i < low ? low : i > high ? high : i;
}

static size_t text_length(const json_t *s) /* in characters */
{
    size_t n = 0;
    for (const char *p = json_string_value(s), *end = p + json_string_length(s); p < end; p++)
        n += ((unsigned char)*p & 0xC0) != 0x80;
    return n;
}

/* The i-th character of a string. */
static value character(const json_t *s, size_t i)
{
    const char *p = json_string_value(s), *end = p + json_string_length(s);
    for (; p < end; p++) {
        if (((unsigned char)*p & 0xC0) == 0x80)
            continue;
        if (i-- == 0) {
            const char *stop = p + 1;
            while (stop < end && ((unsigned char)*stop & 0xC0) == 0x80)
                stop++;
            return rt_value_text(p, (size_t)(stop - p));
        }
    }
    return (value){0};
}

static rt_status item_of(evaluator *e, value *out, const value *object, const value *index, size_t line)
{
    *out = (value){0};
    if (object->kind == VALUE_UNDEFINED)
        return rt_template_fail(e, line, "an item is asked of something that is undefined");
    if (index->kind != VALUE_JSON)
        return RT_OK;
    if (json_is_object(object->json) && json_is_string(index->json))
        return rt_template_attribute(e, out, object, json_string_value(index->json), line);
    if (!json_is_integer(index->json) || object->kind != VALUE_JSON)
        return RT_OK;
    const bool text = json_is_string(object->json);
    const json_int_t n = (json_int_t)(text ? text_length(object->json) : json_array_size(object->json));
    json_int_t i = json_integer_value(index->json);
    i += i < 0 ? n : 0;
    if (i >= 0 && i < n)
        *out = text ? character(object->json, (size_t)i)
                    : rt_value_json(json_incref(json_array_get(object->json, (size_t)i)));
    return RT_OK;
}

static rt_status slice_of(evaluator *e, value *out, const value *object, const node *parts, size_t line)
{
    value bounds[3] = {{0}}; /* step, stop, start: the parser's order */
    rt_status status = RT_OK;
    for (size_t i = 0; i < 3 && status == RT_OK; i++, parts = parts->next)
        if (parts->a)
            status = rt_template_evaluate(e, &bounds[i], parts->a);
    const bool text = object->kind == VALUE_JSON && json_is_string(object->json);
    if (status == RT_OK && !text && !(object->kind == VALUE_JSON && json_is_array(object->json)))
        status = rt_template_fail(e, line, "only lists and strings have slices");
    if (status == RT_OK) {
        const json_int_t n = (json_int_t)(text ? text_length(object->json) : json_array_size(object->json));
        const json_int_t by = json_is_integer(bounds[0].json) ? json_integer_value(bounds[0].json) : 1;
        json_int_t from = by > 0 ? 0 : n - 1, to = by > 0 ? n : -1;
        if (json_is_integer(bounds[2].json))
            from = by > 0 ? clamp_index(json_integer_value(bounds[2].json), n, 0, n)
                          : clamp_index(json_integer_value(bounds[2].json), n, -1, n - 1);
        if (json_is_integer(bounds[1].json))
            to = by > 0 ? clamp_index(json_integer_value(bounds[1].json), n, 0, n)
                        : clamp_index(json_integer_value(bounds[1].json), n, -1, n - 1);
        rt_text joined = {0};
        json_t *list = json_array();
        if (by == 0)
            status = rt_template_fail(e, line, "a slice cannot have step 0");
        for (json_int_t i = from; by != 0 && (by > 0 ? i < to : i > to);
             i = __builtin_add_overflow(i, by, &i) ? to : i) {
            if (!text) {
                (void)json_array_append(list, json_array_get(object->json, (size_t)i));
                continue;
            }
            value c = character(object->json, (size_t)i);
            rt_value_print(&joined, &c);
            rt_value_drop(&c);
            if ((status = rt_template_step(e, line)) != RT_OK)
                break;
        }
        if (text)
            json_decref(list);
        *out = text ? rt_value_text(joined.data, joined.size) : rt_value_json(list);
        rt_text_deinit(&joined);
    }
    for (size_t i = 0; i < 3; i++)
        rt_value_drop(&bounds[i]);
    return status;
}

static double real_of(const json_t *j) { return json_is_boolean(j) ? json_is_true(j) : json_number_value(j); }

static rt_status arithmetic(evaluator *e, value *out, const char *op, const json_t *a, const json_t *b,
                            size_t line)
{
    const double x = real_of(a), y = real_of(b);
    json_int_t exact;
    if (json_is_integer(a) && json_is_integer(b) && !op[1]) {
        const json_int_t m = json_integer_value(a), n = json_integer_value(b);
        if (op[0] == '+'   ? !__builtin_add_overflow(m, n, &exact)
            : op[0] == '-' ? !__builtin_sub_overflow(m, n, &exact)
                           : op[0] == '*' && !__builtin_mul_overflow(m, n, &exact)) {
            *out = rt_value_json(json_integer(exact));
            return RT_OK;
        }
    }
    const bool real = json_is_real(a) || json_is_real(b);
    if ((op[0] == '/' || op[0] == '%') && y == 0)
        return rt_template_fail(e, line, "division by zero");
    double result = 0.0;
    switch (op[0]) {
    case '+':
        result = x + y;
        break;
    case '-':
        result = x - y;
        break;
    case '*':
        result = op[1] ? pow(x, y) : x * y;
        break;
    case '/':
        result = op[1] ? floor(x / y) : x / y;
        break;
    default:
        result = x - floor(x / y) * y;
        break;
    }
    const bool whole = !real && !(op[0] == '/' && !op[1]) && fabs(result) <= 0x1p53;
    *out = rt_value_json(whole ? json_integer((json_int_t)result) : json_real(isfinite(result) ? result : 0));
    return RT_OK;
}

static rt_status repeat(evaluator *e, value *out, const json_t *text, json_int_t times, size_t line)
{
    rt_text joined = {.size_max = output_bytes_max};
    for (json_int_t i = 0; i < times && !joined.failed; i++)
        rt_text_append(&joined, json_string_value(text), json_string_length(text));
    *out = rt_value_text(joined.data, joined.size);
    const bool failed = joined.failed;
    rt_text_deinit(&joined);
    return failed ? rt_template_fail(e, line, "a text becomes too long") : RT_OK;
}

static rt_status binary(evaluator *e, value *out, const char *op, const value *a, const value *b, size_t line)
{
    const json_t *x = a->kind == VALUE_JSON ? a->json : NULL, *y = b->kind == VALUE_JSON ? b->json : NULL;
    const bool numbers =
        (json_is_number(x) || json_is_boolean(x)) && (json_is_number(y) || json_is_boolean(y));
    if (numbers && op[0] != '~')
        return arithmetic(e, out, op, x, y, line);
    if (op[0] == '~' || (op[0] == '+' && json_is_string(x) && json_is_string(y))) {
        rt_text joined = {.size_max = output_bytes_max};
        rt_value_print(&joined, a);
        rt_value_print(&joined, b);
        const bool failed = joined.failed;
        *out = rt_value_text(joined.data, joined.size);
        rt_text_deinit(&joined);
        return failed ? rt_template_fail(e, line, "a text becomes too long") : RT_OK;
    }
    if (op[0] == '+' && json_is_array(x) && json_is_array(y)) {
        json_t *list = json_copy((json_t *)(size_t)x);
        (void)json_array_extend(list, (json_t *)(size_t)y);
        *out = rt_value_json(list);
        return rt_template_charge(e, list, line);
    }
    if (op[0] == '*' && !op[1] && json_is_string(x) && json_is_integer(y))
        return repeat(e, out, x, json_integer_value(y), line);
    return rt_template_fail(e, line, "'%s' has no meaning between these two", op);
}

static rt_status contains(evaluator *e, bool *out, const value *item, const value *in, size_t line)
{
    *out = false;
    if (in->kind != VALUE_JSON)
        return in->kind == VALUE_UNDEFINED
                   ? RT_OK
                   : rt_template_fail(e, line, "'in' needs a list, a text or a mapping");
    if (json_is_string(in->json) && json_is_string(item->json)) {
        *out = memmem(json_string_value(in->json), json_string_length(in->json),
                      json_string_value(item->json), json_string_length(item->json)) != NULL;
    } else if (json_is_object(in->json)) {
        *out = json_is_string(item->json) && json_object_get(in->json, json_string_value(item->json));
    } else if (json_is_array(in->json)) {
        for (size_t i = 0; i < json_array_size(in->json) && !*out; i++) {
            const value other = {.kind = VALUE_JSON, .json = json_array_get(in->json, i)};
            if (rt_template_charge(e, other.json, line) != RT_OK)
                return e->err->status;
            *out = rt_value_equal(item, &other);
        }
    }
    return RT_OK;
}

static rt_status compare(evaluator *e, bool *out, const node *n, const value *a, const value *b)
{
    const char *op = n->name;
    if (op[0] == 'i') {
        const rt_status status = contains(e, out, a, b, n->line);
        *out = *out != n->negated;
        return status;
    }
    if (op[0] == '=' || op[0] == '!') {
        if (rt_template_charge(e, a->json, n->line) != RT_OK)
            return e->err->status;
        *out = rt_value_equal(a, b) == (op[0] == '=');
        return RT_OK;
    }
    bool ok = a->kind == VALUE_JSON && b->kind == VALUE_JSON;
    const int order = ok ? rt_value_order(a->json, b->json, &ok) : 0;
    if (!ok)
        return rt_template_fail(e, n->line, "'%s' has no meaning between these two", op);
    *out = op[0] == '<' ? order < 0 || (op[1] && order == 0) : order > 0 || (op[1] && order == 0);
    return RT_OK;
}

static void drop_args(call_args *args)
{
    for (size_t i = 0; i < args->count; i++)
        rt_value_drop(&args->positional[i]);
    for (size_t i = 0; i < args->n_named; i++)
        rt_value_drop(&args->named[i]);
}

static rt_status evaluate_args(evaluator *e, call_args *args, const node *list)
{
    for (const node *n = list; n; n = n->next) {
        const bool named = n->kind == NODE_PAIR;
        size_t *count = named ? &args->n_named : &args->count;
        if (*count == TEMPLATE_ARGS_MAX)
            return rt_template_fail(e, n->line, "a call has too many arguments");
        value v;
        if (rt_template_evaluate(e, &v, named ? n->a : n) != RT_OK)
            return e->err->status;
        if (named)
            args->names[*count] = n->name;
        (named ? args->named : args->positional)[(*count)++] = v;
    }
    return RT_OK;
}

/* Runs statements into a text of their own. */
rt_status rt_template_capture(evaluator *e, value *out, const node *list, size_t line)
{
    rt_text text = {.size_max = output_bytes_max}, *before = e->out;
    e->out = &text;
    rt_status status = rt_template_run_list(e, list);
    e->out = before;
    if (status == RT_OK && text.failed)
        status = rt_template_fail(e, line, "its output is too long");
    *out = status == RT_OK ? rt_value_text(text.data, text.size) : (value){0};
    rt_text_deinit(&text);
    return status;
}

static rt_status bind_parameters(evaluator *e, const node *macro, const call_args *args)
{
    size_t position = 0;
    for (const node *p = macro->c->list; p; p = p->next, position++) {
        const value *given = rt_argument(args, position, p->name);
        value v = {0};
        if (given)
            v = rt_value_copy(given);
        else if (p->a && rt_template_evaluate(e, &v, p->a) != RT_OK)
            return e->err->status;
        if (rt_template_assign(e, p->name, v, p->line) != RT_OK)
            return e->err->status;
    }
    return RT_OK;
}

static rt_status call_macro(evaluator *e, value *out, const node *macro, const call_args *args)
{
    if (++e->calls > CALLS_MAX)
        return rt_template_fail(e, macro->line, "macro %s calls itself too deeply", macro->name);
    const size_t count = e->count, scope = e->scope, globals = e->globals, base = e->macro_base;
    if (!e->macro_base) {
        e->globals = scope ? scope : count;
    }
    e->macro_base = e->scope = count;
    rt_status status = bind_parameters(e, macro, args);
    if (status == RT_OK)
        status = rt_template_capture(e, out, macro->list, macro->line);
    rt_template_drop_to(e, count);
    e->scope = scope;
    e->globals = globals;
    e->macro_base = base;
    e->flow = FLOW_NEXT;
    e->calls--;
    return status;
}

static rt_status call(evaluator *e, value *out, const node *n)
{
    call_args args = {0};
    value callee = {0};
    const bool method = n->a->kind == NODE_ATTRIBUTE;
    rt_status status = rt_template_evaluate(e, &callee, method ? n->a->a : n->a);
    if (status == RT_OK)
        status = evaluate_args(e, &args, n->list);
    if (status == RT_OK) {
        if (method)
            status = rt_template_method(e, out, &callee, n->a->name, &args, n->line);
        else if (callee.kind == VALUE_MACRO)
            status = call_macro(e, out, callee.macro, &args);
        else if (callee.kind == VALUE_FUNCTION)
            status = rt_template_function(e, out, callee.function, &args, n->line);
        else
            status = rt_template_fail(e, n->line, "%s is not a function",
                                      n->a->name ? n->a->name : "what is called");
    }
    rt_value_drop(&callee);
    drop_args(&args);
    return status;
}

rt_status rt_template_apply_filter(evaluator *e, value *out, const node *n, const value *in)
{
    call_args args = {0};
    rt_status status = evaluate_args(e, &args, n->list);
    if (status == RT_OK)
        status = rt_template_filter(e, out, n->name, in, &args, n->line);
    drop_args(&args);
    return status;
}

static rt_status test_of(evaluator *e, bool *out, const node *n, const value *in)
{
    call_args args = {0};
    rt_status status = evaluate_args(e, &args, n->list);
    if (status == RT_OK)
        status = rt_template_test(e, out, n->name, in, &args, n->line);
    *out = *out != n->negated;
    drop_args(&args);
    return status;
}

static rt_status collect(evaluator *e, value *out, const node *n)
{
    json_t *made = n->kind == NODE_LIST ? json_array() : json_object();
    rt_status status = RT_OK;
    for (const node *item = n->list; item && status == RT_OK; item = item->next) {
        value key = {0}, v = {0};
        if (n->kind == NODE_DICT)
            status = rt_template_evaluate(e, &key, item->a);
        if (status == RT_OK)
            status = rt_template_evaluate(e, &v, n->kind == NODE_DICT ? item->b : item);
        if (status == RT_OK && v.kind != VALUE_JSON) {
            json_decref(v.json);
            v = rt_value_json(json_null());
        }
        if (status == RT_OK && n->kind == NODE_LIST)
            (void)json_array_append(made, v.json);
        else if (status == RT_OK && json_is_string(key.json))
            (void)json_object_set(made, json_string_value(key.json), v.json);
        else if (status == RT_OK)
            status = rt_template_fail(e, n->line, "the keys of a mapping must be text");
        rt_value_drop(&key);
        rt_value_drop(&v);
    }
    *out = rt_value_json(made);
    return status == RT_OK ? rt_template_charge(e, made, n->line) : status;
}

/* Operators of two operands that are both evaluated. */
static rt_status two_operands(evaluator *e, value *out, const node *n)
{
    value a = {0}, b = {0};
    bool truth = false;
    rt_status status = rt_template_evaluate(e, &a, n->a);
    if (status == RT_OK)
        status = rt_template_evaluate(e, &b, n->b);
    if (status == RT_OK) {
        if (n->kind == NODE_BINARY) {
            status = binary(e, out, n->name, &a, &b, n->line);
        } else if (n->kind == NODE_ITEM) {
            status = item_of(e, out, &a, &b, n->line);
        } else {
            status = compare(e, &truth, n, &a, &b);
            *out = rt_value_json(json_boolean(truth));
        }
    }
    rt_value_drop(&a);
    rt_value_drop(&b);
    return status;
}

/* Operators of one operand, and those that choose which operand to evaluate next. */
static rt_status one_operand(evaluator *e, value *out, const node *n)
{
    value a = {0};
    bool truth = false;
    rt_status status = rt_template_evaluate(e, &a, n->a);
    if (status != RT_OK)
        return status;
    switch (n->kind) {
    case NODE_ATTRIBUTE:
        status = rt_template_attribute(e, out, &a, n->name, n->line);
        break;
    case NODE_SLICE:
        status = slice_of(e, out, &a, n->list, n->line);
        break;
    case NODE_FILTER:
        status = rt_template_apply_filter(e, out, n, &a);
        break;
    case NODE_TEST:
        status = test_of(e, &truth, n, &a);
        *out = rt_value_json(json_boolean(truth));
        break;
    case NODE_NOT:
        *out = rt_value_json(json_boolean(!rt_value_truthy(&a)));
        break;
    case NODE_NEGATE: {
        json_t *zero = json_integer(0);
        status = json_is_number(a.json) ? arithmetic(e, out, "-", zero, a.json, n->line)
                                        : rt_template_fail(e, n->line, "'-' needs a number");
        json_decref(zero);
        break;
    }
    case NODE_CHOICE:
        if (rt_value_truthy(&a))
            status = rt_template_evaluate(e, out, n->b);
        else if (n->c)
            status = rt_template_evaluate(e, out, n->c);
        break;
    default: /* AND, OR give the operand that decides */
        if (rt_value_truthy(&a) == (n->kind == NODE_AND))
            status = rt_template_evaluate(e, out, n->b);
        else
            *out = rt_value_copy(&a);
        break;
    }
    rt_value_drop(&a);
    return status;
}

static rt_status evaluate(evaluator *e, value *out, const node *n)
{
    switch (n->kind) {
    case NODE_CONST:
        *out = rt_value_json(json_incref(n->constant));
        return RT_OK;
    case NODE_NAME:
        *out = rt_template_look_up(e, n->name);
        return RT_OK;
    case NODE_LIST:
    case NODE_DICT:
        return collect(e, out, n);
    case NODE_CALL:
        return call(e, out, n);
    case NODE_BINARY:
    case NODE_ITEM:
    case NODE_COMPARE:
        return two_operands(e, out, n);
    default:
        return one_operand(e, out, n);
    }
}

rt_status rt_template_evaluate(evaluator *e, value *out, const node *n)
{
    *out = (value){0};
    rt_status status = rt_template_step(e, n->line);
    if (status == RT_OK)
        status = evaluate(e, out, n);
    if (status != RT_OK)
        rt_value_drop(out); /* whatever part of it was made */
    return status;
}
