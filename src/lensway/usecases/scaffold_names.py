"""Names for what a scaffold declares: valid, unique, and the same for the same tables each time."""

from __future__ import annotations

import collections
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from lensway.catalog.names import check_field_name, check_name
from lensway.errors import LenswayError
from lensway.limits import NAME_CHARACTERS_MAX
from lensway.query.table_names import parts_of

_REFERENCE_ENDINGS: Final = re.compile(r"(?<=.)(?:_?(?:id|fk|uuid)|Id|ID)$")


def words_of(text: str) -> str:
    """The text with nothing but ASCII letters, digits and single underscores between them; empty when nothing is left."""
    decomposed = unicodedata.normalize("NFKD", text)
    plain = "".join(character for character in decomposed if not unicodedata.combining(character))
    return re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_")


def field_names(columns: Sequence[str], kept: Mapping[str, str]) -> dict[str, str]:
    """A field name for each column, in their order; ``kept`` are names that columns already have."""
    names = {column: kept[column] for column in columns if column in kept}
    used = set(names.values())
    # A column that can lend its own name comes first: another one that only resembles it gets a number.
    for column in columns:
        if column not in names and column not in used and _is_field_name(column):
            names[column] = column
            used.add(column)
    for position, column in enumerate(columns, start=1):
        if column not in names:
            names[column] = _free(field_name(column, f"column_{position}"), used, _is_field_name)
            used.add(names[column])
    return {column: names[column] for column in columns}


def field_name(text: str, otherwise: str) -> str:
    """A name that a field may bear, made of this text."""
    words = words_of(text) or otherwise
    return (f"_{words}" if words[0].isdigit() else words)[:NAME_CHARACTERS_MAX]


def lens_names(
    tables: Sequence[str], *, prefix: str, kept: Mapping[str, str], taken: Collection[str]
) -> dict[str, str]:
    """A lens name for each table. ``kept`` are lenses that tables already have; ``taken`` are the names of other lenses.

    A table that shares its name with one of another schema is named with its schema.
    """
    names = {table: kept[table] for table in tables if table in kept}
    used = {*taken, *names.values()}
    plain = {table: words_of(plain_name(table)) for table in tables}
    shared = {name for name, count in collections.Counter(plain.values()).items() if count > 1}
    for table in sorted(tables):
        if table in names:
            continue
        schema, _ = _parts(table)
        words = plain[table]
        if words in shared and schema is not None:
            words = f"{words_of(schema)}_{words}".strip("_")
        names[table] = _free(_lens_name(prefix + words), used, _is_lens_name)
        used.add(names[table])
    return {table: names[table] for table in tables}


def relation_name(fields: Sequence[str], lens: str, taken: Collection[str]) -> str:
    """A name for the relation of a foreign key of these fields: ``customer`` for ``customer_id``, otherwise the other lens."""
    stem = _REFERENCE_ENDINGS.sub("", fields[0]) if len(fields) == 1 else ""
    if stem and stem not in taken and _is_field_name(stem):
        return stem
    return way_back_name(fields, lens, taken)


def way_back_name(fields: Sequence[str], lens: str, taken: Collection[str]) -> str:
    """A name for the relation to the rows of a lens that refer to this one by these fields: the lens where that is clear."""
    target = field_name(lens, "rows")
    if target not in taken and _is_field_name(target):
        return target
    return _free(f"{target}_by_{'_'.join(fields)}"[:NAME_CHARACTERS_MAX], taken, _is_field_name)


def _free(name: str, taken: Collection[str], is_valid: Callable[[str], bool]) -> str:
    """The name, or the first of ``name_2``, ``name_3``, … that is free and valid."""
    found, number = name, 1
    while found in taken or not is_valid(found):
        number += 1
        ending = f"_{number}"
        found = name[: NAME_CHARACTERS_MAX - len(ending)] + ending
    return found


def _lens_name(words: str) -> str:
    name = words if words[:1].isalpha() else f"lens_{words}".rstrip("_")
    return name[:NAME_CHARACTERS_MAX]


def plain_name(table: str) -> str:
    """The name of a table without its schema."""
    return _parts(table)[1]


def _parts(table: str) -> tuple[str | None, str]:
    found = parts_of(table) or (table,)
    return (None, found[0]) if len(found) == 1 else (found[0], ".".join(found[1:]))


def _is_field_name(name: str) -> bool:
    try:
        check_field_name(name, path="")
    except LenswayError:
        return False
    return True


def _is_lens_name(name: str) -> bool:
    try:
        check_name(name, kind="lens", path="")
    except LenswayError:
        return False
    return True
