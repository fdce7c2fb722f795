# SPDX-License-Identifier: Apache-2.0
"""What the other encoders find: labels, entities, answers, words for masks, choices, ranks."""

import uuid
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request, Response

from trine._core import InputError
from trine.server import forms
from trine.server.context import ALIASES, Context, costs
from trine.server.failures import Failure
from trine.server.replies import Json
from trine.tasks.base import Task
from trine.tasks.chooser import Chooser
from trine.tasks.classifier import Classifier
from trine.tasks.filler import Filler
from trine.tasks.reader import Reader
from trine.tasks.tagger import Tagger

# What of a body each class understands beside its inputs.
_OPTIONS: dict[type[Task], frozenset[str]] = {
    Classifier: frozenset({"raw_scores", "top_k", "truncate", "truncation_direction"}),
    Tagger: frozenset({"aggregation", "ignore_labels"}),
    Reader: frozenset({"top_k", "handle_impossible", "max_answer_len"}),
    Filler: frozenset({"top_k", "targets", "truncate"}),
    Chooser: frozenset({"truncate"}),
}
PREDICTORS = tuple(_OPTIONS)

_MOST_ANSWERS = 1 << 13  # candidates for masks in one request


def make_router(context: Context) -> APIRouter:
    """Return /predict, and what classifiers have beside it."""
    router = APIRouter(tags=["prediction"])

    @router.post("/predict", summary="Labels, entities, answers, words for masks or choices")
    async def predict(body: forms.Predict, request: Request) -> Response:
        name, model = _predictor(context, body)
        items, single, count = _READ[_kind(model)](body.inputs)
        context.check_batch(count)
        options = _options(context, model, body)
        if isinstance(model, Filler):
            _check_masks(model, items, options.get("top_k", 5))

        def call() -> Any:
            results = model.predict(items, **options)
            return results[0] if single else results

        return await context.answer(request, name, call)

    first = context.registry.named(None).model
    ranks = isinstance(first, Classifier) and len(first.labels) == 1
    if isinstance(first, PREDICTORS) and not ranks:
        for path in ALIASES:
            router.add_api_route(path, predict, methods=["POST"], include_in_schema=False)
    if context.registry.has(Classifier):
        _add_classifiers(context, router, ALIASES if ranks else ())
    return router


def _add_classifiers(context: Context, router: APIRouter, aliases: tuple[str, ...]) -> None:
    @router.post("/zero_shot", summary="Labels that the model never saw")
    async def zero_shot(body: forms.ZeroShot, request: Request) -> Response:
        name, model = context.registry.choose(body.model, Classifier)
        count = 1 if isinstance(body.inputs, str) else len(body.inputs)
        context.check_batch(count * len(body.labels))
        if not any(label.lower().startswith("entail") for label in model.labels):
            raise Failure(422, f"{name!r} has no label for entailment, which /zero_shot needs")

        def call() -> Any:
            return model.zero_shot(
                body.inputs,
                body.labels,
                hypothesis_template=body.hypothesis_template,
                multi_label=body.multi_label,
                truncate=context.truncate(body.truncate),
            )

        return await context.answer(request, name, call)

    @router.post("/rerank", summary="Texts in the order in which they answer a query")
    async def rerank(body: forms.TeiRerank, request: Request) -> Response:
        name, model = _ranker(context, body.model)
        context.check_batch(len(body.texts), "texts")

        def call() -> Any:
            found = model.rank(
                body.query,
                body.texts,
                return_documents=body.return_text,
                function_to_apply="none" if body.raw_scores else None,
                truncate=context.truncate(body.truncate),
                truncation_side=body.side,
            )
            return [{"index": row.pop("corpus_id"), **row} for row in found]

        return await context.answer(request, name, call)

    @router.post("/v1/rerank", summary="The same in Jina's form")
    @router.post("/v2/rerank", summary="The same in Cohere's form")
    async def rerank_documents(body: forms.Rerank, request: Request) -> Response:
        name, model = _ranker(context, body.model)
        context.check_batch(len(body.documents), "documents")

        def call() -> Any:
            return model.rank(
                body.query,
                body.documents,
                top_k=body.top_n,
                return_documents=body.return_documents,
                truncate=context.settings.auto_truncate,
            )

        found, tally = await context.run(request, name, call)
        content = {
            "id": str(uuid.uuid4()),
            "object": "list",
            "model": name,
            "results": [_result(row) for row in found],
            "usage": {"prompt_tokens": tally.tokens, "total_tokens": tally.tokens},
            "meta": {"billed_units": {"search_units": 1}},
        }
        return Json(content, headers=costs(tally))

    for path in aliases:
        router.add_api_route(path, rerank, methods=["POST"], include_in_schema=False)


def _check_masks(model: Filler, texts: list[str], top_k: int) -> None:
    """Refuse what would be answered with more than so many candidates, a whole text each."""
    masks = sum(text.count(model.mask_token) for text in texts)
    if masks * top_k > _MOST_ANSWERS:
        raise Failure(
            413, f"{masks} masks with {top_k} candidates each: the most is {_MOST_ANSWERS}"
        )


def _result(row: dict[str, Any]) -> dict[str, Any]:
    result = {"index": row["corpus_id"], "relevance_score": row["score"]}
    return result | ({"document": {"text": row["text"]}} if "text" in row else {})


def _ranker(context: Context, wanted: str | None) -> tuple[str, Classifier]:
    """Return a classifier with one label: by default the first."""
    if wanted is None:
        for served in context.registry:
            if isinstance(served.model, Classifier) and len(served.model.labels) == 1:
                return served.name, served.model
    return context.registry.choose(wanted, Classifier)


def _predictor(context: Context, body: forms.Predict) -> tuple[str, Task]:
    if body.model is None:
        for served in context.registry:
            if isinstance(served.model, PREDICTORS):
                return served.name, served.model
    served = context.registry.named(str(body.model))
    if not isinstance(served.model, PREDICTORS):
        here = type(served.model).__name__
        raise Failure(422, f"{served.name!r} is of the class {here}, which /predict is not for")
    return served.name, served.model


def _kind(model: Task) -> type[Task]:
    return next(kind for kind in _OPTIONS if isinstance(model, kind))


def _options(context: Context, model: Task, body: forms.Predict) -> dict[str, Any]:
    """Return keywords of `predict`; options of another task are mistakes."""
    kind = _kind(model)
    known = _OPTIONS[kind]
    given = body.model_dump(exclude_none=True, exclude={"inputs", "model"})
    for field in given:
        if field not in known:
            raise InputError(f"{field}: not for the class {type(model).__name__}")
    options = {k: v for k, v in given.items() if k != "truncation_direction"}
    if options.pop("raw_scores", False):
        options["function_to_apply"] = "none"
    if kind is Reader:
        options.setdefault("top_k", 1)  # a list, as the command line prints it
    if "truncate" in known:
        options["truncate"] = context.truncate(body.truncate)
    if kind is Classifier:
        options["truncation_side"] = body.side
    return options


# The inputs of each class: a list, whether it was one by itself, and how much work it is.
_Read = tuple[list[Any], bool, int]


def _one_or_two(item: Any, where: str) -> Any:
    """Return a text, or a pair of them, from TEI's list of one or two."""
    if isinstance(item, str):
        return item
    if isinstance(item, list) and 1 <= len(item) <= 2 and all(isinstance(x, str) for x in item):
        return item[0] if len(item) == 1 else (item[0], item[1])
    raise InputError(f"{where}: expected a text, or a list of one or two")


def _read_classifier(inputs: Any) -> _Read:
    """Read TEI's forms: a list of texts is one input, a list of lists many."""
    if isinstance(inputs, list) and inputs and not all(isinstance(x, str) for x in inputs):
        return [_one_or_two(x, f"inputs.{i}") for i, x in enumerate(inputs)], False, len(inputs)
    if isinstance(inputs, list) and len(inputs) > 2:
        raise InputError("inputs: a list of texts is one input; many are [[text], [text], ...]")
    return ([_one_or_two(inputs, "inputs")], True, 1) if inputs != [] else ([], False, 0)


def _read_texts(inputs: Any) -> _Read:
    single = isinstance(inputs, str)
    items = [inputs] if single else inputs
    if not isinstance(items, list) or not all(isinstance(x, str) for x in items):
        raise InputError("inputs: expected a text or a list of texts")
    return items, single, len(items)


def _read_questions(inputs: Any) -> _Read:
    single = _is_question(inputs)
    items = [inputs] if single else inputs
    if not isinstance(items, list) or not all(map(_is_question, items)):
        raise InputError("inputs: expected {question, context}, or a list of these")
    items = [x if isinstance(x, dict) else tuple(x) for x in items]
    return items, single, len(items)


def _is_question(item: Any) -> bool:
    if isinstance(item, dict):
        return {"question", "context"} <= set(item)
    return isinstance(item, list) and len(item) == 2 and all(isinstance(x, str) for x in item)


def _read_choices(inputs: Any) -> _Read:
    single = _is_choice(inputs)
    items = [inputs] if single else inputs
    if not isinstance(items, list) or not all(map(_is_choice, items)):
        raise InputError("inputs: expected {prompt, choices}, or a list of these")
    pairs = [(x["prompt"], x["choices"]) if isinstance(x, dict) else tuple(x) for x in items]
    return pairs, single, sum(len(choices) for _, choices in pairs)


def _is_choice(item: Any) -> bool:
    if isinstance(item, dict):
        return "prompt" in item and isinstance(item.get("choices"), list)
    return (
        isinstance(item, list)
        and len(item) == 2
        and isinstance(item[0], str)
        and isinstance(item[1], list)
    )


_READ: dict[type[Task], Callable[[Any], _Read]] = {
    Classifier: _read_classifier,
    Tagger: _read_texts,
    Reader: _read_questions,
    Filler: _read_texts,
    Chooser: _read_choices,
}
