/* cli/cmd_completion.c - `retort completion bash|zsh|man`: made from the commands' option tables. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/man.h"

static void print_choices(const char *value) /* "a|b" as "a b" */
{
    for (; *value; value++)
        (void)putchar(*value == '|' ? ' ' : *value);
}

/* Choices of one command for bash: words for the option before the cursor, else options and words. */
static void bash_command(void *context, const cli_command *command, const cli_option *spec)
{
    (void)context;
    (void)printf("    %s)\n        case \"$previous\" in\n", command->name);
    for (const cli_option *o = spec; o->kind != CLI_END; o++) {
        if (o->kind == CLI_ABOUT)
            continue;
        const cli_name name = cli_name_of(o);
        if (!name.is_option || !name.value[0])
            continue;
        (void)printf("        %s) ", name.word);
        if (cli_name_has_choices(&name)) {
            (void)printf("COMPREPLY=($(compgen -W '");
            print_choices(name.value);
            (void)printf("' -- \"$word\")); return ;;\n");
        } else {
            (void)printf("COMPREPLY=($(compgen -f -- \"$word\")); return ;;\n");
        }
    }
    (void)printf("        esac\n        words='--help");
    for (const cli_option *o = spec; o->kind != CLI_END; o++) {
        if (o->kind == CLI_ABOUT)
            continue;
        const cli_name name = cli_name_of(o);
        if (!name.is_option && !cli_name_has_choices(&name))
            continue;
        (void)putchar(' ');
        print_choices(name.is_option ? name.word : name.value);
    }
    if (strcmp(command->name, "help") == 0)
        for (const cli_command *c = cli_commands; c->name; c++)
            (void)printf(" %s", c->name);
    (void)printf("' ;;\n");
}

static void print_bash(void)
{
    (void)printf("# bash completion of retort, made by 'retort completion bash'\n"
                 "_retort()\n{\n"
                 "    local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} words=''\n"
                 "    COMPREPLY=()\n"
                 "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
                 "        COMPREPLY=($(compgen -W '--help --version");
    for (const cli_command *c = cli_commands; c->name; c++)
        (void)printf(" %s", c->name);
    (void)printf("' -- \"$word\"))\n        return\n    fi\n    case \"${COMP_WORDS[1]}\" in\n");
    cli_visit_commands(bash_command, NULL);
    (void)printf("    esac\n"
                 "    case \"$word\" in\n"
                 "    -*) COMPREPLY=($(compgen -W \"$words\" -- \"$word\")) ;;\n"
                 "    *) COMPREPLY=($(compgen -W \"${words//--*([^ ])/}\" -- \"$word\") $(compgen -f -- "
                 "\"$word\")) ;;\n"
                 "    esac\n"
                 "}\nshopt -s extglob\ncomplete -o filenames -F _retort retort\n");
}

/* A text inside single quotes and a [description] of zsh's _arguments. */
static void print_zsh_text(const char *text)
{
    for (; *text; text++) {
        if (*text == '\'')
            (void)printf("'\\''");
        else if (strchr("[]:\\", *text))
            (void)printf("\\%c", *text);
        else
            (void)putchar(*text == '\n' ? ' ' : *text);
    }
}

static void print_zsh_value(const cli_name *name)
{
    if (!cli_name_has_choices(name)) {
        (void)printf(":%s:_files", name->value);
        return;
    }
    (void)printf(":choice:(");
    print_choices(name->value);
    (void)putchar(')');
}

static void zsh_command(void *context, const cli_command *command, const cli_option *spec)
{
    (void)context;
    (void)printf("    %s) _arguments '--help[this text]'", command->name);
    size_t position = 1;
    for (const cli_option *o = spec; o->kind != CLI_END; o++) {
        if (o->kind == CLI_ABOUT)
            continue;
        const cli_name name = cli_name_of(o);
        (void)printf(" \\\n        '");
        if (name.is_option) {
            (void)printf("%s[", name.word);
            print_zsh_text(o->help);
            (void)putchar(']');
        } else if (o->kind == CLI_REST) {
            (void)putchar('*');
        } else {
            (void)printf("%zu", position++);
        }
        if (name.value[0])
            print_zsh_value(&name);
        (void)putchar('\'');
    }
    (void)printf(" ;;\n");
}

static void print_zsh(void)
{
    (void)printf("#compdef retort\n# zsh completion of retort, made by 'retort completion zsh'\n"
                 "_retort() {\n    local -a commands=(");
    for (const cli_command *c = cli_commands; c->name; c++) {
        (void)printf("\n        '%s:", c->name);
        print_zsh_text(c->summary);
        (void)putchar('\'');
    }
    (void)printf(
        ")\n    if (( CURRENT == 2 )); then\n        _describe command commands\n        return\n    fi\n"
        "    shift words\n    (( CURRENT-- ))\n    case $words[1] in\n");
    cli_visit_commands(zsh_command, NULL);
    (void)printf("    esac\n}\n_retort \"$@\"\n");
}

int cmd_completion(int argc, char **argv)
{
    const char *shell = NULL;
    const cli_option spec[] = {
        {CLI_ABOUT, NULL, NULL,
         "Examples:\n  retort completion bash > ~/.local/share/bash-completion/completions/retort\n"
         "  retort completion zsh > ~/.zfunc/_retort"},
        {CLI_STRING, "bash|zsh|man", &shell, "the shell, or man for the commands' part of the man page"},
        {CLI_END, NULL, NULL, NULL},
    };
    rt_error err = {0};
    if (cli_parse(spec, argc, argv, &err) != RT_OK)
        return cli_fail(&err);
    if (strcmp(shell, "man") == 0)
        cli_print_man();
    else if (strcmp(shell, "zsh") == 0)
        print_zsh();
    else
        print_bash();
    return 0;
}
