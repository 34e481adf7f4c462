# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Put a run's record where every node's service sees it: the key ``run`` of the cluster in etcd."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.request
from typing import Any

CERTIFICATE, KEY, AUTHORITY = "/etc/bzzz/tls/node.crt", "/etc/bzzz/tls/node.key", "/etc/bzzz/tls/ca.crt"
TIMEOUT_SECONDS = 3


def main(payload: dict[str, Any]) -> dict[str, Any]:
    """payload: endpoints (URLs of etcd), key, record. Returns {recorded, reason}; the first endpoint that takes it is enough."""
    try:
        context = ssl.create_default_context(cafile=payload.get("ca", AUTHORITY))
        context.load_cert_chain(payload.get("certificate", CERTIFICATE), payload.get("private_key", KEY))
    except OSError as error:
        return {"recorded": False, "reason": f"the node's certificate cannot be used: {error}"}
    body = {"key": _b64(payload["key"]), "value": _b64(json.dumps(payload["record"], sort_keys=True))}
    # Between the nodes no proxy has a say.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    reasons = []
    for endpoint in payload["endpoints"]:
        try:
            with opener.open(f"{endpoint}/v3/kv/put", json.dumps(body).encode(), TIMEOUT_SECONDS) as answer:
                answer.read()
            return {"recorded": True, "reason": ""}
        except OSError as error:
            reasons.append(f"{endpoint}: {error}")
    return {"recorded": False, "reason": "; ".join(reasons) or "the cluster has no coordinator"}


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
