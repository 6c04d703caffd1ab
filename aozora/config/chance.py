"""All chance of a run as pure functions of (seed, stream, index).

Nothing here has a state, so there is none to save: the k-th sample ever drawn gets the same noise,
timestep and place in the order on every machine, whatever the batch size, and after any resume.
"""

from __future__ import annotations

import hashlib


def chance_key(seed: int, stream: str, *indices: int | str) -> int:
    """Return a 63-bit key for one event.

    Args:
        seed: The run's seed.
        stream: What the chance is for, such as ``"noise"``; streams are independent.
        indices: Which event of the stream, such as the number of the sample.
    """
    text = ":".join(map(str, (seed, stream, *indices)))
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def chance_uniform(seed: int, stream: str, *indices: int | str) -> float:
    """Return a number in [0, 1) for one event, with 53 random bits."""
    return (chance_key(seed, stream, *indices) >> 10) / float(1 << 53)
