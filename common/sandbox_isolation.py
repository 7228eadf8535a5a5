"""What takes a process of the sandbox its rights: namespaces, limits, capabilities, system calls.

For sandbox_zygote.py, inside bubblewrap. Python has no function for most of it, so the C library
is called; a call that fails raises an OSError that names it.
"""

import contextlib
import ctypes
import errno
import os
import resource
import secrets
import struct

from common import sandbox_filter

LIBC = ctypes.CDLL(None, use_errno=True)
# Of unshare(2) and clone(2).
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
OWN_NAMESPACES = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET
# Of mount(2).
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
# Of prctl(2).
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
# Of keyctl(2).
KEYCTL_JOIN_SESSION_KEYRING = 1
CAPABILITY_VERSION_3 = 0x20080522
DESCRIPTORS = 64  # that a process may have open
INODES = 4096  # files and directories in /tmp: each takes memory of the kernel


def call(name, *arguments):
    """Call a function of the C library; an OSError says which one failed."""
    result = getattr(LIBC, name)(*arguments)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


# Namespaces


def enter_namespaces(file_bytes):
    """Give this process and its children namespaces, a /tmp and an empty /proc of their own.

    file_bytes: the most that the files of /tmp may take, in memory.
    """
    if os.getuid() == 0:
        call("unshare", OWN_NAMESPACES)
    else:
        # Only in a user namespace of its own may an ordinary user mount and count processes.
        user, group = os.getuid(), os.getgid()
        call("unshare", OWN_NAMESPACES | CLONE_NEWUSER)
        write_file("/proc/self/setgroups", "deny")
        write_file("/proc/self/uid_map", f"{user} {user} 1")
        write_file("/proc/self/gid_map", f"{group} {group} 1")
    mount_tmpfs("/tmp", MS_NOSUID | MS_NODEV, f"mode=1777,size={file_bytes},nr_inodes={INODES}")
    # The outer /proc shows the other processes. None is needed, so an empty directory covers it.
    mount_tmpfs("/proc", MS_NOSUID | MS_NODEV | MS_RDONLY, "mode=555,size=4096,nr_inodes=1")


def mount_tmpfs(path, flags, options):
    call("mount", b"tmpfs", path.encode(), b"tmpfs", flags, options.encode())


def write_file(path, text):
    with open(path, "w") as file:
        file.write(text)


def new_keyring():
    """Leave the session keyring of whoever started the sandbox: it may hold keys."""
    try:
        call("syscall", sandbox_filter.number("keyctl"), KEYCTL_JOIN_SESSION_KEYRING, None)
    except OSError as error:
        if error.errno != errno.ENOSYS:  # a kernel without keys has none to hide
            raise


def close_all_but(descriptors):
    """Close every descriptor above standard error, except these."""
    start = 3
    for descriptor in sorted(descriptors):
        os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, 2**31 - 1)


# Rights


def drop_rights(limits, base_bytes, users):
    """Take from this process, for good, what a program must not have.

    limits: a dict of the fields of sandbox.Limits; base_bytes: the address space that the zygote
    itself takes; users: unused_users().
    """
    set_limits(limits, base_bytes)
    for capability in range(64):
        with contextlib.suppress(OSError):  # of a number that this kernel does not have
            call("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0)
    if os.getuid() == 0:
        # The kernel counts processes by user, and those of root not at all.
        user = secrets.choice(users)
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    call("capset", header, bytes(24))
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)
    # Again, for a change of user forgets it.
    call("prctl", PR_SET_PDEATHSIG, 9, 0, 0, 0)
    sandbox_filter.install(call)


def set_limits(limits, base_bytes):
    """Set the limits that the kernel keeps for each process."""
    seconds = limits["processor_seconds"]
    # One second after the first signal, which a program can ignore, comes one that kills.
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    memory = base_bytes + limits["memory"]
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    # One more for the first process of the namespace, which waits for the program.
    processes = limits["processes"] + 1
    resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits["files"], limits["files"]))
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))


def unused_users():
    """Ids of which no other sandbox has one, so that each one's processes are counted alone.

    The second quarter of the largest range of ids that exist here: of the 2**32 ids of an ordinary
    system these are a billion that no system gives to its users. One is drawn at random.
    """
    ranges = []
    with open("/proc/self/uid_map") as file:
        for line in file:
            first, _, count = map(int, line.split())
            ranges.append((count, first))
    count, first = max(ranges)
    return range(first + count // 4, first + count // 2)
