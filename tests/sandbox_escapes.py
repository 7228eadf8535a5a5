"""Programs that try to leave the sandbox or to take more than their share, for test_sandbox.py.

Each stands under what it tries, the status with which it has to end, and a pattern of what it has
to print. PORT, SECRET and PID are of a server, a file and a process outside. `call` makes a system
call by its name and prints how it fails; `fill` takes that many MiB of memory.
"""

from common import sandbox_filter

CALLS = {
    **sandbox_filter.DENIED,
    "clone": sandbox_filter.CLONE,
    "clone3": sandbox_filter.CLONE3,
}
PRELUDE = f"""\
import ctypes, mmap, os, signal, socket, stat, subprocess, sys, threading, time
LIBC = ctypes.CDLL(None, use_errno=True)
CALLS = {CALLS}
def call(name, *arguments):
    number = CALLS[name][{sandbox_filter.processor()}]
    result = LIBC.syscall(number, *arguments) if number is not None else -1
    print(name, os.strerror(ctypes.get_errno()) if result == -1 else "WORKED", flush=True)
def fill(mebibytes):
    parts = []
    for _ in range(mebibytes // 8):
        parts.append(bytearray(8 * 2**20))
        time.sleep(0.002)  # so that others are not in the way of a look
    return parts
"""
TEXT = """\
== a server of this machine == error: Network is unreachable
socket.create_connection(("127.0.0.1", PORT), 5)
== a server elsewhere == error: Network is unreachable
socket.create_connection(("192.0.2.1", 80), 5)
== a packet elsewhere == error: Network is unreachable
socket.socket(type=socket.SOCK_DGRAM).sendto(b"text", ("192.0.2.1", 53))
== a name elsewhere == error: gaierror
socket.getaddrinfo("example.org", 80)
== a socket of this machine by its abstract name == error: Connection refused
socket.socket(socket.AF_UNIX).connect("\\0sandbox-PORT")
== raw packets == error: Address family not supported
socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
== a protocol that hosts do not need == error: Protocol not supported
socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
== a pair of sockets of another kind == error: Address family not supported
socket.socketpair(socket.AF_INET)
== large buffers of sockets == error: Operation not permitted
for one in socket.socketpair():
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**22)
== the kernel's tables by netlink == error: Address family not supported
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)

== a file of the user == error: No such file
open("SECRET").read()
== a new file beside it == error: No such file
open("SECRET.new", "w")
== the users of this machine == error: No such file
open("/etc/passwd")
== a file of Python == error: Read-only file system|Permission denied
open(os.__file__, "a")
== a file of a package == error: Read-only file system|Permission denied
import numpy
open(numpy.__file__, "a")
== what lies beside the interpreter and its library == ended: ^\\[\\]$
prefix = sys.base_prefix
print([] if prefix == "/usr" else sorted({*os.listdir(prefix)} - {"bin", "lib", "lib64"}))
== a new file at the root == error: Read-only file system
open("/file", "w")
== a new file among the devices == error: Read-only file system
open("/dev/file", "w")
== a new library == error: Read-only file system
open("/usr/lib/sandbox.so", "w")
== the memory of processes == error: No such file
open("/proc/self/mem")
== the files of a process outside == error: No such file
os.listdir("/proc/PID/root")
== the environment of this machine == error: KeyError: 'TOKEN'
os.environ["TOKEN"]
== a device == error: Operation not permitted
os.mknod("/tmp/disk", stat.S_IFBLK | 0o600, os.makedev(8, 0))
== another root == error: Operation not permitted
os.chroot("/tmp")
== to write again what is read-only == ended: mount Operation not permitted
call("mount", None, b"/", None, 32, None)  # MS_REMOUNT
== what lies below /proc == ended: umount2 Operation not permitted
call("umount2", b"/proc", 2)
== what lies below /tmp == ended: umount2 Operation not permitted
call("umount2", b"/tmp", 2)

== the name of this machine == ended: sandbox
print(os.uname().nodename)
== another user == error: Operation not permitted|Invalid argument
os.setuid(0)
== capabilities == ended: has 0, may have 0
header, sets = (ctypes.c_uint * 2)(0x20080522, 0), (ctypes.c_uint * 6)()
LIBC.capget(header, sets)
print(f"has {sum(sets)}, may have {sum(LIBC.prctl(23, i, 0, 0, 0) == 1 for i in range(64))}")
== the rights of a program of root == ended: uid 0: False
done = subprocess.run(["/usr/bin/python3", "-c", "import os; print('uid 0:', os.getuid() == 0)"])
== new namespaces == ended: unshare Operation not permitted
call("unshare", 0x10000000)
== a child in new namespaces == ended: clone Operation not permitted
call("clone", 0x10000000 | 17, 0, 0, 0, 0)
== a child in new namespaces by the newer call == ended: clone3 Function not implemented
call("clone3", bytes(88), 88)
== the keys of whoever started it == ended: keyctl Operation not permitted
call("keyctl", 11, -3, None, 0)  # read the session keyring
== the first process by ptrace == ended: ptrace Operation not permitted
call("ptrace", 16, 1, 0, 0)
== the memory of the first process == ended: process_vm_readv Operation not permitted
call("process_vm_readv", 1, None, 0, None, 0, 0)
== a program of the kernel == ended: bpf Operation not permitted
call("bpf", 0, None, 0)
== calls by a queue that no filter sees == ended: io_uring_setup Operation not permitted
call("io_uring_setup", 1, bytes(120))
== calls by the numbers of another processor == error:
if sys.platform == "linux" and os.uname().machine == "x86_64":
    LIBC.syscall(0x40000000 + 39)  # getpid of x32
else:
    sys.exit("there are none")
print("WORKED")
== to kill all == error: No such process
os.kill(-1, signal.SIGKILL)
== to kill the first process == ended: still here
os.kill(1, signal.SIGKILL)
time.sleep(0.1)
print("still here")
== to kill its whole group == error:
os.killpg(0, signal.SIGKILL)
== to stop the first process == ended: still here
os.kill(1, signal.SIGSTOP)
print("still here")
== a name that is no text == ended: still here
LIBC.prctl(15, b"\\xff\\xfe")
time.sleep(0.2)
print("still here")
== a child that outlives it == ended: gone soon
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)
print("gone soon")

== processes without end == error: Resource temporarily unavailable
children = []
try:
    while True:
        child = os.fork()
        if child == 0:
            time.sleep(600)
        children.append(child)
finally:
    for child in children:
        os.kill(child, signal.SIGKILL)
== threads without end == error: can't start new thread
for _ in range(20):
    threading.Thread(target=time.sleep, args=[1], daemon=True).start()
== open files without end == error: Too many open files
files = [open("/dev/null") for _ in range(100)]
== memory of one process == error: MemoryError
bytearray(2**30)
== memory of several processes together == memory:
for _ in range(2):
    os.fork()
parts = fill(80)
time.sleep(600)
== memory of processes whose first threads have ended == memory:
os.fork()
threading.Thread(target=lambda: (fill(160), time.sleep(600))).start()
LIBC.syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)  # exit, of this thread alone
== memory of programs that it executes == memory:
text = "x = bytearray(135 * 2**20); import time; time.sleep(600)"
for _ in range(2):
    subprocess.Popen([sys.executable, "-c", text])
time.sleep(600)
== memory that no process seems to have == error: Operation not permitted
shared = mmap.mmap(-1, 2**27)
shared.write(bytes(2**27))
shared.madvise(mmap.MADV_DONTNEED)
== the same by a device == error: No such file
mmap.mmap(os.open("/dev/zero", os.O_RDWR), 2**27)
== files that have no name any more == memory:
file = open("/tmp/file", "wb")
os.unlink("/tmp/file")
for _ in range(14):
    file.write(bytes(8 * 2**20))
parts = fill(190)
time.sleep(600)
== memory without a process == ended: memfd_create Operation not permitted
call("memfd_create", b"name", 0)
== memory that outlives its process == ended: shmget Operation not permitted
call("shmget", 0, 2**20, 0o1600)
== files in memory == error: No space left on device
for i in range(20):
    open(f"/tmp/{i}", "wb").write(bytes(8 * 2**20))
== one large file == error: File too large
open("/tmp/file", "wb").truncate(2**30)
== files and processes together == memory:
for i in range(14):
    open(f"/tmp/{i}", "wb").write(bytes(8 * 2**20))
parts = fill(190)
time.sleep(600)
== empty files without end == error: No space left on device
for i in range(5000):
    open(f"/tmp/{i}", "w").close()

== a loop without end == time:
while True:
    pass
== a loop without end that hears no signal == time:
for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
while True:
    pass
== a long computation in one call == time:
9 ** 9 ** 9
== a search without end == time:
import re
re.match("(a|a)*b", "a" * 60)
== to wait without end == time:
time.sleep(600)
== an exit that waits without end == time:
import atexit
atexit.register(time.sleep, 600)
== a child that computes while it waits == time:
if os.fork() == 0:
    while True:
        pass
time.sleep(600)

== a flood of output == output: cut after 10000 bytes
while True:
    print("text" * 1000)
== a flood of errors == output: cut after 10000 bytes
while True:
    os.write(2, bytes(2**16))
== a flood by a child == output: cut after 10000 bytes
subprocess.run(["/bin/sh", "-c", "while true; do echo text; done"])
== a flood and its end at once == output: cut after 10000 bytes
os.write(1, bytes(20000))
== input without end == error: EOFError
while True:
    input()
== no output at all == ended:
os.close(1)
os.close(2)
"""


def rows():
    """[(what is tried, status, pattern of the output, program)]"""
    table = []
    for part in TEXT.removeprefix("== ").split("\n== "):
        head, _, program = part.partition("\n")
        tried, _, seen = head.partition(" == ")
        status, _, output = seen.partition(":")
        table.append((tried, status, output.strip(), PRELUDE + program))
    return table
