# SPDX-License-Identifier: Apache-2.0
"""What a server is told about its limits."""

from __future__ import annotations

from dataclasses import dataclass

from trine._core import InputError
from trine.arguments import check_int


@dataclass(frozen=True)
class Settings:
    """Limits and habits of a server.

    Attributes
    ----------
    api_key : str or None
        What requests have to show as ``Authorization: Bearer KEY`` or ``X-Api-Key: KEY``.
    max_concurrent_requests : int
        Requests that are worked on, or wait for it; others get 429 at once.
    max_client_batch_size : int
        Texts, pairs or prompts of one request.
    payload_limit : int
        Bytes of a request.
    max_new_tokens : int
        Tokens that a request may have generated; it gets no more, whatever it asks for.
    auto_truncate : bool
        Whether texts that are too long are cut, where the request doesn't say.
    cors_allow_origin : tuple of str
        Origins of web pages that may call.
    root_path : str
        The path under which a proxy publishes the server.
    """

    api_key: str | None = None
    max_concurrent_requests: int = 512
    max_client_batch_size: int = 2048
    payload_limit: int = 16_000_000
    max_new_tokens: int = 4096
    auto_truncate: bool = True
    cors_allow_origin: tuple[str, ...] = ()
    root_path: str = ""

    def __post_init__(self) -> None:
        for name in (
            "max_concurrent_requests",
            "max_client_batch_size",
            "payload_limit",
            "max_new_tokens",
        ):
            check_int(name, getattr(self, name))
        key = self.api_key
        if key is not None and (not key or key != key.strip()):
            raise InputError("api_key is empty, or begins or ends with white space")
