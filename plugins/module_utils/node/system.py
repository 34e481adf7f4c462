# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Operating system, CPU, memory, disks, mounts, clock, container engine, Ollama and tools of a machine."""

from __future__ import annotations

import os
import re
import shlex
import struct
import sys
import time
from typing import Any

from .machine import Machine, bounded, dig, http_json, integer, items, json_in
from .ports import main as port_facts

# Tools that the cluster's roles use, by the package that Debian and Ubuntu ship them in.
TOOLS = {
    "apt-get": "apt",
    "curl": "curl",
    "docker": "docker.io docker-ce-cli",
    "etcd": "etcd-server",
    "ip": "iproute2",
    "iptables": "iptables",
    "nft": "nftables",
    "nvidia-smi": "nvidia-smi",
    "ollama": "",
    "openssl": "openssl",
    "podman": "podman",
    "python3": "python3",
    "ss": "iproute2",
    "sshd": "openssh-server",
    "sudo": "sudo",
    "systemctl": "systemd",
    "tar": "tar",
    "ufw": "ufw",
}
# Of a CPU's many flags, those that decide how fast a model runs on it.
CPU_FLAGS = {"avx", "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd", "sve", "f16c", "fma"}
# File systems that hold no data of their own.
PSEUDO = re.compile(
    r"autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|dev(pts|tmpfs)|efivarfs|fuse\.(gvfsd-fuse|lxcfs|portal)|fusectl|hugetlbfs|mqueue|"
    r"nsfs|proc|pstore|ramfs|rpc_pipefs|securityfs|selinuxfs|squashfs|sysfs|tracefs"
)
# File systems whose server may be gone: asking them can block for ever.
REMOTE = re.compile(r"nfs|cifs|smb|ceph|gluster|lustre|afs|9p|fuse\.|beegfs|gpfs|ocfs2|gfs2")
PASSING = re.compile(r"/(proc|sys|dev|run)(/|$)|/var/lib/(docker|containerd|containers|kubelet)/.")
CLOCK_SERVICES = {
    "chrony": "run/chrony/chronyd.pid",
    "systemd-timesyncd": "run/systemd/timesync",
    "ntpsec": "run/ntpd.pid",
    "openntpd": "run/openntpd.sock",
}
SETS = "var/lib/bzzz/sets"
UFW_BEFORE = "var/lib/bzzz/ufw-before"  # ufw's state when this collection first used it
ETCD_YAML = "etc/bzzz/etcd.yaml"
ETCD_CREDENTIALS = ("--cacert=/etc/bzzz/tls/ca.crt", "--cert=/etc/bzzz/tls/node.crt", "--key=/etc/bzzz/tls/node.key")
TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


def main(payload: dict[str, Any], listeners: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """``{os, cpu, memory, disks, mounts, clock, container_engine, ollama, firewall, dependencies, sets, ids, etcd, run_id, problems}``.

    listeners: those of ``ports.main``, when they are known already. Further payload: ``ollama_port`` (default 11434) or
    ``ollama_ports``, ``run_id`` (handed back, so that a reader can tell this run's facts from older ones).
    """
    machine = Machine(payload)
    if listeners is None:
        listeners = port_facts(payload)["listeners"]
    packages = "\n" + machine.read("var/lib/dpkg/status")
    return {
        "os": operating_system(machine),
        "cpu": cpu(machine),
        "memory": memory(machine),
        "disks": disks(machine),
        "mounts": mounts(machine),
        "clock": clock(machine),
        "container_engine": container_engine(machine),
        "ollama": ollama(machine, listeners, payload.get("ollama_ports") or [integer(payload.get("ollama_port")) or 11434]),
        "firewall": firewall(machine),
        "dependencies": {
            tool: {"path": path, "version": package_version(packages, names) if path else None}
            for tool, names in TOOLS.items()
            for path in [machine.which(tool)]
        },
        # Configuration sets that have begun to land: what they take is the cluster's from then on.
        "sets": [name for name in machine.names(SETS) if os.path.exists(machine.root / SETS / name / "state.json")],
        "ids": ids(machine),
        "etcd": etcd(machine, listeners),
        "run_id": payload.get("run_id"),
        "problems": machine.problems,
    }


def ids(machine: Machine) -> dict[str, int | None]:
    """The numbers of the services' user and of the groups it is in: all local, so that no directory is asked for them."""

    def number(file: str, name: str, field: int) -> int | None:
        found = [line.split(":") for line in machine.read(file).splitlines() if line.startswith(f"{name}:")]
        return integer(found[0][field]) if found and len(found[0]) > field else None

    return {
        "user": number("etc/passwd", "bzzz", 2),
        "group": number("etc/passwd", "bzzz", 3),
        "tls_group": number("etc/group", "bzzz-tls", 2),
    }


def operating_system(machine: Machine) -> dict[str, Any]:
    release = os_release(machine.read("etc/os-release") or machine.read("usr/lib/os-release"))
    kernel = os.uname()
    return {
        "id": release.get("ID"),
        "like": release.get("ID_LIKE", "").split(),
        "version": release.get("VERSION_ID"),
        "codename": release.get("VERSION_CODENAME"),
        "name": release.get("PRETTY_NAME"),
        "architecture": kernel.machine,
        "kernel": kernel.release,
        "hostname": kernel.nodename,
        "python_version": ".".join(map(str, sys.version_info[:3])),
        "service_manager": "systemd" if (machine.root / "run/systemd/system").is_dir() else machine.read("proc/1/comm") or None,
        "container": machine.read("run/systemd/container") or ("docker" if (machine.root / ".dockerenv").exists() else None),
        "hardware": " ".join(filter(None, (machine.read(f"sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name")))) or None,
        "machine_id": machine.read("etc/machine-id") or None,
        "boot_id": machine.read("proc/sys/kernel/random/boot_id") or None,
    }


def os_release(text: str) -> dict[str, str]:
    """Variables of an os-release(5) file."""
    found = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and name.isidentifier():
            try:
                found[name] = "".join(shlex.split(value))
            except ValueError:
                found[name] = value
    return found


def cpu(machine: Machine) -> dict[str, Any]:
    """Threads that are online, and how they lie in sockets, cores and NUMA nodes."""
    base = "sys/devices/system"
    online = id_list(machine.read(f"{base}/cpu/online"))
    # The first processor's entry is enough; on large machines the whole file takes long to make.
    first = machine.read("proc/cpuinfo", 1 << 13).split("\n\n")[0]
    described = {name.strip(): value.strip() for name, _colon, value in (line.partition(":") for line in first.splitlines())}
    cores = set()
    for number in online:
        topology = f"{base}/cpu/cpu{number}/topology"
        cores.add((machine.read(f"{topology}/physical_package_id"), machine.read(f"{topology}/core_id")))
    flags = (described.get("flags") or described.get("Features") or "").split()
    return {
        "model": described.get("model name") or machine.read("sys/firmware/devicetree/base/model").rstrip("\0") or None,
        "architecture": os.uname().machine,
        "sockets": len({core[0] for core in cores}) or None,
        "cores": len(cores) or None,
        "threads": len(online) or os.cpu_count() or 1,
        "flags": sorted(CPU_FLAGS.intersection(flags)),
        "governor": machine.read(f"{base}/cpu/cpu0/cpufreq/scaling_governor") or None,
        "numa": [
            {
                "node": integer(name[4:]),
                "cpus": machine.read(f"{base}/node/{name}/cpulist"),
                "memory_total_mib": meminfo(re.sub(r"^Node \d+ ", "", machine.read(f"{base}/node/{name}/meminfo"), flags=re.M)).get(
                    "MemTotal"
                ),
            }
            for name in machine.names(f"{base}/node")
            if re.fullmatch(r"node[0-9]+", name)
        ],
    }


def id_list(text: str) -> list[int]:
    """``0-3,8`` as numbers; what isn't one is left out."""
    found: list[int] = []
    for low, high in re.findall(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", text):
        found += range(int(low), int(high or low) + 1)
    return found


def meminfo(text: str) -> dict[str, int]:
    """MiB (or plain numbers) by name, from the text of /proc/meminfo."""
    return {
        name: int(value) // 1024 if unit else int(value) for name, value, unit in re.findall(r"^(\w+):\s+([0-9]{1,18})( kB)?", text, re.M)
    }


def memory(machine: Machine) -> dict[str, Any]:
    found = meminfo(machine.read("proc/meminfo"))
    pools = []
    for name in machine.names("sys/kernel/mm/hugepages"):
        size = re.fullmatch(r"hugepages-([0-9]{1,18})kB", name)
        if size:
            folder = f"sys/kernel/mm/hugepages/{name}"
            pools.append(
                {
                    "size_kib": int(size[1]),
                    "total": machine.integer(f"{folder}/nr_hugepages") or 0,
                    "free": machine.integer(f"{folder}/free_hugepages") or 0,
                }
            )
    if "MemTotal" not in found:
        machine.problem("The node's memory could not be read from /proc/meminfo.", "Mount /proc on the node.")
    swappiness = machine.integer("proc/sys/vm/swappiness")
    return {
        "total_mib": found.get("MemTotal"),
        "available_mib": found.get("MemAvailable", found.get("MemFree")),
        "swap_total_mib": found.get("SwapTotal"),
        "swap_free_mib": found.get("SwapFree"),
        "swappiness": swappiness,
        "huge_pages": pools,
        "transparent_huge_pages": "".join(re.findall(r"\[(\w+)\]", machine.read("sys/kernel/mm/transparent_hugepage/enabled"))) or None,
    }


def disks(machine: Machine) -> list[dict[str, Any]]:
    """Block devices that have a size, without loop devices, RAM disks and empty drives."""
    found = []
    for name in machine.names("sys/block"):
        folder = f"sys/block/{name}"
        sectors = machine.integer(f"{folder}/size") or 0  # of 512 bytes, whatever the disk's own size
        if sectors and not re.match(r"(loop|ram|zram|sr|fd|nbd)[0-9]", name):
            rotational = machine.integer(f"{folder}/queue/rotational")
            found.append(
                {
                    "name": name,
                    "size_mib": sectors // 2048,
                    "model": machine.read(f"{folder}/device/model") or machine.read(f"{folder}/dm/name") or None,
                    "rotational": None if rotational is None else bool(rotational),
                    "removable": machine.integer(f"{folder}/removable") == 1,
                    "read_only": machine.integer(f"{folder}/ro") == 1,
                }
            )
    return found


def mounts(machine: Machine) -> list[dict[str, Any]]:
    """Mounted file systems that hold data, by mount point; sizes are None where the file system doesn't answer."""
    found: dict[str, dict[str, Any]] = {}
    for line in machine.read("proc/self/mountinfo").splitlines():
        left, separator, right = line.partition(" - ")
        fields, source = left.split(), right.split()
        if not separator or len(fields) < 6 or len(source) < 2:
            continue
        path, kind = unescape(fields[4]), source[0]
        if PSEUDO.fullmatch(kind) or PASSING.match(path):
            continue
        place = machine.root / path.lstrip("/")
        if not REMOTE.search(kind):
            if not place.is_dir():  # a file that a container engine mounted
                continue
            total, available, inodes = _room(str(place))
        else:
            said = bounded(lambda where=str(place): " ".join(map(str, _room(where))), min(machine.timeout, 3))  # type: ignore[misc]
            total, available, inodes = ([integer(one) for one in said.out.split()] + [None] * 3)[:3]
            if said.code is None:
                machine.problem(
                    f"The {kind} file system on {path} (from {unescape(source[1])}) does not answer.",
                    "Bring its server back, or unmount it: umount -l " + shlex.quote(path),
                )
        if total == 0:
            continue
        found[path] = {  # of several mounts on one path, the last one is seen
            "path": path,
            "device": unescape(source[1]),
            "type": kind,
            "read_only": "ro" in fields[5].split(","),
            "total_mib": total,
            "available_mib": available,
            "inodes_available": inodes,
        }
    return list(found.values())


def unescape(text: str) -> str:
    """Octal escapes of mountinfo(5)."""
    return re.sub(r"\\([0-3][0-7]{2})", lambda match: chr(int(match[1], 8)), text)


def _room(path: str) -> tuple[int | None, int | None, int | None]:
    """Total and available MiB, and inodes, for those who are not root."""
    try:
        found = os.statvfs(path)
    except OSError:
        return None, None, None
    return found.f_frsize * found.f_blocks >> 20, found.f_frsize * found.f_bavail >> 20, found.f_favail


def clock(machine: Machine) -> dict[str, Any]:
    """Time since the epoch, and whether the kernel holds its clock for synchronised."""
    synchronised, error_seconds = None, None
    try:
        import ctypes  # noqa: PLC0415 - adjtimex(2) has no other door in the standard library, except by timedatectl's 15 ms

        timex = ctypes.create_string_buffer(512)
        state = ctypes.CDLL(None).adjtimex(timex)
        if state >= 0:
            synchronised = state != TIME_ERROR
            error_seconds = struct.unpack_from("@illlli", timex)[3] / 1e6 if synchronised else None
    except (ImportError, OSError, AttributeError):
        pass
    services = [name for name, trace in CLOCK_SERVICES.items() if (machine.root / trace).exists()]
    if synchronised is False:
        machine.problem(
            "The clock is not synchronised" + (f", although {services[0]} runs." if services else "; no time service runs."),
            "Look at `timedatectl timesync-status` or `chronyc sources`."
            if services
            else "Install one (apt-get install systemd-timesyncd or chrony), or synchronise the host that this node runs on.",
        )
    return {
        "time": time.time(),
        "synchronised": synchronised,
        "error_max_seconds": error_seconds,
        "services": services,
        "timezone": _timezone(machine),
    }


def _timezone(machine: Machine) -> str | None:
    try:
        return str((machine.root / "etc/localtime").readlink()).rpartition("zoneinfo/")[2] or None
    except OSError:
        return machine.read("etc/timezone") or None


def container_engine(machine: Machine) -> dict[str, Any] | None:
    """Docker or Podman: which, and whether its daemon answers; None where there is neither."""
    socket_path = machine.root / "run/docker.sock"
    version = http_json(str(socket_path), "/version", 2) if socket_path.exists() else None
    plugins = ("usr/libexec/docker/cli-plugins", "usr/lib/docker/cli-plugins", "usr/local/lib/docker/cli-plugins")
    for name in ("docker", "podman"):
        path = machine.which(name)
        if path:
            docker = version if name == "docker" else None
            composed = any((machine.root / folder / "docker-compose").exists() for folder in plugins)
            if name == "docker" and not docker:
                machine.problem(
                    "Docker is installed, but its daemon does not answer.",
                    "systemctl start docker; journalctl -u docker tells why it stopped.",
                )
            return {
                "name": name,
                "path": path,
                "version": dig(docker, "Version"),
                "running": docker is not None if name == "docker" else None,
                "compose": "plugin" if composed else machine.which(f"{name}-compose"),
                "published": published(machine, http_json(str(socket_path), "/containers/json", 2)) if docker else [],
            }
    return None


def published(machine: Machine, containers: Any) -> list[dict[str, Any]]:
    """Ports of containers that Docker lets in past all rules for the node's own; filtered: rules of its users say who gets in."""
    found: dict[tuple[str, int], str] = {}
    for container in containers if isinstance(containers, list) else []:
        for port in items(container, "Ports"):
            number, protocol, address = dig(port, "PublicPort"), dig(port, "Type"), str(dig(port, "IP") or "")
            if isinstance(number, int) and protocol in ("tcp", "udp") and not address.startswith("127.") and address != "::1":
                found[protocol, number] = str(dig(container, "Names", 0) or "?").lstrip("/")
    rules = machine.run("iptables", "-w", "-S") if found else None
    filtered = rules is not None and _users_first(rules.out.splitlines())
    return [
        {"protocol": protocol, "port": port, "container": name, "filtered": filtered} for (protocol, port), name in sorted(found.items())
    ]


def _users_first(rules: list[str]) -> bool:
    """Whether Docker's chain for its users has rules, and is asked before what lets in: firewalld's reload has changed that."""
    own = [rule for rule in rules if rule.startswith("-A DOCKER-USER ") and rule != "-A DOCKER-USER -j RETURN"]
    deciding = [rule for rule in rules if re.match(r"-A FORWARD (.* )?-j (DOCKER|DOCKER-USER|DOCKER-FORWARD|ACCEPT)$", rule)]
    return bool(own) and deciding[:1] == ["-A FORWARD -j DOCKER-USER"]


def ollama(machine: Machine, listeners: list[dict[str, Any]], ports: list[int]) -> dict[str, Any] | None:
    """An Ollama that is already there: program, unit, and what its endpoint tells; None where there is none."""
    binary = machine.which("ollama")
    units = ("etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system")
    unit = "ollama.service" if any((machine.root / folder / "ollama.service").exists() for folder in units) else None
    mine = [one for one in listeners if one["protocol"] == "tcp" and one["program"] == "ollama"]
    # A container's port may be forwarded without any listener, and only root sees whose one is; so these are always tried.
    candidates: dict[tuple[str, int], str | None] = {("127.0.0.1", port): None for port in ports}
    candidates.update({(_loopback(one["address"]), one["port"]): one["unit"] for one in mine})
    endpoints, version, models = [], None, []
    for address, owner in candidates.items():
        said = dig(http_json(address, "/api/version", 2), "version")
        if isinstance(said, str):
            host, number = address
            endpoints.append(f"http://[{host}]:{number}" if ":" in host else f"http://{host}:{number}")
            if len(endpoints) == 1:
                version, unit = said, owner or unit
                models = [model for one in items(http_json(address, "/api/tags", 5), "models") if (model := _model(one))]
    if not (binary or unit or endpoints):
        return None
    if not endpoints:
        said_by_binary = machine.run("ollama", "--version") if binary else None
        found = re.search(r"version (?:is )?v?([0-9][\w.+-]*)", said_by_binary.out + said_by_binary.err) if said_by_binary else None
        version = found[1] if found else None
        machine.problem(
            f"Ollama is installed, but nothing answers on 127.0.0.1:{', '.join(map(str, ports))}.",
            "Start it (systemctl start ollama), or set ollama_port to the port that it listens on.",
        )
    return {
        "binary": binary,
        "unit": unit,
        "version": version,
        "endpoint": endpoints[0] if endpoints else None,
        "endpoints": endpoints,
        "listens_on": sorted({one["address"] for one in mine}),
        "models": models,
    }


def firewall(machine: Machine) -> dict[str, Any]:
    """``{tool, active}``: what rules are best added with here, and the managers of rules that somebody else has put in force."""
    active = []
    if machine.target("run/systemd/units/invocation:firewalld.service"):  # systemd keeps it while the unit is active
        active.append("firewalld")
    enabled = re.search(r"^ENABLED=yes", machine.read("etc/ufw/ufw.conf"), re.M) and machine.which("ufw")
    if enabled and not machine.read(UFW_BEFORE).startswith("Status: inactive"):
        active.append("ufw")
    # A manager that is in force would still drop what another lets in. Where there is nothing at all, nftables is installed.
    installed = [tool for tool, program in (("ufw", "ufw"), ("nftables", "nft"), ("iptables", "iptables")) if machine.which(program)]
    return {"tool": "firewalld" if "firewalld" in active else (*installed, "nftables")[0], "active": active}


def etcd(machine: Machine, listeners: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The cluster's etcd on this node; None where it has never had any data here, or the asker may not see them.

    ``{data_path, members, started}``: the directory of its data; the members' names, by the running etcd, else by its
    configuration; and those of them that have ever been up, None where no etcd answers.
    """
    text = machine.read(ETCD_YAML)
    data_path = re.search(r'^data-dir: "?([^"\n]+)', text, re.M)
    if not data_path or not machine.names(f"{data_path[1].lstrip('/')}/member"):
        return None
    configured = re.search(r"^initial-cluster: (.*)", text, re.M)
    members = re.findall(r"([^,=\s]+)=https?://", configured[1] if configured else "")
    started = None
    endpoint = re.search(r"https://127\.0\.0\.1:[0-9]+", text)
    if endpoint and any(one["unit"] == "bzzz-etcd.service" for one in listeners):
        argv = ("env", "ETCDCTL_API=3", "etcdctl", f"--endpoints={endpoint[0]}", *ETCD_CREDENTIALS, "--command-timeout=3s", "-w", "json")
        said = machine.run(*argv, "member", "list")
        found = [one for one in items(json_in(said.out if said else ""), "members") if isinstance(dig(one, "name"), str)]
        if found:
            members = [one["name"] for one in found]
            started = [one["name"] for one in found if items(one, "clientURLs")]
    return {"data_path": data_path[1], "members": members, "started": started}


def _loopback(address: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}.get(address, address)


def _model(said: object) -> dict[str, Any] | None:
    name, size = dig(said, "name"), dig(said, "size")
    return isinstance(name, str) and {  # type: ignore[return-value]
        "name": name,
        "digest": dig(said, "digest"),
        "size_mib": size >> 20 if isinstance(size, int) else None,
        "parameters": dig(said, "details", "parameter_size"),
        "quantization": dig(said, "details", "quantization_level"),
    }


def package_version(status: str, names: str) -> str | None:
    """The version of the first of these packages that dpkg's status file has as installed."""
    for name in names.split():
        start = status.find(f"\nPackage: {name}\n")
        stanza = status[start:].partition("\n\n")[0] if start >= 0 else ""
        version = re.search(r"^Version: (\S+)", stanza, re.M)
        if version and "\nStatus: install ok installed" in stanza:
            return version[1]
    return None
