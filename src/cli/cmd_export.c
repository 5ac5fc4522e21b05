/* cli/cmd_export.c - `retort export IN OUT`: between safetensors folders and GGUF. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/model_arg.h"
#include "model/export.h"

static void collect(void *context, const char *sentence)
{
    json_t *notes = context;
    if (!cli_json())
        (void)fprintf(stderr, "retort: note: %s\n", sentence);
    (void)json_array_append_new(notes, json_string(sentence));
}

static rt_status export_model(const char *in, const char *out, const char *type, json_t *notes, rt_error *err)
{
    rt_export_options options = {.keep = !type, .note = collect, .note_context = notes};
    if (type && !rt_dtype_from_name(&options.type, type))
        return rt_error_set(err, RT_INVALID, "the type %s is not known", type);
    char *path = NULL;
    rt_status status = cli_model_path(&path, in, err);
    if (status == RT_OK)
        status = rt_pool_open(&options.pool, 0, err);
    if (status == RT_OK)
        status = rt_export_path(path, out, &options, err);
    rt_pool_close(options.pool);
    free(path);
    return status;
}

int cmd_export(int argc, char **argv)
{
    const char *in = NULL, *out = NULL, *type = NULL;
    bool json = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "OUT is written as GGUF when its name ends in .gguf, else as a folder that transformers loads\n"
         "(model.safetensors, config.json, tokenizer).  Without --type every tensor keeps its type; a\n"
         "folder has no block types and gets BF16 for them.\n\n"
         "Examples:\n  retort export smollm2-135m-instruct smollm2-hf --type F32\n"
         "  retort export student student.gguf --type Q8_0"},
        {CLI_STRING, "IN", &in, "a GGUF file, a folder with config.json, or the name of a pulled model"},
        {CLI_STRING, "OUT", &out, "FILE.gguf or a folder; what is there is replaced"},
        {CLI_STRING, "--type F32|F16|BF16|Q8_0|Q4_0|Q4_1|Q4_K|Q6_K", &type, "type of the matrices"},
        {CLI_FLAG, "--json", &json, "print the result as JSON"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    if (cli_parse(spec, argc, argv, &err) != RT_OK)
        return cli_fail(&err);
    json_t *notes = json_array();
    if (export_model(in, out, type, notes, &err) != RT_OK) {
        json_decref(notes);
        return cli_fail(&err);
    }
    if (json)
        return cli_print_json(json_pack("{s:s, s:s, s:s, s:o}", "in", in, "out", out, "type",
                                        type ? type : "kept", "notes", notes));
    json_decref(notes);
    (void)printf("wrote %s\n", out);
    return 0;
}
