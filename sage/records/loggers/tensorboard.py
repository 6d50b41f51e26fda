"""A run as an event file that TensorBoard reads. tensorboard is imported here at the top: import this lazily.

The file is a function of the records: whoever begins a run writes it anew, from its first step, and removes
what an earlier process has left. So no point stands there twice, whoever reads it. A session's start at
step 0 makes a TensorBoard that has the old file in memory forget it: it drops what has that step or a later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.text import metadata as text
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from sage.records.loggers.base import About, Destination, Point

SUFFIX = ".sage"
"""Ends the names of the event files that are ours to replace."""
SHOWN_TURNS = 60
"""Rows of the table of turns: TensorBoard shows a text whole."""
_STATUS = {"done": api_pb2.STATUS_SUCCESS, "failed": api_pb2.STATUS_FAILURE}


class EventFile(Destination):
    """The event file of one run, below `folder`."""

    def __init__(self, folder: str) -> None:
        self._root = Path(folder)
        self._path: Path | None = None
        self._writer: EventFileWriter | None = None
        self._last = (0.0, 0)
        """Wall time in seconds and step of the newest point."""

    def begin(self, about: About) -> int:
        folder = self._root / re.sub(r"[^\w\-.+=]", "_", about.name)
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"events.out.tfevents.*{SUFFIX}"):
            old.unlink(missing_ok=True)
        self._writer = EventFileWriter(str(folder), filename_suffix=SUFFIX)
        (self._path,) = folder.glob(f"events.out.tfevents.*{SUFFIX}")
        start = about.started_ms / 1000
        self._last = (start, 0)
        session = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._writer.add_event(event_pb2.Event(wall_time=start, step=0, session_log=session))
        self._add_settings(about, start)
        return -1

    def send(self, points: Sequence[Point]) -> None:
        for point in points:
            value = summary_pb2.Summary.Value(tag=point.key, simple_value=point.value)
            self._add(value, point.timestamp_ms / 1000, point.step)
            self._last = (point.timestamp_ms / 1000, point.step)
        self._opened().flush()

    def turns(self, table: Mapping[str, Sequence[Any]]) -> None:
        rows = list(zip(*table.values(), strict=True))[-SHOWN_TURNS:]
        if rows:
            self._add(_text("turns", _markdown(list(table), rows)), *self._last)
            self._opened().flush()

    def end(self, state: str, single: Sequence[Point]) -> None:
        self.send(single)
        if state in _STATUS:
            ended = plugin_data_pb2.SessionEndInfo(status=_STATUS[state], end_time_secs=self._last[0])
            data = plugin_data_pb2.HParamsPluginData(session_end_info=ended)
            self._add(_hparams(hparams.SESSION_END_INFO_TAG, data), self._last[0], 0)
        self._opened().close()
        self._writer = None

    def is_alive(self) -> bool:
        return self._writer is not None and self._path is not None and self._path.exists()

    def _opened(self) -> EventFileWriter:
        if self._writer is None:
            raise RuntimeError("the event file was not begun")
        return self._writer

    def _add(self, value: summary_pb2.Summary.Value, wall_time: float, step: int) -> None:
        summary = summary_pb2.Summary(value=[value])
        self._opened().add_event(event_pb2.Event(wall_time=wall_time, step=step, summary=summary))

    def _add_settings(self, about: About, start: float) -> None:
        """As hyperparameters, by which TensorBoard filters and compares runs, and as a text."""
        info = plugin_data_pb2.SessionStartInfo(start_time_secs=start, group_name=about.key)
        for name, value in about.params.items():
            info.hparams[name].string_value = value
        data = plugin_data_pb2.HParamsPluginData(session_start_info=info)
        self._add(_hparams(hparams.SESSION_START_INFO_TAG, data), start, 0)
        table = _markdown(["", ""], [*about.tags.items(), *about.params.items()])
        self._add(_text("settings", table), start, 0)


def _hparams(tag: str, data: plugin_data_pb2.HParamsPluginData) -> summary_pb2.Summary.Value:
    metadata = hparams.create_summary_metadata(data)
    return summary_pb2.Summary.Value(tag=tag, metadata=metadata, tensor=hparams.NULL_TENSOR)


def _text(tag: str, markdown: str) -> summary_pb2.Summary.Value:
    metadata = text.create_summary_metadata(tag, "")
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[markdown.encode()])
    return summary_pb2.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table whose cells are shown as they are: nothing in them is markup."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    shown = f"{value:.4g}" if isinstance(value, float) else str(value)
    shown = re.sub(r"([\\`*_{}\[\]()#+\-.!|<>~&])", r"\\\1", shown)
    return re.sub(r"\s*\n\s*", " ", shown)
