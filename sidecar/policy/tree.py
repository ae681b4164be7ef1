"""YAML text as a tree of plain values that remembers on which line each of them stood.

Stricter than YAML on purpose, because money is written in it: keys are texts (`on` is not a boolean), a key stands
once in a mapping, only `true` and `false` are booleans, numbers are kept exactly as written (0.99 is the decimal
0.99), and there are no tags and no merge keys. Size, depth and the number of values after aliases are resolved are
bounded, so a small file cannot grow into a large tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import yaml

SOURCE_BYTES_MAX = 256 << 10
VALUES_MAX = 20_000
DEPTH_MAX = 24

Path = tuple[str | int, ...]

_INTEGER = re.compile(r"[+-]?[0-9]{1,40}")
_DECIMAL = re.compile(r"[+-]?([0-9]{1,40}\.[0-9]{0,40}|\.[0-9]{1,40}|[0-9]{1,40}(\.[0-9]{1,40})?[eE][+-]?[0-9]{1,2})")
_TAGS = {"!", *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "map", "seq"))}
_PLAIN: dict[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


@dataclass(slots=True)
class Tree:
    """The value of a document, the line (from 1) of each value by its path, and what is wrong with it."""

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    faults: list[tuple[int, str]] = field(default_factory=list)

    def line(self, path: Path) -> int:
        """The line of a value, or of the nearest one around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def entries(value: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The mappings of a list in an unchecked tree, with their places; nothing for what is no list."""
    for index, entry in enumerate(value if isinstance(value, list) else []):
        if isinstance(entry, Mapping):
            yield index, entry


def read_tree(source: bytes) -> Tree:
    """Parse one YAML (or JSON) document. Never raises on bad input: `faults` says what is wrong, with lines."""
    tree = Tree()
    if len(source) > SOURCE_BYTES_MAX:
        tree.faults.append((1, f"the file has {len(source)} bytes: at most {SOURCE_BYTES_MAX}"))
        return tree
    try:
        text = source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = source.count(b"\n", 0, error.start) + 1
        tree.faults.append((line, f"not UTF-8: byte 0x{source[error.start]:02x}; save the file as UTF-8"))
        return tree
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        tree.faults.append(_syntax_fault(error))
    except yaml.YAMLError as error:
        tree.faults.append((1, f"not YAML: {' '.join(str(error).split())}"))
    except RecursionError:
        tree.faults.append((1, f"nested too deep: at most {DEPTH_MAX} levels"))
    else:
        if root is None:
            tree.faults.append((1, "the file is empty: a plan starts with `rate_plan:`"))
        else:
            tree.value = _Builder(tree).build(root, (), 0)
    return tree


def _syntax_fault(error: yaml.MarkedYAMLError) -> tuple[int, str]:
    mark = error.problem_mark or error.context_mark
    parts = [part for part in (error.context, error.problem) if part]
    return (mark.line + 1 if mark else 1), "not YAML: " + ", ".join(parts or ["cannot be read"])


class _TooMuchError(Exception):
    """The bound on values was reached; the fault is already noted."""


class _Builder:
    """Turns nodes into values. Aliased nodes are visited once per use, so `count` bounds what they expand to."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._count = 0

    def build(self, root: yaml.Node, path: Path, depth: int) -> Any:
        try:
            return self._value(root, path, depth)
        except _TooMuchError:
            return None

    def _fault(self, node: yaml.Node, message: str) -> None:
        self._tree.faults.append((node.start_mark.line + 1, message))

    def _value(self, node: yaml.Node, path: Path, depth: int) -> Any:
        self._count += 1
        if self._count > VALUES_MAX or depth > DEPTH_MAX:
            what = f"nested deeper than {DEPTH_MAX} levels" if depth > DEPTH_MAX else f"more than {VALUES_MAX} values"
            self._fault(node, f"the plan is {what} (aliases counted as often as they are used)")
            raise _TooMuchError
        self._tree.lines.setdefault(path, node.start_mark.line + 1)
        if node.tag not in _TAGS:
            self._fault(node, f"the tag {node.tag!r} is not supported: remove it")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*path, index), depth + 1) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        raise TypeError(node)  # there are three kinds of node

    def _mapping(self, node: yaml.MappingNode, path: Path, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._fault(key, "a key must be a plain text")
                continue
            name = str(key.value)
            if name in result:
                first = self._tree.lines[(*path, name)]
                self._fault(key, f"{name!r} stands twice, first on line {first}: remove one")
                continue
            if name == "<<":
                self._fault(key, "merge keys are not supported: write the fields out")
                continue
            self._tree.lines[(*path, name)] = key.start_mark.line + 1
            result[name] = self._value(value, (*path, name), depth + 1)
        return result

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text = str(node.value)
        if node.style is not None:
            return text
        if text in _PLAIN:
            return _PLAIN[text]
        if _INTEGER.fullmatch(text):
            return int(text)
        return Decimal(text) if _DECIMAL.fullmatch(text) else text
