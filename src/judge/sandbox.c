/* judge/sandbox.c - see sandbox.h. */
#include "judge/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <math.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/size.h"

#if defined(__x86_64__)
#define THIS_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define THIS_ARCH AUDIT_ARCH_AARCH64
#else
#define THIS_ARCH 0
#endif

rt_sandbox_limits rt_sandbox_limits_default(void)
{
    return (rt_sandbox_limits){
        .cpu_s = 5, .wall_s = 25, .memory_bytes = (size_t)1 << 30, .output_bytes = (size_t)64 << 10};
}

/* ---- the filter ---- */

/* Allowed whatever their arguments: computing, reading, waiting, ending. */
static const int allowed[] = {
    __NR_read,
    __NR_write,
    __NR_close,
    __NR_fstat,
    __NR_lseek,
    __NR_mmap,
    __NR_mprotect,
    __NR_munmap,
    __NR_brk,
    __NR_rt_sigaction,
    __NR_rt_sigprocmask,
    __NR_rt_sigreturn,
    __NR_ioctl,
    __NR_pread64,
    __NR_readv,
    __NR_writev,
    __NR_sched_yield,
    __NR_mremap,
    __NR_madvise,
    __NR_dup,
    __NR_nanosleep,
    __NR_clock_nanosleep,
    __NR_getpid,
    __NR_getppid,
    __NR_gettid,
    __NR_exit,
    __NR_exit_group,
    __NR_uname,
    __NR_fcntl,
    __NR_getcwd,
    __NR_gettimeofday,
    __NR_getrusage,
    __NR_sysinfo,
    __NR_times,
    __NR_getuid,
    __NR_geteuid,
    __NR_getgid,
    __NR_getegid,
    __NR_futex,
    __NR_sched_getaffinity,
    __NR_sched_getparam,
    __NR_sched_getscheduler,
    __NR_set_tid_address,
    __NR_clock_gettime,
    __NR_clock_getres,
    __NR_getdents64,
    __NR_set_robust_list,
    __NR_get_robust_list,
    __NR_getrandom,
    __NR_membarrier,
    __NR_rseq,
    __NR_sigaltstack,
    __NR_execve,
    __NR_ppoll,
    __NR_pselect6,
    __NR_pipe2,
    __NR_dup3,
    __NR_readlinkat,
    __NR_faccessat,
    __NR_faccessat2,
    __NR_newfstatat,
    __NR_statx,
    __NR_statfs,
    __NR_fstatfs,
    __NR_umask,
    __NR_epoll_create1,
    __NR_epoll_ctl,
    __NR_epoll_pwait,
    __NR_eventfd2,
    __NR_rt_sigtimedwait,
    __NR_rt_sigpending,
    __NR_restart_syscall,
    __NR_getpgid,
    __NR_getsid,
    __NR_getpriority,
    __NR_getgroups,
#ifdef __x86_64__
    __NR_stat,
    __NR_lstat,
    __NR_access,
    __NR_pipe,
    __NR_select,
    __NR_poll,
    __NR_dup2,
    __NR_readlink,
    __NR_arch_prctl,
    __NR_getpgrp,
    __NR_getdents,
    __NR_time,
    __NR_epoll_wait,
    __NR_epoll_create,
    __NR_alarm,
    __NR_getrlimit,
#endif
};

/* Allowed when an argument, under a mask, is a value. */
static const struct {
    int number;
    unsigned argument;
    uint32_t mask, value;
} conditional[] = {
#define OWN_PID 0x5e1fda7aU /* replaced in the child */
    /* reading only: none of writing, creating, truncating, temporary */
    {__NR_openat, 2, O_ACCMODE | O_CREAT | O_TRUNC | (__O_TMPFILE & ~O_DIRECTORY), O_RDONLY},
#ifdef __x86_64__
    {__NR_open, 1, O_ACCMODE | O_CREAT | O_TRUNC | (__O_TMPFILE & ~O_DIRECTORY), O_RDONLY},
#endif
    {__NR_clone, 0, CLONE_THREAD, CLONE_THREAD}, /* threads, no processes */
    {__NR_tgkill, 0, UINT32_MAX, OWN_PID},       /* its own end by SIGABRT */
    {__NR_prlimit64, 2, UINT32_MAX, 0},          /* asking for limits */
};

enum {
    N_ALLOWED = sizeof allowed / sizeof allowed[0],
    N_CONDITIONAL = sizeof conditional / sizeof conditional[0],
    FILTER_MAX = 16 + N_ALLOWED * 2 + N_CONDITIONAL * 8
};

typedef struct filter {
    struct sock_filter code[FILTER_MAX];
    unsigned short n;
} filter;

static void put(filter *f, unsigned code, uint32_t k, unsigned if_true, unsigned if_false)
{
    f->code[f->n++] = (struct sock_filter){(uint16_t)code, (uint8_t)if_true, (uint8_t)if_false, k};
}

static void load(filter *f, size_t offset) { put(f, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0); }

static void end(filter *f, uint32_t action) { put(f, BPF_RET | BPF_K, action, 0, 0); }

static size_t low_half(unsigned argument)
{
    const size_t at = offsetof(struct seccomp_data, args) + argument * sizeof(uint64_t);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return at + 4;
#else
    return at;
#endif
}

static void make_filter(filter *f)
{
    f->n = 0;
    load(f, offsetof(struct seccomp_data, arch));
    put(f, BPF_JMP | BPF_JEQ | BPF_K, THIS_ARCH, 1, 0);
    end(f, SECCOMP_RET_KILL_PROCESS);
    load(f, offsetof(struct seccomp_data, nr));
    /* glibc then takes clone, whose flags can be seen */
    put(f, BPF_JMP | BPF_JEQ | BPF_K, __NR_clone3, 0, 1);
    end(f, SECCOMP_RET_ERRNO | ENOSYS);
    for (size_t i = 0; i < N_ALLOWED; i++) {
        put(f, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)allowed[i], 0, 1);
        end(f, SECCOMP_RET_ALLOW);
    }
    for (size_t i = 0; i < N_CONDITIONAL; i++) {
        put(f, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)conditional[i].number, 0, 5);
        load(f, low_half(conditional[i].argument));
        put(f, BPF_ALU | BPF_AND | BPF_K, conditional[i].mask, 0, 0);
        put(f, BPF_JMP | BPF_JEQ | BPF_K, conditional[i].value, 0, 1);
        end(f, SECCOMP_RET_ALLOW);
        end(f, SECCOMP_RET_ERRNO | EPERM);
    }
    end(f, SECCOMP_RET_ERRNO | EPERM);
}

/* ---- the child: nothing here but system calls, the parent may have threads ---- */

typedef struct child {
    const char *const *argv;
    char *const *paths; /* where argv[0] may be */
    filter *filter;
    int input, output, report; /* report: closed by exec, or takes errno */
    rt_sandbox_limits limits;
} child;

static bool limit(int which, rlim_t value)
{
    const struct rlimit to = {value, value};
    return setrlimit(which, &to) == 0;
}

/* At the first limit a signal tells why; who goes on in spite of it is killed. */
static bool limit_time(double seconds)
{
    const rlim_t soft = (rlim_t)ceil(seconds);
    const struct rlimit to = {soft, soft + 1};
    return setrlimit(RLIMIT_CPU, &to) == 0;
}

static void run_child(const child *c)
{
    static char *const environment[] = {"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8",
                                        "PYTHONHASHSEED=0", "OMP_NUM_THREADS=1", NULL};
    bool ok = prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && setsid() >= 0 && chdir("/") == 0;
    ok = ok && dup2(c->input, 0) == 0 && dup2(c->output, 1) == 1 && dup2(c->output, 2) == 2;
    ok = ok && dup3(c->report, 3, O_CLOEXEC) == 3 && close_range(4, ~0U, 0) == 0;
    ok = ok && limit(RLIMIT_AS, c->limits.memory_bytes) && limit(RLIMIT_CORE, 0) && limit(RLIMIT_FSIZE, 0) &&
         limit(RLIMIT_NOFILE, 64) && limit_time(c->limits.cpu_s);
    const uint32_t pid = (uint32_t)getpid();
    for (size_t i = 0; i < c->filter->n; i++)
        if (c->filter->code[i].k == OWN_PID)
            c->filter->code[i].k = pid;
    const struct sock_fprog program = {c->filter->n, c->filter->code};
    ok = ok && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
    for (size_t i = 0; ok && c->paths[i]; i++)
        (void)execve(c->paths[i], (char *const *)(uintptr_t)c->argv, environment);
    const int why = errno;
    ssize_t told = write(3, &why, sizeof why);
    _exit(told == (ssize_t)sizeof why ? 127 : 126);
}

/* ---- the parent ---- */

enum { PATHS = 4, PATH_BYTES = 256 };

/* Where the program may lie; a name with a slash is a path. */
static rt_status find_program(char paths[PATHS][PATH_BYTES], char *list[PATHS + 1], const char *name,
                              rt_error *err)
{
    static const char *const folders[] = {"/usr/local/bin/", "/usr/bin/", "/bin/"};
    size_t n = 0;
    const bool path = strchr(name, '/') != NULL;
    for (size_t i = 0; i < (path ? 1 : sizeof folders / sizeof folders[0]); i++) {
        const int length = snprintf(paths[n], PATH_BYTES, "%s%s", path ? "" : folders[i], name);
        if (length > 0 && length < PATH_BYTES && access(paths[n], X_OK) == 0) {
            list[n] = paths[n];
            n++;
        }
    }
    list[n] = NULL;
    return n ? RT_OK
             : rt_error_set(err, RT_NOT_FOUND,
                            "'%.100s' is not installed, or cannot be run: programs are not checked", name);
}

typedef struct pipes {
    int input, output[2], report[2];
} pipes;

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

/* Out of the way of the numbers that the child gives them. */
static bool lift(int *fd)
{
    const int to = fcntl(*fd, F_DUPFD_CLOEXEC, 10);
    (void)close(*fd);
    *fd = to;
    return to >= 0;
}

static rt_status open_pipes(pipes *p, const void *input, size_t n, rt_error *err)
{
    *p = (pipes){-1, {-1, -1}, {-1, -1}};
    p->input = memfd_create("program", MFD_CLOEXEC);
    bool ok = p->input >= 0 && pipe2(p->output, O_CLOEXEC | O_NONBLOCK) == 0 &&
              pipe2(p->report, O_CLOEXEC) == 0 && fcntl(p->output[1], F_SETFL, 0) == 0 && lift(&p->input) &&
              lift(&p->output[1]) && lift(&p->report[1]);
    for (size_t at = 0; ok && at < n;) {
        const ssize_t wrote = write(p->input, (const char *)input + at, n - at);
        ok = wrote > 0 || (wrote < 0 && errno == EINTR);
        at += wrote > 0 ? (size_t)wrote : 0;
    }
    if (ok && lseek(p->input, 0, SEEK_SET) == 0)
        return RT_OK;
    return rt_error_set(err, RT_IO, "a program cannot be started: %s", strerror(errno));
}

static void close_pipes(pipes *p)
{
    close_fd(&p->input);
    for (size_t i = 0; i < 2; i++) {
        close_fd(&p->output[i]);
        close_fd(&p->report[i]);
    }
}

/* Collects what is printed until the end of the stream, the time or the room. */
static rt_sandbox_end collect(int fd, double until, size_t room, rt_text *out)
{
    char block[4096];
    for (;;) {
        const double left = until - rt_clock_seconds();
        if (left <= 0)
            return RT_SANDBOX_TIME;
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        if (poll(&wait, 1, (int)fmin(left * 1000 + 1, 1e6)) <= 0)
            continue;
        const ssize_t n = read(fd, block, sizeof block);
        if (n == 0)
            return RT_SANDBOX_EXITED;
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return RT_SANDBOX_EXITED;
        if (n > 0)
            rt_text_append(out, block, rt_size_min((size_t)n, room - rt_size_min(room, out->size)));
        if (n > 0 && out->size >= room)
            return RT_SANDBOX_OUTPUT;
    }
}

/* Waits for the end; the streams may be closed long before it. */
static rt_sandbox_end await(pid_t pid, double until, rt_sandbox_end so_far, int *code)
{
    int status = 0;
    if (so_far != RT_SANDBOX_EXITED)
        (void)kill(pid, SIGKILL);
    for (useconds_t pause = 200;; pause = pause < 20000 ? pause * 2 : pause) {
        const pid_t got = waitpid(pid, &status, so_far == RT_SANDBOX_EXITED ? WNOHANG : 0);
        if (got == pid || (got < 0 && errno != EINTR))
            break;
        if (got == 0 && rt_clock_seconds() >= until) {
            (void)kill(pid, SIGKILL);
            so_far = RT_SANDBOX_TIME;
        } else if (got == 0) {
            (void)usleep(pause);
        }
    }
    *code = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
    if (so_far != RT_SANDBOX_EXITED || !WIFSIGNALED(status))
        return so_far;
    return *code == SIGXCPU ? RT_SANDBOX_TIME : RT_SANDBOX_SIGNALLED;
}

static rt_status run(rt_sandbox_result *out, const child *plan, pipes *p, rt_error *err)
{
    const double from = rt_clock_seconds(), until = from + plan->limits.wall_s;
    const pid_t pid = fork();
    if (pid < 0)
        return rt_error_set(err, RT_IO, "a program cannot be started: %s", strerror(errno));
    if (pid == 0)
        run_child(plan);
    close_fd(&p->output[1]);
    close_fd(&p->report[1]);
    int why = 0;
    ssize_t told;
    do
        told = read(p->report[0], &why, sizeof why);
    while (told < 0 && errno == EINTR);
    if (told == (ssize_t)sizeof why) {
        (void)waitpid(pid, NULL, 0);
        return rt_error_set(
            err, RT_UNSUPPORTED,
            "'%.100s' cannot be run behind a filter of system calls here (%s): programs are not "
            "checked",
            plan->argv[0], strerror(why));
    }
    out->output = (rt_text){.size_max = plan->limits.output_bytes + 1};
    out->end =
        await(pid, until, collect(p->output[0], until, plan->limits.output_bytes, &out->output), &out->code);
    out->seconds = rt_clock_seconds() - from;
    return RT_OK;
}

rt_status rt_sandbox_run(rt_sandbox_result *out, const char *const *argv, const void *input, size_t n,
                         const rt_sandbox_limits *limits, rt_error *err)
{
    char paths[PATHS][PATH_BYTES], *list[PATHS + 1];
    filter f;
    pipes p;
    *out = (rt_sandbox_result){0};
    if (THIS_ARCH == 0)
        return rt_error_set(err, RT_UNSUPPORTED, "programs are checked on x86-64 and aarch64 only");
    if (find_program(paths, list, argv[0], err) != RT_OK)
        return err->status;
    make_filter(&f);
    rt_status status = open_pipes(&p, input, n, err);
    const child plan = {argv, list, &f, p.input, p.output[1], p.report[1], *limits};
    if (status == RT_OK)
        status = run(out, &plan, &p, err);
    close_pipes(&p);
    return status;
}
