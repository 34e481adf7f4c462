# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What each call to a model costs and whether it may be made; runs within LiteLLM's proxy by its hooks (docs/cost.md).

``budgets`` and ``reports`` are pure rules; ``ledger`` keeps calls in a database; ``settings`` reads the gateway's file, ``tokens``
tells who asks; ``hooks`` is what LiteLLM calls. Only ``hooks`` needs LiteLLM.
"""
