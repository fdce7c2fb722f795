# SPDX-License-Identifier: Apache-2.0
"""``trine cache``: what the load cache holds."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from trine.command import Command

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from trine.load_cache import Entry


class Cache(Command):
    """``trine cache``."""

    name = "cache"
    summary = "show or empty the folder of models that were loaded before"
    example = "trine cache list\n  trine cache size\n  trine cache clear"
    takes_texts = False
    takes_model = False

    def add_options(self, parser: ArgumentParser) -> None:
        """Add what to do."""
        parser.add_argument(
            "action",
            choices=["list", "size", "clear"],
            help="list: a line for each model, least used first; size: bytes and limit; "
            "clear: remove all that nobody is writing",
        )

    def run(self, options: Namespace) -> int:
        """Print JSON lines."""
        from trine import load_cache

        place = load_cache.folder()
        found = list(load_cache.entries(place))
        rows: list[dict[str, Any]]
        if options.action == "list":
            rows = [_describe(entry) for entry in found if entry.bytes()]
        elif options.action == "size":
            size = sum(entry.bytes() for entry in found)
            models = sum(entry.used() > 0 for entry in found)
            limit = load_cache.size_limit()
            rows = [{"folder": str(place), "models": models, "bytes": size, "limit": limit}]
        else:
            sizes = [(entry.bytes(), entry.remove()) for entry in found]
            gone = [size for size, removed in sizes if removed and size]
            left = sum(size for size, removed in sizes if not removed)
            rows = [{"removed": len(gone), "bytes": sum(gone), "bytes_left": left}]
        sys.stdout.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        return 0


def _describe(entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {"file": str(entry.file), "bytes": entry.bytes()}
    try:
        record = entry.read()
    except (OSError, ValueError):
        return row | {"damaged": True}
    used = datetime.fromtimestamp(entry.used(), timezone.utc).isoformat(timespec="seconds")
    names = ("source", "architecture", "task", "dtype")
    return row | {name: record.get(name) for name in names} | {"used": used}
