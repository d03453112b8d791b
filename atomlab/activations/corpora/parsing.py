"""Makes examples out of the fields of a record, and says what is wrong with a record that cannot be used."""

import hashlib
from typing import Any

import numpy as np

from atomlab.activations.corpora.corpus import Example
from atomlab.activations.corpora.records import UnusableRecordError

_LARGEST_ID = 2**31 - 1


def document_example(fields: dict[str, Any], field: str, group_field: str | None) -> Example:
    """Makes the example of a record that holds one document as text or as token ids.

    Args:
        fields: the fields of the record by name.
        field: name of the field that holds the text, or a list of token ids.
        group_field: name of the field that holds the group; None, or an empty group, makes a group of each
            content, so that copies of a document always go to the same split.

    Returns:
        The example, with the text, or with an empty text and the token ids that the record's `attention_mask` does not
        mask.

    Raises:
        UnusableRecordError: the record has no such field, or neither text nor token ids in it; or its group or its
            `attention_mask` cannot be read.
    """
    if field not in fields:
        raise UnusableRecordError(
            f"it has no text field {field!r} but {', '.join(map(str, fields))} (corpus.field names the field of text or "
            f"of token ids)"
        )
    value, group = fields[field], None if group_field is None else _group(fields, group_field)
    if isinstance(value, str):
        return Example(checked_text(value, field), group or _digest(value.encode()))
    ids = _unmasked(_token_ids(value, field), fields.get("attention_mask"))
    return Example("", group or _digest(ids.tobytes()), input_ids=ids.tolist())


def checked_text(value: Any, field: str) -> str:
    """Checks that a field holds text.

    Args:
        value: the value of the field.
        field: name of the field, for error messages.

    Returns:
        The value, unchanged.

    Raises:
        UnusableRecordError: the value is no string, or holds a NUL character, half of a surrogate pair, or a byte that
            is not UTF-8.
    """
    if not isinstance(value, str):
        raise UnusableRecordError(f"its field {field!r} is {_type_name(value)} and no text")
    if "\0" in value:
        raise UnusableRecordError(f"its field {field!r} holds a NUL character: this is no text, or not UTF-8")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        what = f"the byte 0x{code - 0xDC00:X}, which is not UTF-8" if 0xDC80 <= code <= 0xDCFF else (
            f"half of a surrogate pair, U+{code:X}"
        )  # fmt: skip
        raise UnusableRecordError(f"its field {field!r} holds {what}") from error
    return value


def _group(fields: dict[str, Any], name: str) -> str:
    if name not in fields:
        raise UnusableRecordError(f"it has no field {name!r} but {', '.join(map(str, fields))} (corpus.group_field)")
    value = fields[name]
    if isinstance(value, str | int | float):
        return checked_text(str(value), name)
    raise UnusableRecordError(f"its field {name!r} is {_type_name(value)}, and should name the record's group")


def _token_ids(value: Any, field: str) -> np.ndarray:
    """The token ids of a field, (tokens,) int32."""
    if not isinstance(value, list | tuple):
        raise UnusableRecordError(f"its field {field!r} is {_type_name(value)}, and neither text nor token ids")
    kinds = set(map(type, value))
    if kinds - {int}:
        names = ", ".join(sorted("null" if kind is type(None) else kind.__name__ for kind in kinds))
        raise UnusableRecordError(f"its field {field!r} is a list of {names}, and neither text nor token ids")
    if value and not 0 <= min(value) <= max(value) <= _LARGEST_ID:
        wrong = "below 0" if min(value) < 0 else f"above {_LARGEST_ID:,}"
        raise UnusableRecordError(f"its field {field!r} holds a number {wrong}, which is no token id")
    return np.array(value, dtype=np.int32)


def _unmasked(ids: np.ndarray, mask: Any) -> np.ndarray:
    """The token ids that the model is to see, wherever they stand."""
    if mask is None:
        return ids
    if not isinstance(mask, list | tuple) or set(map(type, mask)) - {int, bool} or set(mask) - {0, 1}:
        raise UnusableRecordError("its attention_mask is not a list of zeros and ones")
    if len(mask) != len(ids):
        raise UnusableRecordError(f"its attention_mask has {len(mask)} values for {len(ids)} token ids")
    return ids[np.array(mask, dtype=bool)]


def _type_name(value: Any) -> str:
    return "null" if value is None else f"of type {type(value).__name__}"


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
