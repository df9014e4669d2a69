"""bayesphase against its peers, measured in the same run: ``python -m tests.benchmarks``."""
