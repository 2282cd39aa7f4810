"""Work in a forked process, so that native code that dies takes nothing else with it.

The child has everything as it is. It works in a thread of its own: OpenMP's threads are not forked,
and a new thread starts new ones.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

from gluon_cnn_parity.native import die_by_signal

Tell = Callable[[str, Any], None]  # what, and its value


def follow(work: Callable[[Tell], Any], note: Tell) -> int:
    """Run `work(tell)` in a child to its end; its exit status, negative for a signal.

    `note` is told what the child tells; at last ("gave", result) or ("raised", exception), which
    have to be picklable, unless it died.

    >>> follow(lambda tell: 1 // 0, print)
    raised integer division or modulo by zero
    0
    """
    ours, theirs = multiprocessing.Pipe(duplex=False)
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        # Python 3.12 warns of forks beside threads: see the docstring of this module
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        ours.close()
        _serve(work, theirs.send)
    theirs.close()
    try:
        while True:
            note(*ours.recv())
    except EOFError:
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    finally:
        ours.close()


def _serve(work: Callable[[Tell], Any], send: Callable[[Any], None]) -> None:
    """The child: does not return."""
    status = 1
    try:
        faulthandler.disable()  # its parent will say what happened
        die_by_signal()
        lock = threading.Lock()

        def tell(what: str, value: Any) -> None:
            with lock:
                send((what, value))

        def body() -> None:
            try:
                answer = ("gave", work(tell))
            except BaseException as error:
                answer = ("raised", error)
            tell(*answer)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        status = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
