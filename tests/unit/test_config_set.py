# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""config_set's core, with a crash between any two of its operations. systemd is simulated; the lab has the real one."""

from __future__ import annotations

import hashlib
import itertools
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bzzz.cluster.plugins.module_utils.config_set_spec import ARGUMENTS
from ansible_collections.bzzz.cluster.plugins.module_utils.node import config_set as engine
from ansible_collections.bzzz.cluster.plugins.module_utils.node import state as node_state
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

RULES = "/etc/rules"


class Crash(BaseException):
    """A kill: nothing in the code under test may catch it."""


class Systemd:
    """Units with the content of the files that each had read when it was last (re)started or reloaded."""

    def __init__(self, root: Path, files: dict[str, list[str]]) -> None:
        self.root, self.files = root, files
        self.active: dict[str, dict[str, str | None]] = {}
        self.enabled: set[str] = set()
        self.ran: list[list[str]] = []
        self.loaded = ""

    def snapshot(self, unit: str) -> dict[str, str | None]:
        paths = [Path(f"{self.root}{path}") for path in self.files.get(unit, [])]
        return {str(path): path.read_text() if path.exists() else None for path in paths}

    def run(self, argv: list[str]) -> tuple[int, str, str]:
        self.ran.append(argv)
        if argv[0] == "systemctl":
            verb = argv[1]
            for unit in [word for word in argv[2:] if not word.startswith("-")]:
                if verb in ("start", "restart", "reload-or-restart") and not (verb == "start" and unit in self.active):
                    self.active[unit] = self.snapshot(unit)
                if verb == "stop" or "--now" in argv:
                    self.active.pop(unit, None)
                if verb == "enable":
                    self.enabled.add(unit)
                if verb == "disable":
                    self.enabled.discard(unit)
        elif argv[0] == "sh":
            self.script(Path(argv[1]))
        elif argv[0] == "loader":  # stands for nft: what is in the file is then in the kernel
            self.loaded = Path(f"{self.root}{RULES}").read_text() if argv[1] == "apply" else ""
        return 0, "", ""

    def script(self, path: Path, lines: int | None = None) -> None:
        """Run a script as sh does, one command a line; a power cut comes after so many lines."""
        commands = path.read_text().splitlines()[:lines]
        for simulated, group in itertools.groupby(commands, lambda line: line.startswith(("systemctl ", "loader "))):
            for command in group if simulated else ["\n".join(group)]:
                if simulated:
                    self.run(shlex.split(command))
                else:
                    subprocess.run(["sh", "-ec", command], check=True)

    def states(self, names: list[str]) -> dict[str, dict[str, str]]:
        return {
            name: {
                "ActiveState": "active" if name in self.active else "inactive",
                "UnitFileState": "enabled" if name in self.enabled else "disabled",
                "NeedDaemonReload": "no",
            }
            for name in names
        }


class Breaking(engine.Effects):
    """Effects that stop dead at the nth operation: before it, half-way through it, or after it."""

    def __init__(self, root: str, systemd: Systemd, at: int | None = None, when: str = "before") -> None:
        super().__init__(root)
        self.systemd, self.at, self.when, self.count = systemd, at, when, 0

    def _strike(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        self.count += 1
        now = self.count == self.at
        if now and self.when == "before":
            raise Crash
        if now and self.when == "during" and method == "write":
            path, data = arguments[0], arguments[1]
            Path(f"{os.path.dirname(path)}/.{os.path.basename(path)}.bzzz").write_bytes(data[: len(data) // 2])
            raise Crash
        if now and self.when == "during" and method == "unpack":
            os.makedirs(arguments[1] + ".partial/half")
            raise Crash
        if now and self.when == "during" and method == "discard":
            os.rename(arguments[0], arguments[0] + ".partial")
            raise Crash
        result = getattr(engine.Effects, method)(self, *arguments, **keywords)
        if now:
            raise Crash
        return result

    def write(self, *a: Any, **k: Any) -> None:
        self._strike("write", *a, **k)

    def link(self, *a: Any, **k: Any) -> None:
        self._strike("link", *a, **k)

    def directory(self, *a: Any, **k: Any) -> None:
        self._strike("directory", *a, **k)

    def remove(self, *a: Any, **k: Any) -> None:
        self._strike("remove", *a, **k)

    def leave(self, *a: Any, **k: Any) -> bool:
        return bool(self._strike("leave", *a, **k))

    def unpack(self, *a: Any, **k: Any) -> None:
        self._strike("unpack", *a, **k)

    def discard(self, *a: Any, **k: Any) -> None:
        self._strike("discard", *a, **k)

    def run(self, argv: list[str], timeout: float = 900, env: dict[str, str] | None = None) -> tuple[int, str, str]:
        self.count += 1
        if self.count == self.at and self.when == "before":
            raise Crash
        result = self.systemd.run(argv)
        if self.count == self.at:
            raise Crash
        return result


def specification(**given: Any) -> dict[str, Any]:
    """Arguments as the module gets them, with their defaults."""

    def fill(options: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
        filled = {}
        for name, option in options.items():
            value = values.get(name, option.get("default"))
            if option.get("elements") == "dict":
                value = [fill(option["options"], item) for item in value or []]
            filled[name] = value
        return filled

    spec = fill(ARGUMENTS, {"name": "test", **given})
    secrets = spec.pop("secrets") or {}
    for item in spec["files"]:
        item["sha256"] = hashlib.sha256(engine.fill_secrets(item["content"], secrets).encode()).hexdigest()
    return spec


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    systemd = Systemd(tmp_path, {})
    monkeypatch.setattr(engine, "unit_states", lambda names: systemd.states(names))
    monkeypatch.setattr(node_state, "unit_states", lambda names: systemd.states(names))
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    return systemd


def land(systemd: Systemd, spec: dict[str, Any], secrets: dict[str, str] | None = None, **breaking: Any) -> list[dict[str, str]]:
    return engine.ConfigSet(spec, secrets, Breaking(str(systemd.root), systemd, **breaking), str(systemd.root)).land()


PATHS = ["/etc/app/a.conf", "/etc/app/b.conf", "/etc/c.conf"]
UNITS = ["one.service", "two.service"]


@st.composite
def declared(draw: st.DrawFn) -> dict[str, Any]:
    chosen = draw(st.lists(st.sampled_from(PATHS), unique=True))
    files = [
        {
            "path": path,
            "content": draw(st.text(alphabet="abc\n", max_size=6)),
            "mode": draw(st.sampled_from(["0644", "0600"])),
            "notify": [f"restart:{UNITS[PATHS.index(path) % 2]}"],
        }
        for path in chosen
    ]
    links = [{"path": "/etc/current", "target": draw(st.sampled_from(["r1", "r2"])), "notify": ["restart:two.service"]}]
    unwanted = ["/etc/old.conf", *(path for path in PATHS if path not in chosen)]
    absent = [
        {"path": path, "notify": [f"restart:{unit}" for unit in UNITS]} for path in draw(st.lists(st.sampled_from(unwanted), unique=True))
    ]
    return specification(
        files=files,
        links=links if draw(st.booleans()) else [],
        absent=absent,
        directories=[{"path": "/srv/data", "mode": draw(st.sampled_from(["0755", "0700"]))}],
        units=[{"name": name, "enabled": True, "active": True} for name in UNITS],
    )


@pytest.mark.requirement("L2", part="journal, simulated systemd")
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    first=declared(),
    second=declared(),
    third=st.one_of(st.none(), declared()),
    at=st.integers(1, 60),
    when=st.sampled_from(["before", "during", "after"]),
    foreign=st.lists(st.sampled_from([*PATHS, "/etc/old.conf"]), unique=True),
)
def test_a_crash_anywhere_converges(
    tmp_path_factory: Any, monkeypatch: Any, first: Any, second: Any, third: Any, at: int, when: str, foreign: Any
) -> None:
    root = tmp_path_factory.mktemp("node")
    systemd = Systemd(root, {UNITS[0]: [PATHS[0], PATHS[2]], UNITS[1]: [PATHS[1]]})
    monkeypatch.setattr(engine, "unit_states", lambda names: systemd.states(names))
    monkeypatch.setattr(node_state, "unit_states", lambda names: systemd.states(names))
    for path in foreign:
        file = Path(f"{root}{path}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"foreign {path}")
    land(systemd, first)
    try:
        land(systemd, second, at=at, when=when)
    except Crash:
        pass
    wanted = third or second
    land(systemd, wanted)
    assert node_state.inspect(wanted, str(root)) == [], "a second run would change something"
    for item in wanted["files"]:
        file = Path(f"{root}{item['path']}")
        assert file.read_text() == item["content"]
        assert file.stat().st_mode & 0o7777 == int(item["mode"], 8)
    unwanted = {item["path"] for item in wanted["absent"]}
    for path in set(PATHS) - {item["path"] for item in wanted["files"]}:
        file = Path(f"{root}{path}")
        if path in unwanted or path not in foreign:
            assert not file.exists()
        elif file.exists():  # once removed as unwanted, a foreign file is not brought back
            assert file.read_text() == f"foreign {path}"
        else:
            assert path in {item["path"] for one in (first, second) for item in one["absent"]}
    for unit in UNITS:
        assert systemd.active[unit] == systemd.snapshot(unit), f"{unit} still runs with an older configuration"
    assert land(systemd, wanted) == []


@pytest.mark.requirement("L2", part="pending reload")
def test_a_kill_between_write_and_restart_still_restarts(machine: Systemd) -> None:
    machine.files = {"one.service": ["/etc/c.conf"]}
    units = [{"name": "one.service", "enabled": True, "active": True}]
    old = specification(files=[{"path": "/etc/c.conf", "content": "old", "notify": ["restart:one.service"]}], units=units)
    new = specification(files=[{"path": "/etc/c.conf", "content": "new", "notify": ["restart:one.service"]}], units=units)
    land(machine, old)
    position = 0
    while machine.root.joinpath("etc/c.conf").read_text() != "new":  # the first kill that comes after the write
        position += 1
        shutil.rmtree(machine.root / "var/lib/bzzz")
        land(machine, old)
        with pytest.raises(Crash):
            land(machine, new, at=position, when="after")
    assert machine.active["one.service"] == {f"{machine.root}/etc/c.conf": "old"}
    assert any(change["kind"] in ("journal", "action") for change in node_state.inspect(new, str(machine.root)))
    land(machine, new)
    assert machine.active["one.service"] == {f"{machine.root}/etc/c.conf": "new"}


def test_what_has_just_started_is_not_told_to_read_its_files_again(machine: Systemd) -> None:
    def spec(command: str, content: str) -> dict[str, Any]:
        unit = {"path": "/etc/one.service", "content": command, "notify": ["daemon_reload", "restart:one.service"]}
        conf = {"path": "/etc/one.conf", "content": content, "notify": ["reload:one.service"]}
        return specification(files=[unit, conf], units=[{"name": "one.service", "enabled": True, "active": True}])

    def told() -> list[str]:
        verbs = [argv[1] for argv in machine.ran if argv[-1] == "one.service" and argv[1] in ("start", "restart", "reload-or-restart")]
        machine.ran.clear()
        return verbs

    land(machine, spec("a", "1"))
    assert told() == ["restart"]
    land(machine, spec("a", "2"))
    assert told() == ["reload-or-restart"]
    land(machine, spec("b", "3"))
    assert told() == ["restart"]


def test_secrets_are_filled_in_on_the_node_only(machine: Systemd) -> None:
    (machine.root / "etc/key.conf").write_text("key = the-older-secret\n")
    spec = specification(files=[{"path": "/etc/key.conf", "content": "key = @@api@@\n", "mode": "0600"}], secrets={"api": "canary-7"})
    one = engine.ConfigSet(spec, {"api": "canary-7"}, Breaking(str(machine.root), machine), str(machine.root))
    shown = str(one.diff())
    assert "canary-7" not in shown and "the-older-secret" not in shown and "@@api@@" in shown
    one.land()
    assert (machine.root / "etc/key.conf").read_text() == "key = canary-7\n"
    assert "canary-7" not in (machine.root / "var/lib/bzzz/sets/test/state.json").read_text()
    assert (machine.root / "var/lib/bzzz/sets/test").stat().st_mode & 0o777 == 0o700


def test_a_refused_configuration_changes_nothing(machine: Systemd) -> None:
    refused = specification(
        files=[{"path": "/etc/c.conf", "content": "bad"}],
        validators=[{"argv": ["sh", "-c", "echo $0: line 1 >&2; exit 3", "{/etc/c.conf}"]}],
    )
    with pytest.raises(engine.ConfigSetError, match=r"refuses the new configuration.*/etc/c\.conf: line 1"):
        land(machine, refused)
    assert not (machine.root / "etc/c.conf").exists()
    missing = specification(files=[{"path": "/etc/c.conf", "content": "x"}], validators=[{"argv": ["no-such-validator", "{/etc/c.conf}"]}])
    one = engine.ConfigSet(missing, {}, Breaking(str(machine.root), machine), str(machine.root))
    one.land()
    assert "not installed here yet" in one.notes[0]


def test_an_archive_is_unpacked_whole_or_not_at_all(machine: Systemd, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/program").write_text("v1")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "tree/program", "program")
    sha = hashlib.sha256((tmp_path / "a.tar.gz").read_bytes()).hexdigest()
    archive = {"path": "/opt/app/1", "sha256": sha, "uploaded": str(tmp_path / "a.tar.gz")}
    with pytest.raises(engine.ConfigSetError, match="does not have the checksum"):
        land(machine, specification(archives=[{**archive, "sha256": "0" * 64}]))
    assert not (machine.root / "opt/app/1").exists()
    with pytest.raises(Crash):
        land(machine, specification(archives=[archive]), at=3, when="during")
    land(machine, specification(archives=[archive]))
    assert (machine.root / "opt/app/1/program").read_text() == "v1"
    assert land(machine, specification(archives=[archive])) == []


def test_part_of_an_archive_is_unpacked_into_another(machine: Systemd, tmp_path: Path) -> None:
    def archive(name: str, path: str, *members: str, **more: Any) -> dict[str, Any]:
        with tarfile.open(tmp_path / name, "w") as tar:
            for member in members:
                tar.addfile(tarfile.TarInfo(member))
        sha = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        return {"path": path, "sha256": sha, "uploaded": str(tmp_path / name), **more}

    base = archive("base.tar", "/opt/app/1", "bin/program", "lib/app/base.so", keep=2)
    more = archive("more.tar", "/opt/app/1/lib/app/more", "./lib/app/more/a/b.so", "./lib/app/moreover", "c", within="lib/app/more")
    changes = land(machine, specification(archives=[base, more]))
    assert [change["name"] for change in changes if change["kind"] == "archive"] == ["/opt/app/1", "/opt/app/1/lib/app/more"]
    there = {str(path.relative_to(machine.root / "opt/app/1")) for path in (machine.root / "opt/app").rglob("*") if path.is_file()}
    marks = {node_state.ARCHIVE_MARK, f"lib/app/more/{node_state.ARCHIVE_MARK}"}
    assert there - marks == {"bin/program", "lib/app/base.so", "lib/app/more/a/b.so"}
    assert land(machine, specification(archives=[base, more])) == []
    outside = archive("evil.tar", "/opt/app/2", "lib/app/more/../../../../../evil", within="lib/app/more")
    with pytest.raises(engine.ConfigSetError, match="holds nothing in 'lib/app/more'"):
        land(machine, specification(archives=[outside]))
    assert not list(machine.root.rglob("evil"))


@pytest.mark.parametrize("when", ["before", "during", "after"])
@pytest.mark.parametrize("at", range(1, 25))
def test_only_the_last_archives_are_kept(machine: Systemd, tmp_path: Path, at: int, when: str) -> None:
    """Also after a crash at any moment; what others put beside them stays."""
    archives = {}
    for number in (1, 2, 3, 4):
        (tmp_path / "program").write_text(f"v{number}")
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            tar.add(tmp_path / "program", "program")
        sha = hashlib.sha256((tmp_path / f"{number}.tar").read_bytes()).hexdigest()
        archives[number] = {"path": f"/opt/app/{number}", "sha256": sha, "uploaded": str(tmp_path / f"{number}.tar"), "keep": 2}

    def wanted(number: int, **changes: Any) -> dict[str, Any]:
        links = [{"path": "/opt/current", "target": f"app/{number}"}]
        return specification(archives=[{**archives[number], **changes}], links=links)

    (machine.root / "opt/app/mine").mkdir(parents=True)
    for number in (3, 1):
        land(machine, wanted(number))
        mark = machine.root / f"opt/app/{number}/{node_state.ARCHIVE_MARK}"
        os.utime(mark, ns=(number, 5 - number))  # unpacked in this order, however coarse the clock
    try:
        land(machine, wanted(2), at=at, when=when)
    except Crash:
        assert (machine.root / "opt/current/program").read_text() in ("v1", "v2"), "a crash left a link to nothing"
    land(machine, wanted(4 if at % 2 else 2))
    kept = {path.name for path in (machine.root / "opt/app").iterdir()}
    assert len(kept) == 3 and kept >= {"mine", "4" if at % 2 else "2"} and not any(name.endswith(".partial") for name in kept)
    assert (machine.root / "opt/current/program").read_text() == ("v4" if at % 2 else "v2")
    latest = wanted(4 if at % 2 else 2, keep=1)
    assert [change["what"] for change in node_state.inspect(latest, str(machine.root))] == ["remove: the last 1 are kept"]
    land(machine, latest)
    assert len(list((machine.root / "opt/app").iterdir())) == 2 and land(machine, latest) == []


def test_an_archive_cannot_write_outside_its_directory(machine: Systemd, tmp_path: Path) -> None:
    (tmp_path / "evil").write_text("x")
    with tarfile.open(tmp_path / "e.tar", "w") as tar:
        tar.add(tmp_path / "evil", "../../etc/evil")
    sha = hashlib.sha256((tmp_path / "e.tar").read_bytes()).hexdigest()
    with pytest.raises(engine.ConfigSetError, match="no plain file inside it"):
        land(machine, specification(archives=[{"path": "/opt/e", "sha256": sha, "uploaded": str(tmp_path / "e.tar")}]))
    assert not (machine.root / "etc/evil").exists() and not (machine.root / "opt/e").exists()


def test_a_link_to_a_directory_is_put_back(machine: Systemd) -> None:
    """Where it is no longer declared it leads where it led before the set came; a roll-back needs the same copy."""
    (machine.root / "opt/mine").mkdir(parents=True)
    (machine.root / "opt/current").symlink_to("mine")
    land(machine, specification(links=[{"path": "/opt/current", "target": "ours"}]))
    assert os.readlink(machine.root / "opt/current") == "ours"
    land(machine, specification())
    assert os.readlink(machine.root / "opt/current") == "mine"


def _linked(folder: Path, links: dict[str, str], then: str = "") -> dict[str, str]:
    with tarfile.open(folder / "l.tar", "w") as tar:
        for name, target in links.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
        if then:
            tar.addfile(tarfile.TarInfo(then))
    sha = hashlib.sha256((folder / "l.tar").read_bytes()).hexdigest()
    return {"path": "/opt/l", "sha256": sha, "uploaded": str(folder / "l.tar")}


def test_links_inside_an_archive_are_kept(machine: Systemd, tmp_path: Path) -> None:
    land(machine, specification(archives=[_linked(tmp_path, {"lib/a.so": "a.so.1", "b": "lib/../c"}, "lib/a.so.1")]))
    assert os.readlink(machine.root / "opt/l/lib/a.so") == "a.so.1" and (machine.root / "opt/l/lib/a.so").is_file()


@pytest.mark.parametrize("links", [{"a": "/etc"}, {"a": ".."}, {"d/a": "../../x"}, {"d": "s/t", "a": "d/../../x"}, {"a": "b/../../x"}])
def test_links_out_of_an_archive_are_refused(machine: Systemd, tmp_path: Path, links: dict[str, str]) -> None:
    (machine.root / "etc").mkdir(exist_ok=True)
    # The fourth leads inside until another link is changed.
    archive = _linked(tmp_path, {**links, **({"./d": "s"} if "d" in links else {})}, "a/evil")
    with pytest.raises(engine.ConfigSetError, match="no plain file inside it"):
        land(machine, specification(archives=[archive]))
    assert not list(machine.root.rglob("evil"))


@pytest.mark.skipif(not shutil.which("zstd"), reason="zstd is not installed here")
def test_an_archive_of_zstandard(machine: Systemd, tmp_path: Path) -> None:
    archive = _linked(tmp_path, {"b": "a"}, "a")
    subprocess.run(["zstd", "-q", archive["uploaded"]], check=True)
    archive["uploaded"] += ".zst"
    archive["sha256"] = hashlib.sha256(Path(archive["uploaded"]).read_bytes()).hexdigest()
    land(machine, specification(archives=[archive]))
    assert (machine.root / "opt/l/b").is_file()


def test_what_is_in_the_way_is_refused_before_the_journal(machine: Systemd) -> None:
    (machine.root / "etc/c.conf").mkdir()
    (machine.root / "etc/c.conf/kept").touch()
    (machine.root / "elsewhere").mkdir(mode=0o711)
    (machine.root / "data").symlink_to(machine.root / "elsewhere")
    file, other = {"path": "/etc/c.conf", "content": "x"}, {"path": "/etc/d.conf", "content": "x"}
    with pytest.raises(engine.ConfigSetError, match="is a directory"):
        land(machine, specification(files=[other, file]))
    with pytest.raises(engine.ConfigSetError, match="is a link"):
        land(machine, specification(files=[other], directories=[{"path": "/data", "mode": "0700"}]))
    assert not (machine.root / "etc/d.conf").exists() and (machine.root / "elsewhere").stat().st_mode & 0o777 == 0o711
    (machine.root / "etc/c.conf").rename(machine.root / "aside")
    land(machine, specification(files=[other, file]))  # nothing is left of the refused ones
    (machine.root / "etc/c.conf").unlink()
    (machine.root / "aside").rename(machine.root / "etc/c.conf")
    with pytest.raises(engine.ConfigSetError, match="is a directory"):
        land(machine, specification(files=[other]))
    assert (machine.root / "etc/c.conf/kept").exists()


def test_a_directory_is_never_given_away_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "system").mkdir(mode=0o755)
    (tmp_path / "data").symlink_to(tmp_path / "system")
    with pytest.raises(OSError):
        engine.Effects().directory(str(tmp_path / "data"), 0o777, 1, 1)
    assert (tmp_path / "system").stat().st_mode & 0o777 == 0o755 and (tmp_path / "system").stat().st_uid == os.geteuid()


def test_a_dpkg_at_work_is_no_interrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_state, "DPKG", str(tmp_path))
    (tmp_path / "updates").mkdir()
    assert not node_state.interrupted()
    (tmp_path / "updates/0001").touch()
    assert node_state.interrupted()
    (tmp_path / "lock").touch()
    assert node_state.interrupted()
    hold = "import fcntl, sys; lock = open(sys.argv[1], 'w'); fcntl.lockf(lock, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    argv = [sys.executable, "-c", hold, str(tmp_path / "lock")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        assert not node_state.interrupted()
        other.communicate("")
    assert node_state.interrupted()


def test_what_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    """As apt with its dpkg."""
    child = tmp_path / "child"
    code, _out, said = node_state.run(["sh", "-c", f"sleep 600 & echo $! > {child}; wait"], timeout=0.5)
    assert (code, said) == (124, "no answer within 0.5 s")
    stat = Path("/proc", child.read_text().strip(), "stat")
    deadline = time.monotonic() + 5  # a killed process still has to get a moment to end in
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline, "it goes on"
        time.sleep(0.05)
    assert node_state.run(["cat"], stdin="x") == (0, "x", "")


def test_an_installation_is_waited_for_before_dpkg_is_mended(machine: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        node_state, "missing_packages", lambda names: [{"kind": "package", "name": name, "what": "install"} for name in names]
    )
    land(machine, specification(packages=["one"]))
    ((apt, *words),) = (argv for argv in machine.ran if argv[0] in ("apt-get", "dpkg"))
    assert apt == "apt-get" and "install" in words and "DPkg::Lock::Timeout=300" in words


def test_a_group_that_is_there_already_is_the_new_users(machine: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = specification(users=[{"name": "daemon-x", "system": True}, {"name": "daemon-y", "system": True}])
    monkeypatch.setattr(engine, "group_id", lambda name: 7 if name == "daemon-x" else None)
    land(machine, spec)
    made = {argv[-1]: argv for argv in machine.ran if argv[0] == "useradd"}
    assert "--gid" in made["daemon-x"] and "--user-group" not in made["daemon-x"]
    assert "--user-group" in made["daemon-y"] and "--gid" not in made["daemon-y"]


def test_attributes_links_and_what_is_no_longer_declared(machine: Systemd) -> None:
    (machine.root / "etc/foreign.conf").write_text("operator's own")
    spec = specification(
        files=[{"path": "/etc/foreign.conf", "content": "ours"}, {"path": "/etc/ours.conf", "content": "ours"}],
        links=[{"path": "/etc/now", "target": "there"}],
    )
    land(machine, spec)
    os.chmod(machine.root / "etc/ours.conf", 0o666)
    assert node_state.inspect(spec, str(machine.root)) == [{"kind": "file", "name": "/etc/ours.conf", "what": "mode 0666 to 0644"}]
    land(machine, spec)
    assert os.stat(machine.root / "etc/ours.conf").st_mode & 0o777 == 0o644
    land(machine, specification())
    assert (machine.root / "etc/foreign.conf").read_text() == "operator's own"
    assert not (machine.root / "etc/ours.conf").exists() and not os.path.lexists(machine.root / "etc/now")


def test_directories_that_were_made_go_with_what_was_in_them(machine: Systemd) -> None:
    (machine.root / "etc/theirs").mkdir()
    paths = ["/etc/theirs/x.conf", "/etc/ours/deep/y.conf", "/etc/ours/z.conf", "/etc/used/w.conf"]
    land(machine, specification(files=[{"path": path, "content": "ours"} for path in paths], directories=[{"path": "/srv/data"}]))
    (machine.root / "etc/used/not-ours").touch()
    land(machine, specification(files=[{"path": paths[2], "content": "ours"}]))
    assert sorted(path.name for path in (machine.root / "etc").iterdir()) == ["ours", "systemd", "theirs", "used"]
    assert not (machine.root / "etc/ours/deep").exists() and not (machine.root / "srv").exists()
    (machine.root / "etc/used/not-ours").unlink()
    land(machine, specification())
    assert sorted(path.name for path in (machine.root / "etc").iterdir()) == ["systemd", "theirs"]
    assert land(machine, specification()) == []


def test_generations_are_kept_and_pruned(machine: Systemd) -> None:
    for number in range(9):
        land(machine, specification(files=[{"path": "/etc/c.conf", "content": str(number)}], keep=3))
    kept = sorted(int(path.name) for path in (machine.root / "var/lib/bzzz/sets/test/generations").iterdir())
    assert kept == [7, 8, 9]
    assert (machine.root / "var/lib/bzzz/sets/test/generations/9/previous-0").read_text() == "7"


def test_the_revert_script_puts_everything_back(machine: Systemd) -> None:
    (machine.root / "etc/c.conf").write_text("before")
    spec = specification(
        files=[{"path": "/etc/c.conf", "content": "after"}, {"path": "/etc/new.conf", "content": "new"}],
        revert_seconds=30,
        change="one",
    )
    land(machine, spec)
    assert node_state.inspect(spec, str(machine.root)) == [{"kind": "revert", "name": "test", "what": "confirm an unconfirmed change"}]
    machine.script(machine.root / "var/lib/bzzz/sets/test/revert.sh")
    assert (machine.root / "etc/c.conf").read_text() == "before" and not (machine.root / "etc/new.conf").exists()
    assert confirm(machine)
    land(machine, spec)
    assert not confirm(machine)
    assert node_state.inspect(spec, str(machine.root)) == []


def confirm(systemd: Systemd, change: str | None = None, **breaking: Any) -> bool:
    return engine.confirm("test", change, str(systemd.root), Breaking(str(systemd.root), systemd, **breaking))["reverted"]


@pytest.mark.requirement("1.3.1", part="a lost confirmation")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(1, 12))
@pytest.mark.parametrize("reverted", [False, True])
def test_a_confirmation_asked_again_tells_the_truth(machine: Systemd, reverted: bool, at: int, when: str) -> None:
    """Its first answer was lost, or never given."""

    def content(text: str) -> dict[str, Any]:
        return specification(files=[{"path": "/etc/c.conf", "content": text}], revert_seconds=30, change=text)

    land(machine, content("before"))
    assert not confirm(machine, "before")
    land(machine, content("after"))
    if reverted:
        machine.script(machine.root / "var/lib/bzzz/sets/test/revert.sh")
    try:
        confirm(machine, "after", at=at, when=when)
    except Crash:
        pass
    for _time in (1, 2):
        assert confirm(machine, "after") is reverted
    assert (machine.root / "etc/c.conf").read_text() == ("before" if reverted else "after")
    # Nor does it confirm what somebody else has changed since.
    land(machine, content("later"))
    assert confirm(machine, "after") is reverted
    assert node_state.read_state("test", str(machine.root))["armed"]
    assert not confirm(machine, "later")


@pytest.mark.requirement("1.3.1", part="a change of a run that was killed")
@pytest.mark.parametrize("reverted", [False, True])
def test_what_a_killed_run_left_is_confirmed_by_the_one_that_waited_for_it(machine: Systemd, reverted: bool) -> None:
    """It asked while the change was being made, so it could not know that nothing but the confirmation would be left to do."""
    content = specification(files=[{"path": "/etc/c.conf", "content": "wanted"}], revert_seconds=30)
    land(machine, {**content, "change": "killed"})
    if reverted:  # to what was there, which somebody has made the same by hand
        machine.script(machine.root / "var/lib/bzzz/sets/test/revert.sh")
        (machine.root / "etc/c.conf").write_text("wanted")
    land(machine, {**content, "change": "waited"})
    assert not confirm(machine, "waited")
    assert node_state.inspect(content, str(machine.root)) == []
    assert not list((machine.root / "etc/systemd/system").glob("bzzz-revert*"))


@st.composite
def guarded(draw: st.DrawFn) -> dict[str, Any]:
    """A set that could cut off: a file of rules that a loader loads, a service's file, either of which may be gone again."""
    rules, conf = draw(st.sampled_from(["", "a", "b"])), draw(st.sampled_from(["", "x", "y"]))
    files = [{"path": RULES, "content": rules, "notify": ["load:rules"]}] if rules else []
    files += [{"path": PATHS[1], "content": conf, "notify": ["reload:two.service"]}] if conf else []
    loader = {"name": "rules", "query": ["cat", "{root}/kernel"], "apply": ["loader", "apply"], "undo": ["loader", "undo"]}
    return specification(
        files=files,
        loaded=[loader] if rules else [],
        units=[{"name": "two.service", "enabled": True, "active": True}] if conf else [],
        revert_seconds=20,
    )


@pytest.mark.requirement("1.3.1", part="revert, simulated")
@settings(max_examples=75, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    first=guarded(),
    second=guarded(),
    third=guarded(),
    at=st.integers(1, 60),
    when=st.sampled_from(["before", "during", "after"]),
    then=st.sampled_from(["timer", "confirmation", "nothing"]),
    cut=st.one_of(st.none(), st.integers(1, 12)),
    foreign=st.booleans(),
    flushed=st.booleans(),
)
def test_an_unconfirmed_change_never_was(
    tmp_path_factory: Any,
    monkeypatch: Any,
    first: Any,
    second: Any,
    third: Any,
    at: int,
    when: str,
    then: str,
    cut: Any,
    foreign: bool,
    flushed: bool,
) -> None:
    """A run is killed before it confirms. The timer puts back exactly what was there; with or without it, the next run converges.

    What was there may be less than what was declared: rules that somebody flushed by hand.
    """
    root = tmp_path_factory.mktemp("node")
    systemd = Systemd(root, {"two.service": [PATHS[1]]})
    monkeypatch.setattr(engine, "unit_states", lambda names: systemd.states(names))
    monkeypatch.setattr(node_state, "unit_states", lambda names: systemd.states(names))
    monkeypatch.setattr(node_state, "run", lambda argv, **_: (0 if systemd.loaded else 1, systemd.loaded, ""))
    for folder in ("etc/app", "etc/systemd/system"):
        (root / folder).mkdir(parents=True)
    if foreign:
        (root / PATHS[1][1:]).write_text("foreign")

    def seen() -> Any:
        files = {path: Path(f"{root}{path}").read_text() for path in (RULES, PATHS[1]) if Path(f"{root}{path}").exists()}
        # The units themselves, without the timer's.
        return files, systemd.loaded, systemd.active.get("two.service"), "two.service" in systemd.enabled

    land(systemd, first)
    confirm(systemd)
    assert node_state.inspect(first, str(root)) == []
    if flushed:
        systemd.loaded = ""
    before = seen()
    try:
        land(systemd, second, at=at, when=when)
    except Crash:
        pass
    script = root / "var/lib/bzzz/sets/test/revert.sh"
    if not node_state.read_state("test", str(root))["armed"]:
        assert seen() == before, "something was changed without a timer"
    elif then == "timer":
        if cut:
            systemd.script(script, cut)
        if script.exists():
            systemd.script(script)  # at the next boot, if the power was cut
        assert seen() == before
    elif then == "confirmation":  # of a run that lost its connection, and found the node again
        confirm(systemd)
        if not node_state.read_state("test", str(root))["armed"]:
            before = seen()
    # Whatever was left, the next change is put back to what was confirmed last.
    land(systemd, third)
    systemd.script(script)
    assert seen() == before
    land(systemd, third)
    confirm(systemd)
    assert node_state.inspect(third, str(root)) == []
    files, loaded, active, _enabled = seen()
    wanted = {item["path"]: item["content"] for item in third["files"]}
    assert files == {**({PATHS[1]: "foreign"} if foreign else {}), **wanted}
    assert loaded == wanted.get(RULES, "")
    assert active == (systemd.snapshot("two.service") if PATHS[1] in wanted else None)


@pytest.mark.requirement("1.3.1", part="revert, simulated")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(1, 40))
def test_a_unit_that_a_reload_started_goes_with_its_set(machine: Systemd, at: int, when: str) -> None:
    """Killed anywhere, also between the reload that starts it and the note that it was started; then confirmed, then declared no more."""
    machine.files = {"two.service": [PATHS[1]]}
    notified = {"path": PATHS[1], "content": "x", "notify": ["reload:two.service"]}
    spec = specification(files=[notified], units=[{"name": "two.service", "enabled": True, "active": True}], revert_seconds=20)
    nothing = specification(revert_seconds=20)
    land(machine, nothing)
    try:
        land(machine, spec, at=at, when=when)
    except Crash:
        pass
    confirm(machine)
    land(machine, nothing)
    confirm(machine)
    assert not machine.active and not machine.enabled
