# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The front's own downloads, which pip makes: by the declared proxy and certificates, else as pip is set up here."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from ansible_collections.bzzz.cluster.plugins.module_utils.declaration import coerce, load_specs
from ansible_collections.bzzz.cluster.plugins.module_utils.downloads import BUNDLES, Way, goes_direct, way, without_proxy
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from bzzz_setup.declaration import VAULT, Declaration, Unsafe, decrypted, write
from bzzz_setup.events import Refusal

ROLE, SECRET = "downloads", "downloads_proxy_credentials"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
INDEX = "https://pypi.org/simple"


def declared(declaration: Declaration) -> Way:
    """As far as it is written down for all nodes: only Ansible can work out templates. Raises Refusal for what it cannot read."""
    found = {}
    for name, spec in load_specs()[ROLE]["options"].items():
        value = declaration.options.get(name, spec.get("default"))
        template = isinstance(value, str) and not isinstance(value, Unsafe) and "{{" in value
        with contextlib.suppress(ValueError):  # the run itself refuses it, with a remedy
            found[name.removeprefix(f"{ROLE}_")] = None if value is None or template else coerce(name, spec, value)
    no_proxy = without_proxy(found.get("no_proxy") or [])
    credentials = _credentials(declaration) if found.get("http_proxy") or found.get("https_proxy") else ""
    try:
        return way(found, credentials, _folder(declaration), no_proxy)
    except (OSError, UnicodeDecodeError) as error:
        why = f"{error.filename} cannot be read: {error.strerror}" if isinstance(error, OSError) else "one of the files is no text"
        raise Refusal(why, "Name PEM files that this user can read.", option="downloads_ca_files") from error


def _folder(declaration: Declaration) -> Path:
    return declaration.folder if declaration.folder.is_dir() else declaration.folder.parent


def _credentials(declaration: Declaration) -> str:
    """From the vault file, be it encrypted with the cluster's key or not at all; elsewhere only Ansible finds it."""
    file = _folder(declaration) / VAULT
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    content = decrypted(text, declaration.cluster) or {}
    return str(content.get(SECRET) or declaration.options.get(SECRET) or "")


@contextlib.contextmanager
def for_pip(by: Way) -> Iterator[None]:
    """While entered, pip goes this way. It reads it from a private file: neither its arguments nor its environment show a password."""
    if by == Way(no_proxy=by.no_proxy):
        yield
        return
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="bzzz-pip-") as scratch:
        settings = _pip_settings()
        lines = ["[global]"]
        proxy = by.https or by.http
        if proxy and not goes_direct(urlsplit(settings.get("index-url", INDEX)).hostname or "", by.no_proxy):
            lines.append(f"proxy = {proxy}")
            _forget("PIP_PROXY", *PROXIES)
        if by.certificates:
            trusted = Path(settings.get("cert") or next(filter(None, map(os.environ.get, BUNDLES)), None) or DEFAULT_CA_BUNDLE_PATH)
            bundle = Path(scratch, "ca.pem")
            write(bundle, trusted.read_text(encoding="utf-8") + "\n" + by.certificates)
            lines.append(f"cert = {bundle}")
            _forget("PIP_CERT", *BUNDLES)
        write(Path(scratch, "pip.conf"), "\n".join([*lines, ""]), 0o600)
        os.environ["PIP_CONFIG_FILE"] = f"{scratch}/pip.conf"
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def _forget(*names: str) -> None:
    """Variables that pip's HTTP library would put before pip's own settings."""
    for name in names:
        for spelt in (name, name.upper()):
            os.environ.pop(spelt, None)


def _pip_settings() -> dict[str, str]:
    """What pip's own files and environment say, by name; the environment comes last and wins."""
    done = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    pairs = (line.partition("=") for line in done.stdout.splitlines())
    return {name.rpartition(".")[2]: value.strip("'\"") for name, _, value in pairs}
