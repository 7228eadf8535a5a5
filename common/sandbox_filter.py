"""The system calls that a program in the sandbox must not make, as a filter of seccomp.

The list denies, and leaves the rest: an allow-list that lets numpy, sympy and the Python of every
distribution run holds some 200 calls, grows with each new C library, and ends right programs
where it is too short. What is denied opens namespaces, reaches other processes, keys or memory
that is not counted, or parts of the kernel with a history of holes.

A filter is a program of classic BPF, which sees the number of the call and its arguments
(Documentation/userspace-api/seccomp_filter.rst of the kernel).
"""

import ctypes
import errno
import platform
import socket
import struct

# {name: numbers on x86_64 and aarch64, None where there is no such call}
DENIED = {
    # Mounts and namespaces, and files by other ways than their names.
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "statmount": (457, 457),
    "listmount": (458, 458),
    # Files that several programs see: they could send each other signs by them.
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "flock": (73, 32),
    # Keys of whoever started the sandbox.
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # The memory and the descriptors of other processes.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    # Parts of the kernel with a history of holes, which no such program needs.
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_setup": (206, 0),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "fanotify_init": (300, 262),
    "vhangup": (153, 58),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "personality": (135, 92),
    "lookup_dcookie": (212, 18),
    # Memory that belongs to no process, so that nothing here would count it.
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "splice": (275, 76),
    "tee": (276, 77),
    "vmsplice": (278, 75),
    # The machine itself; without capabilities they fail in any case.
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
}
CLONE = (56, 220)
CLONE3 = (435, 435)
SOCKET = (41, 198)
SOCKETPAIR = (53, 199)
SETSOCKOPT = (54, 208)
MMAP = (9, 222)
# Of mmap(2), together: memory that stays when no process has it in its page tables any more, so
# that it would be counted for none.
SHARED_ANONYMOUS = 0x21
# Flags of clone(2) that open namespaces.
NAMESPACES = 0x7E020000
PROTOCOLS = (0, socket.IPPROTO_TCP, socket.IPPROTO_UDP)
# Larger buffers of sockets hold memory that is counted for no process.
BUFFER_SIZES = (socket.SO_SNDBUF, socket.SO_RCVBUF)
MACHINES = {"x86_64": 0, "aarch64": 1}
# AUDIT_ARCH of linux/audit.h: an x86_64 kernel also takes the calls of i386, by other numbers.
ARCHITECTURES = (0xC000003E, 0xC00000B7)
# On x86_64 this bit marks a call of the x32 ABI.
X32 = 0x40000000

# Of prctl(2) and linux/seccomp.h.
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
ALLOW = 0x7FFF0000
FAIL = 0x00050000  # with an errno in its lower half
KILL = 0x80000000
# Of linux/bpf_common.h: load a word; jump if equal, greater or equal, or a bit is set; and; return.
LOAD = 0x20
JUMP_EQUAL = 0x15
JUMP_GREATER_EQUAL = 0x35
JUMP_BIT_SET = 0x45
AND = 0x54
RETURN = 0x06
# Places in struct seccomp_data.
NUMBER = 0
ARCHITECTURE = 4
FIRST_ARGUMENT = 16  # its lower half: both processors are little-endian
SECOND_ARGUMENT = 24
THIRD_ARGUMENT = 32
FOURTH_ARGUMENT = 40


def number(name):
    """The number of a system call on this processor."""
    return DENIED[name][processor()]


def processor():
    """The column of this processor in the tables; a ValueError if it has none."""
    machine = platform.machine()
    if machine not in MACHINES:
        raise ValueError(f"the filter of system calls does not know the processor {machine}")
    return MACHINES[machine]


def instructions():
    """The filter: a list of (code, jump if true, jump if false, value)."""
    column = processor()
    program = [
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_EQUAL, 1, 0, ARCHITECTURES[column]),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
        (JUMP_GREATER_EQUAL, 0, 1, X32),
        (RETURN, 0, 0, KILL),
        # Its flags lie in memory, where a filter cannot look; the C library then calls clone.
        (JUMP_EQUAL, 0, 1, CLONE3[column]),
        (RETURN, 0, 0, FAIL | errno.ENOSYS),
    ]
    for numbers in DENIED.values():
        if numbers[column] is not None:
            program.append((JUMP_EQUAL, 0, 1, numbers[column]))
            program.append((RETURN, 0, 0, FAIL | errno.EPERM))
    for numbers, rule in (
        (CLONE, clone_rule()),
        (MMAP, mmap_rule()),
        (SOCKET, socket_rule()),
        (SOCKETPAIR, socketpair_rule()),
        (SETSOCKOPT, setsockopt_rule()),
    ):
        program += [(JUMP_EQUAL, 0, len(rule), numbers[column]), *rule]
    program.append((RETURN, 0, 0, ALLOW))
    return program


# The rules of calls that depend on arguments; each ends with a return.


def refuse(number):
    return (RETURN, 0, 0, FAIL | number)


def if_equal(value, result):
    return [(JUMP_EQUAL, 0, 1, value), result]


def clone_rule():
    return [
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (JUMP_BIT_SET, 0, 1, NAMESPACES),
        refuse(errno.EPERM),
        (RETURN, 0, 0, ALLOW),
    ]


def mmap_rule():
    return [
        (LOAD, 0, 0, FOURTH_ARGUMENT),
        (AND, 0, 0, SHARED_ANONYMOUS),
        *if_equal(SHARED_ANONYMOUS, refuse(errno.EPERM)),
        (RETURN, 0, 0, ALLOW),
    ]


def socket_rule():
    rule = [
        (LOAD, 0, 0, FIRST_ARGUMENT),
        *if_equal(socket.AF_UNIX, (RETURN, 0, 0, ALLOW)),
        (JUMP_EQUAL, 2, 0, socket.AF_INET),
        (JUMP_EQUAL, 1, 0, socket.AF_INET6),
        refuse(errno.EAFNOSUPPORT),
        (LOAD, 0, 0, THIRD_ARGUMENT),
    ]
    for protocol in PROTOCOLS:
        rule += if_equal(protocol, (RETURN, 0, 0, ALLOW))
    return [*rule, refuse(errno.EPROTONOSUPPORT)]


def socketpair_rule():
    return [
        (LOAD, 0, 0, FIRST_ARGUMENT),
        *if_equal(socket.AF_UNIX, (RETURN, 0, 0, ALLOW)),
        refuse(errno.EAFNOSUPPORT),
    ]


def setsockopt_rule():
    rule = [
        (LOAD, 0, 0, SECOND_ARGUMENT),
        (JUMP_EQUAL, 1, 0, socket.SOL_SOCKET),
        (RETURN, 0, 0, ALLOW),
        (LOAD, 0, 0, THIRD_ARGUMENT),
    ]
    for option in BUFFER_SIZES:
        rule += if_equal(option, refuse(errno.EPERM))
    return [*rule, (RETURN, 0, 0, ALLOW)]


class Program(ctypes.Structure):
    """struct sock_fprog of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def install(call):
    """Filter the system calls of this process and its children from now on.

    call: sandbox_isolation.call. The process must have set PR_SET_NO_NEW_PRIVS.
    """
    packed = [struct.pack("=HBBI", *instruction) for instruction in instructions()]
    code = ctypes.create_string_buffer(b"".join(packed))
    program = Program(len(packed), ctypes.addressof(code))
    call("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)
