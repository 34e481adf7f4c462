# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who may do what: principals with a role and scopes, found by token, password or session, and a record of what they did.

``principals`` and ``records`` are plain data; ``directory`` keeps users and tokens in etcd; ``gate`` decides on each request;
``api`` manages users and tokens; ``audit`` writes down. A further way to sign in makes a ``Principal`` and hands it to
``Gate.session``; one that checks passwords is a ``gate.Backend``.
"""
