# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The web wizard: `bzzz-setup web`. What it knows of options, steps and rules comes from the collection; it runs what the terminal runs."""
