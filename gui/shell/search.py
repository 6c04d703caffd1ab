"""Finding settings and pages by words; free of Qt."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """Something that can be found.

    Attributes:
        title: What it is called.
        path: Dotted path of a setting, or empty for a page.
        kind: For options, the kind of choice they belong to.
        page: Key of the page it is on.
        where: Where that is, in words.
        text: Help to search in too.
    """

    title: str
    path: str
    page: str
    where: str = ""
    text: str = ""
    kind: str = ""


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def _score_word(word: str, entry: Entry) -> float:
    """Return how well ``word`` fits ``entry``; 0 when not at all."""
    title, path = entry.title.lower(), entry.path.lower()
    if word in _words(entry.title):
        return 10.0
    if any(part.startswith(word) for part in _words(entry.title)):
        return 8.0
    if word in _words(entry.path):
        return 7.0
    if word in title or word in path:
        return 5.0
    if any(part.startswith(word) for part in _words(entry.text)):
        return 3.0
    if len(word) >= 3 and _is_subsequence(word, title.replace(" ", "")):
        return 2.0
    return 0.0


def _is_subsequence(word: str, text: str) -> bool:
    """Return whether the letters of ``word`` come in this order, the first one first."""
    letters = iter(text)
    return text.startswith(word[0]) and all(letter in letters for letter in word)


def find(query: str, entries: Iterable[Entry], limit: int = 12) -> list[Entry]:
    """Return what fits all words of ``query``, best first; everything when it is empty."""
    words = _words(query)
    scored: list[tuple[float, int, Entry]] = []
    for number, entry in enumerate(entries):
        scores = [_score_word(word, entry) for word in words]
        if all(scores):
            scored.append((-sum(scores), number, entry))
    return [entry for _, _, entry in sorted(scored, key=lambda item: item[:2])[:limit]]
