# SPDX-License-Identifier: Apache-2.0
"""Models over HTTP: what ``trine serve`` runs, and an ASGI application for servers of your own.

Needs the extra ``trine[serve]``. The routes and their forms are those of text-embeddings-inference,
OpenAI, Cohere and Jina; docs/serving.md lists them.

Examples
--------
>>> import trine
>>> from trine.server import create_app
>>> model = trine.load("tests/golden/examples/tag")
>>> app = create_app({"entities": model})  # uvicorn.run(app)
>>> model.close()
"""

from trine.server.app import create_app
from trine.server.settings import Settings

__all__ = ["Settings", "create_app"]
