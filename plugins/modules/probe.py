#!/usr/bin/python
# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Look whether things on a node are as they should be; nothing is changed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: probe
short_description: Look whether a node is as it should be
version_added: 0.1.0
description:
  - Evaluates a list of probes on a node and returns a check for each. Nothing is changed.
  - One question is sent to the node for all of them, whatever their number, and they are evaluated there at the same time.
  - An entry has O(probes[].id), O(probes[].title), O(probes[].remedy) and exactly one kind of probe.
    It may also have C(when) (an expression or a list of them; where it doesn't hold the entry is left out, or reported as skipped with
    the text of C(skip)) and C(loop) (a list; the entry is evaluated for each C(item)), as tasks do.
  - A kind's options are refused with the nearest right name when they are misspelt.
  - A value that isn't a mapping is the kind's first option, so that C(mount) with V(/srv) means C(mount) with C(path=/srv).
  - In check mode, what a role has not brought yet is no failure; such a check is reported as skipped.
options:
  roles:
    description:
      - Roles of this collection whose C(probes/main.yml) is evaluated, templated with the task's variables and the role's own.
    type: list
    elements: str
    default: []
  path:
    description:
      - A file of probes outside this collection, relative to the playbook.
    type: path
  probes:
    description:
      - Probes given here.
    type: list
    elements: dict
    default: []
    suboptions:
      id:
        description: Short name, unique in its role.
        type: str
        required: true
      title:
        description: What is to hold, in words.
        type: str
        required: true
      remedy:
        description:
          - What to do when it doesn't hold. In C(reach) and C(peers), C(<peer>), C(<address>), C(<port>) and C(<state>) stand for what was found,
            in C(egress) C(<target>) and C(<remedy>), and in C(model_server) C(<remedy>).
        type: str
        required: true
      requirement:
        description: ID of the requirement that it proves, or a list of them.
        type: raw
      severity:
        description: Status that the check gets when it doesn't hold.
        type: str
        choices: [fail, warn]
        default: fail
      within:
        description: Look again for so many seconds until it holds.
        type: float
        default: 0
      file:
        description:
          - C(path), C(state) (V(file), V(directory), V(link), V(absent)), C(mode), C(owner), C(group), C(sha256), C(content), C(target).
        type: raw
      unit:
        description: C(name), C(active), C(enabled). A unit that should be active and isn't is shown with the last lines of its journal.
        type: raw
      unit_property:
        description: C(name), and any property of C(systemctl show) with its value.
        type: dict
      cgroup:
        description: C(name) of a unit, C(memory_max_mib), C(cpu_quota_percent), as the kernel enforces them; V(0) is no limit.
        type: dict
      listener:
        description: C(port), C(protocol), C(address) (the one it is bound to, exactly), C(program), C(unit).
        type: raw
      http:
        description:
          - C(url), C(status), C(json) (dotted path to value, C(.#) for a list's length), C(body) (regular expression), C(headers), C(token_file)
            (file on the node with a bearer token), C(method), C(ca), C(certificate), C(key), C(server_name), C(timeout), C(latency_max_ms).
          - Headers never appear in a check.
        type: raw
      tls:
        description: C(port), C(host), C(ca), C(server_name), C(sans), C(min_days_left), C(min_version), C(timeout).
        type: raw
      certificate:
        description: C(path), C(ca), C(key), C(sans), C(min_days_left), C(owner) of the key.
        type: raw
      sysctl:
        description: Any kernel parameter with its value.
        type: dict
      mount:
        description: C(path), C(fstype).
        type: raw
      disk_free:
        description: C(path), C(min_mib).
        type: dict
      packages:
        description: C(names) of Debian packages that are installed.
        type: raw
      user:
        description: C(name), C(groups), C(shell), C(sudo) (V(none), V(password), V(commands), V(passwordless)).
        type: raw
      command:
        description: C(argv), C(rc), C(stdout) (regular expression), C(timeout), C(user).
        type: raw
      loaded:
        description: C(set) and C(name) of what M(bzzz.cluster.config_set) has loaded; it is still in force as it was after the last apply.
        type: dict
      value:
        description: C(seen), and C(expected), C(min) or C(max); for what is already known, such as a fact. C(unit) is only shown.
        type: dict
      reach:
        description:
          - C(peers) (each with C(name) and C(address); the node itself is left out), C(ports), C(state) (V(open), V(closed), V(blocked)), C(timeout).
        type: dict
      peers:
        description:
          - C(peers), C(port), C(timeout), C(latency_max_ms), C(loss_max_percent). Reachability, latency, loss, path MTU and name resolution of every peer.
        type: raw
      clock:
        description: C(max_offset_seconds) between the node's clock and the controller's.
        type: raw
      egress:
        description:
          - C(targets) (addresses, which are asked the way that apt downloads on the node, and C(host:port), to which a connection is made),
            C(sources) (whether each mirror of the node's package sources is asked), C(direct) (hosts that are reached without the proxy), C(timeout).
        type: dict
      model_server:
        description:
          - C(url), the base of an API of models; C(api) (V(openai), V(ollama)), C(key_file) (LiteLLM's configuration, whose key for this address is
            sent), C(option) (the option with the key, for remedies), C(organization), C(projects), C(models) (that it is to have), C(call) (the model
            that is called for a token), C(proxy), C(timeout). A key, quota, rate limit, organisation, project or model that is not right,
            and where the way ends, are told apart.
        type: dict
      time_source:
        description:
          - C(synchronised) and C(services), as M(bzzz.cluster.system_facts) tells of the clock. Where it is not synchronised, the time service
            is asked whether a source of its answers.
        type: dict
  fail:
    description:
      - Whether a check of status V(fail) fails the task.
    type: bool
    default: true
attributes:
  check_mode:
    description: Can run in check mode.
    support: full
  diff_mode:
    description: Shows what differs in diff mode.
    support: none
  idempotent:
    description: Looks only, and never changes anything.
    support: full
author:
  - BZZZ cluster setup maintainers (@bzzz)
"""

EXAMPLES = r"""
- name: Step 2 holds
  bzzz.cluster.probe:
    roles: [network, firewall]

- name: The service answers
  bzzz.cluster.probe:
    probes:
      - id: health
        title: The service is healthy
        requirement: "6.1.5"
        remedy: journalctl -u bzzz
        within: 20
        http:
          url: https://127.0.0.1:8080/health
          ca: /etc/bzzz/tls/ca.crt
          json: {status: pass}
"""

RETURN = r"""
checks:
  description: One for each entry that applies to the node.
  returned: success
  type: list
  elements: dict
  contains:
    id: {description: The entry's name., type: str, sample: service-port}
    requirement: {description: "Requirements that it proves, separated by commas.", type: str, sample: "1.2.1"}
    role: {description: Role that the entry belongs to., type: str, sample: service}
    node: {description: Node that was looked at., type: str, sample: bzzz-node1}
    title: {description: What is to hold., type: str, sample: The service listens on its port}
    status: {description: "V(pass), V(warn), V(fail) or V(skip).", type: str, sample: fail}
    seen: {description: What was seen., type: str, sample: nothing listens there}
    expected: {description: What was expected., type: str, sample: tcp port 8080}
    remedy: {description: What to do about it., type: str, sample: systemctl restart bzzz}
    data: {description: Figures behind it., type: dict, sample: {}}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bzzz.cluster.plugins.module_utils import probe
from ansible_collections.bzzz.cluster.plugins.module_utils.node import probes


def main() -> None:
    # Roles and paths are files of the controller: there the action plugin of the same name reads them.
    module = AnsibleModule(
        argument_spec={
            "roles": {"type": "list", "elements": "str", "default": []},
            "path": {"type": "path"},
            "probes": {"type": "list", "elements": "dict", "default": []},
            "fail": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
        no_log=True,  # arguments, and headers with them, aren't logged
    )
    if module.params["roles"] or module.params["path"] or not module.params["probes"]:
        module.fail_json(msg="the module itself reads probes only; roles and path are for the action plugin bzzz.cluster.probe")
    given = module.params["probes"]
    headers = [entry["http"].get("headers") for entry in given if isinstance(entry.get("http"), dict)]
    module.no_log_values.update(str(text) for found in headers if isinstance(found, dict) for text in found.values())
    try:
        entries = [probe.understand("", entry) for entry in given]
    except probe.Refused as error:
        module.fail_json(msg=str(error))
    answer = probes.main(probe.question("", entries, module.check_mode))
    checks = probe.judge("", entries, answer["outcomes"], check_mode=module.check_mode)
    failed = module.params["fail"] and any(check["status"] == "fail" for check in checks)
    module.exit_json(changed=False, failed=failed, checks=checks, msg=probe.summary("this node", checks))


if __name__ == "__main__":
    main()
