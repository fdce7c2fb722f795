# SPDX-License-Identifier: Apache-2.0
"""The models of a server, by name."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from trine._core import InputError
from trine.server.failures import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from trine.tasks.base import Task

T = TypeVar("T", bound="Task")


@dataclass(frozen=True)
class Served:
    """A model and what requests call it."""

    name: str
    model: Task


class Registry:
    """Models that requests choose from; the first that a route can use is the default."""

    def __init__(self, models: Mapping[str, Task]) -> None:
        if not models:
            raise InputError("a server needs at least one model")
        self._models = {name: Served(name, model) for name, model in models.items()}
        self.since = int(time.time())

    def __iter__(self) -> Iterator[Served]:
        return iter(self._models.values())

    def has(self, *kinds: type[Task]) -> bool:
        """Whether there is a model of one of these classes."""
        return any(isinstance(served.model, kinds) for served in self)

    def named(self, name: str | None) -> Served:
        """Return a model by name; without one, the first.

        Raises
        ------
        Failure
            404: there is none.
        """
        if name is None:
            return next(iter(self))
        if name not in self._models:
            known = ", ".join(self._models)
            raise Failure(404, f"no model {name!r}; there are: {known}", code="model_not_found")
        return self._models[name]

    def choose(self, name: str | None, kind: type[T]) -> tuple[str, T]:
        """Return the model that a request names, or else the first of the class that it needs.

        Raises
        ------
        Failure
            404: there is none of that name. 422: it is of another class.
        """
        if name is None:
            for served in self:
                if isinstance(served.model, kind):
                    return served.name, served.model
            raise Failure(404, f"no model here is of the class {kind.__name__}")
        served = self.named(name)
        if not isinstance(served.model, kind):
            here = type(served.model).__name__
            raise Failure(422, f"{name!r} is of the class {here}; this route needs {kind.__name__}")
        return served.name, served.model
