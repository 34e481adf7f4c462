# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Take GPUs that fail out of the instances of Ollama that have them, and put them back when they are well again.

Run by a timer on the node, as root, by role ollama's unit. A GPU fails when the vendor's tool does not tell of it any more, or tells
that it must be reset or that its memory is worn out. An instance goes on with what it has left; one without any is stopped, so that
requests go elsewhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from .gpu import main as look

# One look may be wrong, for example under load; a GPU that comes and goes must not restart its instance each time.
FAILED_AFTER, WELL_AFTER = 2, 4
VARIABLES = {"nvidia": "CUDA_VISIBLE_DEVICES", "amd": "ROCR_VISIBLE_DEVICES"}
NONE = "-1"  # a number that no GPU has

Gpu = dict[str, Any]


def visible(uuid: str) -> str:
    """A GPU as the runtimes name it: AMD's serial numbers are told as 0x…, and asked for as GPU-…."""
    return "GPU-" + uuid[2:] if uuid.startswith("0x") else uuid


def failing(wanted: list[Gpu], seen: dict[str, Any]) -> dict[str, str]:
    """Why each of the `wanted` (``{uuid, vendor}``) that is not well is not, by UUID; `seen` is what program ``gpu`` tells."""
    by_uuid = {one["uuid"]: one for one in seen["devices"] if one.get("uuid")}
    found = {}
    for one in wanted:
        device = by_uuid.get(one["uuid"])
        if device is None:
            found[one["uuid"]] = f"{one['vendor']} GPU {one['uuid']} does not answer any more"
        elif device.get("health") == "degraded":
            found[one["uuid"]] = f"{one['vendor']} GPU {one['uuid']} answers, but is not well"
    return found


def judge(lost: dict[str, str], counts: dict[str, int], bad: dict[str, str], wanted: list[Gpu]) -> tuple[dict[str, str], dict[str, int]]:
    """What is lost now, and the new counts: how often in a row a GPU has looked other than it is held to be."""
    now, counted = {}, {}
    for one in wanted:
        uuid = one["uuid"]
        if (uuid in bad) == (uuid in lost):
            if uuid in bad:
                now[uuid] = bad[uuid]
            continue
        count = counts.get(uuid, 0) + 1
        turned = count >= (FAILED_AFTER if uuid in bad else WELL_AFTER)
        if not turned:
            counted[uuid] = count
        if (uuid in bad) == turned:
            now[uuid] = bad.get(uuid) or lost[uuid]
    return now, counted


def environment(wanted: list[Gpu], lost: dict[str, str]) -> dict[str, str] | None:
    """What an instance that has lost GPUs gets in its environment: {} while it has all, None when none is left."""
    left = [one for one in wanted if one["uuid"] not in lost]
    if len(left) == len(wanted):
        return {}
    if not left:
        return None
    named: dict[str, str] = {}
    for vendor in sorted({one["vendor"] for one in wanted}):
        name = VARIABLES[vendor]
        named[name] = ",".join(visible(one["uuid"]) for one in left if one["vendor"] == vendor) or NONE
    return named


def main(argv: list[str]) -> int:
    """``CONFIG STATE``: the file ``{instances: {number: [{uuid, vendor}]}}``, and the directory that systemd keeps for this unit."""
    config, state = json.loads(Path(argv[0]).read_text(encoding="utf-8")), Path(argv[1])
    instances: dict[str, list[Gpu]] = config["instances"]
    wanted = list({one["uuid"]: one for gpus in instances.values() for one in gpus}.values())
    kept = state / "gpus.json"
    try:
        before = json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = {}
    lost, counts = judge(before.get("lost", {}), before.get("counts", {}), failing(wanted, look({})), wanted)
    done = True
    for number, gpus in sorted(instances.items()):
        done = _settle(number, environment(gpus, lost), state) and done
    for uuid in sorted(lost.keys() - before.get("lost", {}).keys()):
        sys.stdout.write(f"<2>{lost[uuid]}: it is taken out of the instances of Ollama that have it\n")
    for uuid in sorted(before.get("lost", {}).keys() - lost.keys()):
        sys.stdout.write(f"<5>GPU {uuid} is well again: it is back\n")
    # Another reads it: the node service tells of what is lost.
    _write(state / "lost", "".join(f"{lost[uuid]}\n" for uuid in sorted(lost)))
    if done:
        _write(kept, json.dumps({"lost": lost, "counts": counts}))
    return 0 if done else 1


def _settle(number: str, wanted: dict[str, str] | None, state: Path) -> bool:
    """Have the instance run with this environment; whether that was had. What is so already is left alone."""
    unit, file, due = f"bzzz-ollama@{number}.service", state / f"{number}.env", state / f"{number}.restart"
    if wanted is None:
        due.touch()  # when a GPU is back
        # Started by hand or by a run meanwhile, it would work on the processor alone.
        return _systemctl("stop", unit)
    text = "".join(f"{name}={value}\n" for name, value in sorted(wanted.items()))
    if text == (file.read_text(encoding="utf-8") if file.exists() else "") and not due.exists():
        return True
    due.touch()  # also when this is killed
    _write(file, text)
    if not _systemctl("restart", unit):
        return False
    due.unlink()
    return True


def _systemctl(verb: str, unit: str) -> bool:
    return subprocess.run(["systemctl", verb, unit], stdin=subprocess.DEVNULL, check=False).returncode == 0


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".new")
    part.write_text(text, encoding="utf-8")
    os.chmod(part, 0o644)
    part.replace(path)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
