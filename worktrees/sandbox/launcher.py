"""The last step into a sandbox: `python -I -S launcher.py [OPTIONS] BEGIN END PROGRAM ARGUMENT...`.

    --landlock            restrict this process and all it becomes with Landlock first
      --write PATH        a tree, or a file, that stays writable; may be repeated
      --no-network        no TCP either, where the kernel can say so
    --watch               run the program as a child and report exactly how it ended, since the sandbox around us only
                          hands on 128 + n

BEGIN is a descriptor that hears `sandboxed` when the walls stand, then `program ERRNO` when the program cannot be
started, or is closed by its start. END hears `exit STATUS` or `signal NUMBER` and, unless we are killed before,
`left COUNT`: how many processes the program left behind in its namespace. -1 stands for nobody.

Exit status 125 when the walls cannot be put up: nothing of the program's has run then. Otherwise the program's own, or
126 and 127 when it cannot be started, as in a shell.

Started by path and isolated, so nothing but the standard library can be found, and nothing of a worker's is imported.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

# The same numbers on every architecture; `include/uapi/linux/landlock.h` has the bits.
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_PR_SET_NO_NEW_PRIVS = 38
(
    EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE, MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK,
    MAKE_FIFO, MAKE_BLOCK, MAKE_SYM, REFER, TRUNCATE, IOCTL_DEV,
) = (1 << bit for bit in range(16))  # fmt: skip
_READ = EXECUTE | READ_FILE | READ_DIR
_DEVICE = READ_FILE | WRITE_FILE | TRUNCATE | IOCTL_DEV
_OF_FILES = EXECUTE | _DEVICE
_BITS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15}
_ALL_BITS = 16
_NETWORK_ABI, _SCOPE_ABI = 4, 6
_BIND_AND_CONNECT = 3
_ABSTRACT_SOCKETS_AND_SIGNALS = 3
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts")
# How often to look whether those that were asked to end have ended.
_PAUSE_SECONDS = 0.01


def landlock_abi() -> int:
    """The version of Landlock this kernel speaks, 0 when none."""
    if not sys.platform.startswith("linux"):
        return 0
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, int(libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))))


def restrict(writable: Sequence[str], *, network: bool) -> None:
    """Lets this process and its descendants write below `writable` and to plain devices only.

    Everything stays readable. They also cannot signal or trace, or reach abstract sockets of, processes outside.
    Raises: OSError when it cannot be done wholly.
    """
    import ctypes
    import struct

    libc = ctypes.CDLL(None, use_errno=True)

    def call(*arguments: object) -> int:
        answer = int(libc.syscall(*arguments))
        if answer < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return answer

    abi = landlock_abi()
    if abi < 1:
        raise OSError(errno.EOPNOTSUPP, "this kernel has no Landlock")
    if not network and abi < _NETWORK_ABI:
        raise OSError(errno.EOPNOTSUPP, "this kernel's Landlock cannot cut the network")
    handled = (1 << _BITS_BY_ABI.get(abi, _ALL_BITS)) - 1
    wanted = [handled]
    if abi >= _NETWORK_ABI:
        wanted.append(0 if network else _BIND_AND_CONNECT)
    if abi >= _SCOPE_ABI:
        wanted.append(_ABSTRACT_SOCKETS_AND_SIGNALS)
    attributes = struct.pack(f"={len(wanted)}Q", *wanted)
    ruleset = call(_CREATE, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    try:
        devices = [path for path in (f"/dev/{name}" for name in _DEVICES) if os.path.exists(path)]
        grants = [("/", _READ), *((path, _DEVICE | _READ) for path in devices), *((path, handled) for path in writable)]
        for path, access in grants:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            granted = access & handled & (handled if stat.S_ISDIR(os.fstat(fd).st_mode) else _OF_FILES)
            rule = struct.pack("=Qi", granted, fd)
            call(_ADD, ctypes.c_int(ruleset), ctypes.c_int(1), rule, ctypes.c_uint32(0))
            os.close(fd)
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "no_new_privs")
        call(_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


# ---------------------------------------------------------------------------------------------------- the program
def _environment() -> dict[bytes, bytes]:
    """Ours as it was given to us: Python adds to it in the C locale."""
    found = dict(os.environb)
    try:
        with open("/proc/self/environ", "rb") as file:
            given = {line.partition(b"=")[0] for line in file.read().split(b"\0")}
    except OSError:
        return found
    return {name: value for name, value in found.items() if name in given}


def _become(program: Sequence[str], begin: int) -> NoReturn:
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python, for itself
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execvpe(program[0], list(program), _environment())
    except OSError as error:
        number = error.errno or errno.EINVAL
        _tell(begin, f"program {number}")
        sys.stderr.write(f"{program[0]}: {os.strerror(number)}\n")
        sys.stderr.flush()
        os._exit(126 if number in (errno.EACCES, errno.EPERM, errno.ENOEXEC, errno.E2BIG) else 127)


def _tell(fd: int, text: str) -> None:
    if fd >= 0:
        try:
            os.write(fd, text.encode() + b"\n")
        except OSError:
            return  # whoever wanted to know is gone


def _watch(program: Sequence[str], begin: int, end: int) -> NoReturn:
    """Runs the program in a session of its own, as it would be without us, and reports how it ended."""
    asked_to_end = False

    def note(_number: int, _frame: object) -> None:
        nonlocal asked_to_end
        asked_to_end = True

    ours = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
    before = {number: signal.signal(number, note if number == signal.SIGTERM else signal.SIG_IGN) for number in ours}
    signal.pthread_sigmask(signal.SIG_BLOCK, ours)  # what comes while we are two is for both
    child = os.fork()
    if child == 0:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ours)
        os.setsid()
        _become(program, begin)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ours)
    if begin >= 0:
        os.close(begin)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    _tell(end, f"exit {code}" if code >= 0 else f"signal {-code}")
    if asked_to_end:  # so was everybody: the namespace, which ends with us, must not take their time away
        import time

        while _others():
            time.sleep(_PAUSE_SECONDS)
    _tell(end, f"left {_others()}")
    os._exit(code if code >= 0 else 128 - code)


def _others() -> int:
    """Live processes in our namespace beside its first one and us, none where `/proc` shows another namespace."""
    count = 0
    if os.readlink("/proc/self") != str(os.getpid()):
        return 0
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in (1, os.getpid()):
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    count += file.read().rpartition(b")")[2].split()[0] not in b"ZX"
            except OSError:
                continue
    return count


def main(words: Sequence[str]) -> NoReturn:
    """Puts up the walls and becomes the program, or watches it."""
    rest = list(words)
    landlock = watch = False
    network = True
    writable = []
    while rest[0].startswith("--"):
        option = rest.pop(0)
        if option == "--landlock":
            landlock = True
        elif option == "--watch":
            watch = True
        elif option == "--no-network":
            network = False
        elif option == "--write":
            writable.append(rest.pop(0))
        else:
            raise SystemExit(f"wt: unknown option {option}")
    begin, end, *program = rest
    fds = int(begin), int(end)
    for fd in fds:
        if fd >= 0:
            os.set_inheritable(fd, False)
    if landlock:
        try:
            restrict(writable, network=network)
        except OSError as error:
            sys.stderr.write(f"wt: the sandbox cannot be put up: {error.strerror}\n")
            sys.stderr.flush()
            os._exit(125)
    _tell(fds[0], "sandboxed")
    if watch:
        _watch(program, *fds)
    if fds[1] >= 0:
        os.close(fds[1])
    _become(program, fds[0])


if __name__ == "__main__":
    main(sys.argv[1:])
