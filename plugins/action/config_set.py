# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller side of ``config_set``: ask first, send the module only where something differs, confirm over a new connection."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError

from ..module_utils.config_set_spec import ARGUMENTS
from ..module_utils.downloads import Way, download
from ..module_utils.node.config_set import fill_secrets
from ..plugin_utils.downloading import REMEDY, declared_way
from ..plugin_utils.once import Settled
from ..plugin_utils.question import ask

MARGIN_SECONDS = 45  # after the node has put the old state back, until it is given up for lost


class ActionModule(Settled):
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(argument_spec=ARGUMENTS)
        secrets = {name: str(value) for name, value in (args.pop("secrets") or {}).items()}
        for item in args["files"]:
            item["sha256"] = hashlib.sha256(fill_secrets(item["content"], secrets).encode()).hexdigest()
        question = {**args, "files": [{key: value for key, value in item.items() if key != "content"} for item in args["files"]]}
        changes = ask(self, "state", question, task_vars)["changes"]
        result.update(changed=bool(changes), changes=changes, notes=[], diff=[])
        if not changes:
            return result
        if [change["kind"] for change in changes] == ["revert"] and not self._task.check_mode:
            # An earlier run was killed before it could confirm; where the node has reverted, its change is made anew.
            self._confirm(args, task_vars)
            changes = ask(self, "state", question, task_vars)["changes"]
            if not changes:
                return result
            result["changes"] = changes
        if not self._task.check_mode:
            self._upload(args["archives"], changes, task_vars)
            args["change"] = uuid.uuid4().hex
        lost = None
        try:
            with _turn(args):
                sent = self._execute_module(
                    module_name="bzzz.cluster.config_set", module_args={**args, "secrets": secrets}, task_vars=task_vars
                )
        except AnsibleConnectionFailure as error:
            if not args["revert_seconds"] or self._task.check_mode:
                raise
            lost = error
        else:
            # The last three would let a node write the declaration, or an inventory of its own.
            for key in ("invocation", "ansible_facts", "add_host", "add_group"):
                sent.pop(key, None)
            result.update(sent)
            if result.get("failed"):
                return {**result, "changed": False}
        if args["revert_seconds"] and not self._task.check_mode and self._confirm(args, task_vars):
            raise AnsibleActionFail(
                f"the change of '{args['name']}' cut this admin host off, so the node put the old state back after "
                f"{args['revert_seconds']} s; nothing is lost. Tried were: {', '.join(change['name'] for change in changes)}. "
                f"Remedy: correct the {args['name']}_* options and run again."
            )
        if lost:
            raise lost
        return result

    def _upload(self, archives: list[dict[str, Any]], changes: list[dict[str, str]], task_vars: dict[str, Any]) -> None:
        wanted = {change["name"] for change in changes if change["kind"] == "archive"}
        for item in archives:
            if item["path"] in wanted:
                if self._connection._shell.tmpdir is None:
                    self._make_tmp_path()
                item["uploaded"] = self._transfer_file(
                    _local(item, lambda: declared_way(task_vars, self._templar)),
                    self._connection._shell.join_path(self._connection._shell.tmpdir, item["sha256"]),
                )

    def _confirm(self, args: dict[str, Any], task_vars: dict[str, Any]) -> bool:
        """Disarm the revert timer; true where the node has reverted already.

        Only a new connection proves that the change did not cut the controller off. Its answer can be lost, so it is asked
        again: the change's mark makes the second answer as true as the first.
        """
        name, seconds = args["name"], args["revert_seconds"]
        began = time.monotonic()
        while True:
            try:
                self._connection.reset()
                return bool(ask(self, "confirm", {"name": name, "change": args["change"]}, task_vars)["reverted"])
            except AnsibleError as error:  # no connection, no login, no sudo
                if time.monotonic() - began > seconds + MARGIN_SECONDS:
                    raise AnsibleActionFail(
                        f"after the change of '{name}' the node cannot be reached on a new connection any more, nor {MARGIN_SECONDS} s "
                        f"after it was to put the old state back: {error}. "
                        f"Remedy: look at it on its console, 'systemctl status bzzz-revert-{name}.timer'."
                    ) from None
                time.sleep(1)


@contextlib.contextmanager
def _turn(args: dict[str, Any]) -> Iterator[None]:
    """Wait until no other of this run's workers changes the same set, where that is asked for."""
    with contextlib.ExitStack() as stack:
        if args["one_at_a_time"]:
            lock = stack.enter_context(Path(C.DEFAULT_LOCAL_TMP, f"{args['name']}.turn").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _local(item: dict[str, Any], by: Callable[[], Way]) -> str:
    """The archive's path on the controller. One that has a URL is fetched by the first of the run's workers; the node checks it."""
    if "://" not in item["src"]:
        return str(item["src"])
    path = Path(C.DEFAULT_LOCAL_TMP, item["sha256"])
    partial = path.with_suffix(".partial")
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            try:
                with download(item["src"], by()) as answer, partial.open("wb") as file:
                    shutil.copyfileobj(answer, file)
            except (OSError, ValueError) as error:
                raise AnsibleActionFail(
                    f"the archive for {item['path']} could not be fetched from {item['src']}: {error}; nothing was changed. "
                    f"Remedy: {REMEDY}."
                ) from None
            partial.replace(path)
    return str(path)
