"""Opening pictures from anywhere as upright sRGB, and cutting them to their bucket.

Every picture goes through `read_picture`, at the scan as well as when it is encoded, so what the
scan found good is good later. Free of torch until `prepare` is called.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError, features

from aozora.data.buckets import BucketFit
from aozora.errors import DatasetError
from aozora.runtime import long_path

if TYPE_CHECKING:
    from torch import Tensor

Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
HAS_AVIF = features.check("avif")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", *(("AVIF",) if HAS_AVIF else ()))
MAX_PIXELS = 250_000_000

# What Pillow raises on broken files, as seen on cut, forged and mislabelled ones.
DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)
_PROFILE_ERRORS = (ImageCms.PyCMSError, OSError, ValueError, TypeError)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LARGE_PIXELS = 24_000_000
# More than any ordinary picture is resized to, at four bytes each and in several threads at once. A
# strip enlarged to cover its bucket may go far beyond: 5000 x 1 becomes 2,560,000 x 512.
_MOST_RESIZED_PIXELS = 100_000_000
_one_large_picture = threading.Lock()  # threads decode side by side, but only one of them a giant
_SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N")

# Pillow's own limit is one number for the whole program and only warns where memory already runs
# out; `read_picture` compares the header with the limit it is given before anything is decoded.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Picture:
    """One decoded picture.

    Attributes:
        image: Upright 8-bit sRGB, transparent parts laid on the background.
        content_hash: Hash of the bytes of the file.
        has_alpha: Whether the background shows anywhere.
        notes: What a user should know about how it was read.
    """

    image: Image.Image
    content_hash: str
    has_alpha: bool
    notes: tuple[str, ...]


class TooManyPixels(DatasetError):
    """A picture is larger than the settings allow."""


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings about odd metadata; enter it before starting decoding threads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def parse_colour(text: str) -> Colour:
    """Return the colour written as ``#rrggbb``.

    Raises:
        DatasetError: if ``text`` is not such a colour.
    """
    digits = text.removeprefix("#")
    if len(digits) != 6 or not set(digits) <= set("0123456789abcdefABCDEF"):
        raise DatasetError(
            f"data.background: {text!r} is not a colour", "write it as #rrggbb, such as #ffffff"
        )
    return (int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16))


def load_image(
    path: Path, background: Colour = WHITE, *, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Return the picture in ``path`` as upright sRGB.

    Raises:
        DatasetError: if the file cannot be read or decoded.
    """
    return read_picture(path, background, max_pixels=max_pixels).image


def read_picture(
    path: Path, background: Colour = WHITE, *, max_pixels: int = MAX_PIXELS
) -> Picture:
    """Decode the whole of the picture in ``path``.

    Raises:
        TooManyPixels: if its header claims more than ``max_pixels``.
        DatasetError: if the file cannot be read or decoded; the message has the reason only.
    """
    try:
        with long_path(path).open("rb") as file:
            return _read(file, background, max_pixels)
    except DECODE_ERRORS as error:
        raise DatasetError(describe_failure(error)) from error


def describe_failure(error: BaseException) -> str:
    """Return why a file could not be read, in one line without its path."""
    if isinstance(error, MemoryError):
        return "too large for the memory at hand"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, UnidentifiedImageError):
        return "not a picture in a format that is supported"
    text = " ".join(str(error).split())
    return f"cannot be decoded ({type(error).__name__}: {text[:200]})"


def _read(file: IO[bytes], background: Colour, max_pixels: int) -> Picture:
    content_hash = hash_file(file)
    file.seek(0)
    with Image.open(file, formats=FORMATS) as image:
        check_pixels(image.width, image.height, max_pixels)
        is_large = image.width * image.height > _LARGE_PIXELS
        with _one_large_picture if is_large else contextlib.nullcontext():
            return _decode(image, background, content_hash)


def _decode(image: Image.Image, background: Colour, content_hash: str) -> Picture:
    notes: list[str] = []
    if getattr(image, "is_animated", False) and image.format != "MPO":
        notes.append("has several frames or pages, the first is used")
    image.load()
    colour, alpha = _split_alpha(_upright(image, notes), notes)
    rgb = _to_srgb(colour, image.info.get("icc_profile"), notes)
    has_alpha = alpha is not None and alpha.getextrema()[0] != 255
    if alpha is not None and has_alpha:
        base = Image.new("RGB", rgb.size, background)
        base.paste(rgb, mask=alpha)
        rgb = base
    return Picture(rgb, content_hash, has_alpha, tuple(notes))


def hash_file(file: IO[bytes]) -> str:
    """Return the hash of everything in ``file``."""
    digest = hashlib.blake2b(digest_size=20)
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Refuse a size that is nothing or has more than ``max_pixels``.

    Raises:
        TooManyPixels: if it has more.
        DatasetError: if it is nothing.
    """
    if width < 1 or height < 1:
        raise DatasetError(f"it is {width} x {height} pixels")
    if width * height > max_pixels:
        raise TooManyPixels(
            f"it claims {width} x {height} pixels, more than the limit of "
            f"{max_pixels / 1e6:g} megapixels",
            "raise data.max_megapixels to use it",
        )


def _upright(image: Image.Image, notes: list[str]) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except DECODE_ERRORS:
        notes.append("its EXIF data is damaged, the orientation is taken as it is")
        return image
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _split_alpha(image: Image.Image, notes: list[str]) -> tuple[Image.Image, Image.Image | None]:
    """Return the colours (L, RGB or CMYK, 8 bits, not blended) and the alpha if there is any."""
    if image.mode in _SIXTEEN_BIT_MODES or image.mode in ("I", "F"):
        return _deep_to_8_bit(image, notes)
    if image.has_transparency_data:
        straight = image.convert("RGBA")
        return straight.convert("RGB"), straight.getchannel("A")
    if image.mode in ("L", "RGB", "CMYK"):
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def _deep_to_8_bit(image: Image.Image, notes: list[str]) -> tuple[Image.Image, Image.Image | None]:
    values = np.asarray(image)
    if image.mode == "F" and not np.isfinite(values).all():
        raise DatasetError("it holds values that are not finite")
    low, high = float(values.min()), float(values.max())
    if image.mode in _SIXTEEN_BIT_MODES:
        offset, span = 0.0, 65535.0
    elif low >= 0 and high <= 1 and image.mode == "F":
        offset, span = 0.0, 1.0
    elif low >= 0 and high <= 255:
        offset, span = 0.0, 255.0
    elif low >= 0 and high <= 65535:
        offset, span = 0.0, 65535.0
    else:
        offset, span = low, high - low
    if image.mode == "F" or offset:
        notes.append(f"its values are numbers from {low:g} to {high:g}, scaled to 8 bits")
    scaled = (values.astype(np.float64) - offset) * (255.0 / (span or 1.0))
    grey = Image.fromarray(np.rint(scaled).clip(0, 255).astype(np.uint8))
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return grey, None
    return grey, Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    if not profile:
        return image.convert("RGB")
    try:
        return _apply_profile(image, profile)
    except _PROFILE_ERRORS:
        notes.append("its colour profile cannot be used, the colours are taken as sRGB")
        return image.convert("RGB")


def _apply_profile(image: Image.Image, data: bytes) -> Image.Image:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
    space = profile.profile.xcolor_space.strip()
    if space == "RGB":
        # Most pictures say sRGB: a transform to itself would only round the values.
        if (profile.profile.profile_description or "").startswith("sRGB"):
            return image.convert("RGB")
        source = image.convert("RGB")
    elif space == "GRAY":
        source = image.convert("L")
    elif space == "CMYK" and image.mode == "CMYK":
        source = image
    else:
        raise ValueError(f"profile for {space} in a picture of mode {image.mode}")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    result = ImageCms.profileToProfile(source, profile, srgb, outputMode="RGB")
    if result is None:
        raise ValueError("no transform")
    return result


def prepare(image: Image.Image, fit: BucketFit) -> Tensor:
    """Return ``image`` resized with Lanczos and cropped as ``fit`` says.

    Returns:
        Float32 tensor of shape (3, H, W) in [-1, 1], H and W those of the bucket.
    """
    import torch

    if fit.resized_width * fit.resized_height > _MOST_RESIZED_PIXELS:
        image = _resize_part(image, fit)
    else:
        image = _resize_whole(image, fit)
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
    return pixels.permute(2, 0, 1).contiguous().to(torch.float32).div_(127.5).sub_(1.0)


def _resize_whole(image: Image.Image, fit: BucketFit) -> Image.Image:
    if image.size != (fit.resized_width, fit.resized_height):
        image = image.resize((fit.resized_width, fit.resized_height), Image.Resampling.LANCZOS)
    left, top = fit.crop_left, fit.crop_top
    return image.crop((left, top, left + fit.width, top + fit.height))


def _resize_part(image: Image.Image, fit: BucketFit) -> Image.Image:
    """Resize only what the crop keeps.

    Not for every picture: some values come out one off, and latents must stay what they were.
    """
    across, down = image.width / fit.resized_width, image.height / fit.resized_height
    left, top = fit.crop_left * across, fit.crop_top * down
    # Rounding must not put the far edges outside the picture.
    right = min(image.width, left + fit.width * across)
    bottom = min(image.height, top + fit.height * down)
    return image.resize(
        (fit.width, fit.height), Image.Resampling.LANCZOS, box=(left, top, right, bottom)
    )
