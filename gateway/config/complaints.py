"""What pydantic says about a value, in the operator's words and at the place in the file that is meant."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.config.checks import Finding, suggestion
from gateway.config.document import Path as Place
from gateway.config.values import FieldError

Loc = tuple[int | str, ...]
_SCALARS = ("str", "int", "float", "bool")


def findings_of(errors: ValidationError, model: type[BaseModel], tree: Any) -> list[Finding]:
    """One finding per place; `tree` is what was validated as `model`."""
    found: dict[Place, Finding] = {}
    listed = errors.errors(include_url=False)
    unknown = [error["loc"] for error in listed if error["type"] == "extra_forbidden"]
    for error in listed:
        if error["type"] == "missing" and _is_misspelt(error["loc"], unknown):
            continue  # the unknown key is reported, with the right one as suggestion
        finding = _finding(error, model, tree)
        if error["type"] == "too_short" and error.get("input"):
            continue  # pydantic leaves out the items that are wrong, which are reported themselves
        known = found.get(finding.place)
        # A value that may be of several types is complained about once per type.
        found[finding.place] = finding if known is None else known
    return list(found.values())


def _is_misspelt(missing: Loc, unknown: list[Loc]) -> bool:
    """Whether an unknown key beside it is what was meant."""
    beside = [str(loc[-1]) for loc in unknown if loc[:-1] == missing[:-1]]
    return bool(difflib.get_close_matches(str(missing[-1]), beside, n=1))


def _finding(error: ErrorDetails, model: type[BaseModel], tree: Any) -> Finding:
    place, rest = _place(error["loc"], tree)
    given = _at(tree, place)
    kind = error["type"]
    if kind == "extra_forbidden":
        allowed = _keys_at(model, place[:-1])
        return Finding(
            place, f"unknown key `{place[-1] if place else ''}`", _allowed(str(place[-1]), allowed), on="key"
        )
    if kind == "missing":
        key = str(error["loc"][-1])
        hint = _description(model, error["loc"])
        return Finding(place, f"`{key}` is missing", hint, on="key")
    if rest and rest[0] == "[key]" and kind == "string_pattern_mismatch":
        return Finding(place, "a name is letters, digits, `_`, `.` and `-`, at most 64 of them", on="key")
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, FieldError) and isinstance(given, dict) and cause.key in given:
        place = (*place, cause.key)
    hint = _description(model, place)
    if kind == "literal_error":
        expected = _options(str(error.get("ctx", {}).get("expected", "")))
        hint = suggestion(str(given), expected) if isinstance(given, str) else hint
        return Finding(place, f"must be {_either(expected)}", hint)
    if rest and rest[-1] in _SCALARS:
        return Finding(place, "must be text, a number, true or false", hint)
    on: Literal["key", "value"] = "key" if rest and rest[0] == "[key]" else "value"
    return Finding(place, _message(kind, error, given), hint, on=on)


def _place(loc: tuple[int | str, ...], tree: Any) -> tuple[Place, Place]:
    """`loc` as far as it exists in the file, and what the models put below it (`scopes: [a]` becomes `scopes.all`)."""
    value = tree
    for depth, part in enumerate(loc):
        if isinstance(value, list) and part == "all" and depth + 1 < len(loc):
            return _place((*loc[:depth], *loc[depth + 1 :]), tree)
        key = _key_in(value, part)
        if key is None:
            return loc[:depth], loc[depth:]
        if key != part:
            return _place((*loc[:depth], key, *loc[depth + 1 :]), tree)
        value = value[part]
    return loc, ()


def _key_in(value: Any, part: int | str) -> int | str | None:
    """`part` if `value` has it; or the key that differs in case only, because header names are made lower-case."""
    if isinstance(value, list):
        return part if isinstance(part, int) and part < len(value) else None
    if not isinstance(value, dict) or part in value:
        return part if isinstance(value, dict) else None
    return next((key for key in value if str(key).lower() == str(part).lower()), None)


def _at(tree: Any, place: Place) -> Any:
    for part in place:
        tree = tree[part]
    return tree


def _message(kind: str, error: ErrorDetails, given: Any) -> str:
    message = _MESSAGES.get(kind)
    if message is None:
        text = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        return text[:1].lower() + text[1:] if text[1:2].islower() else text
    if given is None:
        return f"is empty; {message}"
    if kind == "string_type" and isinstance(given, int | float):
        return f"{message}, not a number; put it in quotes if it is meant so"
    if kind == "tuple_type" and isinstance(given, str):
        return f"{message}: [{given}]"
    return message


_MESSAGES = {
    "string_type": "must be text",
    "bytes_type": "must be text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of names",
    "model_type": "must be a mapping of settings",
    "model_attributes_type": "must be a mapping of settings",
    "path_type": "must be the path of a file",
    "string_too_short": "must not be empty",
    "too_short": "needs at least one entry",
    "string_pattern_mismatch": "must be letters, digits, `_`, `.` and `-`, at most 64 of them",
}


def _options(expected: str) -> list[str]:
    """pydantic's `'a', 'b' or 'c'` as names."""
    return [part.strip().strip("'") for part in expected.replace(" or ", ", ").split(",") if part.strip()]


def _either(options: list[str]) -> str:
    quoted = [f"`{option}`" for option in options]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def _allowed(given: str, keys: list[str]) -> str:
    if not keys:
        return ""
    close = suggestion(given, keys)
    listed = f"allowed here: {', '.join(keys)}"
    return f"{close} ({listed})" if close.startswith("did you mean") else listed


# --- the models, walked along a path of the file -------------------------------------------------------------------


def _keys_at(model: type[BaseModel], place: Place) -> list[str]:
    found = _type_at(model, place)
    return list(found.model_fields) if found is not None else []


def _description(model: type[BaseModel], place: Place) -> str:
    parent = _type_at(model, place[:-1]) if place else None
    field = parent.model_fields.get(str(place[-1])) if parent is not None else None
    if field is None and place and isinstance(place[-1], int):
        return _description(model, place[:-1])
    return (field.description or "") if field is not None else ""


def _type_at(model: type[BaseModel], place: Place) -> type[BaseModel] | None:
    """The model that stands at `place`, if one does."""
    current: Any = model
    for part in place:
        current = _step(current, part)
    return next((kind for kind in _alternatives(current) if _is_model(kind)), None)


def _step(annotation: Any, part: str | int) -> Any:
    for kind in _alternatives(annotation):
        if _is_model(kind) and part in kind.model_fields:
            return kind.model_fields[part].annotation
        if typing.get_origin(kind) is dict:
            return typing.get_args(kind)[1]
        if typing.get_origin(kind) is tuple and isinstance(part, int):
            return typing.get_args(kind)[0]
    return None


def _alternatives(annotation: Any) -> Iterator[Any]:
    """The members of a union, without what `Annotated` adds."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from _alternatives(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for kind in typing.get_args(annotation):
            yield from _alternatives(kind)
    else:
        yield annotation


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
