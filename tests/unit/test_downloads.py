# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Proxies, certificates and mirrors: what is refused, who goes direct, and downloads of the admin host the declared way."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest
from ansible_collections.bzzz.cluster.plugins.filter.proxy_environment import proxy_environment
from ansible_collections.bzzz.cluster.plugins.module_utils.downloads import (
    Way,
    direct_hosts,
    download,
    goes_direct,
    login,
    way,
    without_proxy,
)
from ansible_collections.bzzz.cluster.plugins.module_utils.rules.downloads import files, judge_certificates
from cryptography.hazmat.primitives.serialization import Encoding
from declarations import about, cluster_of, declared_of, judge
from hypothesis import given
from hypothesis import strategies as st
from stand_ins import ELSEWHERE, NOW, Proxy, certificate, https, key_pem, pem

from bzzz_setup.declaration import Declaration
from bzzz_setup.downloading import declared, for_pip
from bzzz_setup.events import Refusal

PASSWORD = "pa:ss%41@w/ord#"
PROXY = {"downloads_http_proxy": "http://proxy.example.com:3128"}

WRONG: dict[str, tuple[str, Any, str]] = {
    "no scheme": ("downloads_http_proxy", "proxy.example.com:3128", "Write http://proxy.example.com:3128."),
    "https": ("downloads_https_proxy", "https://proxy.example.com:3128", "Write http://proxy.example.com:3128."),
    "socks": ("downloads_http_proxy", "socks5://proxy.example.com:1080", "Write http://proxy"),
    "no host": ("downloads_http_proxy", "http://:3128", "Write for example"),
    "no port": ("downloads_http_proxy", "http://proxy:99999", "Write for example"),
    "a path": ("downloads_http_proxy", "http://proxy.example.com/proxy.pac", "Write for example"),
    "a quote": ("downloads_http_proxy", 'http://proxy.example.com:3128";x "', "Write for example"),
    "a file": ("downloads_apt_mirror", "file:///srv/debian", "https://mirror.example.com/debian"),
    "a word": ("downloads_apt_mirror", "mirror", "https://mirror.example.com/debian"),
    "two words": ("downloads_apt_mirror", "http://mirror.example.com/debian bookworm", "%20"),
    "a query": ("downloads_apt_security_mirror", "https://mirror.example.com/debian?x=1", "Write for example"),
    "a URL as host": ("downloads_no_proxy", ["http://mirror.example.com/"], "Write names"),
    "host bits": ("downloads_no_proxy", ["10.0.0.5/24"], "Write names"),
    "a suite": ("downloads_apt_suites", ["bookworm\nTrusted: yes"], "Write for example"),
}


@pytest.mark.requirement("3.6.3", part="proxies as services have them")
def test_proxies_as_services_have_them() -> None:
    options = {"http_proxy": "http://proxy.example.com:3128", "https_proxy": None, "no_proxy": [".corp.example"]}
    nodes = [{"name": "n1", "address": "10.0.0.11"}]
    text = proxy_environment(options, nodes, "10.0.0.0/24")
    assert text.splitlines()[1:] == [
        "HTTP_PROXY=http://@@proxy_login@@proxy.example.com:3128",
        "HTTPS_PROXY=http://@@proxy_login@@proxy.example.com:3128",
        "NO_PROXY=.corp.example,n1,10.0.0.11,10.0.0.0/24,localhost,127.0.0.0/8,::1",
    ]
    only = proxy_environment({**options, "http_proxy": None, "https_proxy": "https://p:1"}, nodes, None).splitlines()
    assert only[1] == "HTTPS_PROXY=https://@@proxy_login@@p:1" and len(only) == 3
    assert proxy_environment({**options, "http_proxy": None}, nodes, None) == ""
    assert (login("anna:p@ss/word:x"), login("")) == ("anna:p%40ss%2Fword%3Ax@", "")


@pytest.mark.requirement("T4", part="addresses of proxies and mirrors")
@pytest.mark.parametrize("case", WRONG)
def test_wrong_addresses_are_refused_with_a_remedy(case: str) -> None:
    option, value, remedy = WRONG[case]
    found = about(judge({**PROXY, "downloads_apt_mirror": "https://m.example.com/debian", option: value}), option)
    assert found and all(problem["severity"] == "error" and problem["value"] is not None for problem in found)
    assert all(remedy in problem["remedy"] for problem in found), found


@pytest.mark.parametrize("option", ["downloads_http_proxy", "downloads_https_proxy", "downloads_apt_mirror", "downloads_no_proxy"])
def test_a_password_in_an_address_is_refused_and_not_repeated(option: str) -> None:
    url = "http://builder:hunter2@proxy.example.com:3128"
    problems = judge({option: [url] if option.endswith("no_proxy") else url, **({} if "http" in option else PROXY)})
    assert "error" in {problem["severity"] for problem in about(problems, option)}
    assert "hunter2" not in json.dumps(problems) and "builder" not in json.dumps(problems)


@pytest.mark.parametrize(
    "secret", ["builder", "builder:", ":hunter2", "build er:hunter2", "builder:hunter 2", "builder:hunter2\n", "builder:hüntér"]
)
def test_credentials_of_no_use_are_refused_and_not_repeated(secret: str) -> None:
    problems = judge({**PROXY, "downloads_proxy_credentials": secret})
    (first, *_) = about(problems, "downloads_proxy_credentials")
    assert first["severity"] == "error" and "user:password" in first["message"] and first["value"] is None
    assert "hunter" not in json.dumps(problems)


def test_good_ones_pass() -> None:
    good = {
        **PROXY,
        "downloads_https_proxy": "http://[fd00::1]:3128/",
        "downloads_proxy_credentials": f"builder:{PASSWORD}",
        "downloads_no_proxy": [".corp.example", "*.lan", "mirror", "10.0.0.0/8", "fd00::/8", "192.0.2.1"],
        "downloads_apt_mirror": "https://mirror.example.com:8443/debian/",
        "downloads_apt_security_mirror": "",
        "downloads_apt_suites": ["bookworm", "stable/updates"],
    }
    assert judge(good) == []


def test_what_has_no_effect_is_pointed_out() -> None:
    problems = judge({"downloads_proxy_credentials": "a:b", "downloads_no_proxy": ["x"], "downloads_apt_components": ["main"]})
    assert {problem["option"] for problem in problems} == {
        "downloads_proxy_credentials",
        "downloads_no_proxy",
        "downloads_apt_components",
    }
    assert {problem["severity"] for problem in problems} == {"warning"}


BUNDLES = {
    "good": (lambda: pem(certificate()[0]) + "# and\r\n" + pem(certificate()[0]), None, ""),
    "expired": (lambda: pem(certificate("Old", ends=-0.5, begins=-9)[0]), "error", "CN=Old) has expired on"),
    "too early": (lambda: pem(certificate(begins=1)[0]), "error", "on only"),
    "soon": (lambda: pem(certificate(ends=20)[0]), "warning", "expires on"),
    "a server's": (lambda: pem(certificate(ca=False)[0]), "warning", "no authority's"),
    "a key": (lambda: pem(certificate()[0]) + key_pem(certificate()[1]), "error", "private key"),
    "cut off": (lambda: pem(certificate()[0]).replace("\n", "\nAAAA", 2), "error", "damaged"),
    "nothing": (lambda: "hello", "error", "no certificate"),
}


@pytest.mark.requirement("T4", part="certificates of downloads")
@pytest.mark.parametrize("case", BUNDLES)
def test_certificates_are_judged(case: str) -> None:
    make, severity, message = BUNDLES[case]
    found = list(judge_certificates(make(), NOW))
    assert [one[0] for one in found] == ([severity] if severity else [])
    assert all(message in one[1] and one[2] for one in found)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(pem(certificate()[0]))
    (tmp_path / "ca.der").write_bytes(certificate()[0].public_bytes(Encoding.DER))
    (tmp_path / "secret.asc").write_text("-----BEGIN PGP PRIVATE KEY BLOCK-----\n")
    cluster = cluster_of(1)
    names = ["ca.pem", "ca.der", str(tmp_path / "gone.pem")]
    declared, _ = declared_of(cluster, {"downloads_ca_files": names, "downloads_apt_key_file": "secret.asc"})
    found = list(files(declared, {"n1": tmp_path}, NOW))
    assert [(problem["option"], problem["value"], problem["severity"]) for problem in found] == [
        ("downloads_ca_files", "ca.der", "error"),
        ("downloads_ca_files", names[2], "error"),
        ("downloads_apt_key_file", "secret.asc", "error"),
    ]
    assert "binary" in found[0]["message"] and "No such file" in found[1]["message"] and "private key" in found[2]["message"]


@pytest.mark.parametrize(
    ("host", "entry", "direct"),
    [
        ("mirror.example.com", ".example.com", True),
        ("mirror.example.com", "example.com", True),
        ("example.com", "*.example.com", True),
        ("badexample.com", "example.com", False),
        ("MIRROR", "mirror", True),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("[fd00::5]", "fd00::/8", True),
        ("10.1.2.3", "example.com", False),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("anything", "*", True),
        ("anything", ".", False),
    ],
)
def test_who_goes_direct(host: str, entry: str, direct: bool) -> None:
    assert goes_direct(host, [entry]) is direct


def test_the_cluster_itself_goes_direct_always() -> None:
    cluster = cluster_of(2)
    all_of_it = without_proxy(["mirror.corp"], cluster["nodes"], "10.0.0.0/24")
    assert all(goes_direct(host, all_of_it) for host in ("n1", "n2", "10.0.0.11", "10.0.0.200", "mirror.corp", "localhost", "127.0.0.5"))
    assert not goes_direct("deb.debian.org", all_of_it)
    # apt is told of hosts, and of those mirrors that are in a domain or network.
    hosts = direct_hosts(["https://a.lan/debian", "http://10.0.0.9/x", "http://b.example/x"], [".lan", *all_of_it])
    assert {"n1", "n2", "10.0.0.11", "10.0.0.12", "mirror.corp", "a.lan", "10.0.0.9"} <= set(hosts) and "b.example" not in hosts
    assert not [host for host in hosts if "/" in host or host.startswith(".")]


@given(st.text(min_size=1), st.text(min_size=1))
def test_any_password_fits_into_a_proxys_address(user: str, password: str) -> None:
    user = user.replace(":", "-")
    by = way({"http_proxy": "http://proxy.example.com:3128"}, f"{user}:{password}", Path("/"))
    parts = urlsplit(by.http)
    assert (unquote(parts.username), unquote(parts.password), parts.hostname, parts.port) == (user, password, "proxy.example.com", 3128)
    assert by.https == by.http and by.http not in repr(by)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server that only the CA file makes trusted, and a proxy with a password."""
    for name in ("no_proxy", "NO_PROXY", "https_proxy", "HTTPS_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    authority = certificate()
    (tmp_path / "ca.pem").write_text(pem(authority[0]))
    content = {"/index.json": b'{"releases": []}', "/away": b"http://localhost:1/"}
    with https(tmp_path, authority, content) as url, Proxy(f"builder:{PASSWORD}").running() as proxy:
        yield url, proxy, tmp_path


def read(url: str, by: Way) -> bytes:
    with download(url, by, timeout=10) as answer:
        return bytes(answer.read())


@pytest.mark.requirement("T4", part="downloads of the admin host by the declared proxy and certificates")
def test_the_admin_host_downloads_the_declared_way(site: Any) -> None:
    url, proxy, folder = site
    options = {"http_proxy": None, "https_proxy": proxy.url, "ca_files": ["ca.pem"]}
    assert read(f"{url}/index.json", way(options, f"builder:{PASSWORD}", folder)) == b'{"releases": []}'
    assert proxy.asked == [(url.removeprefix("https://"), f"builder:{PASSWORD}")]
    with pytest.raises(OSError, match="407") as told:
        read(f"{url}/index.json", way(options, "builder:wrong-pass", folder))
    assert "wrong-pass" not in str(told.value)
    with pytest.raises(OSError, match="certificate verify failed"):
        read(f"{url}/index.json", way({**options, "ca_files": []}, f"builder:{PASSWORD}", folder))
    asked = len(proxy.asked)
    assert read(f"{url}/index.json", way(options, "", folder, ["localhost"])) == b'{"releases": []}'
    assert len(proxy.asked) == asked, "a host of no_proxy was asked for at the proxy"
    with pytest.raises(OSError, match="not HTTPS"):
        read(f"{url}/away", way(options, "", folder, ["localhost"]))
    proxy.url = "http://127.0.0.1:1"
    with pytest.raises(OSError, match="refused"):
        read(f"{url}/index.json", way({**options, "https_proxy": proxy.url}, "", folder))


def wheel(name: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        about = f"{name}-1.0.dist-info"
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return content.getvalue()


@pytest.mark.requirement("T4", part="pip on the admin host by the declared proxy and certificates")
def test_pip_goes_the_declared_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    authority = certificate()
    file = "thing-1.0-py3-none-any.whl"
    pages = {"/simple/thing/": f'<a href="/{file}">{file}</a>'.encode(), f"/{file}": wheel("thing")}
    folder = tmp_path / "inventory"
    with https(tmp_path, authority, pages) as url, Proxy(f"builder:{PASSWORD}").running() as proxy:
        monkeypatch.setenv("PIP_INDEX_URL", url.replace("localhost", ELSEWHERE) + "/simple")
        options = {"declaration_cluster_name": "trial", "downloads_https_proxy": proxy.url, "downloads_ca_files": ["ca.pem"]}
        Declaration(folder, {}, options, secrets={"downloads_proxy_credentials": f"builder:{PASSWORD}"}).create()
        (folder / "ca.pem").write_text(pem(authority[0]))

        def pip() -> subprocess.CompletedProcess[str]:
            argv = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--no-deps",
                "--retries",
                "0",
                "--timeout",
                "5",
                "-d",
                str(tmp_path / "got"),
                "thing",
            ]
            return subprocess.run(argv, capture_output=True, text=True, check=False)

        assert pip().returncode, "there is another way"
        before = dict(os.environ)
        with for_pip(declared(Declaration.read(folder))):
            assert not {name for name, value in os.environ.items() if PASSWORD in value or quote(PASSWORD, safe="") in value}
            done = pip()
        assert done.returncode == 0, done.stdout + done.stderr
        assert (tmp_path / "got" / file).is_file() and dict(os.environ) == before
        assert set(proxy.asked) == {(f"{ELSEWHERE}:{url.rpartition(':')[2]}", f"builder:{PASSWORD}")}
        # Where nothing is declared, nothing of pip's own is touched.
        with for_pip(declared(Declaration(folder, {}, {}))):
            assert dict(os.environ) == before
        with pytest.raises(Refusal, match=r"gone\.pem cannot be read"):
            declared(Declaration(folder, {}, {**options, "downloads_ca_files": ["gone.pem"]}))


@pytest.mark.requirement("T4", part="downloads of the admin host by its environment")
def test_without_a_declaration_the_environment_decides(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url, proxy, folder = site
    with pytest.raises(OSError, match="certificate verify failed"):
        read(f"{url}/index.json", Way())
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(folder / "ca.pem"))
    assert read(f"{url}/index.json", Way()) == b'{"releases": []}' and proxy.asked == []
    monkeypatch.setenv("https_proxy", proxy.url.replace("//", "//builder:p@"))
    with pytest.raises(OSError, match="407"):
        read(f"{url}/index.json", Way())
    assert proxy.asked == [(url.removeprefix("https://"), "builder:p")]
    declared = way({"https_proxy": proxy.url, "on_admin_host": False}, "a:b", folder)
    assert declared == Way()


@pytest.mark.requirement("T4", part="a release index by the declared proxy and certificates")
def test_a_play_downloads_the_declared_way(site: Any) -> None:
    """The password is given as a template, as it may be in an inventory, and shows nowhere."""
    url, proxy, folder = site
    there = url.replace("localhost", ELSEWHERE)
    options = {
        "downloads_https_proxy": proxy.url,
        "downloads_ca_files": ["ca.pem"],
        "downloads_proxy_credentials": "{{ parts | join(':') }}",
        "parts": ["builder", PASSWORD],
    }
    Declaration(
        folder / "inventory", {"bzzz": {"children": {"coordinators": {"hosts": {"n1": {"ansible_host": "192.0.2.1"}}}}}}, options
    ).create()
    (folder / "inventory/ca.pem").write_text((folder / "ca.pem").read_text())
    tasks: list[dict[str, Any]] = [
        {"bzzz.cluster.declaration": {"stage": "literal"}},
        {"ansible.builtin.assert": {"that": [f"(lookup('bzzz.cluster.download', '{there}/index.json') | from_json).releases == []"]}},
    ]
    (folder / "play.yml").write_text(json.dumps([{"hosts": "bzzz", "gather_facts": False, "tasks": tasks}]))

    def play() -> subprocess.CompletedProcess[str]:
        argv = [Path(sys.executable).with_name("ansible-playbook"), "-vvv", "-i", folder / "inventory/hosts.yml", folder / "play.yml"]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    done = play()
    assert done.returncode == 0, done.stdout + done.stderr
    assert proxy.asked == [(there.removeprefix("https://"), f"builder:{PASSWORD}")]
    assert PASSWORD not in done.stdout + done.stderr and quote(PASSWORD, safe="") not in done.stdout + done.stderr
    proxy.login = "builder:changed"
    refused = play()
    assert refused.returncode == 2 and "407" in refused.stdout and "downloads_* options" in refused.stdout
    assert PASSWORD not in refused.stdout + refused.stderr
    (folder / "inventory/ca.pem").write_text("nothing")
    assert "no certificate in PEM form" in play().stdout
