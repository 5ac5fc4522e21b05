/* cli/man.c - the commands' sections of the man page, in roff, from the option tables. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/man.h"

/* Text that roff must not take for a request or an escape; a hyphen is the one that can be copied. */
static void print_text(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        const char c = text[i];
        if ((i == 0 || text[i - 1] == '\n') && (c == '.' || c == '\''))
            (void)printf("\\&");
        if (c == '\\')
            (void)printf("\\e");
        else if (c == '-')
            (void)printf("\\-");
        else
            (void)putchar(c);
    }
}

static void print_whole(const char *text) { print_text(text, strlen(text)); }

static void print_synopsis(const cli_command *command, const cli_option *spec)
{
    (void)printf(".B retort %s\n", command->name);
    for (const cli_option *o = spec; o->kind != CLI_END; o++) {
        if (o->kind == CLI_ABOUT)
            continue;
        const cli_name name = cli_name_of(o);
        const bool optional = name.is_option ? !(o->kind & CLI_REQUIRED) : name.is_optional;
        (void)printf("%s", optional ? "[" : "");
        if (name.is_option) {
            (void)printf("\\fB");
            print_whole(name.word);
            (void)printf("\\fR%s", name.value[0] ? " " : "");
        }
        if (!name.is_option || name.value[0]) {
            (void)printf("\\fI");
            print_whole(name.is_option || cli_name_has_choices(&name) ? name.value : name.word);
            (void)printf("\\fR");
        }
        (void)printf("%s\n", optional ? "]" : "");
    }
}

static void print_options(const cli_option *spec)
{
    for (const cli_option *o = spec; o->kind != CLI_END; o++) {
        if (o->kind == CLI_ABOUT)
            continue;
        const cli_name name = cli_name_of(o);
        (void)printf(".TP\n");
        if (name.is_option) {
            (void)printf("\\fB");
            print_whole(name.word);
            (void)printf("\\fR %s", name.value[0] ? "\\fI" : "");
            print_whole(name.value);
            (void)printf("%s\n", name.value[0] ? "\\fR" : "");
        } else {
            (void)printf("\\fI");
            print_whole(cli_name_has_choices(&name) ? name.value : name.word);
            (void)printf("\\fR\n");
        }
        print_whole(o->help);
        (void)putchar('\n');
    }
}

static void print_command(void *context, const cli_command *command, const cli_option *spec)
{
    (void)context;
    (void)printf(".SS %s\n", command->name);
    print_synopsis(command, spec);
    (void)printf(".PP\n");
    print_whole(command->summary);
    (void)printf(".\n");
    print_options(spec);
    if (spec->kind == CLI_ABOUT) {
        (void)printf(".PP\n.nf\n");
        print_whole(spec->help);
        (void)printf("\n.fi\n");
    }
}

void cli_print_man(void) { cli_visit_commands(print_command, NULL); }
