# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Why programs most often fail, by what they say, and the command that mends it."""

from __future__ import annotations

import re
from typing import NamedTuple, Optional

# (what a program says, why, remedy); the first that fits counts. `{0}` is the first group of the pattern.
# What Ansible says of a connection comes first, since it quotes whatever else went wrong on the way.
CAUSES = (
    (
        r"Host key verification failed|HOST IDENTIFICATION HAS CHANGED",
        "The machine does not show the host key that is pinned for it, so nothing was sent to it.",
        "If it was set up anew, compare what 'ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub' says on its console with what "
        "'bzzz-setup host-keys' shows; where both agree, 'bzzz-setup host-keys NODE --accept SHA256:...' puts its new key into "
        "known_hosts.txt of the inventory. If nobody changed it, another machine answers in its place: find it before anything else.",
    ),
    (
        r"(\S+): Permission denied \(",
        "An SSH server answers, but lets this user with this key not in.",
        "Try it with: ssh -i KEY {0}. Authorise the key there (ssh-copy-id -i KEY {0}), or correct ansible_user and "
        "ansible_ssh_private_key_file in the inventory.",
    ),
    (
        r"connect to host (\S+) port \d+: Connection refused",
        "The machine is up, but no SSH server listens on this port.",
        "Start it on the machine's console (systemctl enable --now ssh), or correct ansible_port in the inventory.",
    ),
    (
        r"connect to host (\S+) port \d+: (?:Connection timed out|No route to host|Network is unreachable)"
        r"|Connection timed out during banner",
        "The machine is down, or a firewall on the way drops what is sent to it.",
        "Look whether it answers (ping {0}), switch it on or let SSH through, then run again: the other nodes were finished meanwhile, "
        "and a key that was revoked there still gets in here.",
    ),
    (
        r"Could not resolve hostname ([^\s:]+)",
        "This admin host does not know the name.",
        "Look it up with: getent hosts {0}. Give the node's address as ansible_host in the inventory, or mend the name service.",
    ),
    (
        r"(?:Missing|Incorrect) sudo password|sudo: a password is required|Sorry, try again",
        "The user that logs in needs a password for sudo, and a right one was not given.",
        "Put ansible_become_password into the vault file (ansible-vault edit group_vars/bzzz/vault.yml), or allow it on the node: "
        "echo 'USER ALL=(ALL:ALL) NOPASSWD: ALL' | sudo tee /etc/sudoers.d/USER && sudo visudo -c",
    ),
    (
        r"(\S+) is not in the sudoers file|Sorry, user (\S+) is not allowed to",
        "The user that logs in has no right to become root.",
        "As root on the node: echo '{0} ALL=(ALL:ALL) NOPASSWD: ALL' > /etc/sudoers.d/{0} && visudo -c",
    ),
    (
        r"sudo: (?:command )?not found",
        "There is no sudo on the node, and the user that logs in is not root.",
        "As root on the node: apt-get install sudo. Or log in as root (ansible_user: root in the inventory).",
    ),
    # certbot's words, and within them the authority's (RFC 8555).
    (
        r"acme\.sh.*CERTIFICATE_VERIFY_FAILED",
        "The ACME directory shows a certificate that the node does not trust.",
        "Name the certificate of the authority that issued it in tls_acme_ca_file, or correct tls_acme_directory.",
    ),
    (
        r"acme\.sh.*(?:Requesting (\S+?)/|HTTPSConnectionPool\(host='([^']+)')",
        "The ACME directory does not answer the node.",
        "On the node: curl -v https://{0}/. Correct tls_acme_directory, or let the node through to it (a proxy: downloads_https_proxy).",
    ),
    (
        r"acme\.sh.*(?:too many |rate ?[lL]imit)",
        "The authority issues no more to this account, address or domain for a while.",
        "Wait for as long as it says; the certificate that is shown stays. To try things out, name its staging directory in "
        "tls_acme_directory.",
    ),
    (
        r"acme\.sh.*(?:external account|'kid' references)",
        "The authority gives accounts only to those who have one with it outside of ACME, and does not know this one.",
        "Get key identifier and HMAC key on its pages, and give them as tls_acme_eab_id and (vault file) tls_acme_eab_key.",
    ),
    (
        r"acme\.sh.*Domain: (\S+) Type: +(?:connection|dns)",
        "The authority could not reach the node under this name.",
        "Look up {0} from outside, and have its records lead to this node; for http-01, let port 80 through from everywhere "
        "(curl http://{0}/ from outside must reach it). Where that cannot be: tls_acme_challenge: dns-01.",
    ),
    (
        r"acme\.sh.*Domain: (\S+) Type: +unauthorized",
        "The authority found another answer under this name than the node's own.",
        "Have {0} lead to this node and to nothing in between that answers itself; for dns-01, give the domain's name servers more time "
        "(tls_acme_dns_wait_seconds).",
    ),
    (
        r"acme\.sh.*Domain: (\S+) Type: +caa|acme\.sh.*CAA record for (\S+)",
        "A CAA record of the domain keeps this authority from issuing for it.",
        "Add the authority to the record (dig CAA {0}), or use one that is in it.",
    ),
    (
        r"acme\.sh.*Could not bind (?:TCP )?port (\d+)",
        "Another program on the node has the port that the authority comes to.",
        "See who: ss -ltnp 'sport = :{0}'. Stop it, or set tls_acme_challenge: dns-01.",
    ),
    (
        r"acme\.sh.*(?:Received response from server: (\w+)|Encountered error (?:adding|deleting) TXT|Encountered error when making query"
        r"|Unable to determine base domain)",
        "The name server does not take the node's updates of the domain.",
        "Try it on the node with nsupdate. Correct tls_acme_dns_server and the TSIG key (tls_acme_dns_key_name, "
        "tls_acme_dns_key_algorithm, tls_acme_dns_key), or let the key update the domain's _acme-challenge records there.",
    ),
    (
        r"No space left on device|[Dd]isk quota exceeded|You don't have enough free space",
        "A file system of the node is full.",
        "See which on the node: df -h; df -i. Make room (apt-get clean; journalctl --vacuum-size=200M), then run again.",
    ),
    (
        r"Read-only file system",
        "A file system of the node is mounted read-only, as the kernel does when a disk fails.",
        "On the node: findmnt -O ro; dmesg --level err. When the disk is sound: mount -o remount,rw PATH, then run again.",
    ),
    (
        r"Could not get lock (\S+?)\.? It is held by process (\d+) \((.*?)\)|Could not get lock (\S+)|Unable to acquire the dpkg",
        "Another program installs packages on the node, and did not finish in time.",
        "See who: fuser -v /var/lib/dpkg/lock-frontend. Wait for its end, or stop it (systemctl stop unattended-upgrades), then run again.",
    ),
    (
        r"(?:Temporary failure resolving|Could not resolve(?: host:?)?) '?([^\s':]+)",
        "The node cannot look up names: its name service does not answer.",
        "On the node: getent hosts {0}; cat /etc/resolv.conf. Name a server there that answers, then run again.",
    ),
    (
        r"Release file for (\S+) is (?:not valid yet|expired)",
        "The node's clock, or the package mirror, is off by days.",
        "On the node: timedatectl; set the clock (timedatectl set-ntp true), or choose another mirror, then run again.",
    ),
    (
        r"[Cc]ertificate verif\w+ failed|The certificate is NOT trusted|CERTIFICATE_VERIFY_FAILED",
        "The server's certificate is not trusted on the node: a proxy may put its own in between.",
        "Have your company's CA certificate trusted there (see docs/options.md for extra CA bundles), then run again.",
    ),
    (
        r"(?:Could not connect to|Unable to connect to|Failed to fetch|Cannot initiate the connection to) (?:https?://)?([^\s/:]+)",
        "The package mirror does not answer the node.",
        "On the node: curl -I http://{0}/. Let it through, or name a mirror that answers in /etc/apt/sources.list, then run again.",
    ),
    (
        r"Unable to locate package (\S+)|Package '?(\S+?)'? has no installation candidate",
        "None of the node's package sources has this package.",
        "On the node: apt-get update; apt-cache policy {0}. Debian's section 'main' (Ubuntu: 'universe') has to be among its sources.",
    ),
    (
        r"no vault secrets found|Decryption failed|HMAC verification failed",
        "The vault file cannot be opened: its key is not on this admin host, or is another one.",
        "Put the key back (~/.config/bzzz/CLUSTER/vault-key), or name its file in ANSIBLE_VAULT_PASSWORD_FILE. "
        "Where it is lost: remove group_vars/bzzz/vault.yml and set the secrets anew.",
    ),
    (
        r"no hosts to target",
        "None of the inventory's nodes is meant by that.",
        "Name nodes or groups of the inventory: ansible-inventory -i FOLDER --graph bzzz",
    ),
    (
        r"Cannot allocate memory|MemoryError|oom-kill|Out of memory",
        "The node ran out of memory.",
        "On the node: free -m; ps aux --sort=-rss | head. Stop what needs it, or add memory or swap, then run again.",
    ),
)


class Cause(NamedTuple):
    """`why` is a sentence, `remedy` begins with what to do."""

    why: str
    remedy: str


def cause(said: str) -> Optional[Cause]:
    """The likely cause of a failure by what a program said of it; None where it is none of the known ones."""
    for pattern, why, remedy in CAUSES:
        found = re.search(pattern, said)
        if found:
            first = next((group for group in found.groups() if group), "")
            return Cause(why, remedy.replace("{0}", first.rstrip(".,;'\"") or "ADDRESS"))
    return None


def explained(said: str, otherwise: str = "") -> str:
    """What was said, with cause and remedy; the other remedy where the cause is not known."""
    found = cause(said)
    said = said.rstrip(" .\n")
    if found:
        return f"{said}. {found.why} Remedy: {found.remedy}"
    return f"{said}. Remedy: {otherwise}" if otherwise else said
