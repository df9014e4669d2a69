"""The sections of a report, in the order in which they are read.

A section is a title, a template and what stands in it. To add one, write a module with a function
that makes it of the `Analysis`, and name it in `SECTIONS`; its template is ``sections/<id>.html``.
One that has nothing to say of these fits returns None and is left out.
"""

from collections.abc import Callable

from bayesphase.reporting.gather import Analysis
from bayesphase.reporting.sections import (
    believed,
    boundaries,
    changes,
    counts,
    fitted,
    forecasts,
    runs,
)
from bayesphase.reporting.sections._section import Section

SECTIONS: tuple[Callable[[Analysis], Section | None], ...] = (
    fitted.section,
    believed.section,
    counts.section,
    runs.section,
    boundaries.section,
    changes.section,
    forecasts.section,
)


def sections(analysis: Analysis) -> list[Section]:
    """Make all sections that have something to say."""
    made = (make(analysis) for make in SECTIONS)
    return [section for section in made if section is not None]
