"""About sixty captioned pictures of eight kinds, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from aozora.config.chance import chance_uniform

COLOURS = {
    "red": (214, 48, 44),
    "green": (44, 176, 72),
    "blue": (52, 84, 220),
    "yellow": (240, 210, 52),
}
BACKGROUNDS = {"dark": (28, 26, 34), "light": (226, 228, 236)}
CLASSES = tuple(f"{colour} on {tone}" for colour in COLOURS for tone in BACKGROUNDS)
_SHAPES = ("circle", "square")
# Width and height; none is a multiple of 64, so that pictures are scaled and cropped.
_SIZES = ((264, 264), (328, 212), (212, 328), (300, 240))
_FORMATS = ("png", "jpg", "webp")
_DETAIL = 4


@dataclass(frozen=True)
class _Drawing:
    colour: str
    tone: str
    shape: str

    @property
    def caption(self) -> str:
        return f"a {self.colour} {self.shape} on a {self.tone} background"


def class_of(caption: str) -> int:
    """Return the number in `CLASSES` of a caption of the demo.

    Raises:
        ValueError: if it is none.
    """
    words = caption.replace("_", " ").split()
    colour = next((word for word in words if word in COLOURS), None)
    tone = next((word for word in words if word in BACKGROUNDS), None)
    if colour is None or tone is None:
        raise ValueError(f"not a caption of the demo: {caption!r}")
    return CLASSES.index(f"{colour} on {tone}")


def draw_pictures(folder: Path, count: int = 64, seed: int = 0) -> list[Path]:
    """Write ``count`` pictures and their captions into ``folder``; return the pictures' paths.

    Most captions are in .txt files; one is in a .caption file and one is the picture's own name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        colour, tone = CLASSES[number % len(CLASSES)].split(" on ")
        shape = _SHAPES[number // len(CLASSES) % len(_SHAPES)]
        drawing = _Drawing(colour, tone, shape)
        stem = f"picture_{number:03d}"
        if number == count - 1:
            stem = drawing.caption.replace(" ", "_")
        suffix = _FORMATS[number % len(_FORMATS)]
        path = folder / f"{stem}.{suffix}"
        _draw(drawing, number, seed).save(path, quality=92)
        paths.append(path)
        if number < count - 1:
            kind = ".caption" if number == count - 2 else ".txt"
            text = drawing.caption + "\n"
            path.with_suffix(kind).write_text(text, encoding="utf-8", newline="\n")
    return paths


def _draw(drawing: _Drawing, number: int, seed: int) -> Image.Image:
    def chance(what: str, low: float, high: float) -> float:
        return low + (high - low) * chance_uniform(seed, f"demo {what}", number)

    width, height = _SIZES[number // 3 % len(_SIZES)]
    shade = chance("shade", 0.85, 1.0)
    image = Image.new("RGB", (width * _DETAIL, height * _DETAIL), _shaded(drawing.tone, shade))
    radius = chance("size", 0.26, 0.38) * min(width, height)
    x = chance("x", radius * 1.1, width - radius * 1.1)
    y = chance("y", radius * 1.1, height - radius * 1.1)
    box = [value * _DETAIL for value in (x - radius, y - radius, x + radius, y + radius)]
    pen = ImageDraw.Draw(image)
    draw = pen.ellipse if drawing.shape == "circle" else pen.rectangle
    draw(box, fill=COLOURS[drawing.colour])
    # Drawn larger and scaled down, so that edges are smooth.
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _shaded(tone: str, shade: float) -> tuple[int, int, int]:
    red, green, blue = BACKGROUNDS[tone]
    return round(red * shade), round(green * shade), round(blue * shade)
