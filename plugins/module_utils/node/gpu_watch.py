# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Take GPUs that fail out of the instances of Ollama that have them, and put them back when they are well again.

Run by a timer on the node, as root, by role ollama's unit. A GPU fails when the vendor's tool tells of others and not of it any more, or
tells that it must be reset or that its memory is worn out. An instance goes on with what it has left; one without any is stopped, so
that requests go elsewhere. While a vendor's tool tells of nothing, nothing is known of its GPUs, and they are left as they are.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple, Optional

from .gpu import main as look

# One look may be wrong, for example under load; a GPU that comes and goes must not restart its instance each time. Each further loss
# within an hour doubles the good looks that are wanted.
FAILED_AFTER, WELL_AFTER, WELL_AT_MOST = 2, 4, 128
AGAIN_SECONDS = 3600.0
# Sources that tell of cards and do not ask them.
HEARSAY = ("pci", "the driver in /proc")
VARIABLES = {"nvidia": "CUDA_VISIBLE_DEVICES", "amd": "ROCR_VISIBLE_DEVICES"}
NONE = "-1"  # a number that no GPU has
NOBODY = "nothing tells of the {} GPUs whether they are well: they are left as they are"

Gpu = dict[str, Any]


class Held(NamedTuple):
    """What a GPU is held to be: why it is lost, how often in a row it has looked other than that, and its losses, by when the last was."""

    why: Optional[str] = None
    looks: int = 0
    losses: int = 0
    at: float = 0.0


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
        elif device.get("health") == "failed":
            found[one["uuid"]] = f"{one['vendor']} GPU {one['uuid']} answers, but must be reset, or its memory fails"
    return found


def silent(wanted: list[Gpu], seen: dict[str, Any]) -> list[str]:
    """The vendors of which nothing tells of any GPU by having asked it."""
    told = {one["vendor"] for one in seen["devices"] if one.get("source") not in HEARSAY}
    return sorted({one["vendor"] for one in wanted} - told)


def judge(before: dict[str, Held], bad: dict[str, str], wanted: list[Gpu], now: float) -> dict[str, Held]:
    """What each GPU is held to be after this look, `now` in seconds."""
    after = {}
    for one in wanted:
        held, why = before.get(one["uuid"], Held()), bad.get(one["uuid"])
        looks = held.looks + 1 if (why is None) != (held.why is None) else 0
        well_after = min(WELL_AFTER << max(held.losses - 1, 0), WELL_AT_MOST)
        if why is None:
            held = held._replace(why=None, looks=0) if looks >= well_after else held._replace(looks=looks)
        elif held.why is not None:
            held = held._replace(why=why, looks=0)
        elif looks >= FAILED_AFTER:
            held = Held(why, 0, held.losses + 1 if held.losses and now - held.at < AGAIN_SECONDS else 1, now)
        else:
            held = held._replace(looks=looks)
        after[one["uuid"]] = held
    return after


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
        known = json.loads(kept.read_text(encoding="utf-8"))
        before, silent_before = {uuid: Held(*held) for uuid, held in known["held"].items()}, known["silent"]
    except (OSError, ValueError, KeyError, TypeError):
        before, silent_before = {}, []
    seen = look({})
    unknown = silent(wanted, seen)
    asked = [one for one in wanted if one["vendor"] not in unknown]
    untouched = {one["uuid"]: before.get(one["uuid"], Held()) for one in wanted if one["vendor"] in unknown}
    held = {**untouched, **judge(before, failing(asked, seen), asked, time.monotonic())}
    was = {uuid for uuid, one in before.items() if one.why}
    lost = {uuid: one.why for uuid, one in held.items() if one.why}
    for uuid in sorted(lost.keys() - was):
        sys.stdout.write(f"<2>{lost[uuid]}: it is taken out of the instances of Ollama that have it\n")
    for uuid in sorted(was - lost.keys()):
        sys.stdout.write(f"<5>GPU {uuid} is well again: it is back\n")
    for vendor in sorted(set(unknown) - set(silent_before)):
        sys.stdout.write(f"<4>{NOBODY.format(vendor)}\n")
    # Another reads it: the node service tells of what is lost, and of a tool that did not answer twice.
    told = [lost[uuid] for uuid in sorted(lost)] + [NOBODY.format(vendor) for vendor in unknown if vendor in silent_before]
    _write(state / "lost", "".join(f"{line}\n" for line in told))
    _write(kept, json.dumps({"held": held, "silent": unknown}))
    # What does not succeed has a mark of its own, and is done again at the next look.
    done = [_settle(number, environment(gpus, lost), state) for number, gpus in sorted(instances.items())]
    return 0 if all(done) else 1


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
