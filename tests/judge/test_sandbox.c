/* tests/judge/test_sandbox.c - what a program behind the filter can do, and what it cannot: fork, hang, write
 * files, open sockets, print gigabytes, take all memory, signal others. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "judge/sandbox.h"

static const char *const python[] = {"python3", "-I", "-B", "-", NULL};

static rt_sandbox_limits limits;

/* Runs a Python program; the output lives until the next call. */
static rt_sandbox_result run(const char *program)
{
    static rt_sandbox_result result;
    rt_error err = {0};
    rt_text_deinit(&result.output);
    const rt_status status = rt_sandbox_run(&result, python, program, strlen(program), &limits, &err);
    if (status == RT_NOT_FOUND || status == RT_UNSUPPORTED) {
        print_message("%s\n", err.text);
        skip();
    }
    if (status != RT_OK)
        fail_msg("%s", err.text);
    if (!result.output.data)
        rt_text_append(&result.output, "", 0);
    return result;
}

static void expect(const char *program, rt_sandbox_end end, int code, const char *output)
{
    const rt_sandbox_result r = run(program);
    if (r.end != end || (code >= 0 && r.code != code) || !strstr(r.output.data ? r.output.data : "", output))
        fail_msg("'%s' ended %d with %d and said: %.400s", program, (int)r.end, r.code, r.output.data);
}

static int usual_limits(void **state)
{
    (void)state;
    limits = rt_sandbox_limits_default();
    limits.wall_s = 60; /* a loaded machine is no fault of the program */
    return 0;
}

static void a_program_computes_prints_and_ends(void **state)
{
    (void)state;
    expect("print(sum(range(10)))", RT_SANDBOX_EXITED, 0, "45");
    expect("import sys\nsys.stderr.write('to both')\nsys.exit(3)", RT_SANDBOX_EXITED, 3, "to both");
    expect("assert 1 == 2", RT_SANDBOX_EXITED, 1, "AssertionError");
    expect("import re, math, json, collections, itertools, heapq, random, typing, hashlib, datetime\n"
           "print(json.dumps([math.pi]))",
           RT_SANDBOX_EXITED, 0, "3.14");
    expect("import threading\nt = threading.Thread(target=lambda: print('a thread'))\nt.start()\nt.join()",
           RT_SANDBOX_EXITED, 0, "a thread");
    expect("import os\nos.abort()", RT_SANDBOX_SIGNALLED, 6, "");
    expect(
        "open('/etc/hostname').read() if __import__('os').path.exists('/etc/hostname') else 0\nprint('read')",
        RT_SANDBOX_EXITED, 0, "read");
}

static void it_starts_no_process(void **state)
{
    (void)state;
    expect("import os\ntry:\n  os.fork()\n  print('forked')\nexcept OSError as e: print('no:', e.errno)",
           RT_SANDBOX_EXITED, 0, "no: 1");
    expect("import subprocess\ntry:\n  subprocess.run(['true'])\n  print('ran')\nexcept OSError as e: "
           "print('no:', e.errno)",
           RT_SANDBOX_EXITED, 0, "no: ");
    expect("import os\ntry:\n  os.posix_spawn('/bin/true', ['true'], {})\n  print('ran')\nexcept OSError as "
           "e: print('no:')",
           RT_SANDBOX_EXITED, 0, "no:");
}

static void it_writes_no_file(void **state)
{
    (void)state;
    char program[512], path[64];
    (void)snprintf(path, sizeof path, "/tmp/retort-sandbox-%d", (int)getpid());
    FILE *kept = fopen(path, "w");
    assert_non_null(kept);
    (void)fputs("kept", kept);
    (void)fclose(kept);
    (void)snprintf(
        program, sizeof program,
        "import os\n"
        "def no(f, *a):\n"
        "  try:\n    f(*a)\n    print('did it:', f, a)\n"
        "  except (OSError, PermissionError): pass\n"
        "p = '%s'\n"
        "no(open, p + 'x', 'w')\nno(open, p, 'a')\nno(open, p, 'r+')\nno(os.open, p, os.O_RDONLY | "
        "os.O_TRUNC)\n"
        "no(os.unlink, p)\nno(os.rename, p, p + 'y')\nno(os.mkdir, p + 'd')\nno(os.truncate, p, 0)\n"
        "no(os.symlink, p, p + 's')\nno(os.link, p, p + 'l')\nno(os.chmod, p, 0)\nno(os.open, '/tmp', "
        "os.O_RDWR | os.O_TMPFILE)\n"
        "print('end')",
        path);
    expect(program, RT_SANDBOX_EXITED, 0, "end");
    const rt_sandbox_result r = run(program);
    assert_null(strstr(r.output.data, "did it"));
    char text[8] = {0};
    kept = fopen(path, "r");
    assert_non_null(kept);
    assert_int_equal(fread(text, 1, sizeof text, kept), 4);
    (void)fclose(kept);
    assert_string_equal(text, "kept");
    (void)unlink(path);
}

static void it_opens_no_socket(void **state)
{
    (void)state;
    expect("import socket\nfor family in (socket.AF_INET, socket.AF_UNIX):\n"
           "  try:\n    socket.socket(family)\n    print('opened')\n  except OSError as e: print('no:', "
           "e.errno)",
           RT_SANDBOX_EXITED, 0, "no: 1\nno: 1");
}

static void it_signals_nobody(void **state)
{
    (void)state;
    char program[256];
    (void)snprintf(
        program, sizeof program,
        "import os, signal\ntry:\n  os.kill(%d, signal.SIGKILL)\n  print('sent')\nexcept OSError as e: "
        "print('no:', e.errno)",
        (int)getpid());
    expect(program, RT_SANDBOX_EXITED, 0, "no: 1");
}

static void time_memory_and_output_end_it(void **state)
{
    (void)state;
    limits.wall_s = 1;
    expect("while True: pass", RT_SANDBOX_TIME, -1, "");
    expect("import time\ntime.sleep(1000)", RT_SANDBOX_TIME, -1, "");
    expect("import os, time\nos.close(1)\nos.close(2)\ntime.sleep(1000)", RT_SANDBOX_TIME, -1, "");
    limits.wall_s = 60;
    /* what it computes is limited, not what it waits, nor what others take of the machine */
    limits.cpu_s = 1;
    expect("while True: pass", RT_SANDBOX_TIME, -1, "");
    expect("import threading\nfor _ in range(3): threading.Thread(target=lambda: [0 for _ in iter(int, "
           "1)]).start()",
           RT_SANDBOX_TIME, -1, "");
    expect("import time\ntime.sleep(1.3)\nprint('waited')", RT_SANDBOX_EXITED, 0, "waited");
    expect("import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
           RT_SANDBOX_SIGNALLED, SIGKILL, "");
    limits.cpu_s = 5;
    expect("while True: print('x' * 1000)", RT_SANDBOX_OUTPUT, -1, "xxx");
    assert_int_equal(run("while True: print('x' * 1000)").output.size, limits.output_bytes);
    limits.memory_bytes = (size_t)256 << 20;
    expect("try:\n  x = bytearray(1 << 30)\n  print('got it')\nexcept MemoryError: print('no room')",
           RT_SANDBOX_EXITED, 0, "no room");
}

static void input_need_not_be_read(void **state)
{
    (void)state;
    const char *const ignores[] = {"true", NULL};
    char *large = calloc(1, 1 << 20);
    assert_non_null(large);
    rt_sandbox_result result;
    rt_error err = {0};
    const rt_status status = rt_sandbox_run(&result, ignores, large, 1 << 20, &limits, &err);
    free(large);
    if (status == RT_UNSUPPORTED)
        skip();
    assert_int_equal(status, RT_OK);
    assert_int_equal(result.end, RT_SANDBOX_EXITED);
    assert_int_equal(result.code, 0);
    rt_text_deinit(&result.output);
}

static void an_interpreter_that_is_missing_is_named(void **state)
{
    (void)state;
    const char *const missing[] = {"no-such-interpreter", NULL};
    rt_sandbox_result result;
    rt_error err = {0};
    assert_int_equal(rt_sandbox_run(&result, missing, "", 0, &limits, &err), RT_NOT_FOUND);
    assert_non_null(strstr(err.text, "no-such-interpreter"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_program_computes_prints_and_ends, usual_limits),
        cmocka_unit_test_setup(it_starts_no_process, usual_limits),
        cmocka_unit_test_setup(it_writes_no_file, usual_limits),
        cmocka_unit_test_setup(it_opens_no_socket, usual_limits),
        cmocka_unit_test_setup(it_signals_nobody, usual_limits),
        cmocka_unit_test_setup(time_memory_and_output_end_it, usual_limits),
        cmocka_unit_test_setup(input_need_not_be_read, usual_limits),
        cmocka_unit_test_setup(an_interpreter_that_is_missing_is_named, usual_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
