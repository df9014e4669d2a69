"""What a section of the page is."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Section(NamedTuple):
    """A part of the page: its template is ``sections/<id>.html``, and gets the context."""

    id: str
    title: str
    context: Mapping[str, Any]
