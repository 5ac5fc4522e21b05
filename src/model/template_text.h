/* model/template_text.h - operations on text for filters and methods.  Internal to the model room. */
#ifndef RT_MODEL_TEMPLATE_TEXT_H
#define RT_MODEL_TEMPLATE_TEXT_H

#include "model/template_ast.h"

static inline bool is_text(const value *v) { return v->kind == VALUE_JSON && json_is_string(v->json); }
static inline const char *text_of(const value *v) { return json_string_value(v->json); }
static inline size_t size_of(const value *v) { return json_string_length(v->json); }

static inline bool flag_of(const call_args *args, size_t position, const char *name)
{
    const value *v = rt_argument(args, position, name);
    return v && rt_value_truthy(v);
}

value rt_value_take_text(rt_text *text); /* and frees the buffer */
/* set NULL: white space; sides: 1 left, 2 right */
value rt_text_strip(const value *in, const value *set, int sides);
value rt_text_change_case(const value *in, int mode); /* 'u'pper, 'l'ower, 't'itle, 'c'apitalize */
value rt_text_replace(const value *in, const value *from, const value *to,
                      json_int_t most); /* most < 0: all */
value rt_text_join(const json_t *items, const value *by, const value *attribute);
value rt_text_indent(const value *in, const call_args *args);
rt_status rt_text_method(evaluator *e, value *out, const value *in, const char *name, const call_args *args,
                         size_t line);

#endif
