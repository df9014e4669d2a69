"""One self-contained HTML page of a whole analysis, made of the tables of `bayesphase.analysis`.

The folder is not called report, so that `bayesphase.report` is the function.
"""
