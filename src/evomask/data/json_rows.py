"""A json file of rows, read so that whatever is wrong with it is one line."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

Row = TypeVar("Row")


def read_json(file: Path, what: str) -> Any:
    """What a json file holds.

    Raises:
        ValueError: there is no such file, or it is no json; the message says what it should have been.
    """
    if not file.is_file():
        raise ValueError(f"there is no file {file}: give {what}")
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} cannot be read as {what}: {error}") from error


def rows_of(file: Path, what: str, record: Any, read: Callable[[Mapping[str, Any]], Row], key: str | None = None) -> list[Row]:
    """Every row of a list as `read` takes it.

    Args:
        file: where they are from.
        what: the file should have been.
        record: the list, or an object that has it.
        read: a row -> what is needed of it; raises KeyError for what the row lacks, ValueError for what cannot be.
        key: the list's name in the object.

    Raises:
        ValueError: there is no such list, it is empty, or a row is not as it should be; the message names file and row.
    """
    rows = record.get(key) if key is not None and isinstance(record, Mapping) else record
    if not isinstance(rows, list):
        raise ValueError(f"{file} is not {what}: it has no list{'' if key is None else f' of {key}'}")
    if not rows:
        raise ValueError(f"{file} holds nothing{'' if key is None else f' under {key}'}: it should be {what}")
    found = []
    for number, row in enumerate(rows):
        try:
            if not isinstance(row, Mapping):
                raise ValueError("is no object")
            found.append(read(row))
        except (KeyError, ValueError, TypeError) as error:
            said = f"has no {error}" if isinstance(error, KeyError) else error
            raise ValueError(f"{file}: {key or 'row'} {number} {said}") from error
    return found
