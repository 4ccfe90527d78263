"""The editor's schema, the manual's table, and the files that are shipped with them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config.load import examine
from gateway.config.reference import json_schema, settings

_ROOT = Path(__file__).parents[2]
_SHIPPED = sorted(_ROOT.glob("config/**/*.yaml"))
_ENVIRON = {"PARTNER_SECRET": "x" * 32, "ISSUER_KEY": "x" * 32}


def test_the_shipped_schema_is_the_generated_one() -> None:
    """`gateway schema > config/gateway.schema.json` would change nothing."""
    assert json.loads((_ROOT / "config/gateway.schema.json").read_text(encoding="utf-8")) == json_schema()


@pytest.mark.parametrize("path", _SHIPPED, ids=lambda path: path.name)
def test_every_shipped_file_is_valid(path: Path) -> None:
    """Nobody begins with a file that is refused, or warned of for another reason than that it is small."""
    found = examine(path, _ENVIRON)
    assert [problem.render() for problem in found.problems] == []
    assert [warning.brief for warning in found.warnings if "no denylist" not in warning.message] == []


@pytest.mark.parametrize("path", _SHIPPED, ids=lambda path: path.name)
def test_the_head_of_a_shipped_file_names_what_must_be_set(path: Path) -> None:
    """`gateway check` of it as it lies would stop at a variable without a default."""
    text = path.read_text(encoding="utf-8")
    head = re.match(r"(?:#.*\n)+", text)
    assert head is not None
    assert [name for name in re.findall(r"\$\{([A-Z_]+)\}", text) if name not in head[0]] == []


@pytest.mark.parametrize("path", _SHIPPED, ids=lambda path: path.name)
def test_every_shipped_file_tells_the_editor_its_schema(path: Path) -> None:
    """The first line names the schema by a path that exists."""
    match = re.match(r"# yaml-language-server: \$schema=(\S+)\n", path.read_text(encoding="utf-8"))
    assert match is not None
    assert (path.parent / match[1]).resolve() == _ROOT / "config/gateway.schema.json"


@pytest.mark.parametrize("path", _SHIPPED, ids=lambda path: path.name)
def test_the_schema_accepts_every_shipped_file(path: Path) -> None:
    """The editor underlines nothing in them."""
    assert list(_mistakes(json_schema(), yaml.safe_load(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "change",
    [
        {"server": {"lisen": "a"}},
        {"server": {"drain": 30}},
        {"server": {"workers": "many"}},
        {"issuers": {"a": {"issuer": "x"}}},
        {"routes": [{"name": "a", "path": "/", "upstream": "b", "auth": "maybe"}]},
        {"routes": []},
    ],
)
def test_the_schema_refuses_mistakes(change: dict[str, Any]) -> None:
    """It is not so loose that it would accept anything."""
    valid = {"routes": [{"name": "a", "path": "/", "upstream": "b"}]}
    assert list(_mistakes(json_schema(), valid)) == []
    assert list(_mistakes(json_schema(), {**valid, **change}))


def test_every_setting_has_a_description_and_a_default() -> None:
    """A setting that nobody describes cannot be used."""
    for setting in settings():
        assert setting.description, setting.path
        assert setting.kind != "mapping" or setting.path.count(".") < 4, setting.path


def _mistakes(schema: dict[str, Any], value: Any) -> list[str]:
    """What is wrong with `value`, by the part of JSON Schema that ours is made of; an unknown keyword fails."""
    return _judge(schema, schema, value, "$")


_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_REMARKS = {"$schema", "$defs", "title", "description", "default", "examples"}


def _judge(root: dict[str, Any], schema: dict[str, Any], value: Any, at: str) -> list[str]:
    found: list[str] = []
    for word, wanted in schema.items():
        if word in _REMARKS or word in ("properties", "patternProperties", "additionalProperties"):
            continue
        found += _RULES[word](root, wanted, value, at)
    if isinstance(value, dict):
        for key, item in value.items():
            found += _judge_member(root, schema, key, item, at)
    return found


def _judge_member(root: dict[str, Any], schema: dict[str, Any], key: str, item: Any, at: str) -> list[str]:
    if key in schema.get("properties", {}):
        return _judge(root, schema["properties"][key], item, f"{at}.{key}")
    for pattern, rule in schema.get("patternProperties", {}).items():
        if re.search(pattern, key):
            return _judge(root, rule, item, f"{at}.{key}")
    rest = schema.get("additionalProperties", True)
    if rest is False:
        return [f"{at}: unknown {key}"]
    return [] if rest is True else _judge(root, rest, item, f"{at}.{key}")


def _of_type(root: Any, wanted: str, value: Any, at: str) -> list[str]:
    fits = isinstance(value, _TYPES[wanted]) and (wanted == "boolean" or not isinstance(value, bool))
    return [] if fits else [f"{at}: not a {wanted}"]


def _any_of(root: Any, wanted: list[Any], value: Any, at: str) -> list[str]:
    return [] if any(not _judge(root, option, value, at) for option in wanted) else [f"{at}: none of {len(wanted)}"]


def _sized(low: bool) -> Any:
    def judge(root: Any, wanted: int, value: Any, at: str) -> list[str]:
        if not isinstance(value, list | dict | str):
            return []
        return [] if (len(value) >= wanted if low else len(value) <= wanted) else [f"{at}: wrong length"]

    return judge


_RULES: dict[str, Any] = {
    "type": _of_type,
    "anyOf": _any_of,
    "$ref": lambda root, wanted, value, at: _judge(root, root["$defs"][wanted.rpartition("/")[2]], value, at),
    "enum": lambda root, wanted, value, at: [] if value in wanted else [f"{at}: not one of {wanted}"],
    "pattern": lambda root, wanted, value, at: (
        [] if not isinstance(value, str) or re.search(wanted, value) else [f"{at}: not like {wanted}"]
    ),
    "required": lambda root, wanted, value, at: [
        f"{at}: {key} is missing" for key in wanted if isinstance(value, dict) and key not in value
    ],
    "items": lambda root, wanted, value, at: [
        mistake
        for index, item in enumerate(value if isinstance(value, list) else ())
        for mistake in _judge(root, wanted, item, f"{at}[{index}]")
    ],
    "minItems": _sized(True),
    "minLength": _sized(True),
    "minProperties": _sized(True),
    "maxLength": _sized(False),
    "maxProperties": _sized(False),
    "minimum": lambda root, wanted, value, at: [] if isinstance(value, str) or value >= wanted else [f"{at}: too low"],
    "maximum": lambda root, wanted, value, at: [] if isinstance(value, str) or value <= wanted else [f"{at}: too high"],
}
