"""What a changed contract breaks: a published version may gain optional fields, and nothing else.

Whatever else changes either refuses messages that were right so far, or lets out messages that a reader of the published
version refuses: readers and writers are never upgraded in the same instant.
"""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]

_WORDS_ONLY: Final = frozenset({"title", "description", "examples", "$schema", "$id"})
# By keyword: does a change from the published value to the current one narrow what is accepted?
_LOWER: Final = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})
_UPPER: Final = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})


def breaking_changes(published: Schema, current: Schema) -> list[str]:
    """Return a sentence for each way in which `current` is not the JSON Schema `published` plus optional fields."""
    return _compare("", _resolved(published, published), _resolved(current, current))


def _resolved(node: Any, root: Schema) -> Any:
    """Return `node` with references replaced by what they point at, and without what only people read."""
    if isinstance(node, list):
        return [_resolved(item, root) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = root["$defs"][node["$ref"].removeprefix("#/$defs/")]
        return _resolved({**target, **{key: value for key, value in node.items() if key != "$ref"}}, root)
    return {
        key: {name: _resolved(field, root) for name, field in value.items()} if key == "properties" else _resolved(value, root)
        for key, value in node.items()
        if key not in _WORDS_ONLY and key != "$defs"
    }


def _compare(path: str, old: Schema, new: Schema) -> list[str]:
    found = _compare_fields(path, old, new)
    for keyword in sorted((old.keys() | new.keys()) - {"properties", "required"}):
        before, after = old.get(keyword), new.get(keyword)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            found += _compare(f"{path}.{keyword}" if path else keyword, before, after)
        elif keyword == "anyOf" and isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
            for old_choice, new_choice in zip(before, after, strict=True):
                found += _compare(path, old_choice, new_choice)
        else:
            found.append(f"{path or 'the message'}: {keyword} was {_direction(keyword, before, after)}: {before!r} to {after!r}")
    return found


def _compare_fields(path: str, old: Schema, new: Schema) -> list[str]:
    old_fields, new_fields = old.get("properties", {}), new.get("properties", {})
    old_required, new_required = set(old.get("required", ())), set(new.get("required", ()))
    found = []
    for name in sorted(old_fields.keys() | new_fields.keys()):
        where = f"{path}.{name}" if path else name
        if name not in new_fields:
            found.append(f"{where}: the field is gone")
        elif name not in old_fields:
            if name in new_required:
                found.append(f"{where}: a new field is required")
        else:
            if name in new_required - old_required:
                found.append(f"{where}: the field became required")
            if name in old_required - new_required:
                found.append(f"{where}: the field became optional, and readers rely on it")
            found += _compare(where, old_fields[name], new_fields[name])
    return found


def _direction(keyword: str, before: Any, after: Any) -> str:
    if keyword in _LOWER | _UPPER:
        grows = after is None if keyword in _UPPER else before is None
        if before is not None and after is not None:
            grows = after > before
        return "widened" if grows == (keyword in _UPPER) else "narrowed"
    if keyword == "enum" and isinstance(before, list) and isinstance(after, list):
        if set(map(str, before)) < set(map(str, after)):
            return "widened"
        if set(map(str, before)) > set(map(str, after)):
            return "narrowed"
    return "changed"
