# SPDX-License-Identifier: Apache-2.0
"""``trine serve``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trine import command_io
from trine.command import Command

if TYPE_CHECKING:
    import socket
    from argparse import ArgumentParser, Namespace

# Load balancers keep connections for a minute; one that the server closes first is an error there.
_KEEP_ALIVE = 75


# Tokens of a text for models that take any number.
_ENOUGH = 8192


class Serve(Command):
    """``trine serve``."""

    name = "serve"
    summary = "answer over HTTP, as text-embeddings-inference and OpenAI do"
    example = (
        "trine serve --model demo --port 8080\n  trine serve --model EMBEDDER --model RERANKER"
    )
    takes_texts = False
    many_models = True

    def add_options(self, parser: ArgumentParser) -> None:
        """Add where to listen, and the limits."""
        parser.add_argument(
            "--served-model-name",
            action="append",
            metavar="NAME",
            help="what requests call the model; given once for each --model",
        )
        parser.add_argument("--task", help="by default what the model's files say")
        group = parser.add_argument_group("server")
        group.add_argument("--host", "--hostname", default="127.0.0.1", help="default %(default)s")
        group.add_argument("--port", type=int, default=8080, help="default 8080; 0: any free one")
        group.add_argument("--root-path", default="", help="where a proxy publishes the server")
        group.add_argument(
            "--api-key",
            default=os.environ.get("TRINE_API_KEY") or None,
            metavar="KEY",
            help="what requests have to show; by default $TRINE_API_KEY, which other users of the "
            "machine can't read",
        )
        group.add_argument(
            "--cors-allow-origin",
            action="append",
            default=[],
            metavar="ORIGIN",
            help="web pages from there may call; may be given more than once",
        )
        group.add_argument(
            "--shutdown-timeout",
            type=int,
            default=30,
            metavar="SECONDS",
            help="for requests under way when a signal ends the server; default %(default)s",
        )
        group.add_argument("--quiet", action="store_true", help="no line for each request")
        group = parser.add_argument_group("limits")
        for option, most, what in (
            ("--max-concurrent-requests", 512, "under way or waiting; others get 429"),
            ("--max-client-batch-size", 2048, "texts of one request"),
            ("--payload-limit", 16_000_000, "bytes of one request"),
            ("--max-new-tokens", 4096, "tokens that a request may have generated"),
        ):
            group.add_argument(
                option, type=int, default=most, metavar="N", help=f"{what}; default {most}"
            )
        group.add_argument(
            "--max-input-length",
            type=int,
            metavar="N",
            help="tokens of a text, or of a prompt with what follows; by default the model's, or "
            "8192",
        )
        cut = group.add_mutually_exclusive_group()
        cut.add_argument(
            "--auto-truncate", action="store_true", default=True, help="cut long texts: the default"
        )
        cut.add_argument(
            "--no-truncate",
            dest="auto_truncate",
            action="store_false",
            help="refuse long texts, unless a request asks for the cut",
        )

    def run(self, options: Namespace) -> int:
        """Load, listen and answer until a signal says that it is enough."""
        _check_extra()
        from contextlib import ExitStack

        import uvicorn

        from trine import InputError
        from trine.server import Settings, create_app

        if not options.host:
            raise InputError("--host is empty; 0.0.0.0 is all of the machine's addresses")
        settings = Settings(
            api_key=options.api_key,
            max_concurrent_requests=options.max_concurrent_requests,
            max_client_batch_size=options.max_client_batch_size,
            payload_limit=options.payload_limit,
            max_new_tokens=options.max_new_tokens,
            auto_truncate=options.auto_truncate,
            cors_allow_origin=tuple(options.cors_allow_origin),
            root_path=options.root_path.rstrip("/"),
        )
        sources = command_io.model_names(options)
        names = _names(sources, options.served_model_name)
        with ExitStack() as stack, _listen(options.host, options.port) as listener:
            models = {}
            for name, source in zip(names, sources, strict=True):
                model = command_io.load_model(options, options.task, source)
                models[name] = stack.enter_context(model)
                if options.max_input_length is not None:
                    model.max_seq_length = options.max_input_length
                elif model.max_seq_length is None:  # one request could keep it busy for hours
                    model.max_seq_length = _ENOUGH
            _log_to_stderr(quiet=options.quiet)
            server = uvicorn.Server(
                uvicorn.Config(
                    create_app(models, settings),
                    access_log=False,
                    log_config=None,
                    log_level="warning",
                    server_header=False,
                    timeout_keep_alive=_KEEP_ALIVE,
                    timeout_graceful_shutdown=options.shutdown_timeout,
                    ws="none",
                )
            )
            host, port = listener.getsockname()[:2]
            where = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            sys.stderr.write(f"trine: serving {', '.join(names)} at {where}\n")
            sys.stderr.flush()
            _serve(server, listener)
        return 0


def _check_extra() -> None:
    """Raise an error that says what to install, if something is not there."""
    from trine import Error

    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise Error(f"serve needs more packages: pip install 'trine[serve]' ({error})") from error


def _names(sources: list[str], given: list[str] | None) -> list[str]:
    """Return what requests call the models: by default a Hub id as it is, a file's own name."""
    from trine import InputError

    names = given or [
        Path(source).expanduser().resolve().name.removesuffix(".trine").removesuffix(".gguf")
        if Path(source).expanduser().exists()
        else source
        for source in sources
    ]
    if len(names) != len(sources):
        raise InputError(f"{len(sources)} models and {len(names)} times --served-model-name")
    if len(set(names)) != len(names):
        raise InputError("two models have one name; --served-model-name gives them others")
    return names


def _listen(host: str, port: int) -> socket.socket:
    """Take the port before anything is loaded."""
    import socket

    from trine import InputError

    if not 0 <= port <= 65535:
        raise InputError(f"--port is {port}, expected 0 to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise OSError(f"{host}, port {port}: {error.strerror or error}") from error


def _serve(server: Any, listener: socket.socket) -> None:
    """Run until SIGINT or SIGTERM; what is under way then is finished first."""
    import signal

    # uvicorn hands a signal on when it has shut down; left alone, it would kill the process.
    def stop(*_: object) -> None:
        server.should_exit = True

    handled = [signal.SIGINT, signal.SIGTERM]
    if sys.platform == "win32":
        handled.append(signal.SIGBREAK)
    before = [signal.signal(number, stop) for number in handled]
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in zip(handled, before, strict=True):
            signal.signal(number, handler)


def _log_to_stderr(*, quiet: bool) -> None:
    import logging

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("trine: %(message)s"))
    for name in ("trine.server", "uvicorn"):
        log = logging.getLogger(name)
        log.addHandler(handler)
        log.propagate = False
    logging.getLogger("trine.server").setLevel(logging.WARNING if quiet else logging.INFO)
