/* cli/sub.h - commands of several words, such as `retort account create NAME`.
 *
 * A command's table names its second words; each has a function with an option table of its own, which is
 * called as if it were a command: argv[0] is "account create". */
#ifndef RT_CLI_SUB_H
#define RT_CLI_SUB_H

#include <stddef.h>

enum { CLI_SUB_MAX = 16 };

typedef struct cli_sub {
    const char *word;    /* "create" */
    char *command;       /* "account create": what messages and help call it; a modifiable array */
    const char *summary; /* one line */
    int (*run)(int argc, char **argv);
} cli_sub;

/* Runs the one that argv[1] names.  Without a word, or with --help, the words are listed (examples follow
 * them); an unknown one fails with the nearest. */
int cli_run_sub(const cli_sub *subs, size_t count, const char *examples, int argc, char **argv);

#endif
