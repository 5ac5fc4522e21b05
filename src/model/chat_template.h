/* model/chat_template.h - runs the Jinja chat template that a model carries.
 *
 * The subset that real templates use (if, for, set, macro, filters, tests, namespace, loop, slices,
 * raise_exception, strftime_now); anything else is RT_UNSUPPORTED with line and construct.  Output,
 * steps and depth are bounded, so a hostile template ends. */
#ifndef RT_MODEL_CHAT_TEMPLATE_H
#define RT_MODEL_CHAT_TEMPLATE_H

#include <jansson.h>

#include "base/text.h"

typedef struct rt_chat_template rt_chat_template;
rt_status rt_chat_template_parse(rt_chat_template **out, const char *source, rt_error *err);
void rt_chat_template_free(rt_chat_template *chat_template);
/* variables: an object {messages, add_generation_prompt, bos_token, eos_token, tools, ...}. Appends to out.
 */
rt_status rt_chat_template_render(const rt_chat_template *chat_template, const json_t *variables,
                                  rt_text *out, rt_error *err);

#endif
