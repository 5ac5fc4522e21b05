/* fuzz/fuzz_request.c - any bytes as the body of a request: the first byte chooses the endpoint, the rest is
 * its JSON.  What is read keeps its own bounds; what is refused says why. */
#include <stdlib.h>
#include <string.h>

#include "../tests/serve/tiny_tokenizer.h"
#include "serve/fields.h"
#include "serve/request.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static const char source[] = "{% for m in messages %}<s>{{ m.role }}:{{ m.content }}</s>{% endfor %}"
                             "{% if add_generation_prompt %}<s>assistant:<think>{% endif %}";

static const rt_served_model *the_model(void)
{
    static rt_served_model model;
    if (model.id)
        return &model;
    rt_error err = {0};
    rt_chat_template *chat_template = NULL;
    const rt_tokenizer *tokenizer = tiny_tokenizer(&err);
    if (!tokenizer || rt_chat_template_parse(&chat_template, source, &err) != RT_OK)
        abort();
    model = (rt_served_model){.id = "tiny",
                              .tokenizer = tokenizer,
                              .chat_template = chat_template,
                              .n_vocab = TINY_VOCAB,
                              .context = 128,
                              .token_bytes_max = 8,
                              .thinks = true};
    return &model;
}

static void check(bool holds)
{
    if (!holds)
        __builtin_trap();
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    const rt_served_model *model = the_model();
    rt_fault fault = {0};
    json_t *body = NULL;
    rt_request q = {0};
    if (size == 0)
        return 0;
    const bool chat = data[0] & 1;
    const rt_request_rules rules = {
        .strict = data[0] & 2, .tokens_cap = data[0] & 4 ? 7 : -1, .tokens_room = -1};
    const bool read = rt_body_parse(&body, (const char *)data + 1, size - 1, &fault) &&
                      rt_request_read(&q, chat, body, model, &rules, &fault);
    if (read) {
        check(q.n_prompts > 0 && q.options.n >= 1 && q.options.n <= RT_CHOICES_MAX);
        for (size_t i = 0; i < q.n_prompts; i++) {
            check(q.prompts[i].count > 0 && q.prompts[i].count + q.options.tokens_max <= model->context);
            for (size_t k = 0; k < q.prompts[i].count; k++)
                check(q.prompts[i].ids[k] >= 0 && q.prompts[i].ids[k] < TINY_VOCAB);
        }
    } else {
        check(fault.status >= 400 && fault.message[0] && fault.type);
    }
    rt_request_deinit(&q);
    json_decref(body);
    return 0;
}
