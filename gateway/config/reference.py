"""The models as a JSON Schema for editors, and as the table of settings in the manual.

The schema describes the file as people write it, which is more than the models hold: shorthands (`auth: none`),
secrets in files, and `${NAME}` in the place of any scalar. A test keeps the generated files current.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretBytes
from pydantic.fields import FieldInfo

from gateway.config.quantities import format_duration, format_size, parse_duration, parse_size
from gateway.config.schema import SECRET_KEYS, Config

_VARIABLE = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}"}
_FORMATS = {"duration-with-unit": format_duration, "size-with-unit": format_size}
_SECRET_FILE = {
    "type": "object",
    "properties": {"file": {"type": "string", "description": "Relative to the folder of this file."}},
    "required": ["file"],
    "additionalProperties": False,
}


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the YAML file, for editors; a plain value that can be dumped."""
    schema = Config.model_json_schema()
    models = schema["$defs"]
    for name, model in [("Config", schema), *models.items()]:
        model.pop("title", None)
        for key, prop in model.get("properties", {}).items():
            prop.pop("title", None)
            _write_default(prop)
            model["properties"][key] = _as_written(prop) if key not in SECRET_KEYS else _secret(prop)
        if name == "ClaimRule":
            model["minProperties"] = model["maxProperties"] = 1
    _shorthand(models["Route"], "auth", {"enum": ["required", "optional", "none"]})
    _shorthand(models["Route"], "idempotency", {"enum": ["off", "optional", "required", True, False]})
    _shorthand(models["Auth"], "scopes", {"type": "array", "items": {"type": "string"}})
    _shorthand(models["Revocation"], "status_list", {"type": "boolean"})
    headers = models["Identity"]["properties"]["headers"]
    headers["additionalProperties"] = {"anyOf": [{"type": "string"}, headers["additionalProperties"]]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gateway",
        "description": "The configuration of the gateway.",
        **{key: value for key, value in schema.items() if key != "description"},
    }


def _write_default(prop: dict[str, Any]) -> None:
    """Quantities as text; the defaults of whole sections say nothing that their own keys do not."""
    default = prop.get("default")
    if isinstance(default, dict) or default is None or "$ref" in prop:
        prop.pop("default", None)
    elif prop.get("format") in _FORMATS:
        prop["default"] = _FORMATS[prop["format"]](default)
    for part in [prop, *prop.get("anyOf", [])]:
        part.pop("format", None)
        if part.get("pattern"):  # the models compare numbers, the file has text
            for bound in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "ge", "gt", "le", "lt"):
                part.pop(bound, None)


def _as_written(prop: dict[str, Any]) -> dict[str, Any]:
    """The same, or a variable in its place where the type would not allow that text."""
    if "anyOf" in prop:
        kinds = [kind for kind in prop["anyOf"] if kind != {"type": "null"}]
        return {**{key: value for key, value in prop.items() if key != "anyOf"}, **_any_of(kinds)}
    kind = {key: prop[key] for key in prop if key not in ("description", "default")}
    told = {key: prop[key] for key in prop if key in ("description", "default")}
    return {**told, **_any_of([kind])}


def _any_of(kinds: list[dict[str, Any]]) -> dict[str, Any]:
    closed = any(
        kind.get("type") in ("integer", "number", "boolean")
        or (kind.get("type") == "string" and ("pattern" in kind or "enum" in kind))
        for kind in kinds
    )
    alternatives = [*kinds, _VARIABLE] if closed else kinds
    return alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives}


def _secret(prop: dict[str, Any]) -> dict[str, Any]:
    told = {key: prop[key] for key in prop if key in ("description", "default")}
    return {**told, "anyOf": [{"type": "string"}, _SECRET_FILE]}


def _shorthand(model: dict[str, Any], key: str, short: dict[str, Any]) -> None:
    prop = model["properties"][key]
    told = {name: value for name, value in prop.items() if name == "description"}
    kind = {name: value for name, value in prop.items() if name != "description"}
    model["properties"][key] = {**told, "anyOf": [short, kind]}


# --- the table -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the file as the manual shows it."""

    path: str  # `issuers.<name>.audience`, `routes[].auth.mode`
    kind: str  # what to write
    default: str  # as written; "" if it must be given, "unset" if leaving it out has a meaning of its own
    description: str


def settings() -> Iterator[Setting]:
    """Every key that holds a value, in the order of the models."""
    yield from _settings(Config, "")


def _settings(model: type[BaseModel], prefix: str) -> Iterator[Setting]:
    for name, field in model.model_fields.items():
        path = f"{prefix}.{name}" if prefix else name
        inner, suffix = _inner(field.annotation)
        if inner is None:
            yield Setting(path, _kind(field), _default(field), field.description or "")
            continue
        if field.description:
            yield Setting(path, "list" if suffix == "[]" else "mapping", _default(field), field.description)
        yield from _settings(inner, path + suffix)


def _inner(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    """The model below a key, and how its path goes on."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    if origin is dict:
        return _inner(arguments[1])[0], ".<name>"
    if origin is tuple:
        return _inner(arguments[0])[0], "[]"
    if origin in (typing.Union, types.UnionType):
        return next(((inner, suffix) for inner, suffix in map(_inner, arguments) if inner), (None, ""))
    return None, ""


def _kind(field: FieldInfo) -> str:
    parts = [part for part in _flat(field.annotation) if part is not type(None)]
    quantities = {id(getattr(meta, "func", None)) for meta in [*field.metadata, *_metadata(field.annotation)]}
    if id(parse_duration) in quantities:
        return "duration"
    if id(parse_size) in quantities:
        return "size"
    return " or ".join(dict.fromkeys(_word(part) for part in parts))


def _metadata(annotation: Any) -> Iterator[Any]:
    if typing.get_origin(annotation) is typing.Annotated:
        yield from typing.get_args(annotation)[1:]
    for argument in typing.get_args(annotation):
        yield from _metadata(argument)


def _flat(annotation: Any) -> Iterator[Any]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        yield from _flat(arguments[0])
    elif origin in (typing.Union, types.UnionType):
        for argument in arguments:
            yield from _flat(argument)
    else:
        yield annotation


def _word(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is tuple:
        inner = " or ".join(dict.fromkeys(_word(part) for part in _flat(arguments[0])))
        return f"list of {inner}"
    words = {
        str: "text",
        int: "number",
        float: "number",
        bool: "`true` or `false`",
        Path: "file",
        SecretBytes: "secret",
    }
    return words.get(kind, "mapping")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    value, kind = field.default, _kind(field) if _inner(field.annotation)[0] is None else ""
    if value is None:
        return "unset"
    if kind == "duration":
        return f"`{format_duration(value)}`"
    if kind == "size":
        return f"`{format_size(value)}`"
    if value in ((), {}):
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def markdown() -> str:
    """The table of every setting, section by section, as docs/configuration.md holds it."""
    lines: list[str] = []
    section = ""
    for setting in settings():
        head = setting.path.partition(".")[0].partition("[")[0]
        if head != section:
            section = head
            lines += ["", f"### `{head}`", "", "| Setting | Write | Default | Meaning |", "|---|---|---|---|"]
        default = setting.default or "**required**"
        lines.append(f"| `{setting.path}` | {setting.kind} | {default} | {setting.description} |")
    return "\n".join(lines).strip() + "\n"
