/* cli/commands.c - the table of commands.h as data. */
#include "cli/commands.h"

#include "cli/cli.h"

const cli_command cli_commands[] = {
#define CLI_COMMAND_ROW(name, summary) {#name, summary, cmd_##name},
    CLI_COMMAND_MAP(CLI_COMMAND_ROW)
#undef CLI_COMMAND_ROW
        {NULL, NULL, NULL},
};
