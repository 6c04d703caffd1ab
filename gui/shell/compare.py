"""What differs between two sets of settings, as rows and as text; free of Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gui.forms.shapes import shapes, value_text
from gui.settings_tree import Overlay, changed_paths, effective, value_at
from gui.words import tr


@dataclass(frozen=True)
class Difference:
    """One setting that differs.

    Attributes:
        path: Its dotted path.
        label: Its name.
        old: The value before, in words; empty when it was not there.
        new: The value now, in words.
    """

    path: str
    label: str
    old: str
    new: str


def differences(old: Overlay, new: Overlay) -> list[Difference]:
    """Return every setting whose value differs, in the order of declaration."""
    changed = changed_paths(old, new)
    before, after = effective(old), effective(new)
    rows: dict[str, Difference] = {}
    for shape in shapes():
        if shape.path not in changed or shape.path in rows:
            continue
        words = []
        for tree in (before, after):
            kind = _kind_above(tree, shape.path)
            if shape.of_kind and kind != shape.of_kind:
                words.append("")
                continue
            try:
                words.append(value_text(shape, value_at(tree, shape.path)))
            except KeyError:
                words.append("")
        if words[0] != words[1] or shape.kind == "own":
            rows[shape.path] = Difference(shape.path, tr(shape.info.label), *words)
    return list(rows.values())


def _kind_above(tree: Any, path: str) -> str:
    try:
        node = value_at(tree, path.rpartition(".")[0])
    except KeyError:
        return ""
    return str(node.get("kind", "")) if isinstance(node, dict) else ""


def as_text(rows: list[Difference]) -> str:
    """Return ``rows`` as lines to paste somewhere."""
    return "\n".join(f"{row.path}: {row.old or '-'} -> {row.new or '-'}" for row in rows)
