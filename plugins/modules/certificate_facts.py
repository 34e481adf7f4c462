# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: certificate_facts
short_description: Read the state of a node's certificate
version_added: "0.1.0"
author:
  - BZZZ cluster setup maintainers (@bzzz)
description:
  - Tells whether a node's certificate is good, and what authority a coordinator keeps.
  - Runs as an action plugin that asks the node with one SSH round trip.
options:
  tls_directory:
    description: Directory of C(node.key), C(node.crt) and C(ca.crt).
    type: path
    required: true
  ca_directory:
    description: Directory of the authority, C(ca.key) and C(ca.crt).
    type: path
    required: true
  names:
    description: DNS names and addresses the certificate must be valid for.
    type: list
    elements: str
    required: true
  renew_before_days:
    description: A certificate with fewer days left is not good.
    type: int
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
- name: Is the certificate good
  bzzz.cluster.certificate_facts:
    tls_directory: /etc/bzzz/tls
    ca_directory: /var/lib/bzzz/ca
    names: [node1, 10.0.0.1]
    renew_before_days: 30
"""

RETURN = r"""
authority:
  description: The authority kept on this node, C(certificate) (PEM) and C(fingerprint) (SHA-256); nothing without its key.
  returned: always
  type: dict
next:
  description: The same of the authority that is to follow, during a rotation.
  returned: always
  type: dict
held:
  description: Whether that one has only been announced.
  returned: always
  type: bool
leaf:
  description:
    - The certificate of this node; C(certificate) (PEM), C(trusted) (fingerprints of the authorities that the node trusts), C(issuer) (the one
      of them that has issued it), C(problems) (why a new one is needed, in words).
  returned: always
  type: dict
"""
