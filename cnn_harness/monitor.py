"""What a run shows while it goes on: progress, the epoch line, metrics, curves, TensorBoard."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from tqdm import tqdm

from cnn_harness.errors import CommandError
from cnn_harness.plots import save_curves
from cnn_harness.runfolder import RunFolder
from gluon_cnn_parity.terminal import loss_text

METRICS = (
    "epoch", "train_loss", "train_acc", "test_loss", "test_acc", "test_top5_acc", "lr",
    "seconds", "images_per_second",
)  # fmt: skip


class Monitor:
    """What the training loops call; this one shows nothing. `images` counts an epoch's so far."""

    def resume(self, rows: list[dict[str, Any]]) -> None: ...

    def start_epoch(self, epoch: int, epochs: int, images: int) -> None: ...

    def progress(self, images: int, loss: float, accuracy: float) -> None: ...

    def end_epoch(self, row: dict[str, Any]) -> None: ...

    def ends_early(self, patience: int) -> None: ...


class RunMonitor(Monitor):
    """Shows a run on `stream` and keeps its folder's metrics and curves up to date.

    On a terminal one bar runs from the first epoch to the last, below the epochs' lines; elsewhere
    a plain line comes every half minute.
    An epoch ends in doc-2's line:
    `epoch:1,train_loss:0.4021,train_acc:0.872,test_acc:0.961,time:0.6 sec`.
    """

    SILENCE = 30.0  # seconds without a line, where there is no terminal

    def __init__(
        self,
        folder: RunFolder,
        title: str,
        *,
        tensorboard: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        self._folder = folder
        self._title = title
        self._stream = stream if stream is not None else sys.stderr
        self._rows: list[dict[str, Any]] = []
        self._bar: tqdm | None = None
        self._epoch, self._images, self._said = 0, 0, time.monotonic()
        self._writer = _summary_writer(folder) if tensorboard else None

    def __enter__(self) -> RunMonitor:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close_bar()
        if self._writer is not None:
            self._writer.close()

    def resume(self, rows: list[dict[str, Any]]) -> None:
        """Begin with the checkpoint's rows: the files may lack its last one, or have more."""
        self._rows = list(rows)
        if rows:
            self._write()

    def start_epoch(self, epoch: int, epochs: int, images: int) -> None:
        self._epoch, self._images, self._said = epoch, images, time.monotonic()
        if self._bar is None and self._stream.isatty():
            self._bar = tqdm(
                total=epochs * images, initial=(epoch - 1) * images, unit=" images",
                leave=False, dynamic_ncols=True, file=self._stream,
            )  # fmt: skip
        if self._bar is not None:
            self._bar.set_description(f"epoch {epoch}/{epochs}", refresh=False)

    def progress(self, images: int, loss: float, accuracy: float) -> None:
        if self._bar is not None:
            shown = {"loss": loss_text(loss), "acc": f"{accuracy:.3f}"}
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update((self._epoch - 1) * self._images + images - self._bar.n)
        elif time.monotonic() - self._said >= self.SILENCE:
            self._said = time.monotonic()
            self._say(
                f"epoch {self._epoch}: {images}/{self._images} images, "
                f"loss {loss_text(loss)}, accuracy {accuracy:.3f}"
            )

    def end_epoch(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._write()
        if self._writer is not None:
            for name in METRICS[1:]:
                self._writer.add_scalar(name, row[name], row["epoch"])
            self._writer.flush()
        self._say(
            f"epoch:{row['epoch']},train_loss:{loss_text(row['train_loss'])},"
            f"train_acc:{row['train_acc']:.3f},test_acc:{row['test_acc']:.3f},"
            f"time:{row['seconds']:.1f} sec"
        )

    def ends_early(self, patience: int) -> None:
        best = max(self._rows, key=lambda row: row["test_acc"])["epoch"]
        self._say(
            f"ending after epoch {len(self._rows)}: no test accuracy above that of epoch {best} "
            f"in {patience} epochs (--patience)"
        )

    def _write(self) -> None:
        self._folder.write_metrics(self._rows)
        with self._folder.writing("curves.png"):
            save_curves(self._folder.path / "curves.png", self._rows, self._title)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=self._stream)  # above the bar
        else:
            print(line, file=self._stream, flush=True)


def _summary_writer(folder: RunFolder) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise CommandError(
            f"--tensorboard needs the tensorboardX package ({error}): pip install tensorboardX"
        ) from error
    return SummaryWriter(str(folder.path / "tensorboard"))
