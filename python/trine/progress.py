# SPDX-License-Identifier: Apache-2.0
"""A progress bar on standard error."""

from __future__ import annotations

import sys
import time


class Progress:
    """Counts to `total`; draws at most ten times a second, and only when `shown`."""

    def __init__(self, total: int, *, shown: bool | None) -> None:
        self._total, self._done, self._shown = total, 0, bool(shown)
        self._start, self._drawn = time.monotonic(), 0.0

    def expect(self, more: int) -> None:
        """Note that there will be `more` than was thought."""
        self._total += more

    def advance(self, count: int) -> None:
        """Note that `count` more are done."""
        self._done += count
        now = time.monotonic()
        if not self._shown or (now - self._drawn < 0.1 and self._done < self._total):
            return
        self._drawn = now
        width = 30 * self._done // max(self._total, 1)
        rate = self._done / max(now - self._start, 1e-9)
        end = "\n" if self._done >= self._total else ""
        line = f"\r{'#' * width:<30} {self._done}/{self._total}  {rate:.1f}/s "
        sys.stderr.write(line + end)
        sys.stderr.flush()
