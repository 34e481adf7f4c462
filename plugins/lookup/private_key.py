# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: private_key
short_description: Private key in a file of the admin host, decrypted in memory
version_added: "0.1.0"
author:
  - BZZZ cluster setup maintainers (@bzzz)
description:
  - Gives the key in PEM form (PKCS #8), without encryption. It is for C(secrets) of M(bzzz.cluster.config_set), and nothing else.
options:
  _terms:
    description: Files on the admin host.
    required: true
  passphrase:
    description: What the keys are encrypted with, if they are.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: A server's key
  bzzz.cluster.config_set:
    name: web
    files:
      - path: /etc/ssl/private/web.key
        content: "@@key@@"
        mode: "0600"
    secrets:
      key: "{{ lookup('bzzz.cluster.private_key', '/srv/keys/web.pem', passphrase=web_passphrase) }}"
"""

RETURN = r"""
_list:
  description: The keys.
  type: list
  elements: str
"""

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.bzzz.cluster.plugins.module_utils.uploaded import plain_key


class LookupModule(LookupBase):
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        return [self._key(Path(path).expanduser(), str(kwargs.get("passphrase") or "")) for path in terms]

    @staticmethod
    def _key(path: Path, passphrase: str) -> str:
        try:
            return plain_key(path.read_text(encoding="utf-8"), passphrase)
        except (OSError, ValueError) as error:  # UnicodeDecodeError is a ValueError
            why = error.strerror if isinstance(error, OSError) else "it is no text" if isinstance(error, UnicodeDecodeError) else error
            raise AnsibleLookupError(f"{path}: {why} Remedy: see tls_key_file and tls_key_passphrase.") from None
