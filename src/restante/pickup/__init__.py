"""Takes what programs on this host have dropped into the queue: once each, whatever crashes.

The steps, and what a crash leaves at each, are written in docs/internals.md.
"""

from __future__ import annotations
