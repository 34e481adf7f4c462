# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Writes the list of prices that forecasts have from the one that comes with the gateway's LiteLLM.

python -m bzzz_setup.prices LITELLM     where LITELLM is that package's folder in a virtual environment of the extra `gateway`
"""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

from ansible_collections.bzzz.cluster.plugins.module_utils.forecast import PRICES

LIST = "model_prices_and_context_window_backup.json"
MODES = ("chat", "embedding")


def wanted(litellm: Path) -> dict[str, list[Any]]:
    """OpenAI's models that the gateway can call -> dollars a million tokens: in, in from the cache, out."""
    rows = json.loads((litellm / LIST).read_text(encoding="utf-8"), parse_float=Decimal, parse_int=Decimal)
    found = {}
    for name, row in sorted(rows.items()):
        fresh = row.get("input_cost_per_token")
        if row.get("litellm_provider") == "openai" and row.get("mode") in MODES and "/" not in name and fresh is not None:
            cached, out = row.get("cache_read_input_token_cost"), row.get("output_cost_per_token") or Decimal(0)
            found[name] = [float(each * 10**6) for each in (fresh, fresh if cached is None else cached, out)]
    return found


def main() -> None:
    rows = (f" {json.dumps(name)}: {json.dumps(row)}" for name, row in wanted(Path(sys.argv[1])).items())
    PRICES.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
