# SPDX-License-Identifier: Apache-2.0
"""Errors as clients see them: TEI's form, and OpenAI's on the routes that are OpenAI's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from trine._core import Error, InputError, ModelError
from trine.server.replies import Json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Scope

_FOLDERS = re.compile(r"(?<![\w.])(?:[A-Za-z]:|~)?[/\\](?:[^/\\:\"'\n]+[/\\])*(?=[^/\\\s:\"']+)")

# What TEI calls them, and what OpenAI does.
_TEI_TYPES = {400: "Validation", 413: "Validation", 422: "Validation", 429: "Overloaded"}
_TEI_TYPES |= {401: "Unauthorized", 424: "Backend", 500: "Backend", 503: "Unhealthy"}
_OPENAI_TYPES = {401: "authentication_error", 429: "rate_limit_error"}
_OPENAI_CODES = {
    401: "invalid_api_key",
    404: "not_found",
    413: "request_too_large",
    429: "overloaded",
}


class Failure(HTTPException):
    """An answer that is an error.

    Parameters
    ----------
    status : int
        Of HTTP.
    message : str
        For people.
    kind : str or None
        TEI's ``error_type``, if not the usual one of the status.
    code : str or None
        OpenAI's ``code``, likewise.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.kind, self.code = kind, code


def is_openai(scope: Scope) -> bool:
    """Whether a route is one of those that OpenAI, Cohere and Jina have."""
    path = route_path(scope)
    return path.startswith(("/v1/", "/v2/")) or path == "/embeddings"


def route_path(scope: Scope) -> str:
    """Return the path without what a proxy put before it."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path.removeprefix(root) if path.startswith(f"{root}/") else path


def understand(error: BaseException, scope: Scope) -> Failure:
    """Return the answer that an exception stands for; what is nobody's business stays unsaid."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, HTTPException):  # of the framework: no such route, no such method
        return Failure(error.status_code, str(error.detail), headers=error.headers)
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, InputError):
        return Failure(422, str(error))
    if isinstance(error, Error):  # of the model: its file is enough, folders are the server's
        return Failure(_status(error, scope), _FOLDERS.sub("", str(error)))
    return Failure(500, "the server failed; its log says how")


def _status(error: Error, scope: Scope) -> int:
    return 424 if isinstance(error, ModelError) and not is_openai(scope) else 500


def _invalid(error: RequestValidationError) -> Failure:
    """Name the first field that is wrong."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return Failure(400, "the body is not JSON")
    # Behind the field come names of pydantic's own for the forms that it tried.
    where = [str(part) for part in first["loc"] if part != "body"]
    message = str(first["msg"]).removeprefix("Value error, ")
    return Failure(422, f"{'.'.join(where)}: {message}" if where else f"the body: {message}")


def body(failure: Failure, *, openai: bool) -> dict[str, Any]:
    """Return what the client reads."""
    status = failure.status_code
    if not openai:
        kind = failure.kind or _TEI_TYPES.get(status, "Validation")
        return {"error": failure.detail, "error_type": kind}
    usual = "server_error" if status >= 500 else "invalid_request_error"
    kind = _OPENAI_TYPES.get(status, usual)
    code = failure.code or _OPENAI_CODES.get(status)
    return {"error": {"message": failure.detail, "type": kind, "param": None, "code": code}}


def reply(error: Exception, scope: Scope) -> Json:
    """Return the answer to an exception."""
    failure = understand(error, scope)
    content = body(failure, openai=is_openai(scope))
    return Json(content, failure.status_code, failure.headers)
