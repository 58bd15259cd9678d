"""The tracker of TensorBoard: events in a run's folder, complete after a kill, and nothing twice for its readers."""

import importlib
import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_LENGTH, _CHECKSUM = 8, 4
"""Bytes of a record's length, and of each of the checksums after the length and after the record."""


def _records(content: bytes) -> Iterator[bytes]:
    """The whole records of a file of events, each behind its length; what a kill cut off is left out."""
    at = 0
    while at + _LENGTH <= len(content):
        (length,) = struct.unpack("<Q", content[at : at + _LENGTH])
        start = at + _LENGTH + _CHECKSUM
        at = start + length + _CHECKSUM
        if at <= len(content):
            yield content[start : start + length]


def _last_logged_step(folder: Path, kind: Any) -> int:
    """The last step of which a reader of the folder's events has anything, or -1."""
    last = -1
    for file in sorted(folder.glob("events.out.tfevents.*")):
        for event in map(kind.FromString, _records(file.read_bytes())):
            last = min(last, event.step - 1) if event.HasField("session_log") else last
            last = max(last, event.step) if event.summary.value else last
    return last


class TensorBoard:
    """Events in the folder tensorboard/ of a run, for ``tensorboard --logdir RUN``.

    They are written at once and by this thread: the package's own writer has a thread and a queue, and where the thread
    fails, the queue fills and the trainer waits for ever. Each start records from which step on it logs all; readers
    drop what earlier starts logged of those steps. It is the last logged step, as a kill may have truncated it.

    Args:
        run_dir: the run's folder.
        step: the run goes on from.
    """

    def __init__(self, run_dir: Path, step: int) -> None:
        from tensorboardX import RecordWriter, summary

        event_pb2: Any = importlib.import_module("tensorboardX.proto.event_pb2")
        folder = run_dir / "tensorboard"
        folder.mkdir(exist_ok=True)
        self._summary, self._event = summary, event_pb2.Event
        self.last_logged_step = min(step, max(0, _last_logged_step(folder, self._event)) - 1)
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._writer = RecordWriter(str(folder / name))
        try:
            self._add(file_version="brain.Event:2")
            self._add(step=self.last_logged_step + 1, session_log=start)
            self._writer.flush()
        except OSError:
            self.close()
            raise

    def _add(self, **content: Any) -> None:
        self._writer.write(self._event(wall_time=time.time(), **content).SerializeToString())

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Writes scalars.

        Raises:
            OSError: the file cannot be written.
        """
        for name, number in numbers.items():
            self._add(step=step, summary=self._summary.scalar(name, number))
        self._writer.flush()

    def write_picture(self, step: int, file: Path) -> None:
        """Writes the picture.

        Raises:
            OSError: the file cannot be written.
        """
        with Image.open(file) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        self._add(step=step, summary=self._summary.image("samples", pixels, dataformats="HWC"))
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()
