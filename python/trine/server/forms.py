# SPDX-License-Identifier: Apache-2.0
"""The bodies of requests: TEI's, Cohere's, Jina's, and trine's own for what those don't have.

Fields that no form here knows are passed over, as those servers do; options of another task are
not.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, WithJsonSchema, model_validator

# More candidates than this serve nobody, and each of them costs.
MOST_CANDIDATES = 1000

TEXT: dict[str, Any] = {"type": "string"}
IDS: dict[str, Any] = {"type": "array", "items": {"type": "integer"}}
TEXTS: dict[str, Any] = {"type": "array", "items": TEXT}


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_ids(value: object) -> bool:
    """Whether this is a row of token ids."""
    return isinstance(value, list) and bool(value) and all(map(_is_id, value))


def check_texts_or_ids(value: Any) -> Any:
    """Let pass a text, a row of token ids, or a list of these."""
    if isinstance(value, str) or is_ids(value):
        return value
    if not isinstance(value, list):
        raise ValueError("expected a text, token ids, or a list of these")  # noqa: TRY004
    for index, item in enumerate(value):
        if not isinstance(item, str) and not is_ids(item):
            raise ValueError(f"item {index}: expected a text or token ids")
    return value


def _check_texts(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise ValueError("expected a text or a list of texts")


def _check_id_rows(value: Any) -> Any:
    if isinstance(value, list) and (not value or is_ids(value)):
        return value
    if isinstance(value, list) and all(row == [] or is_ids(row) for row in value):
        return value
    raise ValueError("expected token ids, or a list of rows of them")


def _check_documents(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise ValueError("expected a list of texts")  # noqa: TRY004
    texts: list[str] = []
    for index, item in enumerate(value):
        text = item.get("text") if isinstance(item, dict) else item
        if not isinstance(text, str):
            raise ValueError(f"item {index}: expected a text, or an object with one as 'text'")  # noqa: TRY004
        texts.append(text)
    return texts


def _check_template(value: str) -> str:
    """Refuse what str.format would take for more than a place: a width costs memory."""
    if value.count("{}") != 1 or set(value.replace("{}", "")) & set("{}"):
        raise ValueError("expected a text with one {}, where the label goes, and no other braces")
    return value


def any_of(*schemas: dict[str, Any]) -> WithJsonSchema:
    """Describe what a validator lets pass."""
    return WithJsonSchema({"anyOf": list(schemas)})


TextsOrIds = Annotated[
    Any,
    AfterValidator(check_texts_or_ids),
    any_of(TEXT, IDS, TEXTS, {"type": "array", "items": IDS}),
]
Texts = Annotated[Any, AfterValidator(_check_texts), any_of(TEXT, TEXTS)]
IdRows = Annotated[
    Any, AfterValidator(_check_id_rows), any_of(IDS, {"type": "array", "items": IDS})
]
Documents = Annotated[
    Any,
    AfterValidator(_check_documents),
    any_of(TEXTS, {"type": "array", "items": {"type": "object", "properties": {"text": TEXT}}}),
]


class Request(BaseModel):
    """What every body may have."""

    model: str | None = Field(None, description="a name of /v1/models; by default the first")

    @model_validator(mode="before")
    @classmethod
    def _drop_absent(cls, data: Any) -> Any:
        """Take null for a field that isn't there: many clients write defaults so."""
        if not isinstance(data, dict):
            return data
        return {name: value for name, value in data.items() if value is not None}


class Cut(Request):
    """How texts that are too long are cut."""

    truncate: bool | None = Field(None, description="by default what the server was told")
    truncation_direction: Literal["right", "left", "Right", "Left"] | None = None

    @property
    def side(self) -> Literal["right", "left"] | None:
        """What Python calls the direction."""
        if self.truncation_direction is None:
            return None
        return "left" if self.truncation_direction in ("left", "Left") else "right"


class Embed(Cut):
    """Of /embed."""

    inputs: TextsOrIds
    normalize: bool = True
    prompt_name: str | None = None
    dimensions: int | None = Field(None, ge=1)


class EmbedAll(Cut):
    """Of /embed_all."""

    inputs: TextsOrIds
    prompt_name: str | None = None


class Sentences(BaseModel):
    """One text and those that it is compared with."""

    source_sentence: str
    sentences: list[str]


class SimilarityParameters(Cut):
    """How texts of /similarity are encoded."""

    prompt_name: str | None = None


class Similarity(Request):
    """Of /similarity."""

    inputs: Sentences
    parameters: SimilarityParameters | None = None


class OpenAIEmbeddings(Request):
    """Of /v1/embeddings."""

    input: TextsOrIds
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1)


class Predict(Cut):
    """Of /predict; what is allowed beside `inputs` depends on the model's task."""

    inputs: Any = Field(
        description="classification: a text, [text, text], or a list of lists of one or two texts; "
        "entities and masks: a text or a list of texts; answers: {question, context} or a list of "
        "them; choices: {prompt, choices} or a list of them",
    )
    raw_scores: bool | None = Field(None, description="classification: logits")
    top_k: int | None = Field(
        None, ge=1, le=MOST_CANDIDATES, description="classification, answers, masks"
    )
    aggregation: Literal["simple", "none", "first", "average", "max"] | None = Field(
        None, description="entities"
    )
    ignore_labels: list[str] | None = Field(None, description="entities")
    handle_impossible: bool | None = Field(None, description="answers")
    max_answer_len: int | None = Field(None, ge=1, le=512, description="answers")
    targets: list[str] | None = Field(None, description="masks: score these words only")


class ZeroShot(Request):
    """Of /zero_shot."""

    inputs: Texts
    labels: list[str] = Field(min_length=1)
    multi_label: bool = False
    hypothesis_template: Annotated[str, AfterValidator(_check_template)] = "This example is {}."
    truncate: bool | None = None


class TeiRerank(Cut):
    """Of /rerank."""

    query: str
    texts: list[str]
    raw_scores: bool = False
    return_text: bool = False


class Rerank(Request):
    """Of /v1/rerank and /v2/rerank."""

    query: str
    documents: Documents
    top_n: int | None = Field(None, ge=1)
    return_documents: bool = False


class Tokenize(Request):
    """Of /tokenize."""

    inputs: Texts
    add_special_tokens: bool = True
    prompt_name: str | None = None


class Decode(Request):
    """Of /decode."""

    ids: IdRows
    skip_special_tokens: bool = True
