/* A program of Pillarbox with a set-uid or set-gid bit. Python scripts cannot have one; this is the smallest thing that
 * can stand in front of one. `pillarbox install` compiles it:
 *
 *   cc -O2 -DPYTHON='"/usr/local/lib/pillarbox/bin/python"' -DPROGRAM='"cmd5checkpw"' -o cmd5checkpw launcher.c
 *
 * What runs is fixed here: the interpreter, its isolation (-I: no variable, no directory of the caller's counts), the
 * program's name, and with -DHOME='"/var/qmail"' its home. From the caller come the arguments, descriptors 0 to 3 (there
 * is always something on 0 to 2), the directory, and the variables listed below; no other variable, no other descriptor,
 * no signal ignored or blocked, no alarm. The program itself gives up the rights of the bit (pillarbox/users/become.py)
 * before it runs anything else.
 *
 * It ends with 111 when the interpreter cannot be run, as checkpassword does.
 */

#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#if !defined(PYTHON) || !defined(PROGRAM)
#error "compile with -DPYTHON='\"/path/of/python\"' and -DPROGRAM='\"name\"'"
#endif

enum { MISUSED = 2, TROUBLE = 111, LAST = 3, MOST = 65536 };

extern char **environ;

/* By this `pillarbox install` knows its own (programs/other_queue.py). */
__attribute__((used)) static const char mark[] = "Put here by pillarbox install";

/* What a sub-program may want to know of a connection (tcp-environ(5), ssl), and where it finds programs. Nothing here is
 * looked at by the C library or by Python on its way to the program. */
static const char *const kept[] = {
    "PATH", "PROTO", "TCPLOCALHOST", "TCPLOCALIP", "TCPLOCALPORT", "TCPREMOTEHOST", "TCPREMOTEINFO", "TCPREMOTEIP",
    "TCPREMOTEPORT", "RELAYCLIENT", "USER", "HOME", "SHELL", "LOGNAME", 0};

static int is_kept(const char *variable)
{
    for (int i = 0; kept[i]; ++i) {
        size_t length = strlen(kept[i]);
        if (strncmp(variable, kept[i], length) == 0 && variable[length] == '=') return 1;
    }
    return 0;
}

static void keep_variables(void)
{
    char **to = environ;
    for (char **from = environ; *from; ++from)
        if (is_kept(*from)) *to++ = *from;
    *to = 0;
}

static void keep_descriptors(void)
{
    int nothing;
    do {
        nothing = open("/dev/null", O_RDWR);
        if (nothing == -1) _exit(TROUBLE);
    } while (nothing < LAST); /* 0 to 2 that were closed; one on 3 is nothing to read */
    close(nothing);
#ifdef SYS_close_range
    if (syscall(SYS_close_range, LAST + 1, ~0U, 0) == 0) return;
#endif
    for (int descriptor = LAST + 1; descriptor < MOST; ++descriptor) close(descriptor);
}

static void forget_signals(void)
{
    sigset_t none;
    sigemptyset(&none);
    alarm(0);
    for (int number = 1; number < NSIG; ++number) signal(number, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, 0);
}

int main(int argc, char **argv)
{
    static const char *const first[] = {PYTHON, "-I",
#ifdef HOME
        "-X", "pillarbox_home=" HOME,
#endif
        "-m", "pillarbox", "run", PROGRAM};
    enum { FIRST = sizeof first / sizeof *first };
    const struct rlimit no_core = {0, 0};
    const char **all;

    if (argc < 1) _exit(MISUSED);
    keep_descriptors();
    keep_variables();
    forget_signals();
    setrlimit(RLIMIT_CORE, &no_core);
    all = calloc(FIRST + (size_t)argc, sizeof *all);
    if (!all) _exit(TROUBLE);
    memcpy(all, first, sizeof first);
    memcpy(all + FIRST, argv + 1, (size_t)argc * sizeof *all); /* with the null behind the last */
    execve(PYTHON, (char **)all, environ);
    _exit(TROUBLE);
}
