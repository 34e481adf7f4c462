# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a store of keys answers, whichever it is."""

from __future__ import annotations

import dataclasses


class Unavailable(Exception):
    """No endpoint could serve the operation; the message is the reason, fit to be shown."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A key's value; ``created`` is the revision of its creation, which a key keeps until it is deleted."""

    value: bytes
    created: int
    modified: int
    lease: int
