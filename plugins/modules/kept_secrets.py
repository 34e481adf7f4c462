# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: kept_secrets
short_description: Read secrets that the cluster keeps on its coordinators
version_added: "0.1.0"
author:
  - BZZZ cluster setup maintainers (@bzzz)
description:
  - Returns the content of root-only files. The task must have C(no_log).
  - Runs as an action plugin that asks the node with one SSH round trip.
options:
  paths:
    description: The files.
    type: list
    elements: path
    required: true
attributes:
  check_mode:
    support: full
    description: Can run in check_mode and return changed status prediction without modifying target.
  diff_mode:
    support: none
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
  idempotent:
    support: full
    description: Looks only, and never changes anything.
  platform:
    support: full
    platforms: Debian, Ubuntu
    description: Target systems.
"""

EXAMPLES = r"""
- name: The token that was generated
  bzzz.cluster.kept_secrets:
    paths: [/var/lib/bzzz/secrets/service_token]
  no_log: true
  register: found
"""

RETURN = r"""
secrets:
  description: Content by path, of the files that exist.
  returned: always
  type: dict
"""
