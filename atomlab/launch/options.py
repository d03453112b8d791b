"""Compares the composed configuration with the signatures that it goes to, before anything is built.

A constructor's signature is the schema. YAML holds null, true and false, whole numbers, numbers, text, lists and mappings
only, so a short comparison with a type annotation is enough. Libraries that check types would refuse a list where a tuple
is annotated, or take "3" for a number. Their messages are about Python, and the user wrote a command line. Ranges are
annotations too (`atomlab.ranges`), which pydantic compares.
"""

import difflib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from atomlab.ranges import fits as in_range
from atomlab.ranges import has_range
from atomlab.ranges import in_words as range_in_words

_SUPPLIED = {"callbacks", "logger"}  # arguments that train.py and evaluate.py add to the leaves themselves
_PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "null"}


def check_options(config: DictConfig, defaults: DictConfig) -> None:
    """Compares each leaf (`_target_` and its arguments) with the signature of its target, and all else with the defaults.

    Args:
        config: the composed configuration, while Hydra runs, so that `${hydra:...}` can be resolved.
        defaults: the same primary configuration without the user's overrides. It has all keys that are read.

    Raises:
        ValueError: a value has the wrong type, nothing reads a key, or an argument is missing or unknown.
    """
    raw, known = OmegaConf.to_container(config), OmegaConf.to_container(defaults)
    assert isinstance(raw, dict)
    assert isinstance(known, dict)
    _mapping(config, "", raw, known)
    for path, leaf in reversed(
        list(_leaves("", raw))
    ):  # inner leaves first: an error names the key nearest to the value
        _leaf(config, path, leaf)


def keys_of(config: DictConfig) -> list[str]:
    """Returns all dotted keys of a configuration, those of groups and leaves included."""
    return list(_keys("", OmegaConf.to_container(config)))


def _keys(path: str, node: Any) -> Iterator[str]:
    for key, value in node.items() if isinstance(node, dict) else ():
        here = f"{path}.{key}" if path else str(key)
        if not str(key).startswith("_"):
            yield here
        yield from _keys(here, value)


def top_key(word: str) -> str:
    """Returns the first part of the key that a word of the command line sets.

    >>> [top_key(word) for word in ("sae.alpha=0.5", "+foo=1", "corpus@reference=local")]
    ['sae', 'foo', 'corpus']
    """
    return re.split(r"[=.@]", word.lstrip("+~"))[0]


def did_you_mean(key: str, known: list[str]) -> str:
    """Hints at the known key that is nearest to an unknown one.

    Args:
        key: the unknown key.
        known: all known keys. One with the same last part is nearest, else one with a similar spelling.

    Returns:
        A question that names the nearest key. If there is none, a sentence that says where the keys are listed.

    >>> did_you_mean("modle", ["model", "model.name"])
    'did you mean model?'
    >>> did_you_mean("expansion", ["sae.expansion", "model"])
    'did you mean sae.expansion?'
    """
    others = [other for other in known if other != key]
    same = [other for other in others if other.rpartition(".")[2] == key.rpartition(".")[2]]
    near = same[:1] or difflib.get_close_matches(key, others, n=1)
    return f"did you mean {near[0]}?" if near else "the keys stand in conf/, and --help shows them."


def _mapping(config: DictConfig, path: str, raw: dict[Any, Any], known: Any) -> None:
    """Checks what lies outside of the leaves: something must read each key, and values must have their default's type."""
    for key, value in raw.items():
        here = f"{path}.{key}" if path else str(key)
        if isinstance(value, dict) and "_target_" in value and path:
            continue  # a further leaf, such as another callback
        if not (isinstance(known, dict) and key in known) and not _is_interpolated(here, config):
            raise ValueError(f"{_shown(here, value)}: nothing reads this key; {did_you_mean(here, keys_of(config))}")
        default = known.get(key) if isinstance(known, dict) else None
        if isinstance(value, dict):
            if "_target_" not in value:
                _mapping(config, here, value, default)
        elif isinstance(known, dict) and key in known and type(default) in _PLAIN and not str(default).startswith("${"):
            hint = str | None if default is None else type(default)
            _check(here, here, _value(config, here, value), hint)


def _is_interpolated(path: str, config: DictConfig) -> bool:
    return re.search(rf"\${{{re.escape(path)}[}}.\[]", str(OmegaConf.to_container(config))) is not None


def _leaves(path: str, node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from _leaves(f"{path}.{key}" if path else str(key), value)
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _leaves(f"{path}[{number}]", value)


def _leaf(config: DictConfig, path: str, leaf: dict[str, Any]) -> None:
    target = _target(path, leaf)
    try:
        parameters = inspect.signature(target).parameters
    except ValueError:  # a class written in C
        return
    hints = _hints(target)
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    given = {key: value for key, value in leaf.items() if not str(key).startswith("_")}
    for name, value in given.items():
        if name in parameters:
            source = _source(f"{path}.{name}", value, config)
            _check(source, f"{path}.{name}", _value(config, f"{path}.{name}", value), hints.get(name, Any))
        elif not open_ended:
            hint = did_you_mean(str(name), list(parameters))
            raise ValueError(f"{path}.{name}: {leaf['_target_']} has no option {name!r}; {hint}")
    for name, parameter in parameters.items():
        optional = parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        )
        if not optional and name not in given and name not in _SUPPLIED:
            raise ValueError(f"{path}.{name} is missing: {leaf['_target_']} needs it.")


def _target(path: str, leaf: dict[str, Any]) -> Any:
    try:
        return get_object(leaf["_target_"])
    except Exception as error:  # an import can raise anything
        absent = "ModuleNotFoundError" in str(error)
        where = (
            " A module of your own is found in a folder that PYTHONPATH names: PYTHONPATH=. atomlab ..."
            if absent
            else ""
        )
        raise ValueError(f"{path}._target_={leaf['_target_']} cannot be imported: {error}{where}") from error


def _hints(target: Any) -> dict[str, Any]:
    try:
        return get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    except Exception:  # annotations that only a type checker can read
        return {}


def _source(path: str, raw: Any, config: DictConfig) -> str:
    """Returns the key that the value comes from: its own, or the one that `${...}` refers to."""
    while isinstance(raw, str) and (found := re.fullmatch(r"\$\{(\.*)([\w.@]+)\}", raw)):
        parents = path.split(".")[: -len(found[1])] if found[1] else []
        path = ".".join([*parents, found[2]])
        parent, _, key = path.rpartition(".")
        node = OmegaConf.select(config, parent) if parent else config
        plain = OmegaConf.to_container(node) if OmegaConf.is_config(node) else None
        raw = plain.get(key) if isinstance(plain, dict) else None
    return path


def _value(config: DictConfig, path: str, raw: Any) -> Any:
    if raw == "???":
        raise ValueError(f"{path} has no value yet: give {path}=...")
    value = OmegaConf.select(config, path) if isinstance(raw, str | list | dict) else raw
    if not OmegaConf.is_config(value):
        return value
    return OmegaConf.to_container(value)


def _check(key: str, path: str, value: Any, hint: Any) -> None:
    if _fits(value, hint):
        return
    quotes = f"; text in quotes: \"{key}='{value}'\"" if type(value) in (int, float) and _fits(str(value), hint) else ""
    goes_to = "" if key == path else f" (it goes to {path})"
    raise ValueError(f"{_shown(key, value)} should be {_in_words(hint)}{quotes}{goes_to}.")


def _fits(value: Any, hint: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    kind = origin or hint
    if isinstance(value, str) and value.startswith("${"):
        return True  # inside a list or a mapping: the value is checked at the key that it refers to
    if origin in (Union, UnionType):
        return any(_fits(value, arg) for arg in args)
    if origin is Annotated:
        return _fits(value, args[0]) and in_range(value, hint)
    if origin is Literal:
        return any(value == arg and type(value) is type(arg) for arg in args)
    if isinstance(value, dict) and "_target_" in value:
        return _makes(value, kind)
    if kind in _PLAIN:
        return type(value) is kind or (kind is float and type(value) is int)
    if not inspect.isclass(kind) or kind in (Any, object):
        return True  # Any, a type variable, a shape
    if kind is tuple and args and args[-1] is not ...:
        return isinstance(value, list) and len(value) == len(args) and all(map(_fits, value, args))
    if kind is tuple or issubclass(list, kind):
        return isinstance(value, list) and (not args or all(_fits(item, args[0]) for item in value))
    if issubclass(dict, kind):
        return isinstance(value, dict) and (len(args) != 2 or all(_fits(item, args[1]) for item in value.values()))
    return isinstance(value, str) if issubclass(Path, kind) else False


def _makes(leaf: dict[str, Any], kind: Any) -> bool:
    """Returns whether the target of a leaf makes an object of this type; True where that cannot be known."""
    target = _target("", leaf)
    made = target if inspect.isclass(target) else _hints(target).get("return")
    if kind in _PLAIN:
        return made in (kind, None)
    if not (inspect.isclass(made) and inspect.isclass(kind)) or Protocol in kind.__mro__:
        return True
    return issubclass(made, kind)


def _in_words(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    kind = origin or hint
    if origin is Annotated:
        return range_in_words(hint) if has_range(hint) else _in_words(args[0])
    if origin in (Union, UnionType):
        choices = [choice for arg in args if get_origin(arg) is Literal for choice in get_args(arg)]
        others = [arg for arg in args if get_origin(arg) is not Literal]
        one_of = [_in_words(Literal[tuple(choices)])] if choices else []
        return " or ".join(dict.fromkeys([*one_of, *map(_in_words, others)]))
    if origin is Literal:
        return f"one of {', '.join(dict.fromkeys(map(str, args)))}"
    if kind in _PLAIN:
        return _PLAIN[kind]
    if not inspect.isclass(kind):
        return str(hint)
    if kind is tuple and args and args[-1] is not ...:
        return f"a list of {len(args)} ({', '.join(map(_in_words, args))}), as [a,b,c]"
    if kind is tuple or issubclass(list, kind):
        return f"a list ({_in_words(args[0])} each), as [a,b]" if args else "a list, as [a,b]"
    if issubclass(dict, kind):
        return "a mapping, as {name: value}"
    return "text" if issubclass(Path, kind) else f"{kind.__name__} (a _target_ with its arguments)"


def _shown(key: str, value: Any) -> str:
    if isinstance(value, dict):
        return key
    if value is None or isinstance(value, bool):
        value = "null" if value is None else str(value).lower()
    return f"{key}={value}"
