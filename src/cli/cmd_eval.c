/* cli/cmd_eval.c - `retort eval`: students against their teacher on held-out documents. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/size.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/draft.h"
#include "cli/eval_bits.h"
#include "cli/eval_table.h"
#include "cli/open_model.h"
#include "cli/progress.h"
#include "judge/eval.h"
#include "judge/eval_own.h"

enum { STUDENTS_MAX = RT_EVAL_MODELS_MAX - 1, NAME_MAX_BYTES = 32 };
static_assert((int)CLI_LIST_MAX <= (int)STUDENTS_MAX, "every --student that is read must fit");

typedef struct arguments {
    const char *teacher, *data, *precision, *out, *shortlist;
    cli_list students;
    size_t tokens, tokens_max, seed, resamples, own_answers;
    bool loss_on_all, no_speed, bits, json;
} arguments;

typedef struct session { /* all that the command owns */
    rt_pool *pool;
    cli_model opened[RT_EVAL_MODELS_MAX];
    rt_eval_model models[RT_EVAL_MODELS_MAX];
    char names[RT_EVAL_MODELS_MAX][NAME_MAX_BYTES + 1], labels[RT_EVAL_MODELS_MAX][96];
    size_t n_models;
    rt_shortlist shortlists[RT_EVAL_MODELS_MAX];
    rt_eval_text text;
    rt_eval_result result;
    rt_eval_own_result own; /* with --own-answers */
    const char *phase;
    cli_progress progress;
    bool progress_open;
} session;

static void session_close(session *s)
{
    rt_eval_result_deinit(&s->result);
    rt_eval_own_deinit(&s->own);
    rt_eval_text_deinit(&s->text);
    for (size_t m = 0; m < RT_EVAL_MODELS_MAX; m++)
        cli_model_close(&s->opened[m]);
    for (size_t m = 0; m < RT_EVAL_MODELS_MAX; m++)
        rt_shortlist_deinit(&s->shortlists[m]);
    rt_pool_close(s->pool);
}

/* ---- opening ---- */

/* "NAME=MODEL" gives the name; else "student", and further ones "student2", ... */
static rt_status name_student(char *name, const char **model, const char *argument, size_t number,
                              rt_error *err)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    const size_t length = strspn(argument, allowed);
    *model = argument;
    if (argument[length] != '=' || length == 0) {
        (void)snprintf(name, NAME_MAX_BYTES + 1, number == 1 ? "student" : "student%zu", number);
        return RT_OK;
    }
    if (length > NAME_MAX_BYTES)
        return rt_error_set(err, RT_INVALID, "--student: the name '%.*s' is longer than %d characters",
                            (int)rt_size_min(length, 80), argument, NAME_MAX_BYTES);
    (void)snprintf(name, NAME_MAX_BYTES + 1, "%.*s", (int)length, argument);
    *model = argument + length + 1;
    return RT_OK;
}

/* The file's or folder's own name, without ".gguf". */
static void label_model(char *label, size_t size, const char *path)
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    if (end - begin > 5 && strncmp(path + end - 5, ".gguf", 5) == 0)
        end -= 5;
    (void)snprintf(label, size, "%.*s", (int)(end - begin), path + begin);
}

static rt_status add_model(session *s, const char *model, rt_precision precision, rt_error *err)
{
    const size_t m = s->n_models;
    for (size_t i = 0; i < m; i++)
        if (strcmp(s->names[i], s->names[m]) == 0)
            return rt_error_set(err, RT_INVALID,
                                "--student: two models are called '%s'; give each a name of its own: "
                                "--student NAME=MODEL",
                                s->names[m]);
    cli_model *opened = &s->opened[m];
    if (cli_model_open(opened, model, precision, m ? CLI_MODEL_NO_TEMPLATE : 0, s->pool, err) != RT_OK)
        return err->status;
    label_model(s->labels[m], sizeof s->labels[m], opened->path);
    s->models[m] = (rt_eval_model){.name = s->names[m],
                                   .label = s->labels[m],
                                   .model = opened->model,
                                   .file_bytes = opened->weight_file_bytes};
    s->n_models++;
    return m ? cli_models_match(&s->opened[0], opened, err) : RT_OK;
}

/* "own": the list beside the student's files, where there is one, as drafts find it. */
static rt_status open_shortlist(session *s, size_t m, const char *asked, rt_error *err)
{
    const bool own = asked && strcmp(asked, "own") == 0;
    if (!asked || strcmp(asked, "none") == 0)
        return RT_OK;
    char *path = own ? cli_shortlist_path(s->opened[m].path) : strdup(asked);
    if (!path)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for the name of a shortlist");
    rt_status status = RT_OK;
    if (!own || rt_path_exists(path)) {
        status = cli_shortlist_read(&s->shortlists[m], path, &s->opened[m], err);
        s->models[m].shortlist = &s->shortlists[m];
    }
    free(path);
    return status;
}

static rt_status open_models(session *s, const arguments *a, rt_error *err)
{
    const rt_precision precision = cli_precision(a->precision);
    if (rt_pool_open(&s->pool, 0, err) != RT_OK)
        return err->status;
    (void)snprintf(s->names[0], sizeof s->names[0], "teacher");
    if (add_model(s, a->teacher, precision, err) != RT_OK)
        return err->status;
    for (size_t i = 0; i < a->students.count; i++) {
        const char *model;
        if (name_student(s->names[s->n_models], &model, a->students.items[i], i + 1, err) != RT_OK ||
            add_model(s, model, precision, err) != RT_OK ||
            open_shortlist(s, s->n_models - 1, a->shortlist, err) != RT_OK)
            return err->status;
    }
    return RT_OK;
}

/* Documents are read whole, whatever their length, so that pieces of one are known as such. */
static rt_status read_text(session *s, const arguments *a, rt_error *err)
{
    const cli_model *teacher = &s->opened[0];
    const rt_document_options options = {.tokens_max = (size_t)1 << 40, .loss_on_all = a->loss_on_all};
    if (a->tokens_max < 2)
        return rt_error_set(err, RT_INVALID,
                            "--tokens-max: a document needs at least 2 tokens, one to predict "
                            "the other from");
    rt_documents whole = {0};
    rt_status status =
        rt_documents_read(&whole, a->data, teacher->tokenizer, teacher->chat_template, &options, err);
    if (status == RT_OK)
        status = rt_eval_text_split(&s->text, &whole, a->tokens_max, err);
    rt_documents_deinit(&whole);
    if (status != RT_OK)
        return status;
    const rt_documents *docs = &s->text.docs;
    if (docs->n_cut)
        (void)fprintf(stderr, "retort: %zu of %zu documents were cut at %zu tokens (--tokens-max)\n",
                      docs->n_cut, docs->n_docs, a->tokens_max);
    s->text.kinds = malloc(rt_size_max(docs->n_tokens, 1));
    if (!s->text.kinds)
        return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu tokens", docs->n_tokens);
    rt_documents_kinds(s->text.kinds, docs, teacher->tokenizer);
    return RT_OK;
}

static bool on_progress(void *context, uint64_t done, uint64_t total)
{
    session *s = context;
    if (!s->progress_open)
        cli_progress_open(&s->progress, s->phase, 0, total, 0);
    s->progress_open = done < total;
    cli_progress_update(&s->progress, done, "");
    if (!s->progress_open)
        cli_progress_close(&s->progress);
    return !cli_interrupted();
}

static rt_status judge(session *s, const arguments *a, rt_error *err)
{
    const rt_eval_options options = {.n_vocab = rt_tokenizer_size(s->opened[0].tokenizer),
                                     .tokens = a->tokens,
                                     .resamples = a->resamples,
                                     .seed = a->seed,
                                     .speed_seconds = a->no_speed ? 0 : 2,
                                     .progress = on_progress,
                                     .context = s};
    s->phase = "judging";
    rt_status status = rt_eval(&s->result, s->models, s->n_models, &s->text, &options, err);
    if (s->progress_open)
        cli_progress_close(&s->progress);
    s->progress_open = false;
    s->phase = "students answer";
    if (status == RT_OK && a->own_answers)
        status = rt_eval_own(&s->own, s->models, s->n_models, &s->text, s->opened[0].tokenizer,
                             a->own_answers, &options, err);
    if (s->progress_open)
        cli_progress_close(&s->progress);
    return status;
}

/* Made before the work: a place that cannot be written is known at once. */
static rt_status make_place(const char *out, rt_error *err)
{
    const char *slash = out ? strrchr(out, '/') : NULL;
    if (!slash || slash == out)
        return RT_OK;
    char *dir = strndup(out, (size_t)(slash - out));
    const rt_status status =
        dir ? rt_dir_make(dir, err) : rt_error_set(err, RT_NO_MEMORY, "no memory for a path");
    free(dir);
    return status;
}

static int show(const session *s, const arguments *a, rt_error *err)
{
    json_t *report = rt_eval_json(&s->result), *own = s->own.figures ? rt_eval_own_json(&s->own) : NULL;
    if (!report || (s->own.figures && (!own || json_object_set_new(report, "own", own) != 0))) {
        json_decref(report);
        (void)rt_error_set(err, RT_NO_MEMORY, "no memory for the report");
        return cli_fail(err);
    }
    if (!a->json) /* shown even where they cannot be kept */
        cli_print_eval(&s->result);
    if (!a->json && s->own.figures)
        cli_print_eval_own(&s->own);
    const rt_status kept = a->out ? rt_json_write(a->out, report, err) : RT_OK;
    if (kept == RT_OK && a->json)
        return cli_print_json(report);
    json_decref(report);
    return kept == RT_OK ? 0 : cli_fail(err);
}

static rt_status run(session *s, const arguments *a, rt_error *err)
{
    cli_interrupts_watch();
    if (make_place(a->out, err) != RT_OK || open_models(s, a, err) != RT_OK || read_text(s, a, err) != RT_OK)
        return err->status;
    return judge(s, a, err);
}

int cmd_eval(int argc, char **argv)
{
    arguments a = {.precision = "bf16", .tokens_max = 512, .resamples = 1000};
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Prints perplexity on the text, KL both ways, total variation and expected acceptance of drafts,\n"
         "agreement of first choices and calibration, with 95% intervals over documents; then the same by\n"
         "position and by kind of token. With several students each is compared with the first, on the same\n"
         "draws. The text must be one that no student learnt from.\n\n"
         "With --own-answers: KL(student || teacher) on what each student says itself, which is what\n"
         "on-policy training lowers, with its mean answer's length.\n\n"
         "Forgetting: with a student's start as --teacher and a text of what it knew as --data "
         "(--loss-on-all),\n"
         "'nats above the teacher's' is what the student pays more for that text than before.\n\n"
         "Examples:\n"
         "  retort eval --teacher smollm2-135m-instruct --student runs/demo/student --data held-out.jsonl\n"
         "  retort eval --teacher T.gguf --student new --student ce=old --data held-out.jsonl --out "
         "eval.json\n"
         "  retort eval --teacher T.gguf --student text=a --student own=b --data held-out.jsonl "
         "--own-answers 128"},
        {CLI_STRING | CLI_REQUIRED, "--teacher MODEL", &a.teacher,
         "the model that the students should be like"},
        {CLI_LIST | CLI_REQUIRED, "--student [NAME=]MODEL", &a.students,
         "a student, perhaps with the name it has in the report; may be\ngiven several times"},
        {CLI_STRING | CLI_REQUIRED, "--data FILE", &a.data,
         "held-out documents: JSONL (also .zst) or plain text"},
        {CLI_COUNT, "--tokens N", &a.tokens,
         "judge about so many tokens, whole documents from the\nfirst on (default: all)"},
        {CLI_COUNT, "--tokens-max N", &a.tokens_max, "cut documents at so many tokens (default 512)"},
        {CLI_COUNT, "--own-answers N", &a.own_answers,
         "besides, each student answers the documents' prompts itself, up to N\ntokens at temperature 1, and "
         "the teacher "
         "judges what it said"},
        {CLI_STRING, "--draft-shortlist FILE", &a.shortlist,
         "acceptance and total variation are those of drafts that may say\nthese ids alone ('own': the list "
         "beside each student; default: all ids)"},
        {CLI_FLAG, "--loss-on-all", &a.loss_on_all, "judge prompts too, not only answers"},
        {CLI_STRING, "--precision " CLI_PRECISIONS, &a.precision, "how all models compute (default bf16)"},
        {CLI_FLAG, "--bits", &a.bits,
         "only what the text costs each model, in bits a byte: for models\nof different tokenizers; each "
         "reads it "
         "in its own"},
        {CLI_COUNT, "--seed N", &a.seed, "of the draws of documents (default 0)"},
        {CLI_COUNT, "--resamples N", &a.resamples, "draws of documents (default 1000)"},
        {CLI_FLAG, "--no-speed", &a.no_speed, "do not time decoding"},
        {CLI_STRING, "--out FILE", &a.out, "also write the figures to a file, such as eval.json"},
        {CLI_FLAG, "--json", &a.json, "print one JSON object instead of tables"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    if (cli_parse(spec, argc, argv, &err) != RT_OK)
        return cli_fail(&err);
    if (a.bits) {
        const cli_eval_bits bits = {.teacher = a.teacher,
                                    .data = a.data,
                                    .precision = a.precision,
                                    .out = a.out,
                                    .students = &a.students,
                                    .tokens_max = a.tokens_max,
                                    .resamples = a.resamples,
                                    .seed = a.seed,
                                    .loss_on_all = a.loss_on_all,
                                    .json = a.json};
        return cli_eval_bits_run(&bits);
    }
    session s = {0};
    const int exit_status = run(&s, &a, &err) == RT_OK ? show(&s, &a, &err) : cli_fail(&err);
    session_close(&s);
    return exit_status;
}
