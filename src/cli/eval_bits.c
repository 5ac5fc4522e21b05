/* cli/eval_bits.c - see eval_bits.h. */
#include "cli/eval_bits.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "cli/open_model.h"
#include "judge/bits.h"

enum { MODELS_MAX = CLI_LIST_MAX + 1, NAME_BYTES = 64 };

typedef struct session {
    rt_pool *pool;
    cli_model opened[MODELS_MAX];
    rt_documents docs[MODELS_MAX];
    rt_bits_model models[MODELS_MAX];
    char names[MODELS_MAX][NAME_BYTES];
    size_t n;
} session;

static bool go_on(void) { return !cli_interrupted(); }

/* "NAME=MODEL" names it, else it is called by its path. */
static const char *name_of(char name[NAME_BYTES], const char *argument)
{
    const char *equals = strchr(argument, '=');
    const size_t size = equals ? (size_t)(equals - argument) : strlen(argument);
    (void)snprintf(name, NAME_BYTES, "%.*s", (int)(size < NAME_BYTES ? size : NAME_BYTES - 1), argument);
    return equals ? equals + 1 : argument;
}

static rt_status add(session *s, const cli_eval_bits *a, const char *model, rt_error *err)
{
    const rt_document_options options = {.tokens_max = (size_t)1 << 40, .loss_on_all = a->loss_on_all};
    cli_model *opened = &s->opened[s->n];
    rt_documents *docs = &s->docs[s->n];
    if (cli_model_open(opened, model, cli_precision(a->precision), 0, s->pool, err) != RT_OK)
        return err->status;
    if (a->tokens_max > opened->model->config.n_context)
        return rt_error_set(err, RT_INVALID, "--tokens-max %zu is more than the context of %s, %zu",
                            a->tokens_max, model, opened->model->config.n_context);
    s->models[s->n] = (rt_bits_model){s->names[s->n], opened->model, opened->tokenizer, docs};
    s->n++;
    return rt_documents_read(docs, a->data, opened->tokenizer, opened->chat_template, &options, err);
}

static json_t *report(const session *s, const rt_bits *bits)
{
    json_t *models = json_object();
    for (size_t m = 0; m < s->n; m++)
        (void)json_object_set_new(models, s->names[m],
                                  json_pack("{s:o, s:o, s:f}", "bits_per_byte",
                                            rt_interval_json(&bits->figures[m].bits), "above_teacher",
                                            rt_interval_json(&bits->figures[m].above), "bytes_per_token",
                                            bits->figures[m].bytes_per_token));
    return json_pack("{s:I, s:I, s:I, s:o}", "documents", (json_int_t)bits->n_docs, "left_out",
                     (json_int_t)bits->n_left_out, "bytes", (json_int_t)bits->bytes, "models", models);
}

static void print(const session *s, const rt_bits *bits)
{
    (void)printf("%zu documents, %.0f bytes; %zu left out as too long\n%-24s%-28s%-30s%s\n", bits->n_docs,
                 bits->bytes, bits->n_left_out, "", "bits a byte", "above the teacher's", "bytes a token");
    for (size_t m = 0; m < s->n; m++) {
        const rt_bits_figures *f = &bits->figures[m];
        (void)printf("%-24.23s%.4f [%.4f, %.4f]    %+.4f [%+.4f, %+.4f]    %.2f\n", s->names[m],
                     f->bits.value, f->bits.lo, f->bits.hi, f->above.value, f->above.lo, f->above.hi,
                     f->bytes_per_token);
    }
}

int cli_eval_bits_run(const cli_eval_bits *a)
{
    session s = {0};
    rt_error err = {0};
    rt_bits bits = {0};
    json_t *json = NULL;
    cli_interrupts_watch();
    (void)snprintf(s.names[0], NAME_BYTES, "teacher");
    rt_status status = rt_pool_open(&s.pool, 0, &err);
    if (status == RT_OK)
        status = add(&s, a, a->teacher, &err);
    for (size_t i = 0; i < a->students->count && status == RT_OK; i++) {
        const char *model = name_of(s.names[s.n], a->students->items[i]);
        for (size_t m = 0; m < s.n && status == RT_OK; m++)
            if (strcmp(s.names[m], s.names[s.n]) == 0)
                status = rt_error_set(&err, RT_INVALID,
                                      "--student: two models are called '%s'; write NAME=MODEL", s.names[m]);
        if (status == RT_OK)
            status = add(&s, a, model, &err);
    }
    if (status == RT_OK)
        status = rt_bits_judge(&bits, s.models, s.n, a->tokens_max, a->resamples, a->seed, go_on, &err);
    if (status == RT_OK) {
        json = report(&s, &bits);
        if (a->out)
            status = rt_json_write(a->out, json, &err);
    }
    int result = status == RT_OK ? 0 : cli_fail(&err);
    if (status == RT_OK && a->json)
        result = cli_print_json(json_incref(json));
    else if (status == RT_OK)
        print(&s, &bits);
    json_decref(json);
    rt_bits_deinit(&bits);
    for (size_t m = 0; m < MODELS_MAX; m++) {
        rt_documents_deinit(&s.docs[m]);
        cli_model_close(&s.opened[m]);
    }
    rt_pool_close(s.pool);
    return result;
}
