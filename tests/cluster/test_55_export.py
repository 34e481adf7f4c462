# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is exported of a running cluster is what is on its nodes, and is of use there without us."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from conftest import Tools

# Hash, owner, group and mode of each file that a set of ours has landed.
LANDED = """
import glob, grp, hashlib, json, os, pwd
found = {}
for path in glob.glob("/var/lib/bzzz/sets/*/state.json"):
    for landed in json.load(open(path))["landed"]:
        if os.path.isfile(landed) and not os.path.islink(landed):
            seen = os.stat(landed)
            found[landed] = {"sha256": hashlib.sha256(open(landed, "rb").read()).hexdigest(), "owner": pwd.getpwuid(seen.st_uid).pw_name,
                             "group": grp.getgrgid(seen.st_gid).gr_name, "mode": "%04o" % (seen.st_mode & 0o7777)}
print(json.dumps(found))
"""
# Made on the nodes, so that no export has them, or not as they are there.
ONLY_THERE = re.compile(
    r"/etc/bzzz/(tls/.*|cluster-ca\.crt|config\.yaml)|/usr/local/share/ca-certificates/bzzz_cluster\.crt|/var/lib/bzzz/(ca|secrets)/.*"
)


@pytest.fixture(scope="module")
def exported(cluster: Tools, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "all"
    told = cluster.document("export", "all", "-o", str(folder))
    assert told["facts"] and set(told["nodes"]) == set(cluster.nodes)
    assert all("role tls" in problem["message"] for problem in told["problems"]), told["problems"]
    return folder


@pytest.mark.requirement("T3", part="files of a node")
def test_exported_files_are_those_of_the_nodes(cluster: Tools, exported: Path) -> None:
    for node in cluster.nodes:
        there = json.loads(cluster.lab.exec(node, ["python3", "-"], stdin=LANDED).stdout)
        listed = json.loads((exported / f"{node}.json").read_text())["files"]
        found = {
            item["path"]: {
                "sha256": hashlib.sha256((exported / f"{node}{item['path']}").read_bytes()).hexdigest(),
                **{key: item[key] for key in ("owner", "group", "mode")},
            }
            for item in listed
        }
        assert len(found) >= 10 and {path for path in there if not ONLY_THERE.fullmatch(path)} == {
            path for path in found if not ONLY_THERE.fullmatch(path)
        }
        assert {path: found[path] for path in found if not ONLY_THERE.fullmatch(path)} == {
            path: there[path] for path in there if not ONLY_THERE.fullmatch(path)
        }
        # The configuration differs in nothing but the token's hash.
        own = (exported / f"{node}/etc/bzzz/config.yaml").read_text().splitlines()
        theirs = cluster.lab.exec(node, ["cat", "/etc/bzzz/config.yaml"]).stdout.splitlines()
        assert [line for line, other in zip(own, theirs, strict=True) if line != other] == [
            '  token_sha256: ["(SHA-256 of the token that the coordinators keep)"]'
        ]


@pytest.mark.requirement("T3", part="systemd")
def test_exported_units_are_accepted_by_systemd(cluster: Tools, tmp_path: Path) -> None:
    told = cluster.document("export", "systemd", "--node", cluster.nodes[0])
    (node,) = told["nodes"].values()
    units = {item["path"]: item["content"] for item in node["files"]}
    assert {"bzzz.service", "bzzz.slice", "bzzz-etcd.service", "bzzz-firewall.service"} <= {Path(path).name for path in units}
    lab, name = cluster.lab, cluster.nodes[0]
    lab.exec(name, ["mkdir", "-p", "/run/exported"])
    whole = [path for path in units if path.count("/") == 4]
    for path in whole:
        lab.exec(name, ["tee", f"/run/exported/{Path(path).name}"], stdin=units[path])
    verified = lab.exec(name, ["systemd-analyze", "--man=no", "verify", *(f"/run/exported/{Path(path).name}" for path in whole)])
    assert not verified.stdout + verified.stderr
    # It would have said so of a wrong one.
    broken = units["/etc/systemd/system/bzzz.service"].replace("ExecStart=/usr", "ExecStart=usr")
    lab.exec(name, ["tee", "/run/exported/bzzz.service"], stdin=broken)
    assert lab.exec(name, ["systemd-analyze", "--man=no", "verify", "/run/exported/bzzz.service"], check=False).returncode


@pytest.mark.requirement("T3", part="environment files")
def test_exported_environment_files_are_read_by_systemd_and_shells(cluster: Tools) -> None:
    told = cluster.document("export", "env", "--node", cluster.nodes[-1])
    (node,) = told["nodes"].values()
    files = {item["path"]: item["content"] for item in node["files"]}
    assert set(files) == {"/etc/bzzz/bzzz.env", "/etc/default/prometheus-node-exporter"}
    lab, name = cluster.lab, cluster.nodes[-1]
    seen = {}
    for path, content in files.items():
        lab.exec(name, ["tee", "/run/exported.env"], stdin=content)
        argv = ["systemd-run", "--quiet", "--pipe", "--wait", "-p", "EnvironmentFile=/run/exported.env", "env"]
        seen[path] = lab.exec(name, argv).stdout
        shell = lab.exec(name, ["env", "-i", "sh", "-ac", ". /run/exported.env; /usr/bin/env"]).stdout
        assert set(shell.splitlines()) - {"PWD=/", "_=/usr/bin/env", "OLDPWD=/"} <= set(seen[path].splitlines())
    assert "BZZZ_LOG_LEVEL=info" in seen["/etc/bzzz/bzzz.env"].splitlines()
    assert "--web.listen-address=:9100" in seen["/etc/default/prometheus-node-exporter"]


@pytest.mark.requirement("T3", part="YAML: an imported declaration is the same cluster's")
def test_an_imported_declaration_changes_nothing(cluster: Tools, tmp_path: Path) -> None:
    file = cluster.document("export", "yaml", "-o", str(tmp_path / "out"))["file"]
    cluster.setup("import", file, folder=tmp_path / "again")
    assert cluster.document("plan", folder=tmp_path / "again")["changes"] == []
