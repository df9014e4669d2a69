"""What other tools logged, as a metrics Dataset."""

from bayesphase.recording.importers.read import read_log

__all__ = ["read_log"]
