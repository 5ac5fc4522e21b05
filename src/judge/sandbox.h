/* judge/sandbox.h - running a foreign program so that it can only compute and print.
 *
 * The program is read from standard input by an interpreter (or is a binary that reads it).  It runs in a
 * process of its own behind a list of allowed system calls (seccomp): it can read files and start threads; it
 * cannot write, create or delete files, open sockets, start processes, signal or trace others.  Its
 * environment is empty but for PATH and LANG, its working directory is /.  Time, processor time, memory and
 * output are limited. */
#ifndef RT_JUDGE_SANDBOX_H
#define RT_JUDGE_SANDBOX_H

#include <stddef.h>

#include "base/text.h"
#include "retort/error.h"

typedef struct rt_sandbox_limits {
    double cpu_s;        /* processor time of all threads, in whole seconds, rounded up */
    double wall_s;       /* from start to end; more than cpu_s, so that a busy machine does not stop it */
    size_t memory_bytes; /* of address space */
    size_t output_bytes; /* of standard output and standard error together; the rest ends the program */
} rt_sandbox_limits;
rt_sandbox_limits rt_sandbox_limits_default(void); /* 5 s, 25 s, 1 GiB, 64 KiB */

typedef enum rt_sandbox_end {
    RT_SANDBOX_EXITED,    /* code: its exit status */
    RT_SANDBOX_SIGNALLED, /* code: the signal */
    RT_SANDBOX_TIME,      /* killed at the limit */
    RT_SANDBOX_OUTPUT     /* killed: it printed more than allowed */
} rt_sandbox_end;

typedef struct rt_sandbox_result {
    rt_sandbox_end end;
    int code;
    double seconds;
    rt_text output; /* both streams as they came; rt_text_deinit frees it */
} rt_sandbox_result;

/* argv: the interpreter and its arguments, found by PATH; NULL-terminated.  RT_NOT_FOUND: it is not
 * installed. RT_UNSUPPORTED: this kernel has no such filter; nothing is run then.  What the program does is
 * never an error: it is in *out, which is valid on RT_OK only.  Safe from several threads. */
rt_status rt_sandbox_run(rt_sandbox_result *out, const char *const *argv, const void *input, size_t n,
                         const rt_sandbox_limits *limits, rt_error *err);

#endif
