"""Read a recipe: safe YAML -> overrides -> typed settings. An error names file, line, key and the nearest valid key."""

import difflib
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from glassbox.errors import RequestError
from glassbox.recipe.base import Stage
from glassbox.recipe.schema import KINDS, Recipe, graph_error

MAX_BYTES = 1_000_000
MAX_NODES = 100_000
"""A recipe is small; a larger file, or one whose aliases unfold to more than this, is refused before it is built."""

Location = tuple[str | int, ...]


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in `path` with `key.path=value` overrides applied.

    Raises RequestError with one sentence (file, line, key, nearest valid key) for anything wrong with it.
    """
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8") if size <= MAX_BYTES else ""
    except FileNotFoundError:
        raise RequestError(f"{path}: no such recipe file; `glassbox recipes` lists the shipped ones") from None
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: not UTF-8 text (byte {error.start}); a recipe is a YAML file") from None
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror})") from None
    if size > MAX_BYTES:
        raise RequestError(f"{path}: {size:,} bytes is too large for a recipe (limit {MAX_BYTES:,})")
    data, lines = parse(text, str(path))
    for override in overrides:
        lines |= apply_override(data, override)
    return build(data, lines, str(path))


def parse(text: str, name: str) -> tuple[dict[str, Any], dict[Location, str]]:
    """YAML text -> (plain data, location -> "file:line" of each key)."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except RecursionError:
        raise RequestError(f"{name}: values are nested too deeply") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RequestError(f"{name}:{line}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise RequestError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(root, yaml.MappingNode):
        raise RequestError(f"{name}:1: a recipe is a mapping with the keys name, seed and stages")
    lines: dict[Location, str] = {(): f"{name}:1"}
    try:
        for location, line in _walk(root, (), name):
            lines[location] = f"{name}:{line}"
            if len(lines) > MAX_NODES:
                raise RequestError(f"{name}: aliases unfold to more than {MAX_NODES:,} values")
        data = yaml.safe_load(text)
    except RecursionError:
        raise RequestError(f"{name}: an alias contains itself, or values are nested too deeply") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:  # constructors: an impossible date, an unhashable key
        raise RequestError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from None
    return data, lines


def _walk(node: yaml.Node, location: Location, name: str) -> Iterator[tuple[Location, int]]:
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise RequestError(f"{name}:{key.start_mark.line + 1}: a key must be a plain word")
            where = (*location, str(key.value))
            if key.value in seen:
                raise RequestError(f"{name}:{key.start_mark.line + 1}: the key '{key.value}' stands here twice")
            seen.add(key.value)
            yield where, key.start_mark.line + 1
            yield from _walk(value, where, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*location, index), value.start_mark.line + 1
            yield from _walk(value, (*location, index), name)


def apply_override(data: dict[str, Any], override: str) -> dict[Location, str]:
    """Set one `key.path=value` in `data` (value is YAML; `stages.` may be left out before a stage's name)."""
    path, equals, value = override.partition("=")
    if not equals or not path:
        raise RequestError(f"override '{override}': write key.path=value, for example base.optimizer.lr=0.001")
    keys: list[Any] = path.split(".")
    stages = data.get("stages")
    if keys[0] not in Recipe.model_fields and isinstance(stages, dict) and keys[0] in stages:
        keys.insert(0, "stages")
    at: Any = data
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(at, list):
            if not key.isdecimal() or int(key) >= len(at):
                raise RequestError(f"override '{override}': '{key}' is no index of a list of {len(at)}")
            keys[depth] = key = int(key)
        elif not isinstance(at, dict):
            raise RequestError(
                f"override '{override}': '{'.'.join(map(str, keys[:depth]))}' holds a value, not settings"
            )
        if last:
            try:
                at[key] = yaml.safe_load(value)
            except (yaml.YAMLError, ValueError, RecursionError):
                raise RequestError(f"override '{override}': '{value}' is not a YAML value") from None
        elif isinstance(at, list):
            at = at[key]
        else:
            if at.get(key) is None:
                at[key] = {}
            at = at[key]
    return {tuple(keys): f"override '{override}'"}


def build(data: dict[str, Any], lines: dict[Location, str], name: str) -> Recipe:
    """Plain data -> Recipe, or RequestError with one sentence about the first thing wrong."""
    raw = data.get("stages")
    stages: dict[str, Stage] = {}
    if isinstance(raw, dict):
        for stage_name, settings in raw.items():
            stages[str(stage_name)] = _build_stage(str(stage_name), settings, lines)
    try:
        recipe = Recipe.model_validate({**data, "stages": stages or raw})
    except ValidationError as error:
        raise _request_error(error, Recipe, (), lines) from None
    wrong = graph_error(stages)
    if wrong:
        stage_name, sentence = wrong
        near = ""
        if "no stage" in sentence:
            near = _nearest(sentence.split("'")[1], [other for other in stages if other != stage_name])
        raise RequestError(f"{_line(('stages', stage_name, 'from'), lines)}: stage '{stage_name}' {sentence}{near}")
    return recipe


def _build_stage(name: str, settings: Any, lines: dict[Location, str]) -> Stage:
    location: Location = ("stages", name)
    if not isinstance(settings, dict):
        raise RequestError(f"{_line(location, lines)}: stage '{name}' must be a mapping with at least `kind`")
    kind = settings.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        said = f"kind '{kind}' does not exist{_nearest(str(kind), KINDS)}" if kind is not None else "no `kind` is given"
        raise RequestError(f"{_line((*location, 'kind'), lines)}: stage '{name}': {said} (kinds: {', '.join(KINDS)})")
    try:
        return KINDS[kind].model_validate(settings)
    except ValidationError as error:
        raise _request_error(error, KINDS[kind], location, lines) from None


def _request_error(
    error: ValidationError, model: type[BaseModel], prefix: Location, lines: dict[Location, str]
) -> RequestError:
    first = min(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    location = (*prefix, *first["loc"])
    path = ".".join(map(str, location))
    if first["type"] == "extra_forbidden":
        fields = _fields_at(model, first["loc"][:-1])
        sentence = f"unknown key '{path}'{_nearest(str(first['loc'][-1]), fields)}"
        if fields:
            sentence += f" (keys here: {', '.join(fields)})"
    elif first["type"] == "missing":
        sentence = f"'{path}' is missing"
    else:
        message = first["msg"].removeprefix("Value error, ")
        sentence = f"'{path or 'recipe'}': {message[0].lower() + message[1:]}"
        if not isinstance(first["input"], (dict, list, tuple, BaseModel)):
            sentence += f" (it is {first['input']!r})"
    return RequestError(f"{_line(location, lines)}: {sentence}")


def _line(location: Location, lines: dict[Location, str]) -> str:
    """ "file:line" of the closest enclosing key that stands in the file."""
    while location not in lines and location:
        location = location[:-1]
    return lines[location]


def _nearest(key: str, valid: typing.Iterable[str]) -> str:
    near = difflib.get_close_matches(key, list(valid), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def _fields_at(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """The keys that are valid at a location inside a settings class."""
    for step in location:
        field = next((f for n, f in model.model_fields.items() if step in (n, f.alias)), None)
        if field is None:
            continue  # an index, a free dictionary key or a union's tag
        inner = _settings_in(field.annotation)
        if inner is None:
            return []
        model = inner
    return [field.alias or name for name, field in model.model_fields.items()]


def _settings_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in typing.get_args(annotation) if (found := _settings_in(part))), None)
