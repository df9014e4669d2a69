"""Scalars in the event files of TensorBoard, read by TensorBoard itself."""

from __future__ import annotations

from pathlib import Path

from bayesphase.recording.importers.log import Log

MARK = "tfevents"


def read_event_file(path: Path, log: Log, *, label: str) -> None:
    """Put the scalars of one event file into the log.

    A file that is cut off, or broken somewhere, gives what comes before: records carry checksums.

    Raises
    ------
    ImportError
        If TensorBoard is not installed.
    ValueError
        If it is no event file.
    """
    try:
        from google.protobuf.message import DecodeError
        from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
        from tensorboard.util.tensor_util import make_ndarray
    except ImportError as error:
        raise ImportError(
            f"{path}: event files need tensorboard, install bayesphase[logs]"
        ) from error
    scalars: set[str] = set()  # of tags with tensors, only the first value says what they are
    events = 0
    try:
        for event in LegacyEventFileLoader(str(path)).Load():
            events += 1
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars":
                    scalars.add(value.tag)
                if value.HasField("simple_value"):
                    log.add(label, event.step, value.tag, value.simple_value)
                elif value.tag in scalars:
                    log.add(label, event.step, value.tag, float(make_ndarray(value.tensor).item()))
                else:
                    what = value.metadata.plugin_data.plugin_name or value.WhichOneof("value")
                    log.skip(f"{what}, no scalar", f"{path}: {value.tag} at step {event.step}")
    except (DecodeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: event {events + 1} can't be read: {error}") from error
    if not events:
        raise ValueError(f"{path}: no event of TensorBoard in it")
    if events != _records(path):
        log.lose(f"cut off or broken after {events} events", str(path))


def _records(path: Path) -> int:
    """Count the records by their lengths, the last one also if it is cut off.

    Each is a length in 8 bytes, its checksum in 4, the data, and their checksum in 4.
    """
    size = path.stat().st_size
    count = at = 0
    with path.open("rb") as file:
        while at < size:
            file.seek(at)
            at += int.from_bytes(file.read(8), "little") + 16
            count += 1
    return count
