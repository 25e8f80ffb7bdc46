"""The shape every mapping of a scenario file has, and complaints that know where in the file they belong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError, core_schema

from harness.source.nodes import NodePath

#: The error type of what `complaint` makes.
COMPLAINT = "complaint"
#: The error type of a key that a section does not know; its context holds the keys it does.
UNKNOWN_FIELD = "unknown_field"

_KNOWN_ERRORS = frozenset(get_args(core_schema.ErrorType))


def complaint(
    message: str,
    *,
    value: object = None,
    at: NodePath = (),
    on_key: bool = False,
    suggestion: str | None = None,
    choices: Iterable[str] = (),
    word: str = "",
    plural: str = "known",
) -> PydanticCustomError:
    """The exception a validator raises to say what is wrong, to be shown at the author's own line.

    `message` may hold `{written}`, which becomes what the author wrote (`value` where there is no file). `at` leads
    from the validated value to the culprit below it, `on_key` points at its key. `suggestion` is what to write instead,
    or is found by comparing `word` with `choices`, which are listed headed `plural` if none comes close.
    """
    context: dict[str, Any] = {
        "template": message, "at": at, "on_key": on_key, "suggestion": suggestion,
        "choices": tuple(choices), "word": word, "plural": plural,
    }  # fmt: skip
    text = message.replace("{written}", f"'{value}'").replace("{", "(").replace("}", ")")
    return PydanticCustomError(COMPLAINT, text, context)


class Section(BaseModel):
    """A mapping of a scenario file: keys it does not know are errors, values keep their type, nothing changes later.

    Strict: `"2"` is no number and `1` no boolean. Lists become tuples, so fields are declared `tuple[X, ...]`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=False)

    @model_validator(mode="wrap")
    @classmethod
    def _offer_fields(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Let a complaint about an unknown key know the keys there are: pydantic's own does not."""
        try:
            return handler(
                {key: _without_lists(item) for key, item in value.items()} if isinstance(value, dict) else value
            )
        except ValidationError as error:
            details = [_with_fields(cls, detail) for detail in error.errors(include_url=False)]
            raise ValidationError.from_exception_data(error.title, details) from None

    @classmethod
    def known_keys(cls) -> tuple[str, ...]:
        """The keys this mapping may have, as they are written in a scenario."""
        return tuple(info.alias or name for name, info in cls.model_fields.items())


def _without_lists(value: Any) -> Any:
    """`value` with tuples for lists, so that what was saved as JSON reads back as what YAML gave."""
    return tuple(_without_lists(item) for item in value) if isinstance(value, list) else value


def _with_fields(section: type[Section], detail: ErrorDetails) -> InitErrorDetails:
    loc, given, context = detail["loc"], detail["input"], detail.get("ctx", {})
    if detail["type"] == "extra_forbidden" and len(loc) == 1:
        unknown = PydanticCustomError(UNKNOWN_FIELD, "unknown key", {"choices": section.known_keys()})
        return InitErrorDetails(type=unknown, loc=loc, input=given)
    if detail["type"] in _KNOWN_ERRORS:
        return InitErrorDetails(type=detail["type"], loc=loc, input=given, ctx=context)
    text = detail["msg"].replace("{", "(").replace("}", ")")
    again = PydanticCustomError(detail["type"], text, context)
    return InitErrorDetails(type=again, loc=loc, input=given)


@dataclass(frozen=True, slots=True)
class Shorthand:
    """Annotation: a bare word or number stands for a mapping with that one key.

    `assign: Annotated[AssignBody, Shorthand("device")]` reads `assign: rogue` as `assign: {device: rogue}`.
    """

    key: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(self._expand, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        long = handler(schema)
        short = handler.resolve_ref_schema(long).get("properties", {}).get(self.key, {})
        plain = {k: v for k, v in short.items() if k not in {"title", "default"}}
        return {"anyOf": [plain, long], "x-short": self.key}

    def _expand(self, value: Any) -> Any:
        return {self.key: value} if isinstance(value, str | int) and not isinstance(value, bool) else value
