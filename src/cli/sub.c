/* cli/sub.c - commands of several words; see sub.h.
 *
 * When no second word fits, the choice of words is handed to cli_parse as an argument like any other, so that
 * help, completion and the sentence about a mistyped word come from one place. */
#include "cli/sub.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

int cli_run_sub(const cli_sub *subs, size_t count, const char *examples, int argc, char **argv)
{
    assert(count > 0 && count <= CLI_SUB_MAX);
    for (size_t i = 0; argc > 1 && i < count; i++)
        if (strcmp(argv[1], subs[i].word) == 0) {
            argv[1] = subs[i].command;
            return subs[i].run(argc - 1, argv + 1);
        }
    char words[sizeof((cli_name *)0)->value] = "", about[4096] = "";
    size_t words_used = 0, about_used = 0;
    for (size_t i = 0; i < count; i++) {
        words_used += (size_t)snprintf(words + words_used, sizeof words - words_used, "%s%s", i ? "|" : "",
                                       subs[i].word);
        about_used += (size_t)snprintf(about + about_used, sizeof about - about_used, "%-12s%s\n",
                                       subs[i].word, subs[i].summary);
        assert(words_used < sizeof words && about_used < sizeof about);
    }
    about_used += (size_t)snprintf(about + about_used, sizeof about - about_used,
                                   "\n'retort %s %s --help' says more.\n\nExamples:\n%s", argv[0],
                                   subs[0].word, examples);
    assert(about_used < sizeof about);
    const char *word = NULL;
    cli_rest rest = {0};
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL, about},
        {CLI_STRING | CLI_REQUIRED, words, (void *)&word, "what to do"},
        {CLI_REST, "[ARGUMENT...]", &rest, "its arguments"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    const rt_status status = cli_parse(spec, argc, argv, &err);
    if (status == RT_OK)
        (void)rt_error_set(&err, RT_INVALID, "options follow the word: 'retort %s %s --help'", argv[0],
                           word ? word : subs[0].word);
    return cli_fail(&err);
}
