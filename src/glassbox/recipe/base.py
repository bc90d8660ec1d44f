"""The two bases of every recipe class: `Settings` (strict, described, immutable) and `Stage` (a node of the graph)."""

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

NOT_IDENTITY: dict[str, Any] = {"identity": False}
"""`Field(json_schema_extra=NOT_IDENTITY)` marks a setting that cannot change a stage's result (workers, logging)."""


class Settings(BaseModel):
    """Strict settings: unknown keys refused, immutable, each field described by the docstring below it."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        populate_by_name=True,
        protected_namespaces=(),
    )


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


OneOrMore = BeforeValidator(_as_tuple)
"""In an annotation of a tuple of strings: a single string is a tuple of one."""
Names = Annotated[tuple[str, ...], OneOrMore]


class Stage(Settings):
    """A node of the recipe's graph: what it takes from earlier stages and, in subclasses, its settings."""

    takes: ClassVar[dict[str, str]] = {}
    """Artefact kind -> how many of it the stage takes: "1", "0-1", "0+" or "1+"."""
    gives: ClassVar[str] = ""
    """The kind of artefact the stage leaves: pages, documents, problems, tokenizer, tokens, model or scores."""

    kind: str
    """What the stage does; the other settings follow from it."""
    inputs: Annotated[Names, Field(alias="from")] = ()
    """Names of the stages whose artefacts this one takes (a name or a list of names)."""


def identity(settings: BaseModel) -> dict[str, Any]:
    """The settings that decide a result, as plain JSON data: everything but fields marked `NOT_IDENTITY` and the input
    names (inputs enter a fingerprint by their own fingerprints)."""

    def plain(value: Any) -> Any:
        if isinstance(value, BaseModel):
            return {
                name: plain(getattr(value, name))
                for name, field in type(value).model_fields.items()
                if (field.json_schema_extra or {}) != NOT_IDENTITY
                and not (isinstance(value, Stage) and name == "inputs")
            }
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in value.items()}
        return value

    return plain(settings)
