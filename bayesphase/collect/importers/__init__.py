"""What other tools logged, as a metrics Dataset."""

from bayesphase.collect.importers.read import read_log

__all__ = ["read_log"]
