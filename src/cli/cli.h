/* cli/cli.h - what every command shares: options from a table, failure, JSON, Ctrl-C.
 *
 * A command is one function `int cmd_<name>(int argc, char **argv)` with an option table; help, shell
 * completion and the check of what the user typed all come from that table.  Results go to stdout,
 * words to stderr, and the exit status is that of the table of statuses in retort/error.h. */
#ifndef RT_CLI_CLI_H
#define RT_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "retort/error.h"

/* What a row of an option table is, and what `target` points to (a target that is not given keeps the
 * value it had: set defaults there before parsing). */
typedef enum cli_kind {
    CLI_END,           /* the last row */
    CLI_ABOUT,         /* first row, optional: `help` is a text with examples for --help */
    CLI_STRING,        /* const char *, borrowed from argv */
    CLI_COUNT,         /* size_t; suffixes K M G (thousands) and Ki Mi Gi (1024) */
    CLI_REAL,          /* double, finite */
    CLI_FLAG,          /* bool, set to true; takes no value */
    CLI_REST,          /* cli_rest: every further positional argument; last positional of its table */
    CLI_LIST,          /* cli_list: an option that may be given several times */
    CLI_REQUIRED = 64, /* or'ed to the kind of an option that must be given */
} cli_kind;

enum { CLI_LIST_MAX = 16 };
typedef struct cli_list { /* in the order given; borrowed from argv */
    const char *items[CLI_LIST_MAX];
    size_t count;
} cli_list;

typedef struct cli_rest {
    char **items; /* borrowed from argv, which is reordered */
    size_t count;
} cli_rest;

/* name: "--context N" is an option (the word after the blank is shown in the help; without one a word
 * is chosen by kind), "MODEL" a positional argument, "[MODEL]" one that may be left out.  A word with
 * bars, "--precision f32|bf16" or "train|decode", lists the only values allowed. */
typedef struct cli_option {
    int kind; /* cli_kind, perhaps with CLI_REQUIRED */
    const char *name;
    void *target;
    const char *help;
} cli_option;

/* Reads argv[1..argc) (argv[0] is the command's name).  Both "--key value" and "--key=value" are
 * understood, "--" ends the options.  On --help the help is printed and the status is RT_STOPPED with
 * an empty text: hand it to cli_fail like any other failure, which then prints nothing and returns 0. */
rt_status cli_parse(const cli_option *spec, int argc, char **argv, rt_error *err);
/* "retort: <sentence>" to stderr, with --json also {"error": {...}} to stdout; the exit status. */
int cli_fail(const rt_error *err);
/* Did the command line that cli_parse read last hold --json? */
bool cli_json(void);
/* Prints `json` to stdout and drops the reference; 0, or the exit status when writing failed. */
int cli_print_json(json_t *json);

/* From the first call on, SIGINT and SIGTERM only set a flag, the first time; a second one kills. */
void cli_interrupts_watch(void);
bool cli_interrupted(void);
/* The failure that an interrupted command returns: "stopped; <how to go on>", exit status 4. */
rt_status cli_stopped(rt_error *err, const char *how_to_go_on);

/* The commands, for help and completion. */
typedef struct cli_command {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
} cli_command;
extern const cli_command cli_commands[];                              /* ends with a NULL name */
const cli_command *cli_command_find(const char *name, rt_error *err); /* NULL: err names the nearest one */
void cli_print_commands(void);
/* Instead of reading arguments, the next cli_parse hands its table to `visit` and stops. */
typedef void (*cli_visit)(void *context, const cli_command *command, const cli_option *spec);
void cli_visit_commands(cli_visit visit, void *context);

/* Parts of an option row's name. */
typedef struct cli_name {
    bool is_option, is_optional; /* optional: "[NAME]" */
    char word[48];               /* "--context", "MODEL" */
    char value[160];             /* "N", "f32|bf16"; empty for a flag */
} cli_name;
cli_name cli_name_of(const cli_option *option);
bool cli_name_has_choices(const cli_name *name);
void cli_print_help(const cli_option *spec, const char *command);

#endif
