/* cli/cmd_tokenizer.c - `retort tokenizer WORD`: a vocabulary made, looked at, used. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/model_arg.h"
#include "cli/sub.h"
#include "cli/tokenizer.h"
#include "model/bpe.h"
#include "model/tokenizer.h"

static const size_t text_bytes_max = (size_t)1 << 30;

static rt_status open_tokenizer(rt_tokenizer **out, const char *model, rt_error *err)
{
    char *path = NULL;
    rt_status status = cli_model_path(&path, model, err);
    if (status == RT_OK)
        status = rt_tokenizer_open(out, path, err);
    free(path);
    return status;
}

/* ---- show ---- */

static json_t *token_json(const rt_tokenizer *tokenizer, int32_t id)
{
    size_t size;
    const char *bytes = rt_tokenizer_token_bytes(tokenizer, id, &size);
    return id < 0 ? json_null() : json_pack("{s:i, s:o}", "id", (int)id, "text", rt_json_text(bytes, size));
}

static json_t *facts_of(const rt_tokenizer *tokenizer)
{
    json_t *special = json_array();
    size_t longest = 0;
    for (size_t id = 0; id < rt_tokenizer_real_size(tokenizer); id++) {
        size_t size;
        (void)rt_tokenizer_token_bytes(tokenizer, (int32_t)id, &size);
        if (rt_tokenizer_is_special(tokenizer, (int32_t)id))
            (void)json_array_append_new(special, token_json(tokenizer, (int32_t)id));
        else if (size > longest)
            longest = size;
    }
    return json_pack("{s:s, s:I, s:s, s:o, s:o, s:o, s:b, s:I, s:o}", "kind", rt_tokenizer_kind(tokenizer),
                     "tokens", (json_int_t)rt_tokenizer_real_size(tokenizer), "hash",
                     rt_tokenizer_hash(tokenizer), "bos", token_json(tokenizer, rt_tokenizer_bos(tokenizer)),
                     "eos", token_json(tokenizer, rt_tokenizer_eos(tokenizer)), "pad",
                     token_json(tokenizer, rt_tokenizer_pad(tokenizer)), "chat_template",
                     rt_tokenizer_chat_template(tokenizer) != NULL, "longest_bytes", (json_int_t)longest,
                     "special", special);
}

static void print_role(const char *name, const json_t *token)
{
    if (json_is_object(token))
        (void)printf("%-9s %" JSON_INTEGER_FORMAT " %s\n", name,
                     json_integer_value(json_object_get(token, "id")),
                     json_string_value(json_object_get(token, "text")));
}

int cli_tokenizer_show(int argc, char **argv)
{
    const char *model = NULL, *file = NULL;
    bool json = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "With --text it says how many bytes of that text a token stands for.\n\n"
         "Examples:\n  retort tokenizer show smollm2-135m-instruct\n"
         "  retort tokenizer show small --text corpus.txt --json"},
        {CLI_STRING, "MODEL", &model, "a model, a folder, a tokenizer.json, or the name of a pulled model"},
        {CLI_STRING, "--text FILE", &file, "a text to count tokens of"},
        {CLI_FLAG, "--json", &json, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    rt_tokenizer *tokenizer = NULL;
    char *text = NULL;
    size_t size = 0;
    rt_token_list ids = {0};
    rt_status status = cli_parse(spec, argc, argv, &err);
    if (status == RT_OK)
        status = open_tokenizer(&tokenizer, model, &err);
    if (status == RT_OK && file)
        status = rt_file_read(&text, &size, file, text_bytes_max, &err);
    if (status == RT_OK && file)
        status = rt_tokenizer_encode(tokenizer, text, size, false, &ids, &err);
    if (status == RT_OK && file && ids.count == 0)
        status = rt_error_set(&err, RT_INVALID, "%.300s: there is no text in it", file);
    json_t *facts = status == RT_OK ? facts_of(tokenizer) : NULL;
    const double each = ids.count ? (double)size / (double)ids.count : 0;
    if (facts && file)
        (void)json_object_set_new(facts, "text",
                                  json_pack("{s:I, s:I, s:f}", "bytes", (json_int_t)size, "tokens",
                                            (json_int_t)ids.count, "bytes_per_token", each));
    rt_token_list_deinit(&ids);
    free(text);
    rt_tokenizer_close(tokenizer);
    if (status != RT_OK)
        return cli_fail(&err);
    if (json)
        return cli_print_json(facts);
    (void)printf("kind      %s\ntokens    %" JSON_INTEGER_FORMAT
                 ", %zu of them special, the longest %" JSON_INTEGER_FORMAT " bytes\n",
                 json_string_value(json_object_get(facts, "kind")),
                 json_integer_value(json_object_get(facts, "tokens")),
                 json_array_size(json_object_get(facts, "special")),
                 json_integer_value(json_object_get(facts, "longest_bytes")));
    print_role("bos", json_object_get(facts, "bos"));
    print_role("eos", json_object_get(facts, "eos"));
    print_role("pad", json_object_get(facts, "pad"));
    (void)printf("template  %s\nhash      %s\n",
                 json_is_true(json_object_get(facts, "chat_template")) ? "yes" : "none",
                 json_string_value(json_object_get(facts, "hash")));
    if (file)
        (void)printf("text      %.3f bytes a token\n", each);
    json_decref(facts);
    return 0;
}

/* ---- encode and decode ---- */

static int print_ids(const rt_tokenizer *tokenizer, const rt_token_list *ids, bool json)
{
    if (!json) {
        for (size_t i = 0; i < ids->count; i++)
            (void)printf(i ? " %d" : "%d", ids->ids[i]);
        (void)printf("\n");
        return 0;
    }
    json_t *numbers = json_array(), *tokens = json_array();
    for (size_t i = 0; i < ids->count; i++) {
        size_t size;
        const char *bytes = rt_tokenizer_token_bytes(tokenizer, ids->ids[i], &size);
        (void)json_array_append_new(numbers, json_integer(ids->ids[i]));
        (void)json_array_append_new(tokens, rt_json_text(bytes, size));
    }
    return cli_print_json(json_pack("{s:o, s:o}", "ids", numbers, "tokens", tokens));
}

int cli_tokenizer_encode(int argc, char **argv)
{
    const char *model = NULL, *text = NULL, *file = NULL;
    bool special = false, json = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Prints the ids of a text.\n\n"
         "Examples:\n  retort tokenizer encode 'Hello world' --model small\n"
         "  retort tokenizer encode --file story.txt --model small --json"},
        {CLI_STRING, "[TEXT]", &text, "the text"},
        {CLI_STRING, "--file FILE", &file, "a file with the text, instead"},
        {CLI_STRING | CLI_REQUIRED, "--model MODEL", &model, "whose tokenizer"},
        {CLI_FLAG, "--special", &special,
         "special tokens in the text become one id (default: they are text)"},
        {CLI_FLAG, "--json", &json, "print ids and pieces as one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    rt_tokenizer *tokenizer = NULL;
    rt_token_list ids = {0};
    char *read = NULL;
    size_t size = 0;
    rt_status status = cli_parse(spec, argc, argv, &err);
    if (status == RT_OK && !text == !file)
        status = rt_error_set(&err, RT_INVALID, "tokenizer encode: give either TEXT or --file");
    if (status == RT_OK)
        status = open_tokenizer(&tokenizer, model, &err);
    if (status == RT_OK && file)
        status = rt_file_read(&read, &size, file, text_bytes_max, &err);
    if (status == RT_OK)
        status = rt_tokenizer_encode(tokenizer, file ? read : text, file ? size : strlen(text), special, &ids,
                                     &err);
    const int result = status == RT_OK ? print_ids(tokenizer, &ids, json) : cli_fail(&err);
    rt_token_list_deinit(&ids);
    rt_tokenizer_close(tokenizer);
    free(read);
    return result;
}

static rt_status add_ids(rt_token_list *ids, const char *word, rt_error *err)
{
    for (const char *at = word; *at;) {
        char *end;
        const long value = strtol(at, &end, 10);
        if (end == at || value < 0 || value > INT32_MAX)
            return rt_error_set(err, RT_INVALID, "tokenizer decode: '%.40s' is no token id", at);
        if (!rt_token_list_push(ids, (int32_t)value))
            return rt_error_set(err, RT_NO_MEMORY, "no memory for %zu ids", ids->count);
        at = end + strspn(end, ", \n");
    }
    return RT_OK;
}

int cli_tokenizer_decode(int argc, char **argv)
{
    const char *model = NULL;
    cli_rest words = {0};
    bool skip = false, json = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Prints the text of ids, byte for byte, and no line feed after it; with --json bytes that are no "
         "UTF-8 become U+FFFD.\n\n"
         "Example:\n  retort tokenizer decode 19556 905 --model smollm2-135m-instruct"},
        {CLI_REST, "ID...", &words, "the ids, as words or with commas"},
        {CLI_STRING | CLI_REQUIRED, "--model MODEL", &model, "whose tokenizer"},
        {CLI_FLAG, "--skip-special", &skip, "leave special tokens out"},
        {CLI_FLAG, "--json", &json, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    rt_tokenizer *tokenizer = NULL;
    rt_token_list ids = {0};
    rt_text text = {0};
    rt_status status = cli_parse(spec, argc, argv, &err);
    if (status == RT_OK && words.count == 0)
        status = rt_error_set(&err, RT_INVALID, "tokenizer decode: which IDs?");
    for (size_t i = 0; i < words.count && status == RT_OK; i++)
        status = add_ids(&ids, words.items[i], &err);
    if (status == RT_OK)
        status = open_tokenizer(&tokenizer, model, &err);
    if (status == RT_OK)
        status = rt_tokenizer_decode(tokenizer, ids.ids, ids.count, skip, &text, &err);
    int result = 0;
    if (status != RT_OK)
        result = cli_fail(&err);
    else if (json)
        result =
            cli_print_json(json_pack("{s:o}", "text", rt_json_text(text.data ? text.data : "", text.size)));
    else
        (void)fwrite(text.data ? text.data : "", 1, text.size, stdout);
    rt_text_deinit(&text);
    rt_token_list_deinit(&ids);
    rt_tokenizer_close(tokenizer);
    return result;
}

int cmd_tokenizer(int argc, char **argv)
{
    const cli_sub subs[] = {
        {"train", (char[]){"tokenizer train"}, "learn a byte-level BPE vocabulary from text",
         cli_tokenizer_train},
        {"show", (char[]){"tokenizer show"}, "what a tokenizer is", cli_tokenizer_show},
        {"encode", (char[]){"tokenizer encode"}, "a text's ids", cli_tokenizer_encode},
        {"decode", (char[]){"tokenizer decode"}, "the text of ids", cli_tokenizer_decode},
    };
    return cli_run_sub(
        subs, sizeof subs / sizeof subs[0],
        "  retort tokenizer train corpus.txt --vocab 8192 --like smollm2-135m-instruct --out small\n"
        "  retort tokenizer encode 'Hello world' --model small",
        argc, argv);
}
