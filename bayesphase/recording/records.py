"""What was measured of each checkpoint, kept on disk from the moment it is known."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Records:
    """One line of JSON per checkpoint, each durable once it is added; the last of a place counts.

    A line that a crash cut short is dropped. Floats are written so that they read back the same,
    bit for bit. A selection that many checkpoints share has one line of its own.

    Parameters
    ----------
    path : Path or None
        The file, or None to keep records in memory only.
    settings : dict
        What the records were made with; those of other settings are not mixed in.

    Raises
    ------
    ValueError
        If the file has records made with other settings, or is no file of records.
    """

    def __init__(self, path: Path | None, settings: dict[str, Any]) -> None:
        self.path = path
        self._by_place: dict[tuple[str, int], dict[str, Any]] = {}
        self.selections: dict[str, dict[str, Any]] = {}
        settings = json.loads(json.dumps(settings))
        if path is None:
            return
        whole = 0
        if path.exists():
            whole = self._load(path, settings)
        if not whole:
            self._append({"settings": settings}, truncate=0)
        elif whole < path.stat().st_size:
            os.truncate(path, whole)

    def _load(self, path: Path, settings: dict[str, Any]) -> int:
        """Read the file, and return the length of what is whole in it."""
        whole = 0
        with path.open("rb") as file:
            for number, line in enumerate(file):
                try:
                    record = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:
                    record = None
                if record is None:
                    if file.read(1):
                        raise ValueError(
                            f"{path}, line {number + 1}, is damaged: delete the file to measure "
                            "all again"
                        )
                    break
                if number == 0 and record.get("settings") != settings:
                    raise ValueError(
                        f"{path} was recorded with other settings: "
                        f"{_changed(record.get('settings') or {}, settings)}. Write to another "
                        "file, or delete that one to measure all again"
                    )
                whole += len(line)
                if "digest" in record:
                    self.selections[record["digest"]] = record["selection"]
                elif number:
                    self._by_place[record["run"], record["step"]] = record
        return whole

    def add(self, record: dict[str, Any]) -> None:
        """Keep a record; it has `run` and `step`. When this returns it is on the disk."""
        if "selection" in record:
            text = json.dumps(record["selection"])
            digest = hashlib.sha256(text.encode()).hexdigest()[:16]
            if digest not in self.selections:
                self.selections[digest] = json.loads(text)
                if self.path is not None:
                    self._append({"digest": digest, "selection": record["selection"]})
            record = record | {"selection": digest}
        self._by_place[record["run"], record["step"]] = record
        if self.path is not None:
            self._append(record)

    def _append(self, record: dict[str, Any], truncate: int | None = None) -> None:
        assert self.path is not None
        with self.path.open("ab") as file:
            if truncate is not None:
                file.truncate(truncate)
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def get(self, run: str, step: int) -> dict[str, Any] | None:
        """Return the record of a checkpoint, or None."""
        return self._by_place.get((run, step))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Iterate over the records in the order of run and step."""
        return (self._by_place[place] for place in sorted(self._by_place))


def _changed(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Say which settings differ: their values, but of metrics the names."""
    before, now = before | before.get("rule", {}), now | now.get("rule", {})
    said = []
    for name in sorted((before.keys() | now.keys()) - {"rule"}):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if name == "metrics":
            old, new = old or {}, new or {}
            for what, these in (
                ("without", [n for n in old if n not in new]),
                ("also with", [n for n in new if n not in old]),
                ("another definition of", [n for n in new if n in old and old[n] != new[n]]),
            ):
                if these:
                    said.append(f"metrics are now {what} {', '.join(these)}")
        else:
            said.append(f"{name} was {old!r}, now it is {new!r}")
    return "; ".join(said)
