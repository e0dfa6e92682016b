/* What a broken-into QEMU would try: a library that LD_PRELOAD puts into the real one.
 *
 * Its constructor notes what was inherited and starts a thread, which waits until QEMU's own system
 * call filter is in force, tries everything below and writes to the descriptor PROBE_REPORT: for
 * each try "NAME: trying", then "NAME: refused ERRNO" or "NAME: reached WHAT"; at last ": done", or
 * ": gone" if the thread was ended in the middle of a try.
 *
 * A try is refused if it fails for what it is. An error that a mistake in the try would bring about
 * too (EINVAL, EFAULT, EBADF) says that it reached what it should be kept from.
 *
 * PROBE_ONLY, PROBE_SKIP: names of tries, one a line. PROBE_FILTERS: how many filters to wait for.
 * PROBE_FDS: the numbers that may be inherited, with commas around each. PROBE_RAM: descriptor of
 * the memory that clones share. PROBE_DISK: descriptor of a file that may be read. PROBE_PATHS:
 * NAME=PATH lines to open. PROBE_SOCKETS: NAME=PATH lines to connect to, @ for abstract ones.
 * PROBE_PORT: where a server listens on the host's loopback. PROBE_PID: a process outside with the
 * same user; PROBE_ADDRESS: of memory that it can write.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define WAIT_MILLISECONDS 30000
#define X32_BIT 0x40000000
#define CROWD 600

/* Evaluates a call that has to fail, unless its name is not wanted. */
#define TRY(name, call)                                                                           \
    do {                                                                                          \
        if (begun(name))                                                                          \
            judge(name, (long)(call));                                                            \
    } while (0)

static int report = -1;
static char inherited[4096];

static int listed(const char *variable, const char *name)
{
    const char *found = getenv(variable);
    size_t length = strlen(name);
    while (found && *found) {
        if (!strncmp(found, name, length) && (found[length] == '\n' || !found[length]))
            return 1;
        found = strchr(found, '\n');
        found = found ? found + 1 : NULL;
    }
    return 0;
}

static int begun(const char *name)
{
    if (listed("PROBE_SKIP", name) || (getenv("PROBE_ONLY") && !listed("PROBE_ONLY", name)))
        return 0;
    dprintf(report, "%s: trying\n", name);
    return 1;
}

static void refused(const char *name, const char *how)
{
    dprintf(report, "%s: refused %s\n", name, how);
}

static void reached(const char *name, const char *what)
{
    dprintf(report, "%s: reached %s\n", name, what);
}

static void judge(const char *name, long result)
{
    int error = errno;
    if (result >= 0) {
        reached(name, "success");
        return;
    }
    switch (error) {
    case EPERM: case EACCES: case ENOSYS: case ENOENT: case ESRCH: case EROFS: case ENXIO:
    case ENETUNREACH: case ECONNREFUSED: case EAFNOSUPPORT: case ENOTDIR:
        refused(name, strerrorname_np(error));
        break;
    default:
        reached(name, strerrorname_np(error));
    }
}

static long opened(const char *path, int flags)
{
    int descriptor = open(path, flags | O_NONBLOCK | O_CLOEXEC, 0600);
    if (descriptor >= 0)
        close(descriptor);
    return descriptor;
}

static int connected(int domain, const void *address, socklen_t length)
{
    int end = socket(domain, SOCK_STREAM | SOCK_CLOEXEC, 0), result, error;
    if (end < 0)
        return -1;
    result = connect(end, address, length);
    error = errno;
    close(end);
    errno = error;
    return result;
}

static void try_unix(const char *name, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strnlen(path, sizeof address.sun_path);
    memcpy(address.sun_path, path, length);
    if (path[0] == '@')
        address.sun_path[0] = 0;
    TRY(name, connected(AF_UNIX, &address, offsetof(struct sockaddr_un, sun_path) + length));
}

static void each_line(const char *variable, void (*try)(const char *name, const char *value))
{
    char *lines = strdup(getenv(variable) ?: ""), *rest = lines, *line;
    while ((line = strsep(&rest, "\n"))) {
        char *value = strchr(line, '=');
        if (value) {
            *value = 0;
            try(line, value + 1);
        }
    }
    free(lines);
}

static void try_read(const char *name, const char *path)
{
    TRY(name, opened(path, O_RDONLY));
}

static void try_files(void)
{
    static const char *const hidden[] = {
        "/etc/passwd", "/etc", "/root", "/home", "/tmp", "/var", "/run", "/sys", "/boot", "/opt",
        "/proc/1/root/etc/passwd", "/../../etc/passwd", "/usr/bin/sh", "/usr/bin/python3",
        "/usr/share/doc", "/dev/mem", "/dev/kmsg", "/dev/shm", "/dev/pts", "/dev/vda", "/dev/fuse",
        "/dev/net/tun", "/dev/vhost-net", "/proc/kcore", "/proc/kallsyms", "/proc/interrupts",
        "/proc/stat", "/proc/keys", "/proc/meminfo", "/proc/loadavg", "/proc/sys/kernel/hostname",
    };
    static const char *const written[] = {
        "/usr/bin/qemu-system-x86_64", "/usr/share/qemu/linuxboot_dma.bin",
        "/usr/lib/x86_64-linux-gnu/libc.so.6", "/proc/self/exe", "/proc/sysrq-trigger",
        "/proc/sys/kernel/core_pattern", "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/kernel/hostname",
    };
    static const char *const created[] = {
        "/new", "/usr/new", "/usr/lib/x86_64-linux-gnu/new", "/dev/new", "/proc/new",
    };
    char name[160];
    each_line("PROBE_PATHS", try_read);
    for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++) {
        snprintf(name, sizeof name, "read %s", hidden[i]);
        TRY(name, opened(hidden[i], O_RDONLY));
    }
    TRY("open /dev/kvm", opened("/dev/kvm", O_RDWR));
    for (size_t i = 0; i < sizeof written / sizeof *written; i++) {
        snprintf(name, sizeof name, "write %s", written[i]);
        TRY(name, opened(written[i], O_RDWR));
    }
    for (size_t i = 0; i < sizeof created / sizeof *created; i++) {
        snprintf(name, sizeof name, "create %s", created[i]);
        TRY(name, opened(created[i], O_WRONLY | O_CREAT));
    }
    TRY("make a device", mknod("/dev/new", S_IFBLK | 0600, makedev(254, 0)));
}

static void try_sockets(void)
{
    static const struct { const char *name; int domain, kind, protocol; } families[] = {
        {"socket inet", AF_INET, SOCK_STREAM, 0},       {"socket inet6", AF_INET6, SOCK_STREAM, 0},
        {"socket netlink", AF_NETLINK, SOCK_RAW, 0},    {"socket packet", AF_PACKET, SOCK_RAW, 768},
        {"socket raw", AF_INET, SOCK_RAW, IPPROTO_ICMP},{"socket vsock", AF_VSOCK, SOCK_STREAM, 0},
        {"socket alg", AF_ALG, SOCK_SEQPACKET, 0},      {"socket udp", AF_INET, SOCK_DGRAM, 0},
    };
    struct sockaddr_in loopback = {
        .sin_family = AF_INET,
        .sin_port = htons(atoi(getenv("PROBE_PORT") ?: "9")),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        TRY(families[i].name, socket(families[i].domain, families[i].kind, families[i].protocol));
    TRY("connect to the host's loopback", connected(AF_INET, &loopback, sizeof loopback));
    each_line("PROBE_SOCKETS", try_unix);
}

static void try_others(void)
{
    pid_t other = atoi(getenv("PROBE_PID") ?: "2");
    char path[64], word[8], others[64] = "";
    void *address = (void *)strtoul(getenv("PROBE_ADDRESS") ?: "0", NULL, 16);
    struct iovec here = {word, sizeof word}, there = {address, sizeof word};
    struct dirent *entry;
    DIR *proc = opendir("/proc");
    int seen = 0;

    snprintf(path, sizeof path, "/proc/%d/environ", other);
    TRY("read another process's environment", opened(path, O_RDONLY));
    snprintf(path, sizeof path, "/proc/%d/mem", other);
    TRY("open another process's memory", opened(path, O_RDWR));
    while (proc && (entry = readdir(proc))) {
        if (atoi(entry->d_name) > 0 && atoi(entry->d_name) != getpid()) {
            seen++;
            snprintf(others, sizeof others, "saw %d, process %.20s for one", seen, entry->d_name);
        }
    }
    if (proc)
        closedir(proc);
    if (begun("see other processes")) {
        if (!proc || seen)
            reached("see other processes", proc ? others : "no /proc");
        else
            refused("see other processes", "by their absence");
    }
    TRY("signal another process", kill(other, 0));
    TRY("signal all others", kill(-1, 0));
    TRY("ptrace another process", ptrace(PTRACE_SEIZE, other, 0, 0));
    TRY("read another process", process_vm_readv(other, &here, 1, &there, 1, 0));
    TRY("write another process", process_vm_writev(other, &here, 1, &there, 1, 0));
    TRY("handle of another process", syscall(SYS_pidfd_open, other, 0));
    TRY("compare with another process", syscall(SYS_kcmp, getpid(), other, 0, 0, 0));
    TRY("priority of another process", setpriority(PRIO_PROCESS, other, 19));
}

static long started(long result)
{
    if (result == 0)
        syscall(SYS_exit_group, 0);
    return result;
}

static long raw_vfork(void)
{
    /* A child that shares our stack must not touch it. */
    long result;
    __asm__ volatile("syscall\n\ttest %%rax, %%rax\n\tjnz 1f\n\tmov $231, %%eax\n\t"
                     "xor %%edi, %%edi\n\tsyscall\n1:"
                     : "=a"(result) : "0"((long)SYS_vfork) : "rcx", "r11", "rdi", "memory");
    if (result < 0) {
        errno = -result;
        return -1;
    }
    return result;
}

static pthread_mutex_t crowd_gate = PTHREAD_MUTEX_INITIALIZER;

static void *in_crowd(void *unused)
{
    pthread_mutex_lock(&crowd_gate);
    pthread_mutex_unlock(&crowd_gate);
    return unused;
}

static long crowd(void)
{
    static pthread_t threads[CROWD];
    pthread_attr_t small;
    int count = 0, error = 0;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 65536);
    pthread_mutex_lock(&crowd_gate);
    while (count < CROWD && !(error = pthread_create(&threads[count], &small, in_crowd, NULL)))
        count++;
    pthread_mutex_unlock(&crowd_gate);
    while (count > 0)
        pthread_join(threads[--count], NULL);
    errno = error == EAGAIN ? EPERM : error; /* What a limit answers. */
    return error ? -1 : CROWD;
}

static void try_processes(void)
{
    TRY("fork", started(syscall(SYS_fork)));
    TRY("vfork", raw_vfork());
    TRY("clone", started(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)));
    TRY("clone into a user namespace",
        started(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0)));
    uint64_t arguments[8] = {0, 0, 0, 0, SIGCHLD};
    TRY("clone3", started(syscall(SYS_clone3, arguments, sizeof arguments)));
    TRY("a crowd of threads", crowd());
}

static void try_privileges(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct all[2] = {{~0u, ~0u, ~0u}, {~0u, ~0u, ~0u}};
    gid_t group = 0;
    TRY("setuid", syscall(SYS_setuid, 0));
    TRY("setgid", syscall(SYS_setgid, 0));
    TRY("setresuid", syscall(SYS_setresuid, 0, 0, 0));
    TRY("setgroups", syscall(SYS_setgroups, 1, &group));
    TRY("capset", syscall(SYS_capset, &header, all));
    TRY("ambient capability", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_ADMIN, 0, 0));
    TRY("personality", syscall(SYS_personality, 0x0040000));
    TRY("keyctl", syscall(SYS_keyctl, 0 /* KEYCTL_GET_KEYRING_ID */, -3, 1));
    TRY("add_key", syscall(SYS_add_key, "user", "probe", "x", 1, -3));
    TRY("request_key", syscall(SYS_request_key, "user", "probe", NULL, -3));
    TRY("change its rank when memory runs out", opened("/proc/self/oom_score_adj", O_WRONLY));
}

static void try_namespaces(void)
{
    TRY("unshare user", unshare(CLONE_NEWUSER));
    TRY("unshare mounts", unshare(CLONE_NEWNS));
    TRY("unshare network", unshare(CLONE_NEWNET));
    int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    TRY("setns", setns(own, 0));
    close(own);
    TRY("mount", syscall(SYS_mount, "none", "/dev", "tmpfs", 0, NULL));
    TRY("umount", syscall(SYS_umount2, "/dev", 2));
    TRY("remount writable", syscall(SYS_mount, "none", "/", NULL, 4096 | 32, NULL));
    TRY("pivot_root", syscall(SYS_pivot_root, "/", "/dev"));
    TRY("chroot", chroot("/"));
    TRY("fsopen", syscall(SYS_fsopen, "tmpfs", 0));
    TRY("open_tree", syscall(SYS_open_tree, AT_FDCWD, "/", 1));
    struct { unsigned bytes; int type; char data[8]; } handle = {8, 1, {0}};
    TRY("open by handle", syscall(SYS_open_by_handle_at, AT_FDCWD, &handle, O_RDONLY));
}

/* Nothing of System V outlasts the probe. */
static long fleeting(long made, long control)
{
    if (made >= 0)
        syscall(control, made, 0 /* IPC_RMID */, NULL);
    return made;
}

static void try_kernel(void)
{
    char area[256] = {0};
    struct timespec now = {1, 0};
    TRY("bpf", syscall(SYS_bpf, 0, area, 72));
    *(unsigned *)area = 1; /* PERF_TYPE_SOFTWARE, a clock of our own doings */
    *(unsigned *)(area + 4) = 112;
    *(uint64_t *)(area + 40) = 0x60; /* exclude kernel and hypervisor */
    TRY("perf_event_open", syscall(SYS_perf_event_open, area, 0, -1, -1, 0));
    TRY("userfaultfd", syscall(SYS_userfaultfd, O_CLOEXEC | 1 /* user mode only */));
    memset(area, 0, sizeof area);
    TRY("io_uring_setup", syscall(SYS_io_uring_setup, 4, area));
    TRY("reboot", syscall(SYS_reboot, 0xfee1dead, 672274793, 0x89abcdef, NULL));
    TRY("kexec_load", syscall(SYS_kexec_load, 0, 17 /* one more than there can be */, NULL, 0));
    TRY("init_module", syscall(SYS_init_module, area, sizeof area, ""));
    TRY("finit_module", syscall(SYS_finit_module, 0, "", 0));
    TRY("ioperm", syscall(SYS_ioperm, 0x80, 1, 1));
    TRY("iopl", syscall(SYS_iopl, 3));
    TRY("modify_ldt", syscall(SYS_modify_ldt, 0, area, sizeof area));
    TRY("read the kernel's log", syscall(SYS_syslog, 3, area, sizeof area));
    TRY("set the clock", clock_settime(CLOCK_REALTIME, &now));
    TRY("sethostname", sethostname("other", 5));
    TRY("swapon", syscall(SYS_swapon, "/dev/null", 0));
    TRY("acct", syscall(SYS_acct, NULL));
    TRY("fanotify_init", syscall(SYS_fanotify_init, 0, 0));
    TRY("memfd_secret", syscall(447, 0));
    TRY("type into a terminal", ioctl(0, 0x5412 /* TIOCSTI */, "x"));
    TRY("a call of the x32 kind", syscall(X32_BIT | SYS_getpid));
    TRY("shared memory of System V", fleeting(syscall(SYS_shmget, 0, 4096, 01600), SYS_shmctl));
    TRY("message queue of System V", fleeting(syscall(SYS_msgget, 0, 01600), SYS_msgctl));
    TRY("message queue of POSIX", syscall(SYS_mq_open, "insula-none", O_RDWR, 0, NULL));
    TRY("watch files", inotify_init());
    TRY("have all disks flushed", syscall(SYS_sync));
}

static void try_resources(void)
{
    struct sched_param realtime = {.sched_priority = 1};
    uint64_t attributes[6] = {sizeof attributes | (uint64_t)SCHED_FIFO << 32, 0, (uint64_t)1 << 32};
    struct rlimit limit;
    TRY("raise priority", setpriority(PRIO_PROCESS, 0, -5));
    TRY("real time", syscall(SYS_sched_setscheduler, 0, SCHED_FIFO, &realtime));
    TRY("real time by attributes", syscall(SYS_sched_setattr, 0, attributes, 0));
    TRY("real time disk access", syscall(SYS_ioprio_set, 1, 0, 1 << 13));
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_max++;
    TRY("raise the limit of open files", setrlimit(RLIMIT_NOFILE, &limit));
    limit.rlim_cur = limit.rlim_max = 4096;
    TRY("raise the limit of core files", setrlimit(RLIMIT_CORE, &limit));
}

static long mapped(int descriptor, int protection, int flags)
{
    void *place = mmap(NULL, 4096, protection, flags, descriptor, 0);
    if (place == MAP_FAILED)
        return -1;
    munmap(place, 4096);
    return 0;
}

static long written_again(int descriptor)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    int again = open(path, O_RDWR | O_CLOEXEC);
    if (again < 0)
        return -1;
    long result = pwrite(again, "x", 1, 0);
    int error = errno;
    close(again);
    errno = error;
    return result;
}

/* Not open to write, as opposed to not open at all. */
static long not_writable(int descriptor, long result)
{
    if (result < 0 && (errno == EBADF || errno == EINVAL) && fcntl(descriptor, F_GETFD) >= 0)
        errno = EPERM;
    return result;
}

static void try_memory(void)
{
    int ram = atoi(getenv("PROBE_RAM") ?: "-1");
    TRY("write the shared memory", pwrite(ram, "x", 1, 0));
    TRY("map the shared memory to write", mapped(ram, PROT_READ | PROT_WRITE, MAP_SHARED));
    TRY("shrink the shared memory", ftruncate(ram, 4096));
    TRY("grow the shared memory", ftruncate(ram, (off_t)1 << 24));
    TRY("punch the shared memory",
        fallocate(ram, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
    TRY("allocate beyond the shared memory", fallocate(ram, 0, (off_t)1 << 24, 4096));
    TRY("change the seals of the shared memory", fcntl(ram, F_ADD_SEALS, 0));
    TRY("write the shared memory, opened again", written_again(ram));
}

static void try_disk(void)
{
    int disk = atoi(getenv("PROBE_DISK") ?: "-1");
    TRY("write what it may read", not_writable(disk, pwrite(disk, "x", 1, 0)));
    TRY("map what it may read to write", mapped(disk, PROT_READ | PROT_WRITE, MAP_SHARED));
    TRY("truncate what it may read", not_writable(disk, ftruncate(disk, 0)));
    TRY("write what it may read, opened again", written_again(disk));
    TRY("change the mode of what it may read", fchmod(disk, 0666));
    TRY("change the owner of what it may read", fchown(disk, getuid(), getgid()));
    TRY("change who may write what it may read", fsetxattr(disk, "user.probe", "x", 1, 0));
    TRY("hold a lease on what it may read", fcntl(disk, F_SETLEASE, F_RDLCK));
    TRY("write what it may read, after all", written_again(disk));
}

/* They replace this process if they succeed: then nothing more is reported. */
static void try_programs(void)
{
    char *const words[] = {"qemu-system-x86_64", "--version", NULL};
    char *const nothing[] = {NULL};
    int program = open("/usr/bin/qemu-system-x86_64", O_RDONLY | O_CLOEXEC);
    TRY("execveat", syscall(SYS_execveat, program, "", words, nothing, AT_EMPTY_PATH));
    TRY("execve", execve("/usr/bin/qemu-system-x86_64", words, nothing));
}

static int filters(void)
{
    char text[8192], *line;
    int file = open("/proc/thread-self/status", O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? -1 : read(file, text, sizeof text - 1);
    close(file);
    if (length < 0)
        return -1;
    text[length] = 0;
    line = strstr(text, "Seccomp_filters:");
    return line ? atoi(line + strlen("Seccomp_filters:")) : -1;
}

static void *probe(void *unused)
{
    int wanted = atoi(getenv("PROBE_FILTERS") ?: "2");
    struct timespec moment = {0, 1000000};
    for (int waited = 0; filters() < wanted; waited++) {
        if (waited == WAIT_MILLISECONDS) {
            reached("", "no filters within the time");
            return unused;
        }
        nanosleep(&moment, NULL);
    }
    if (begun("inherit a descriptor")) {
        if (inherited[0])
            reached("inherit a descriptor", inherited);
        else
            refused("inherit a descriptor", "by its absence");
    }
    try_files();
    try_sockets();
    try_others();
    try_processes();
    try_privileges();
    try_namespaces();
    try_kernel();
    try_resources();
    try_memory();
    try_disk();
    try_programs();
    dprintf(report, ": done\n");
    return unused;
}

static void note_inherited(void)
{
    const char *allowed = getenv("PROBE_FDS") ?: "";
    char key[16], entry[300], target[256];
    for (int number = 3; number < 1024; number++) {
        snprintf(key, sizeof key, ",%d,", number);
        if (fcntl(number, F_GETFD) < 0 || strstr(allowed, key))
            continue;
        snprintf(entry, sizeof entry, "/proc/self/fd/%d", number);
        ssize_t length = readlink(entry, target, sizeof target - 1);
        target[length < 0 ? 0 : length] = 0;
        snprintf(entry, sizeof entry, "%d (%s) ", number, target);
        strncat(inherited, entry, sizeof inherited - strlen(inherited) - 1);
    }
}

static void *watch(void *unused)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, probe, NULL))
        reached("", "no thread");
    else
        pthread_join(thread, NULL);
    dprintf(report, ": gone\n");
    return unused;
}

__attribute__((constructor)) static void begin(void)
{
    pthread_t watcher;
    if (!getenv("PROBE_REPORT"))
        return;
    report = atoi(getenv("PROBE_REPORT"));
    note_inherited();
    if (pthread_create(&watcher, NULL, watch, NULL))
        reached("", "no thread");
}
