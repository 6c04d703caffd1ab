from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, features

from aozora.data.buckets import bucket_shapes, fit_to_bucket
from aozora.data.images import load_image, parse_colour, prepare, quiet_pillow, read_picture
from aozora.errors import DatasetError


@pytest.fixture
def stored(tmp_path):
    def store(image, name="x.png", **options):
        path = tmp_path / name
        image.save(path, **options)
        return path

    return store


def pixels(image):
    return np.asarray(image).astype(float)


def png(width, height, depth, kind, data):
    def chunk(tag, body):
        return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("extension", ["jpg", "png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", TURNS)
def test_exif_orientations_come_out_upright(stored, photo, orientation, extension):
    turn = TURNS[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = photo() if turn is None else photo().transpose(turn)
    options = {"quality": 95} if extension in ("jpg", "webp") else {}
    loaded = load_image(stored(image, f"x.{extension}", exif=exif, **options))
    assert loaded.size == (96, 64)
    assert np.abs(pixels(loaded) - pixels(photo())).mean() < 6


def test_damaged_exif_leaves_the_picture_as_it_is(stored, photo):
    path = stored(photo(), "x.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    with quiet_pillow():
        picture = read_picture(path)
    assert picture.image.size == (96, 64)


def test_sixteen_bit_grey_has_the_mean_of_its_eight_bit_copy(stored, photo):
    grey = np.asarray(photo().convert("L"))
    path = stored(Image.fromarray(grey.astype(np.uint16) * 257))
    assert abs(pixels(load_image(path)).mean() - grey.mean()) < 0.01


def test_sixteen_bit_colour_has_the_mean_of_its_eight_bit_copy(tmp_path, photo):
    wide = (np.asarray(photo()).astype(">u2") * 257).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    (tmp_path / "x.png").write_bytes(png(96, 64, 16, 2, zlib.compress(rows)))
    assert abs(pixels(load_image(tmp_path / "x.png")) - pixels(photo())).max() <= 1


@pytest.mark.parametrize("scale", [1 / 255, 1.0, 257.0])
def test_float_tiffs_are_scaled_with_a_note(stored, photo, scale):
    grey = np.asarray(photo().convert("L")).astype(np.float32)
    picture = read_picture(stored(Image.fromarray(grey * np.float32(scale)), "x.tiff"))
    assert abs(pixels(picture.image).mean() - grey.mean()) < 0.5
    assert "scaled to 8 bits" in picture.notes[0]


def test_floats_that_are_not_finite_are_refused(stored):
    values = np.full((8, 8), np.nan, np.float32)
    with pytest.raises(DatasetError, match="not finite"):
        load_image(stored(Image.fromarray(values), "x.tiff"))


def test_colours_hidden_under_transparency_do_not_appear(stored):
    rgba = np.zeros((64, 96, 4), np.uint8)
    rgba[..., 1] = 255
    rgba[16:48, 24:72] = (0, 0, 255, 255)
    path = stored(Image.fromarray(rgba))
    for background in ((255, 255, 255), (10, 20, 30)):
        picture = read_picture(path, background)
        assert picture.has_alpha
        assert picture.image.getpixel((0, 0)) == background
        assert picture.image.getpixel((40, 30)) == (0, 0, 255)


def test_palette_transparency_and_grey_with_alpha_are_laid_on_the_background(stored):
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((1, 1), 1)
    loaded = load_image(stored(palette, transparency=0), (9, 9, 9))
    assert (loaded.getpixel((0, 0)), loaded.getpixel((1, 1))) == ((9, 9, 9), (0, 255, 0))
    half = load_image(stored(Image.new("LA", (8, 8), (0, 51)), "la.png"), (255, 255, 255))
    assert half.getpixel((0, 0)) == (204, 204, 204)


def test_an_opaque_alpha_channel_is_no_alpha(stored, photo):
    assert not read_picture(stored(photo().convert("RGBA"))).has_alpha


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_other_modes_come_out_as_rgb(stored, photo, mode):
    converted = photo().convert(mode)
    loaded = load_image(stored(converted, "x.tiff" if mode in ("CMYK", "YCbCr") else "x.png"))
    assert loaded.mode == "RGB"
    assert abs(pixels(loaded).mean() - pixels(converted.convert("RGB")).mean()) < 1


def srgb_with_swapped_primaries():
    """Build an RGB profile that is plainly not sRGB: the red and blue columns are exchanged."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", data[128:132])[0]
    where = {bytes(data[132 + 12 * i : 136 + 12 * i]): 136 + 12 * i for i in range(count)}
    red, blue = where[b"rXYZ"], where[b"bXYZ"]
    data[red : red + 8], data[blue : blue + 8] = data[blue : blue + 8], data[red : red + 8]
    return bytes(data).replace("sRGB".encode("utf-16-be"), "odd ".encode("utf-16-be"))


def test_colour_profiles_are_applied(stored):
    image = Image.new("RGB", (8, 8), (255, 0, 0))
    loaded = load_image(stored(image, icc_profile=srgb_with_swapped_primaries()))
    assert loaded.getpixel((0, 0)) == (0, 0, 255)


def test_an_srgb_profile_changes_nothing(stored, photo):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(pixels(load_image(stored(photo(), icc_profile=srgb))), pixels(photo()))


def test_alpha_survives_a_colour_profile(stored):
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    image.putpixel((1, 1), (255, 0, 0, 255))
    loaded = load_image(stored(image, icc_profile=srgb_with_swapped_primaries()), (1, 2, 3))
    assert (loaded.getpixel((0, 0)), loaded.getpixel((1, 1))) == ((1, 2, 3), (0, 0, 255))


@pytest.mark.parametrize("kind", ["rubbish", "lab"])
def test_a_profile_of_no_use_is_said_and_the_colours_kept(stored, photo, kind):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    picture = read_picture(stored(photo(), icc_profile=lab if kind == "lab" else b"rubbish" * 40))
    assert np.array_equal(pixels(picture.image), pixels(photo()))
    assert "colour profile" in picture.notes[0]


@pytest.mark.parametrize("extension", ["png", "webp", "tiff", "gif"])
def test_of_several_frames_the_first_is_used_with_a_note(stored, photo, extension):
    frames = [photo(), photo(tint=60), photo(tint=120)]
    options = {"lossless": True} if extension == "webp" else {}
    path = stored(frames[0], f"x.{extension}", save_all=True, append_images=frames[1:], **options)
    picture = read_picture(path)
    assert np.abs(pixels(picture.image) - pixels(photo())).mean() < 8
    assert "first is used" in picture.notes[0]


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_is_read(stored, photo):
    assert load_image(stored(photo(), "x.avif")).size == (96, 64)


def test_the_content_decides_the_format(stored, photo, tmp_path):
    stored(photo(), "x.jpg").rename(tmp_path / "x.png")
    assert load_image(tmp_path / "x.png").size == (96, 64)


def test_formats_outside_the_list_are_refused(tmp_path, photo):
    photo().save(tmp_path / "x.ppm")
    (tmp_path / "x.ppm").rename(tmp_path / "x.png")
    with pytest.raises(DatasetError, match="not a picture in a format"):
        load_image(tmp_path / "x.png")


@pytest.mark.parametrize(("name", "share"), [("x.png", 0.6), ("x.jpg", 0.5), ("x.webp", 0.5)])
def test_cut_files_are_refused(stored, photo, name, share):
    path = stored(photo(400, 300), name)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(DatasetError, match=r"decoded|not a picture"):
        load_image(path)


@pytest.mark.parametrize("side", [30_000, 2**31 - 1])
def test_pixel_bombs_are_refused_by_their_header(tmp_path, side):
    (tmp_path / "x.png").write_bytes(png(side, side, 1, 0, zlib.compress(b"\0")))
    with pytest.raises(DatasetError, match="more than the limit of 250 megapixels"):
        load_image(tmp_path / "x.png")


def test_the_pixel_limit_can_be_chosen(stored, photo):
    path = stored(photo(100, 100))
    assert load_image(path, max_pixels=10_000).size == (100, 100)
    with pytest.raises(DatasetError, match=r"limit of 0\.009999 megapixels"):
        load_image(path, max_pixels=9_999)


def test_text_bombs_are_refused(tmp_path, photo):
    stream = io.BytesIO()
    photo().save(stream, "PNG")
    body = b"key\0\0" + zlib.compress(b"x" * (65 << 20), 9)
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body
    chunk += struct.pack(">I", zlib.crc32(b"zTXt" + body))
    data = stream.getvalue()
    (tmp_path / "x.png").write_bytes(data[:33] + chunk + data[33:])
    with pytest.raises(DatasetError, match="cannot be decoded"):
        load_image(tmp_path / "x.png")


def test_prepare_gives_the_bucket_in_minus_one_to_one(photo):
    shapes = bucket_shapes(256 * 256, 128, 512, 64)
    image = photo(900, 500)
    fit = fit_to_bucket(500, 900, shapes, area=256 * 256, step=64, upscale=False, min_side=128)
    pixels_ = prepare(image, fit)
    assert pixels_.shape == (3, fit.height, fit.width)
    assert pixels_.dtype == torch.float32
    assert -1 <= pixels_.min() < -0.9
    assert 0.9 < pixels_.max() <= 1
    # The red block is at the top left, so height and width are not exchanged.
    assert pixels_[:, 10, 10].tolist() == pytest.approx([1, -1, -1], abs=0.05)


def test_prepare_crops_where_the_geometry_says(photo):
    shapes = bucket_shapes(64 * 64, 64, 64, 64)
    image = photo(96, 64)
    fit = fit_to_bucket(64, 96, shapes, area=64 * 64, step=64, upscale=False, min_side=64)
    expected = torch.tensor(pixels(image.crop((16, 0, 80, 64)))).permute(2, 0, 1) / 127.5 - 1
    assert fit.crop_left == 16
    assert torch.allclose(prepare(image, fit), expected.float())


def test_prepare_resizes_the_whole_of_an_ordinary_picture_and_then_crops(photo):
    shapes = bucket_shapes(256 * 256, 128, 512, 64)
    image = photo(901, 503)
    fit = fit_to_bucket(503, 901, shapes, area=256 * 256, step=64, upscale=False, min_side=128)
    whole = image.resize((fit.resized_width, fit.resized_height), Image.Resampling.LANCZOS)
    left, top = fit.crop_left, fit.crop_top
    cut = whole.crop((left, top, left + fit.width, top + fit.height))
    expected = torch.tensor(np.array(cut)).permute(2, 0, 1).float() / 127.5 - 1
    assert fit.crop_share > 0
    assert torch.equal(prepare(image, fit), expected)


@pytest.mark.parametrize("size", [(5000, 1), (1, 5000), (30_000, 30), (30, 30_000), (3, 200_000)])
def test_a_strip_is_not_resized_as_a_whole(monkeypatch, size):
    real = Image.Image.resize

    def resize(image, size, *arguments, **options):
        assert size[0] * size[1] <= 2048 * 2048
        return real(image, size, *arguments, **options)

    monkeypatch.setattr(Image.Image, "resize", resize)
    shapes = bucket_shapes(1024 * 1024, 512, 2048, 64)
    width, height = size
    along = np.linspace(0, 255, max(size)).astype(np.uint8)
    values = along[None, :] if width > height else along[:, None]
    image = Image.fromarray(np.broadcast_to(values[..., None], (height, width, 3)).copy())
    fit = fit_to_bucket(
        height, width, shapes, area=1024 * 1024, step=64, upscale=True, min_side=512
    )
    result = prepare(image, fit)
    assert result.shape == (3, fit.height, fit.width)
    # The middle is kept, and the ramp is almost flat there.
    assert result.abs().max() < 0.02


@pytest.mark.parametrize("size", [(900, 500), (500, 900), (97, 640)])
def test_the_kept_part_looks_as_if_cut_from_the_whole(photo, monkeypatch, size):
    shapes = bucket_shapes(256 * 256, 128, 512, 64)
    width, height = size
    image = photo(width, height)
    fit = fit_to_bucket(height, width, shapes, area=256 * 256, step=64, upscale=True, min_side=128)
    whole = prepare(image, fit)
    monkeypatch.setattr("aozora.data.images._MOST_RESIZED_PIXELS", 0)
    part = prepare(image, fit)
    assert (part - whole).abs().mean() < 0.5 / 127.5
    assert (part - whole).abs().max() < 8 / 127.5


def test_colours_are_written_as_hex():
    assert parse_colour("#ff8000") == (255, 128, 0)
    for text in ("white", "#fff", "#gggggg", "", "#+12345"):
        with pytest.raises(DatasetError, match="not a colour"):
            parse_colour(text)
