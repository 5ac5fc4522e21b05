/* cli/help.c - the help of a command, made from its option table. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

enum { HELP_COLUMN = 30 };

static void print_usage(const cli_option *spec, const char *command)
{
    (void)printf("Usage: retort %s", command);
    bool has_options = false;
    for (const cli_option *o = spec; o->kind != CLI_END; o++) {
        if (o->kind == CLI_ABOUT)
            continue;
        const cli_name name = cli_name_of(o);
        if (name.is_option && (o->kind & CLI_REQUIRED))
            (void)printf(" %s %s", name.word, name.value);
        else if (name.is_option)
            has_options = true;
        else if (name.is_optional)
            (void)printf(" [%s]", name.word);
        else
            (void)printf(" %s", cli_name_has_choices(&name) ? name.value : name.word);
    }
    (void)printf("%s\n", has_options ? " [OPTION ...]" : "");
}

/* A row: the left part, then the help from a fixed column on (on a line of its own when it must be);
 * a newline in the help goes on at the same column. */
static void print_row(const char *left, const char *help)
{
    const int width = printf("  %s", left);
    if (width >= HELP_COLUMN - 1)
        (void)printf("\n%*s", HELP_COLUMN, "");
    else
        (void)printf("%*s", HELP_COLUMN - width, "");
    for (const char *line = help; line;) {
        const size_t length = strcspn(line, "\n");
        (void)printf("%.*s\n", (int)length, line);
        line = line[length] ? line + length + 1 : NULL;
        if (line)
            (void)printf("%*s", HELP_COLUMN, "");
    }
}

static void print_rows(const cli_option *spec, bool options)
{
    bool any = false;
    for (const cli_option *o = spec; o->kind != CLI_END; o++) {
        if (o->kind == CLI_ABOUT)
            continue;
        const cli_name name = cli_name_of(o);
        if (name.is_option != options)
            continue;
        if (!any)
            (void)printf("\n%s:\n", options ? "Options" : "Arguments");
        any = true;
        char left[sizeof name.word + sizeof name.value];
        if (options)
            (void)snprintf(left, sizeof left, "%s%s%s", name.word, name.value[0] ? " " : "", name.value);
        else
            (void)snprintf(left, sizeof left, "%s", cli_name_has_choices(&name) ? name.value : name.word);
        print_row(left, o->help);
    }
    if (options) {
        (void)printf("%s", any ? "" : "\nOptions:\n");
        print_row("--help", "this text");
    }
}

void cli_print_help(const cli_option *spec, const char *command)
{
    rt_error err = {0};
    const cli_command *row = cli_command_find(command, &err);
    if (row)
        (void)printf("retort %s - %s\n\n", command, row->summary);
    print_usage(spec, command);
    print_rows(spec, false);
    print_rows(spec, true);
    if (spec->kind == CLI_ABOUT)
        (void)printf("\n%s\n", spec->help);
}

void cli_print_commands(void)
{
    (void)printf("retort distils a large language model into a small one.\n\n"
                 "Usage: retort COMMAND [ARGUMENT ...]\n\nCommands:\n");
    for (const cli_command *c = cli_commands; c->name; c++)
        (void)printf("  %-12s %s\n", c->name, c->summary);
    (void)printf("\n'retort help COMMAND' or 'retort COMMAND --help' shows how one is used.\n"
                 "Exit status: 0 ok, 1 failed, 2 usage, 3 check not met, 4 stopped and can go on.\n");
}
