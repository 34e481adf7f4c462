#!/usr/bin/python
# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: config_set
short_description: Land everything a role needs on a node, under a journal
version_added: "0.1.0"
author:
  - BZZZ cluster setup maintainers (@bzzz)
description:
  - Installs packages, creates accounts, puts directories, files, links and unpacked archives in place, sets units, and does the
    reloads and restarts that the changes call for.
  - Files are staged and validated together first. What is about to be done is then journaled on the node, so that a call
    after a kill at any moment finishes it. A reload or restart stays pending in the journal until it has been done.
  - The controller asks the node first, with one SSH round trip, and sends this module only where something differs.
options:
  name:
    description: Name of the set. What an earlier call with this name landed and this one no longer names is taken away again.
    type: str
    required: true
  packages:
    description: Debian packages to have. Their services are not started by the installation.
    type: list
    elements: str
    default: []
  groups:
    description: System groups to have.
    type: list
    elements: str
    default: []
  users:
    description: Users to have. An existing user is only added to groups, and keeps all else.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Login name.
        type: str
        required: true
      groups:
        description: Supplementary groups.
        type: list
        elements: str
        default: []
      system:
        description: Whether a new user is a system user.
        type: bool
        default: false
      home:
        description: Home directory of a new user.
        type: path
      create_home:
        description: Whether the home directory of a new user is made.
        type: bool
        default: false
      shell:
        description: Login shell of a new user; by default none.
        type: path
      comment:
        description: Full name of a new user.
        type: str
        default: ""
  directories:
    description: Directories to have.
    type: list
    elements: dict
    default: []
    suboptions: &directory
      path:
        description: Absolute path.
        type: path
        required: true
      owner:
        description: Owner.
        type: str
        default: root
      group:
        description: Group.
        type: str
        default: root
      mode:
        description: Mode, in octal.
        type: str
        default: "0755"
      notify: &notify
        description:
          - Actions that a change of this calls for, C(daemon_reload), C(restart:UNIT), C(reload:UNIT), C(run:COMMAND) or C(load:NAME).
        type: list
        elements: str
        default: []
  archives:
    description: Tar archives to have unpacked; those compressed by Zstandard need C(zstd) among the packages.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Directory to unpack into; replaced as a whole. It may lie in that of an archive before this one.
        type: path
        required: true
      within:
        description: The directory in the archive whose content is unpacked, and nothing else; all of it when not given.
        type: str
        default: ""
      src:
        description: The archive on the controller, or an HTTPS URL that the controller fetches it from, once a run.
        type: path
      sha256:
        description: Checksum of the archive.
        type: str
        required: true
      uploaded:
        description: The archive on the node; set by the controller.
        type: path
      keep:
        description:
          - How many archives stay unpacked in the directory that this one is unpacked in, itself included; those unpacked longest ago go first.
            0 is all.
        type: int
        default: 0
      notify: *notify
  files:
    description: Files to have.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path.
        type: path
        required: true
      content:
        description: The whole content. C(@@name@@) stands for the secret I(name).
        type: str
        required: true
      sha256:
        description: Checksum of the content with the secrets filled in; set by the controller.
        type: str
      owner:
        description: Owner.
        type: str
        default: root
      group:
        description: Group.
        type: str
        default: root
      mode:
        description: Mode, in octal.
        type: str
        default: "0644"
      notify: *notify
  links:
    description: Symbolic links to have.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path.
        type: path
        required: true
      target:
        description: What it points to.
        type: str
        required: true
      notify: *notify
  absent:
    description: Paths not to have.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path.
        type: path
        required: true
      notify: *notify
  validators:
    description: Commands that must accept the new files before anything is put in place. One that is not installed yet is noted.
    type: list
    elements: dict
    default: []
    suboptions:
      argv:
        description: The command. C({/path/of/file}) stands for the staged copy of that file.
        type: list
        elements: str
        required: true
  commands:
    description: Commands that C(run:NAME) refers to.
    type: list
    elements: dict
    default: []
    suboptions:
      name: &name
        description: Its name.
        type: str
        required: true
      argv: &argv
        description: The command.
        type: list
        elements: str
        required: true
  loaded:
    description: Things that must be loaded into the kernel or a daemon. Applied again whenever the query's answer is not what it was after the last apply.
    type: list
    elements: dict
    default: []
    suboptions:
      name: *name
      query: *argv
      apply: *argv
      undo: *argv
  units:
    description: systemd units and the state to have them in.
    type: list
    elements: dict
    default: []
    suboptions:
      name: *name
      enabled:
        description: Whether it starts at boot.
        type: bool
      active:
        description: Whether it runs now.
        type: bool
  secrets:
    description: Secrets by name, for C(@@name@@) in the files' contents. They appear in no log, diff or result.
    type: dict
    default: {}
  keep:
    description: How many generations of the set are kept on the node.
    type: int
    default: 5
  one_at_a_time:
    description:
      - Change no two nodes of the run at the same time. All are asked at once what differs, so that nodes with nothing to change wait for nobody.
    type: bool
    default: false
  revert_seconds:
    description:
      - When not 0, the node puts everything back by itself after so many seconds unless the controller confirms the change over a new connection,
        which it does within this task.
    type: int
    default: 0
  change:
    description: Mark of this very change, by which the node tells later whether it was put back; set by the controller.
    type: str
attributes:
  check_mode:
    support: full
    description: Can run in check_mode and return changed status prediction without modifying target.
  diff_mode:
    support: full
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
  idempotent:
    support: full
    description: A second call in a row with the same arguments changes nothing more.
  platform:
    support: full
    platforms: Debian, Ubuntu
    description: Target systems.
"""

EXAMPLES = r"""
- name: A web server, its configuration and its unit
  bzzz.cluster.config_set:
    name: web
    packages: [nginx]
    files:
      - path: /etc/nginx/conf.d/cluster.conf
        content: "{{ lookup('ansible.builtin.template', 'cluster.conf.j2') }}"
        notify: [reload:nginx.service]
    units:
      - name: nginx.service
        enabled: true
        active: true
"""

RETURN = r"""
changes:
  description: What was, or in check mode would be, changed.
  returned: always
  type: list
  elements: dict
  contains:
    kind:
      description: What sort of thing, for example C(file) or C(unit).
      type: str
    name:
      description: Which one.
      type: str
    what:
      description: What about it.
      type: str
  sample: [{"kind": "file", "name": "/etc/nginx/conf.d/cluster.conf", "what": "content"}]
notes:
  description: Things worth knowing, such as a validator that is not installed yet.
  returned: always
  type: list
  elements: str
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bzzz.cluster.plugins.module_utils.config_set_spec import ARGUMENTS
from ansible_collections.bzzz.cluster.plugins.module_utils.node.causes import explained
from ansible_collections.bzzz.cluster.plugins.module_utils.node.config_set import ConfigSet, ConfigSetError


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    spec = dict(module.params)
    secrets = spec.pop("secrets")
    config_set = ConfigSet(spec, secrets)
    os.umask(0o022)  # a hardened root's would make directories on the way that no service can enter
    try:
        diff = config_set.diff() if module._diff else []
        changes = config_set.preview() if module.check_mode else config_set.land()
    except ConfigSetError as error:
        module.fail_json(msg=str(error), notes=config_set.notes)
    except OSError as error:
        otherwise = "mend the cause on the node and run again; what was begun is remembered."
        module.fail_json(msg=explained(f"the set '{spec['name']}' could not be landed: {error}", otherwise), notes=config_set.notes)
    module.exit_json(changed=bool(changes), changes=changes, notes=config_set.notes, diff=diff)


if __name__ == "__main__":
    main()
