"""Takes a nested value apart into plain JSON and tensors by their paths, and puts it together again."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_KIND = "__atomlab__"  # the key of a JSON object that stands for something that JSON does not have


def take_apart(value: Any) -> tuple[Any, dict[str, Tensor]]:
    """Takes tensors, tuples and mappings with keys that are no strings out of a value.

    Args:
        value: dictionaries, lists, tuples, tensors, strings, numbers, booleans and None, nested in any way.

    Returns:
        A value of JSON's own types, and the tensors with a dimension by their paths: keys and indices, joined by `/`. Tensors
        without a dimension are numbers in the JSON, exact since every float32 and float64 has a decimal form of its own.

    Raises:
        TypeError: something else is in the value, or two tensors have one path; the message says where.

    >>> take_apart({"a": (1, torch.tensor([2.0]))})
    ({'a': {'__atomlab__': 'tuple', 'items': [1, {'__atomlab__': 'tensor', 'path': 'a/1'}]}}, {'a/1': tensor([2.])})
    """
    tensors: dict[str, Tensor] = {}

    def walk(part: Any, path: str) -> Any:
        if isinstance(part, Tensor):
            if part.ndim == 0:
                return {_KIND: "number", "value": part.item(), "dtype": str(part.dtype).removeprefix("torch.")}
            if path in tensors:
                raise TypeError(
                    f"The checkpoint holds two tensors at {path}: their keys differ in type or a slash alone."
                )
            tensors[path] = part
            return {_KIND: "tensor", "path": path}
        if isinstance(part, Mapping):
            if all(isinstance(key, str) for key in part):
                return {key: walk(inner, f"{path}/{key}".lstrip("/")) for key, inner in part.items()}
            pairs = [[walk(key, path), walk(inner, f"{path}/{key}".lstrip("/"))] for key, inner in part.items()]
            return {_KIND: "mapping", "items": pairs}
        if isinstance(part, list | tuple):
            items = [walk(inner, f"{path}/{number}".lstrip("/")) for number, inner in enumerate(part)]
            return items if isinstance(part, list) else {_KIND: "tuple", "items": items}
        if part is None or isinstance(part, str | bool | int | float):
            return part
        raise TypeError(f"The checkpoint holds a {type(part).__name__} at {path}, which is neither a tensor nor JSON.")

    return walk(value, ""), tensors


def put_together(value: Any, tensors: Mapping[str, Tensor | None]) -> Any:
    """Does the reverse of `take_apart`.

    Args:
        value: the JSON.
        tensors: by their paths.

    Returns:
        The nested value.

    Raises:
        ValueError: a tensor is missing, or the JSON is not of `take_apart`.
    """
    if isinstance(value, list):
        return [put_together(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    kind = value.get(_KIND)
    if kind is None:
        return {key: put_together(part, tensors) for key, part in value.items()}
    try:
        if kind == "tensor":
            return tensors[value["path"]]
        if kind == "number":
            return torch.tensor(value["value"], dtype=getattr(torch, value["dtype"]))
        items = put_together(value["items"], tensors)
        return tuple(items) if kind == "tuple" else dict(items)
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise ValueError(f"a part of the record cannot be read ({error!r})") from error
