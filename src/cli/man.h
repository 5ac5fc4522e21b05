/* cli/man.h - the commands' sections of the man page, printed in roff. */
#ifndef RT_CLI_MAN_H
#define RT_CLI_MAN_H

void cli_print_man(void);

#endif
