/* cli/tokenizer_learn.c - `retort tokenizer train`: a vocabulary of one's own, from text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/unpack.h"
#include "cli/cli.h"
#include "cli/model_arg.h"
#include "cli/tokenizer.h"
#include "model/tokenizer_train.h"

static const size_t file_bytes_max = (size_t)8 << 30;
enum { ROW_DEPTH_MAX = 16 };

typedef struct learning {
    rt_tokenizer_trainer *trainer;
    const cli_list *fields;
    size_t files, texts; /* texts: of the file at hand */
} learning;

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* Which values of a row are text: those of the forms that distill reads, or those that were named. */
static bool is_field(const learning *l, const char *key)
{
    static const char *const usual[] = {"text",   "prompt",   "completion", "instruction", "output",
                                        "answer", "question", "response",   "content",     "input"};
    const size_t n = l->fields->count ? l->fields->count : sizeof usual / sizeof usual[0];
    const char *const *names = l->fields->count ? l->fields->items : usual;
    bool found = false;
    for (size_t i = 0; i < n && !found; i++)
        found = strcmp(names[i], key) == 0;
    return found;
}

static rt_status add_strings(learning *l, const json_t *value, bool wanted, size_t depth, rt_error *err)
{
    const char *key;
    json_t *inner;
    size_t index;
    rt_status status = RT_OK;
    if (depth > ROW_DEPTH_MAX)
        return RT_OK;
    if (json_is_string(value) && wanted && json_string_length(value)) {
        l->texts++;
        return rt_tokenizer_trainer_add(l->trainer, json_string_value(value), json_string_length(value), err);
    }
    json_array_foreach(value, index, inner)
    {
        if (status == RT_OK)
            status = add_strings(l, inner, wanted, depth + 1, err);
    }
    json_object_foreach((json_t *)(size_t)value, key, inner)
    {
        if (status == RT_OK)
            status = add_strings(l, inner, is_field(l, key), depth + 1, err);
    }
    return status;
}

static rt_status add_rows(learning *l, const char *data, size_t size, rt_error *err)
{
    size_t line = 0;
    for (size_t at = 0; at < size;) {
        const char *end = memchr(data + at, '\n', size - at);
        const size_t n = end ? (size_t)(end - (data + at)) : size - at;
        line++;
        json_error_t problem;
        json_t *row = NULL;
        if (n && !(n == 1 && data[at] == '\r') &&
            !(row = json_loadb(data + at, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &problem)))
            return rt_error_set(err, RT_CORRUPT, "line %zu: not JSON: %.120s", line, problem.text);
        const rt_status status = row ? add_strings(l, row, false, 0, err) : RT_OK;
        json_decref(row);
        if (status != RT_OK)
            return status;
        at += n + 1;
    }
    return RT_OK;
}

static rt_status add_file(learning *l, const char *path, rt_error *err)
{
    rt_text text = {.size_max = file_bytes_max};
    rt_status status = rt_file_read_unpacked(&text, path, err);
    const char *data = text.data ? text.data : "";
    l->texts = 0;
    if (status == RT_OK && (ends_with(path, ".jsonl") || ends_with(path, ".jsonl.zst"))) {
        status = add_rows(l, data, text.size, err);
        if (status == RT_OK && l->texts == 0)
            status = rt_error_set(err, RT_INVALID,
                                  "none of its rows has text under a usual key; name the key with --field");
        if (status != RT_OK)
            (void)rt_error_within(err, path);
    } else if (status == RT_OK) {
        status = rt_tokenizer_trainer_add(l->trainer, data, text.size, err);
    }
    rt_text_deinit(&text);
    l->files++;
    return status;
}

typedef struct settings {
    cli_rest files;
    cli_list fields, special;
    const char *out, *pattern, *like, *bos, *eos, *pad;
    size_t vocab, min_count, memory, threads;
    bool json;
} settings;

/* Which of the special tokens a role names; -1: none. */
static rt_status role_of(int *out, const settings *s, const char *option, const char *name, rt_error *err)
{
    *out = -1;
    for (size_t i = 0; name && i < s->special.count; i++)
        if (strcmp(s->special.items[i], name) == 0)
            *out = (int)i;
    if (name && *out < 0)
        return rt_error_set(err, RT_INVALID, "%s %.40s is no --special token", option, name);
    return RT_OK;
}

static rt_status open_like(rt_tokenizer **out, const char *name, rt_error *err)
{
    char *path = NULL;
    if (!name)
        return RT_OK;
    rt_status status = cli_model_path(&path, name, err);
    if (status == RT_OK)
        status = rt_tokenizer_open(out, path, err);
    free(path);
    return status;
}

static rt_status train(const settings *s, rt_tokenizer **made, rt_tokenizer_trained *trained, rt_error *err)
{
    static const char *const usual[] = {"<|endoftext|>"};
    rt_tokenizer *like = NULL;
    rt_tokenizer_train_options options = {.pattern = s->pattern,
                                          .vocab = s->vocab,
                                          .min_count = s->min_count,
                                          .bos = -1,
                                          .pad = -1,
                                          .bytes_max = s->memory};
    learning l = {.fields = &s->fields};
    if (s->like && s->special.count)
        return rt_error_set(err, RT_INVALID,
                            "tokenizer train: --like brings its own special tokens; leave --special out");
    if (s->files.count == 0)
        return rt_error_set(err, RT_INVALID, "tokenizer train: which FILES is it to learn from?");
    if (!s->like) {
        options.special = s->special.count ? s->special.items : usual;
        options.n_special = s->special.count ? s->special.count : 1;
        options.eos = 0; /* the first one, unless another is named */
    }
    int eos;
    rt_status status = role_of(&options.bos, s, "--bos", s->bos, err);
    if (status == RT_OK)
        status = role_of(&options.pad, s, "--pad", s->pad, err);
    if (status == RT_OK)
        status = role_of(&eos, s, "--eos", s->eos, err);
    if (status == RT_OK && s->eos)
        options.eos = eos;
    if (status == RT_OK)
        status = open_like(&like, s->like, err);
    options.like = like;
    if (status == RT_OK)
        status = rt_pool_open(&options.pool, (unsigned)s->threads, err);
    if (status == RT_OK)
        status = rt_tokenizer_trainer_open(&l.trainer, &options, err);
    for (size_t i = 0; i < s->files.count && status == RT_OK; i++)
        status = cli_interrupted() ? cli_stopped(err, "nothing was written")
                                   : add_file(&l, s->files.items[i], err);
    if (status == RT_OK)
        status = rt_tokenizer_trainer_finish(l.trainer, made, trained, err);
    rt_tokenizer_trainer_close(l.trainer);
    rt_pool_close(options.pool);
    rt_tokenizer_close(like);
    return status;
}

int cli_tokenizer_train(int argc, char **argv)
{
    settings s = {.pattern = "smollm", .vocab = 8192, .min_count = 2, .memory = (size_t)4 << 30};
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Learns a byte-level BPE vocabulary and writes tokenizer.json and its companions to --out, for\n"
         "student.tokenizer of a recipe, or for transformers.  A .jsonl file (.zst too) gives the text of "
         "its\n"
         "rows, any other file is text itself.  Same text and settings, same file, whatever the threads.\n\n"
         "Examples:\n  retort tokenizer train corpus.txt answers.jsonl.zst --vocab 8192 --out small \\\n"
         "    --like smollm2-135m-instruct\n"
         "  retort tokenizer train code.txt --vocab 16384 --pattern llama3 --special '<|end|>' --out small"},
        {CLI_REST, "FILE...", &s.files, "text to learn from"},
        {CLI_STRING | CLI_REQUIRED, "--out DIR", &s.out, "folder for the tokenizer's files"},
        {CLI_COUNT, "--vocab N", &s.vocab,
         "tokens in all, special ones and the 256 bytes included (default 8192)"},
        {CLI_STRING, "--pattern gpt2|smollm|llama3|qwen2", &s.pattern,
         "how text is cut into words, as that family does it (default smollm: gpt2 with single digits)"},
        {CLI_STRING, "--like MODEL", &s.like,
         "take special tokens, their roles and the chat template from this model or tokenizer"},
        {CLI_LIST, "--special TOKEN", &s.special, "a special token, several times (default <|endoftext|>)"},
        {CLI_STRING, "--bos TOKEN", &s.bos, "which of them begins a text (default none)"},
        {CLI_STRING, "--eos TOKEN", &s.eos, "which of them ends one (default the first)"},
        {CLI_STRING, "--pad TOKEN", &s.pad, "which of them fills up (default none)"},
        {CLI_LIST, "--field KEY", &s.fields,
         "key whose text is taken from JSONL rows (default the usual ones)"},
        {CLI_COUNT, "--min-count N", &s.min_count, "pairs seen less often are not merged (default 2)"},
        {CLI_COUNT, "--memory BYTES", &s.memory, "bound of the tables of words and pairs (default 4Gi)"},
        {CLI_COUNT, "--threads N", &s.threads, "0: all processors (default)"},
        {CLI_FLAG, "--json", &s.json, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    rt_tokenizer *made = NULL;
    rt_tokenizer_trained trained = {0};
    if (cli_parse(spec, argc, argv, &err) != RT_OK)
        return cli_fail(&err);
    cli_interrupts_watch();
    if (train(&s, &made, &trained, &err) != RT_OK || rt_tokenizer_write_hf(made, s.out, &err) != RT_OK) {
        rt_tokenizer_close(made);
        return cli_fail(&err);
    }
    int printed = 0;
    if (s.json)
        printed = cli_print_json(json_pack(
            "{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:b}", "out", s.out, "kind", rt_tokenizer_kind(made), "hash",
            rt_tokenizer_hash(made), "vocab", (json_int_t)rt_tokenizer_size(made), "merges",
            (json_int_t)trained.merges, "words", (json_int_t)trained.words, "bytes",
            (json_int_t)trained.bytes, "exhausted", trained.exhausted));
    else
        (void)printf("%s: %zu tokens (%s), %zu merges from %.1f MB of text with %zu different words%s\n",
                     s.out, rt_tokenizer_size(made), rt_tokenizer_kind(made), trained.merges,
                     (double)trained.bytes / 1e6, trained.words,
                     trained.exhausted ? "; no further pair is frequent enough" : "");
    rt_tokenizer_close(made);
    return printed;
}
