"""How far something is: a line on the terminal, for what takes longer than a second and somebody looks at."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fusecas.cli import output

if TYPE_CHECKING:
    from rich.progress import Progress

SHOWN_AFTER = 1.0
BETWEEN_UPDATES = 0.1


@contextmanager
def progress(title: str, describe: Callable[..., str]) -> Iterator[Callable[..., None] | None]:
    """What the library is to tell how far it is; None when nobody is looking. `describe` puts that in words."""
    if not output.is_terminal(sys.stderr):
        yield None
        return
    line = _Line(title, describe)
    try:
        yield line.tell
    finally:
        line.end()


class _Line:
    """Shows itself when its time comes. Told by the command's thread, shown by a timer's: `_lock` guards `_bar`."""

    def __init__(self, title: str, describe: Callable[..., str]) -> None:
        self._title = title
        self._describe = describe
        self._told: tuple[Any, ...] | None = None
        self._next = 0.0
        self._bar: Progress | None = None
        self._ended = False
        self._lock = threading.Lock()
        self._timer = threading.Timer(SHOWN_AFTER, self._show)
        self._timer.daemon = True
        self._timer.start()

    def tell(self, *told: Any) -> None:
        self._told = told
        now = time.monotonic()
        if self._bar is not None and now >= self._next:
            self._next = now + BETWEEN_UPDATES
            with self._lock:
                if self._bar is not None:
                    self._bar.update(self._bar.task_ids[0], description=self._text())

    def end(self) -> None:
        self._timer.cancel()
        with self._lock:
            self._ended = True
            if self._bar is not None:
                self._bar.stop()
                self._bar = None

    def _text(self) -> str:
        return self._title if self._told is None else f"{self._title}: {self._describe(*self._told)}"

    def _show(self) -> None:
        # Ctrl-C and Ctrl-Z are for the main thread. A thread that starts another one may be handed what was meant for
        # the process; Python would then keep it until the main thread wakes, which waits for input.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTSTP})
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        with self._lock:
            if self._ended:
                return
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
                refresh_per_second=8,
            )
            self._bar.add_task(self._text())
            self._bar.start()


def files(found: Any) -> str:
    """How far an import or an export is."""
    return f"{output.count(found.files, 'file')}, {output.size_text(found.size)}"


def objects(done: int, of: int) -> str:
    """How far a verification is."""
    return f"{done} of {output.count(of, 'object')}" + (f", {100 * done // of}%" if of else "")
