/* cli/cmd_help.c - `retort help [COMMAND]` and `retort version`. */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/commands.h"
#include "retort/version.h"

int cmd_help(int argc, char **argv)
{
    const char *name = NULL;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL, "Examples:\n  retort help\n  retort help distill"},
        {CLI_STRING, "[COMMAND]", &name, "the command to explain"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    if (cli_parse(spec, argc, argv, &err) != RT_OK)
        return cli_fail(&err);
    if (!name) {
        cli_print_commands();
        return 0;
    }
    const cli_command *command = cli_command_find(name, &err);
    if (!command)
        return cli_fail(&err);
    char word[32], option[] = "--help";
    (void)snprintf(word, sizeof word, "%s", command->name);
    return command->run(2, (char *[]){word, option, NULL});
}

int cmd_version(int argc, char **argv)
{
    bool json = false;
    const cli_option spec[] = {
        {CLI_FLAG, "--json", &json, "print one JSON object"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    if (cli_parse(spec, argc, argv, &err) != RT_OK)
        return cli_fail(&err);
    if (json)
        return cli_print_json(json_pack("{s:s}", "version", RT_VERSION));
    (void)printf("retort %s\n", RT_VERSION);
    return 0;
}
