/* cli/main.c - finds the command that was asked for, and ends the process with its status. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "tensor/cpu.h"

/* A full disk or a closed pipe shows when the buffer is written: results that were lost are a failure. */
static int flushed(int exit_code)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return exit_code;
    const rt_error err = {RT_IO, "cannot write the results to standard output"};
    return exit_code ? exit_code : cli_fail(&err);
}

int main(int argc, char **argv)
{
    static char help[] = "help", version[] = "version";
    if (argc < 2) {
        cli_print_commands();
        return flushed(rt_status_exit_code(RT_INVALID));
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        argv[1] = help;
    if (strcmp(argv[1], "--version") == 0)
        argv[1] = version;
    rt_error err = {0};
    if (rt_cpu_check(&err) != RT_OK)
        return cli_fail(&err);
    const cli_command *command = cli_command_find(argv[1], &err);
    return flushed(command ? command->run(argc - 1, argv + 1) : cli_fail(&err));
}
