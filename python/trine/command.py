# SPDX-License-Identifier: Apache-2.0
"""What a subcommand of ``trine`` is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


class Command(ABC):
    """One subcommand."""

    name: ClassVar[str]
    summary: ClassVar[str]
    example: ClassVar[str]
    takes_texts: ClassVar[bool] = True
    takes_model: ClassVar[bool] = True
    many_models: ClassVar[bool] = False

    def add_options(self, parser: ArgumentParser) -> None:  # noqa: B027
        """Add the options that this command alone has, if any."""

    @abstractmethod
    def run(self, options: Namespace) -> int:
        """Do it; returns the exit code."""
