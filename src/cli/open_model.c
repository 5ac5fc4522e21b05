/* cli/open_model.c - see open_model.h. */
#include "cli/open_model.h"

#include <stdlib.h>
#include <string.h>

#include "model/stream.h"

rt_precision cli_precision(const char *word)
{
    if (strcmp(word, "f32") == 0)
        return RT_PRECISION_F32;
    return strcmp(word, "int8") == 0 ? RT_PRECISION_INT8 : RT_PRECISION_BF16;
}

static rt_status open_words(cli_model *m, unsigned flags, rt_error *err)
{
    if (flags & CLI_MODEL_NO_TOKENIZER)
        return RT_OK;
    const rt_status status = rt_weights_get_format(m->weights) == RT_FORMAT_GGUF
                                 ? rt_tokenizer_from_weights(&m->tokenizer, m->weights, err)
                                 : rt_tokenizer_open(&m->tokenizer, m->path, err);
    if (status != RT_OK)
        return status;
    const char *source = rt_tokenizer_chat_template(m->tokenizer);
    if (!source || (flags & CLI_MODEL_NO_TEMPLATE))
        return RT_OK;
    if (rt_chat_template_parse(&m->chat_template, source, err) != RT_OK)
        return rt_error_within(err, m->path);
    return RT_OK;
}

rt_status cli_model_open(cli_model *out, const char *name, rt_precision precision, unsigned flags,
                         rt_pool *pool, rt_error *err)
{
    *out = (cli_model){0};
    cli_model m = {0};
    const bool stream = flags & CLI_MODEL_STREAM;
    if (cli_model_path(&m.path, name, err) != RT_OK ||
        (stream ? rt_weights_open_headers : rt_weights_open)(&m.weights, m.path, err) != RT_OK ||
        open_words(&m, flags, err) != RT_OK ||
        (stream ? rt_model_open_streamed(&m.model, m.weights, precision, pool, NULL, err)
                : rt_model_open(&m.model, m.weights, precision, pool, err)) != RT_OK) {
        cli_model_close(&m);
        return err->status;
    }
    for (size_t i = 0; i < rt_weights_count(m.weights); i++)
        m.weight_file_bytes += rt_weights_at(m.weights, i)->bytes;
    *out = m;
    return RT_OK;
}

void cli_model_close(cli_model *model)
{
    rt_model_close(model->model);
    rt_chat_template_free(model->chat_template);
    rt_tokenizer_close(model->tokenizer);
    rt_weights_close(model->weights);
    free(model->path);
    *model = (cli_model){0};
}

rt_status cli_models_match(const cli_model *teacher, const cli_model *student, rt_error *err)
{
    const rt_tokenizer *t = teacher->tokenizer, *s = student->tokenizer;
    if (strcmp(rt_tokenizer_hash(t), rt_tokenizer_hash(s)) == 0)
        return RT_OK;
    return rt_error_set(
        err, RT_MISMATCH,
        "the teacher and the student do not have the same tokenizer: %.80s has %s with %zu ids "
        "(%.12s), %.80s has %s with %zu ids (%.12s); take a student made from this teacher, "
        "or one with the same tokenizer; eval --bits judges models of any tokens",
        teacher->path, rt_tokenizer_kind(t), rt_tokenizer_size(t), rt_tokenizer_hash(t), student->path,
        rt_tokenizer_kind(s), rt_tokenizer_size(s), rt_tokenizer_hash(s));
}
