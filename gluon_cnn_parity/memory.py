"""Memory that the system refused: one line, whatever native code does about it.

Every library has words of its own for it. MXNet 1.9.1 then ends the process by SIGABRT or SIGSEGV
in its static destructors, after all has been said; and oneDNN and OpenBLAS take the null pointer
that they were given for memory. So a command whose memory is limited (`ulimit -v`, as batch systems
set it) runs in a child, and its parent says how that ended.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from types import TracebackType

from gluon_cnn_parity.native import DEADLY, die_by_signal, how_it_ended

REMEDY = "free some, allow more (ulimit -v), or compute less at once, as with a smaller batch"

# Compiled where an error is looked at: every command imports this module
_WORDS = "|".join(
    (
        r"bad[_ ]alloc",  # C++, in every library
        r"failed to allocate (cpu )?memory",  # MXNet's storage; ONNX Runtime
        r"could not create a (memory|primitive\b(?! desc)|scratchpad)",  # oneDNN
        r"(can't|cannot|could not) allocate memory(?! in static TLS)",  # the C library; torch
        r"not enough memory: you tried",  # torch
        r"out of memory",  # CUDA
        r"memory allocation fail",
        r"failed to map segment",  # the loader of shared objects
        r"can't start new thread",  # Python, for whose stack there is no room
    )
)
_NUMBERS = (errno.ENOMEM, errno.EAGAIN)  # the second of a fork or a thread

_was_refused = False
_has_parent = False


def refused(error: BaseException) -> str | None:
    """What was said when the system refused memory; None where an error is of another kind.

    Looks at what led to the error, too.

    >>> refused(MemoryError()), refused(RuntimeError("std::bad_alloc"))
    ('the system refused it', 'std::bad_alloc')
    >>> refused(RuntimeError("shapes differ"))
    """
    for each in _causes(error):
        lines = str(each).strip().splitlines()
        if isinstance(each, MemoryError):
            return lines[-1] if lines else "the system refused it"
        if isinstance(each, SystemError) and _has_parent:  # of C code that looked at no pointer
            return str(each)
        if isinstance(each, OSError) and each.errno in _NUMBERS and not each.filename:
            return each.strerror or str(each)
        if found := [line for line in lines if re.search(_WORDS, line, re.IGNORECASE)]:
            return found[-1]
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def end_quietly() -> None:
    """Let this process end with status 1 without native destructors, once Python is done."""
    global _was_refused
    _was_refused = True


def watch(program: str) -> None:
    """In a command's process: an end as above, and one line where memory is refused to an import.

    To be called before anything else asks to be told of the end: who asks first is told last.
    Where memory is limited, only a child returns from here; `program` is the command.
    """
    limit = _limit()
    if limit is not None:
        _in_child(f"{program}: error: native code {{}} where memory is limited to {limit} MiB")
    atexit.register(_end)
    sys.excepthook = _one_line


def after_mxnet() -> None:
    """To be called when MXNet is loaded: a parent that waits is to see the signal.

    Only a main thread may; in another, of a child, MXNet's answer stays, which is a status.
    """
    if _has_parent and threading.current_thread() is threading.main_thread():
        die_by_signal()


def _limit() -> int | None:
    """The MiB that this process may have, where that is limited."""
    if sys.platform != "linux":  # another enforces no such limit
        return None
    import resource

    limits = [resource.getrlimit(each)[0] for each in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    finite = [each for each in limits if each != resource.RLIM_INFINITY]
    return min(finite) >> 20 if finite else None


def _in_child(message: str) -> None:
    """Go on in a child. This process hands on the signals that it alone gets, and ends as it."""
    global _has_parent
    passed = set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP}
    passed -= {signal.SIGTTIN, signal.SIGTTOU, *DEADLY}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, passed)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would not come
    parent = os.getpid()
    child = os.fork()
    if not child:
        _has_parent = True
        _die_with(parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    status = _followed(child, passed)
    if status < 0 and -status not in (*DEADLY, signal.SIGKILL):
        signal.signal(-status, signal.SIG_DFL)
        os.kill(parent, -status)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if status < 0:
        line = f"{message.format(how_it_ended(status))}; {REMEDY}\n"
        with contextlib.suppress(OSError):
            os.write(2, line.encode("utf-8", "backslashreplace"))
        status = 1
    os._exit(status)


def _followed(child: int, passed: set[signal.Signals]) -> int:
    """The exit status of a child, negative for a signal."""
    while True:
        got = signal.sigwaitinfo(passed)
        if got.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
        elif got.si_code <= 0:  # of a process; a terminal's reach the child as well
            os.kill(child, got.si_signo)


def _die_with(parent: int) -> None:
    """Have the system end this process with its parent, where it can."""
    import ctypes

    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG: prctl(2)
    if os.getppid() != parent:
        os._exit(1)


def _end() -> None:
    if _was_refused:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(1)


def _one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    reason = refused(error)
    if reason is None:
        sys.__excepthook__(kind, error, trace)
    else:
        end_quietly()
        print(f"error: not enough memory: {reason}; {REMEDY}", file=sys.stderr)
