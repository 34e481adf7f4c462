# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Have every node hold the models that it is to hold. See plugins/modules/models.py."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.bzzz.cluster.plugins.module_utils import discovery, probe
from ansible_collections.bzzz.cluster.plugins.module_utils.models import holding, wanted
from ansible_collections.bzzz.cluster.plugins.module_utils.models.placement import MIB
from ansible_collections.bzzz.cluster.plugins.module_utils.node.models import split
from ansible_collections.bzzz.cluster.plugins.module_utils.rules import network
from ansible_collections.bzzz.cluster.plugins.plugin_utils.downloading import declared_way
from ansible_collections.bzzz.cluster.plugins.plugin_utils.question import ask

STAGES = ["held", "look", "describe", "assign", "pull", "serve", "copy", "stop"]
# Before what tells how far a pull is; the front knows it by this.
PROGRESS = "bzzz-progress:"
ASK_SECONDS = 8
# Ollama's own.
PORT = 11434


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        self._variables = variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        _checked, args = self.validate_argument_spec(
            {
                "stage": {"type": "str", "choices": STAGES, "required": True},
                "everywhere": {"type": "bool", "default": False},
                "discover": {"type": "bool", "default": False},
                "subnets": {"type": "list", "elements": "str", "default": []},
            }
        )
        own = variables.get("ansible_facts") or {}
        if "bzzz_declared" not in own:
            raise AnsibleActionFail("There is no declaration. Remedy: use role bzzz.cluster.declaration before.")
        self._node = str(variables["inventory_hostname"])
        self._declared, self._cluster = own["bzzz_declared"], own["bzzz_cluster"]
        self._roles = self._declared[self._node]
        self._instances = self._ollamas(own)
        # The first that has answered.
        self._endpoint = (own.get("bzzz_models_held") or {}).get("endpoint")
        self._store = wanted.disk(self._roles, own)[0]
        result.update(changed=False, changes=[], diff=[])
        stage = {
            "held": self._held,
            "look": self._look,
            "describe": self._describe,
            "assign": self._assign,
            "pull": self._pull,
            "serve": self._serve,
            "copy": self._copy,
            "stop": self._stop,
        }
        told: dict[str, Any] = self._held(everywhere=True) if args["everywhere"] else stage[args["stage"]]()
        if args["discover"] and self._node == variables["ansible_play_hosts"][0]:
            told["ansible_facts"]["bzzz_models_held"]["found"] = self._discovered(args["subnets"])
        return {**result, **told}

    def _ollamas(self, own: dict[str, Any]) -> list[str]:
        """The node's Ollamas, which share one store; those of ours as role ollama numbers them."""
        options = self._roles["ollama"]
        if options["manage"] != "install":
            endpoint = ((own.get("bzzz_system") or {}).get("ollama") or {}).get("endpoint")
            return [str(endpoint)] if endpoint else []
        gpus = [one for one in (own.get("bzzz_gpu") or {}).get("devices") or [] if one.get("uuid")]
        count = max(len(gpus), 1) if options["instances"] == "per_gpu" else 1
        return [f"http://127.0.0.1:{options['port'] + number}" for number in range(count)]

    def _ask(self, do: str, **payload: Any) -> dict[str, Any]:
        answer = ask(self, "models", {"do": do, **payload}, self._variables)
        if answer.get("error"):
            remedy = "Remedy: 'journalctl -u bzzz-ollama@0' (or of the unit that serves there) on the node says more; then run again."
            raise AnsibleActionFail(f"{answer['error']}. {remedy}")
        return answer

    # --- what there is

    def _held(self, *, everywhere: bool = False) -> dict[str, Any]:
        """One question; none where the node has no Ollama. Fails where a model names the node all the same."""
        others = [url.rstrip("/") for url in self._roles["ollama"]["endpoints"]] if everywhere else []
        endpoints = self._instances + others
        if not endpoints and not everywhere:
            self._named("it has no Ollama")
        if not endpoints:
            told: dict[str, Any] = {"endpoint": None, "instances": [], "models": {}, "endpoints": {}, "shown": {}}
            return {"ansible_facts": {"bzzz_models_held": told}}
        show = [wanted.full(one["name"]) for one in wanted.wanted(self._declared) if not (one["nodes"] or one["geometry"])]
        store = None if everywhere else self._store  # of others' blobs nothing is to be known
        answer = self._ask("look", endpoints=endpoints, store=store, show=show if self._instances and not everywhere else [])
        said = answer["endpoints"]
        # Since the facts were gathered, it may have been taken away.
        first = next((url for url in self._instances if "error" not in said[url]), None)
        mine = holding.together([said[url] for url in self._instances])
        if "error" in mine and self._task.check_mode and self._roles["ollama"]["manage"] == "install":
            first, mine = self._instances[0], {"models": {}}  # which this step would install
        if "error" in mine and not everywhere:
            self._named(mine["error"])
        told = {
            "endpoint": first,
            "instances": self._instances,
            "models": mine.get("models", {}),
            # Those that share a store hold the same: what is theirs is told once.
            "endpoints": {
                url: mine if url == first else one for url, one in said.items() if url == first or url in others or "error" in one
            },
            "shown": answer["shown"],
        }
        return {"ansible_facts": {"bzzz_models_held": told}}

    def _look(self) -> dict[str, Any]:
        """For the plan: what wanted models are made of, and which are loaded. One question, where the facts say that one is held."""
        ollama = ((self._variables["ansible_facts"].get("bzzz_system") or {}).get("ollama")) or {}
        there = {wanted.full(one["name"]) for one in ollama.get("models") or [] if one.get("name")}
        wishes = {wanted.full(one["name"]): one for one in wanted.wanted(self._declared)}
        urls = self._instances if there & wishes.keys() else []
        show = sorted(name for name in there & wishes.keys() if not wishes[name]["geometry"])
        answer = self._ask("look", endpoints=urls, show=show) if urls else {"endpoints": {}, "shown": {}}
        models = holding.together([answer["endpoints"][url] for url in urls]).get("models", {})
        return {"ansible_facts": {"bzzz_models_held": {"models": models, "shown": answer["shown"]}}}

    def _discovered(self, subnets: list[str]) -> dict[str, Any]:
        """Other Ollamas on the cluster's subnets, or on those given: ``{subnets, ollamas}``. This node looks."""
        facts = {node: self._facts(node) for node in self._variables["ansible_play_hosts"]}
        places = network.places(self._declared, self._cluster, facts)
        wanted_subnets = subnets or sorted({str(place["subnet"]) for place in places.values() if place["subnet"]})
        for subnet in wanted_subnets:
            found = network.network_of(subnet)
            if found is None or found.num_addresses > discovery.SWEEP_MAX:
                why = "is no network" if found is None else f"has {found.num_addresses} addresses"
                most = f"networks of up to {discovery.SWEEP_MAX} addresses"
                raise AnsibleActionFail(f"{subnet} {why}. Remedy: name {most}, for example with --subnet 192.168.1.0/24.")
        there = [str(node["address"]) for node in self._cluster["nodes"] if node["address"]]
        return {"subnets": wanted_subnets, "ollamas": self._ask("sweep", networks=wanted_subnets, port=PORT, **{"except": there})["found"]}

    def _named(self, why: str) -> None:
        """Refuse this node where models are declared for it, and there is no Ollama to hold them."""
        names = [one["name"] for one in wanted.wanted(self._declared) if self._node in (one["nodes"] or ())]
        if names:
            raise AnsibleActionFail(
                f"{', '.join(names)} cannot be on {self._node}: {why}. Remedy: set ollama_manage: install there, start its Ollama, "
                f"or take {self._node} out of the models' nodes."
            )

    def _everybody(self) -> dict[str, dict[str, Any]]:
        """What the nodes of this run have told; of those without an Ollama, nothing."""
        facts = {node: self._facts(node) for node in self._variables["ansible_play_hosts"]}
        return {node: seen["bzzz_models_held"] for node, seen in facts.items() if (seen.get("bzzz_models_held") or {}).get("endpoint")}

    def _facts(self, node: str) -> dict[str, Any]:
        found: dict[str, Any] = self._variables["hostvars"].raw_get(node).get("ansible_facts", {})
        return found

    def _models(self) -> dict[str, holding.Held]:
        return {node: told["models"] for node, told in self._everybody().items()}

    def _described(self, there: set[str]) -> dict[str, dict[str, Any]]:
        """What registries tell of wanted models that no node holds, by full name; this node asks them. Nothing is asked in vain."""
        untold = [one for one in wanted.wanted(self._declared) if not (one["nodes"] or one["geometry"])]
        lacking = [{"name": one["name"], "insecure": one["insecure"]} for one in untold if wanted.full(one["name"]) not in there]
        if not lacking:
            return {}
        answer = self._ask("describe", models=[self._by_way(one) for one in lacking], modules=["gguf"])
        return {wanted.full(one["name"]): answer["models"][one["name"]] for one in lacking}

    def _describe(self) -> dict[str, Any]:
        """By the facts: before a step has run, no Ollama was asked for all that it holds."""
        facts = (self._facts(node) for node in self._variables["ansible_play_hosts"])
        ollamas = [(seen.get("bzzz_system") or {}).get("ollama") or {} for seen in facts]
        there = {wanted.full(one["name"]) for ollama in ollamas for one in ollama.get("models") or [] if one.get("name")}
        return {"ansible_facts": {"bzzz_models_described": self._described(there)}}

    # --- what there is to be

    def _assign(self) -> dict[str, Any]:
        told = self._everybody()
        facts = {node: self._facts(node) for node in self._variables["ansible_play_hosts"] if node in self._declared}
        shown = self._described({name for held in told.values() for name in held["models"]}) if told else {}
        shown.update({name: one for held in told.values() for name, one in held["shown"].items()})
        found = holding.assigned(self._declared, facts, self._models(), shown)
        checks = [_check(self._node, one["model"], "warn", one["why"], one["remedy"]) for one in found["unplaced"]]
        return {"checks": checks, "ansible_facts": {"bzzz_models_assigned": found}, "msg": probe.summary("models", checks)}

    def _mine(self) -> dict[str, Any]:
        found: dict[str, Any] = self._variables["ansible_facts"]["bzzz_models_assigned"]
        return found["nodes"].get(self._node) or {"models": [], "get": [], "prune": []}

    # --- how it comes to be

    def _pull(self) -> dict[str, Any]:
        """Remove what is too much, then pull what nobody has yet. In check mode, what would be done in all stages."""
        found, held, mine = self._variables["ansible_facts"]["bzzz_models_assigned"], self._models(), self._mine()
        pulls = holding.seeds(found, held)
        own = pulls.get(self._node, []) if self._roles["models"]["copy"] else mine["get"]
        wishes = [one for one in mine["models"] if one["name"] in own]
        later: list[dict[str, str]] = []
        if self._task.check_mode:
            for one in (one for one in mine["models"] if one["name"] in mine["get"] and one["name"] not in own):
                peer = next((node for node in holding.holders(one, held) if node != self._node), None)
                if peer:
                    wishes.append(self._with_source(one, peer, held))
                else:  # who is to pull it first judges its size
                    seed = next(node for node, names in pulls.items() if one["name"] in names)
                    later.append({"kind": "model", "name": one["name"], "what": f"would be copied from {seed}"})
        copies = bool(set(mine["get"]) - set(own)) and not self._task.check_mode
        told = self._fetch(wishes, held.get(self._node, {}), self._vain(held), more=copies)
        return _told(told["changes"] + later, self._remembered(told["models"]))

    def _serve(self) -> dict[str, Any]:
        """Serve what others lack for as long as the next stage takes."""
        names, peers = holding.serving(self._node, self._variables["ansible_facts"]["bzzz_models_assigned"], self._models())
        served: list[str] = []
        said = ""
        if names and not self._task.check_mode and self._roles["models"]["copy"]:
            answer = ask(
                self,
                "models",
                {"do": "serve", "port": self._roles["models"]["copy_port"], "store": self._store, "names": names, "peers": peers},
                self._variables,
            )
            # Then they are pulled: a copy only saves a download.
            served, said = list(answer.get("serving", [])), str(answer.get("error") or "")
        warnings = [f"{self._node} cannot serve its models to its peers, which pull them themselves: {said}"] if said else []
        return {"ansible_facts": {"bzzz_models_serving": served}, "warnings": warnings}

    def _copy(self) -> dict[str, Any]:
        """Copy what a peer serves, and pull the rest."""
        if self._task.check_mode:
            return {}
        found, held, mine = self._variables["ansible_facts"]["bzzz_models_assigned"], self._models(), self._mine()
        serves = {node: self._facts(node).get("bzzz_models_serving") or [] for node in self._everybody()}
        lacking = [one for one in mine["models"] if one["name"] in mine["get"] and self._node not in holding.holders(one, held)]
        wishes = [self._with_source(one, holding.source(one, self._node, found, held, serves), held) for one in lacking]
        told = self._fetch(wishes, held.get(self._node, {}), self._vain(held))
        return _told(told["changes"], self._remembered(told["models"]))

    def _stop(self) -> dict[str, Any]:
        """End the offer, and remove what was kept for it."""
        if self._task.check_mode:
            return {}
        if self._variables["ansible_facts"].get("bzzz_models_serving"):
            self._ask("stop")
        held = self._models()
        told = self._fetch([], held.get(self._node, {}), self._vain(held))
        return _told(told["changes"], {"bzzz_models_serving": [], **self._remembered(told["models"])})

    def _vain(self, held: dict[str, holding.Held]) -> list[str]:
        """What may be removed by now: not what a peer is still to copy from here."""
        found, copies = self._variables["ansible_facts"]["bzzz_models_assigned"], self._roles["models"]["copy"]
        wanted_yet = holding.serving(self._node, found, held)[0] if copies and not self._task.check_mode else []
        return [name for name in self._mine()["prune"] if name in held.get(self._node, {}) and name not in wanted_yet]

    def _with_source(self, one: dict[str, Any], peer: str | None, held: dict[str, holding.Held]) -> dict[str, Any]:
        address = next((str(node["address"]) for node in self._cluster["nodes"] if node["name"] == peer and node["address"]), None)
        if peer is None or address is None:
            return one
        there = held[peer][wanted.full(one["name"])]
        where = {"name": peer, "address": address, "port": self._declared[peer]["models"]["copy_port"]}
        return {**one, "from": where, "bytes": there["bytes"], "digest": there["digest"], "parts": there["parts"]}

    def _by_way(self, one: dict[str, Any]) -> dict[str, Any]:
        """With the proxies by which the node asks the model's registry."""
        scheme, host = "http" if one["insecure"] else "https", split(one["name"])[0]
        way = declared_way(self._variables, self._templar, of_node=True)
        return {**one, "proxies": way.proxies(f"{scheme}://{host}/")}

    def _fetch(self, wishes: list[dict[str, Any]], there: holding.Held, prune: list[str], *, more: bool = False) -> dict[str, Any]:
        """Judge what the models take, then remove what is too much, then fetch. Returns what the node holds then, and the changes.

        Where a later stage is to judge more, nothing is removed yet but for room that this one needs.
        """
        need: dict[str, dict[str, Any]] = {}
        free = 0
        if wishes:
            answer = self._ask("room", store=self._store, models=[self._by_way(one) for one in wishes], remove=prune)
            need = {one["name"]: answer["models"][one["name"]] for one in wishes}
            free = int(answer["free_bytes"])
            self._judge(wishes, need, free + int(answer["freed_bytes"]))
        if more and not self._short(need, free):
            prune = []
        changes = [{"kind": "model", "name": name, "what": f"removed, {holding.amount(there[name]['bytes'])}"} for name in prune]
        if self._task.check_mode:
            would = {True: "would be copied from {}, {}", False: "would be pulled{}, {}"}
            changes += [
                {
                    "kind": "model",
                    "name": one["name"],
                    "what": would["from" in one].format(
                        one["from"]["name"] if "from" in one else "", holding.amount(need[one["name"]]["bytes"])
                    ),
                }
                for one in wishes
            ]
            return {"models": there, "changes": changes}
        models = {name: one for name, one in there.items() if name not in prune}
        if prune:
            self._ask("remove", endpoint=self._endpoint, names=prune)
        if not wishes:
            return {"models": models, "changes": changes}
        sized = [{**one, "bytes": need[one["name"]]["bytes"], "parts": need[one["name"]]["parts"]} for one in wishes]
        self._ask("start", endpoint=self._endpoint, store=self._store, models=sized)
        results = self._follow()
        failed = []
        for one in wishes:
            done = results.get(one["name"]) or {"error": "nothing was told of it"}
            if "error" in done:
                failed.append(f"{one['name']}: {done['error']}")
                continue
            models[wanted.full(one["name"])] = {key: done[key] for key in ("digest", "bytes", "loaded_bytes", "parts")}
            where = f" from {one['from']['name']}" if done["how"] == "copied" else ""
            note = f"; {done['note']}" if done.get("note") else ""
            what = f"{'copied' if where else 'pulled'}{where}, {holding.amount(int(done['bytes']))}{note}"
            changes.append({"kind": "model", "name": one["name"], "what": what})
        if failed:
            had = ", ".join(change["name"] for change in changes[len(prune) :])
            raise AnsibleActionFail(
                f"{self._node} does not have all of its models: {'; '.join(failed)}. "
                + (f"It does have: {had}. " if had else "")
                + (f"Removed, as nobody wants them there: {', '.join(prune)}. " if prune else "")
                + "Remedy: see that the node reaches the registry, and that name and digest are right; then run again, which goes on from "
                f"what is there: bzzz-setup models pull --limit {self._node}"
            )
        return {"models": models, "changes": changes}

    def _judge(self, wishes: list[dict[str, Any]], need: dict[str, dict[str, Any]], free: int) -> None:
        """Refuse what cannot be known, is another than declared, or has no room; all before anything is removed or fetched."""
        wrong = []
        for one in wishes:
            found = need[one["name"]]
            if "error" in found:
                wrong.append(
                    f"{one['name']}: nothing tells its size before it is pulled ({found['error']}). "
                    "Remedy: mend the way to the registry or the name; where it only answers to Ollama, set size_mib in models_wanted."
                )
            elif one["pin"] and found["digests"] and one["pin"] not in found["digests"]:
                wrong.append(
                    f"{one['name']}: digest {one['pin']} is declared, and the registry offers {found['digests'][0]}. "
                    "Remedy: set the digest that you want to have, or a tag that still has the declared one."
                )
        if wrong:
            raise AnsibleActionFail(" ".join(wrong) + " Nothing was fetched or removed.")
        if short := self._short(need, free):
            raise AnsibleActionFail(short)

    def _short(self, need: dict[str, dict[str, Any]], free: int) -> str | None:
        return holding.short_of(self._node, need, free, self._roles["resources"]["disk_free_min_mib"] * MIB, self._store)

    def _follow(self) -> dict[str, Any]:
        """Ask how far it is, and tell, until it has ended."""
        seen: dict[str, Any] = {}
        told = ""
        while True:
            state = self._ask("wait", seconds=ASK_SECONDS, seen=seen)
            if state["ended"]:
                return dict(state["results"])
            total = int(state.get("total_bytes") or 0)
            done = min(int(state.get("done_bytes") or 0), total)
            far = f"{100 * done // total} % of {holding.amount(total)}" if total else "begins"
            doing = f", {state['doing']}" if state.get("doing") and done == total else ""
            line = f"{self._node}: {state.get('model')} {far}{doing}"
            if line != told and state.get("model"):
                Display().display(f"{PROGRESS} {line}")
            seen, told = state, line

    def _remembered(self, models: holding.Held) -> dict[str, Any]:
        """For the stages after this one."""
        return {"bzzz_models_held": {**(self._variables["ansible_facts"].get("bzzz_models_held") or {}), "models": models}}


def _told(changes: list[dict[str, str]], facts: dict[str, Any]) -> dict[str, Any]:
    said = "".join(f"{one['name']}: {one['what']}\n" for one in changes)
    diff = [{"before": "", "after": said, "before_header": "models", "after_header": "models"}] if changes else []
    return {"changed": bool(changes), "changes": changes, "diff": diff, "ansible_facts": facts}


def _check(node: str, model: str, status: str, seen: str, remedy: str) -> dict[str, Any]:
    return {
        "id": f"models-place-{model}",
        "requirement": "3.6.2",
        "role": "models",
        "node": node,
        "title": f"{model} has a node that is to hold it",
        "status": status,
        "seen": seen,
        "expected": "a place for every replica",
        "remedy": remedy,
        "data": {},
    }
