"""Terms of `orderBy`: a field and its direction; and, for what another language would write, how it is written here. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final

from lensway.errors import ErrorCode, LenswayError
from lensway.query import unavailable
from lensway.query import where as wheres
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.suggestions import nearest

DIRECTIONS: Final[Mapping[str, bool]] = {"asc": False, "desc": True}
_LOOKED_AT_MAX: Final = 200
_DIRECTED: Final = re.compile(
    r"(?P<sign>[+-]?)\s*(?P<field>.*?)(?:[\s:,]+(?P<word>asc\w*|desc\w*|up|down|-?1))?", re.IGNORECASE | re.DOTALL
)
"""`placed desc`, `placed:desc`, `-placed`."""


def order_term(definition: LensDefinition, item: object, path: str) -> tuple[Field, bool]:
    """The field, and whether it descends.

    Raises:
        LenswayError: INVALID_REQUEST, UNKNOWN_FIELD or UNSUPPORTED_OPERATOR, showing the right form where one can be guessed.
    """
    if not isinstance(item, Mapping):
        raise _invalid(path, 'expected {"field": …, "dir": "asc" or "desc"}', _right_form(definition, item))
    for key in item:
        if key not in ("field", "dir"):
            raise _invalid(path, f"unknown key {str(key)[:63]!r}", _right_form(definition, item))
    field = _field(definition, item, f"{path}.field")
    if field.type is FieldType.JSON or field.is_list:
        raise LenswayError(
            ErrorCode.UNSUPPORTED_OPERATOR,
            f"{path}: field {field.name!r} cannot be ordered",
            hint=unavailable.MEMBERS_HINT,
            details={"path": path},
        )
    direction = item.get("dir", "asc")
    if not isinstance(direction, str) or direction not in DIRECTIONS:
        raise _invalid(f"{path}.dir", 'expected "asc" or "desc"', _right_form(definition, item))
    return field, DIRECTIONS[direction]


def _field(definition: LensDefinition, item: Mapping[str, object], path: str) -> Field:
    name = item.get("field")
    if not isinstance(name, str):
        raise _invalid(path, "expected a field name", _right_form(definition, item))
    if (field := definition.fields.get(name)) is not None:
        return field
    unknown = wheres.unknown_field(name, definition, path)
    directed = _DIRECTED.fullmatch(name.strip()[:_LOOKED_AT_MAX])
    if name in DIRECTIONS or (directed is not None and (directed["sign"] or directed["word"])):
        hint = _right_form(definition, item)
        raise LenswayError(unknown.code, str(unknown), hint=hint, details=unknown.failure.details)
    raise unknown


def _right_form(definition: LensDefinition, item: object) -> str:
    word, descends = _meant(item)
    known = word if word in definition.fields else nearest(word, definition.fields)
    if known is None:
        fields = ", ".join(list(definition.fields)[:8])
        return f'Write {{"field": FIELD, "dir": "asc"}}, on the command line FIELD or FIELD:desc. Fields: {fields}.'
    direction = "desc" if descends else "asc"
    return f"Write {json.dumps({'field': known, 'dir': direction})}, on the command line {known}:{direction}."


def _meant(item: object) -> tuple[str, bool]:
    """The field's name as it was written, and whether it is to descend."""
    if isinstance(item, str):
        directed = _DIRECTED.fullmatch(item.strip()[:_LOOKED_AT_MAX])
        assert directed is not None, "every text matches"
        return directed["field"], directed["sign"] == "-" or _descends(directed["word"])
    if isinstance(item, Mapping):
        others = [value for key, value in item.items() if key != "field"]
        if isinstance(named := item.get("field"), str):
            word, descends = _meant(named)
            return word, descends or any(map(_descends, others))
        key = next(iter(item), "")
        value = item.get(key)
        return str(value if isinstance(value, str) and key in ("fields", "column", "name", "by") else key), _descends(
            value
        )
    if isinstance(item, (list, tuple)) and item and isinstance(item[0], str):
        return item[0], any(map(_descends, item[1:]))
    return "", False


def _descends(value: object) -> bool:
    if isinstance(value, str):
        return value.lower().startswith(("desc", "down", "-"))
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value < 0


def _invalid(path: str, message: str, hint: str) -> LenswayError:
    return LenswayError(ErrorCode.INVALID_REQUEST, f"{path}: {message}", hint=hint, details={"path": path})
