/* model/template_run.c - runs the statements of a chat template. */
#include <stdlib.h>
#include <string.h>

#include "model/template_eval.h"

static json_t *loop_facts(size_t i, const json_t *items)
{
    const size_t n = json_array_size(items);
    json_t *loop =
        json_pack("{s:I, s:I, s:I, s:I, s:b, s:b, s:I}", "index", (json_int_t)i + 1, "index0", (json_int_t)i,
                  "revindex", (json_int_t)(n - i), "revindex0", (json_int_t)(n - i - 1), "first", i == 0,
                  "last", i + 1 == n, "length", (json_int_t)n);
    if (i > 0)
        (void)json_object_set(loop, "previtem", json_array_get(items, i - 1));
    if (i + 1 < n)
        (void)json_object_set(loop, "nextitem", json_array_get(items, i + 1));
    return loop;
}

static rt_status bind_targets(evaluator *e, const node *targets, json_t *item, size_t line)
{
    if (!targets->list->next)
        return rt_template_assign(e, targets->list->name, rt_value_json(json_incref(item)), line);
    size_t i = 0;
    for (const node *name = targets->list; name; name = name->next, i++) {
        json_t *part = json_array_get(item, i);
        if (!part)
            return rt_template_fail(e, line, "there are fewer values than names to take them");
        if (rt_template_assign(e, name->name, rt_value_json(json_incref(part)), line) != RT_OK)
            return e->err->status;
    }
    return RT_OK;
}

/* What a for statement walks: a list; the keys of a mapping; the characters of a text. */
static rt_status items_of(evaluator *e, json_t **out, const value *v, size_t line)
{
    *out = NULL;
    if (v->kind == VALUE_UNDEFINED) {
        *out = json_array();
    } else if (v->kind == VALUE_JSON && json_is_array(v->json)) {
        *out = json_incref(v->json);
    } else if (v->kind == VALUE_JSON && json_is_object(v->json)) {
        const char *key;
        json_t *item;
        *out = json_array();
        json_object_foreach(v->json, key, item)(void) json_array_append_new(*out, json_string(key));
    } else if (v->kind == VALUE_JSON && json_is_string(v->json)) {
        *out = json_array();
        const char *p = json_string_value(v->json), *end = p + json_string_length(v->json);
        for (size_t n; p < end; p += n) {
            (void)rt_utf8_decode(p, (size_t)(end - p), &n);
            (void)json_array_append_new(*out, json_stringn(p, n));
        }
    } else {
        return rt_template_fail(e, line, "a for statement needs a list");
    }
    return RT_OK;
}

/* Keeps the items for which the for statement's own condition holds. */
static rt_status select_items(evaluator *e, json_t **items, const node *n)
{
    json_t *kept = json_array();
    const size_t count = e->count, scope = e->scope;
    rt_status status = RT_OK;
    e->scope = count;
    for (size_t i = 0; i < json_array_size(*items) && status == RT_OK; i++) {
        value truth = {0};
        status = rt_template_step(e, n->line);
        if (status == RT_OK)
            status = bind_targets(e, n->c, json_array_get(*items, i), n->line);
        if (status == RT_OK)
            status = rt_template_evaluate(e, &truth, n->b);
        if (rt_value_truthy(&truth))
            (void)json_array_append(kept, json_array_get(*items, i));
        rt_value_drop(&truth);
        rt_template_drop_to(e, count);
    }
    e->scope = scope;
    json_decref(*items);
    *items = kept;
    return status;
}

static rt_status run_for(evaluator *e, const node *n)
{
    value walked = {0};
    json_t *items = NULL;
    rt_status status = rt_template_evaluate(e, &walked, n->a);
    if (status == RT_OK)
        status = items_of(e, &items, &walked, n->line);
    rt_value_drop(&walked);
    if (status == RT_OK && n->b)
        status = select_items(e, &items, n);
    const size_t count = e->count, scope = e->scope;
    for (size_t i = 0; i < json_array_size(items) && status == RT_OK && e->flow != FLOW_BREAK; i++) {
        e->scope = count;
        e->flow = FLOW_NEXT;
        status = rt_template_step(e, n->line); /* an empty body takes time too */
        if (status == RT_OK)
            status = bind_targets(e, n->c, json_array_get(items, i), n->line);
        if (status == RT_OK)
            status = rt_template_assign(e, "loop", rt_value_json(loop_facts(i, items)), n->line);
        if (status == RT_OK)
            status = rt_template_run_list(e, n->list);
        rt_template_drop_to(e, count);
    }
    e->scope = scope;
    e->flow = FLOW_NEXT;
    if (status == RT_OK && n->c->b && json_array_size(items) == 0)
        status = rt_template_run_list(e, n->c->b->list);
    json_decref(items);
    return status;
}

static rt_status run_set(evaluator *e, const node *n)
{
    value v;
    if (rt_template_evaluate(e, &v, n->b) != RT_OK)
        return e->err->status;
    if (n->a) {
        value object = rt_template_look_up(e, n->a->a->name);
        rt_status status = object.kind == VALUE_NAMESPACE
                               ? RT_OK
                               : rt_template_fail(e, n->line, "only a namespace's attributes can be set");
        if (status == RT_OK)
            (void)json_object_set_new(object.json, n->a->name,
                                      v.kind == VALUE_JSON ? json_incref(v.json) : json_null());
        rt_value_drop(&object);
        rt_value_drop(&v);
        return status;
    }
    if (!n->c->list->next)
        return rt_template_assign(e, n->c->list->name, v, n->line);
    const rt_status status = bind_targets(e, n->c, v.json, n->line);
    rt_value_drop(&v);
    return status;
}

/* The chain of filters of a set or filter block, innermost first. */
static rt_status filter_chain(evaluator *e, value *v, const node *chain)
{
    if (!chain)
        return RT_OK;
    if (filter_chain(e, v, chain->a) != RT_OK)
        return e->err->status;
    value filtered = {0};
    const rt_status status = rt_template_apply_filter(e, &filtered, chain, v);
    rt_value_drop(v);
    *v = filtered;
    return status;
}

static rt_status run_captured(evaluator *e, const node *n)
{
    value v;
    const size_t count = e->count, scope = e->scope;
    e->scope = count;
    rt_status status = rt_template_capture(e, &v, n->list, n->line);
    rt_template_drop_to(e, count);
    e->scope = scope;
    if (status == RT_OK)
        status = filter_chain(e, &v, n->b);
    if (status == RT_OK && n->kind == NODE_SET_BLOCK && n->c)
        return rt_template_assign(e, n->c->list->name, v, n->line);
    if (status == RT_OK)
        rt_value_print(e->out, &v);
    rt_value_drop(&v);
    return status;
}

static rt_status run_if(evaluator *e, const node *n)
{
    value condition;
    if (rt_template_evaluate(e, &condition, n->a) != RT_OK)
        return e->err->status;
    const bool truth = rt_value_truthy(&condition);
    rt_value_drop(&condition);
    if (truth)
        return rt_template_run_list(e, n->list);
    if (!n->b)
        return RT_OK;
    return n->b->kind == NODE_IF ? run_if(e, n->b) : rt_template_run_list(e, n->b->list);
}

static rt_status run_output(evaluator *e, const node *n)
{
    value v;
    const rt_status status = rt_template_evaluate(e, &v, n->a);
    if (status == RT_OK)
        rt_value_print(e->out, &v);
    rt_value_drop(&v);
    return status;
}

static rt_status run_statement(evaluator *e, const node *n)
{
    switch (n->kind) {
    case NODE_TEXT:
        rt_text_append(e->out, n->name, n->name_size);
        return RT_OK;
    case NODE_OUTPUT:
        return run_output(e, n);
    case NODE_IF:
        return run_if(e, n);
    case NODE_FOR:
        return run_for(e, n);
    case NODE_SET:
        return run_set(e, n);
    case NODE_SET_BLOCK:
    case NODE_FILTER_BLOCK:
        return run_captured(e, n);
    case NODE_MACRO:
        return rt_template_assign(e, n->name, (value){.kind = VALUE_MACRO, .macro = n}, n->line);
    case NODE_BREAK:
        e->flow = FLOW_BREAK;
        return RT_OK;
    case NODE_CONTINUE:
        e->flow = FLOW_CONTINUE;
        return RT_OK;
    default:
        return rt_template_run_list(e, n->list);
    }
}

rt_status rt_template_run_list(evaluator *e, const node *list)
{
    for (const node *n = list; n && e->flow == FLOW_NEXT; n = n->next) {
        if (rt_template_step(e, n->line) != RT_OK || run_statement(e, n) != RT_OK)
            return e->err->status;
    }
    return RT_OK;
}

rt_status rt_template_run(const node *statements, const json_t *variables, rt_text *out, rt_error *err)
{
    evaluator e = {.variables = variables, .out = out, .err = err};
    e.stack = calloc(VARIABLES_MAX, sizeof *e.stack);
    if (!e.stack)
        return rt_error_set(err, RT_NO_MEMORY, "no memory to run the chat template");
    rt_status status = rt_template_run_list(&e, statements);
    if (status == RT_OK && out->failed)
        status = rt_error_set(err, RT_INVALID, "the chat template's output is too long");
    rt_template_drop_to(&e, 0);
    free(e.stack);
    return status;
}
