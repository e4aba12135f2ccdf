"""PNG, JPEG, TIFF and NPY: axes, channels, bits and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from voxplain.errors import ImageError
from voxplain.space import read_image, read_labels

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 7), np.uint8)
COLOUR = RNG.integers(0, 256, (5, 7, 3), np.uint8)
DEEP = RNG.integers(0, 65536, (5, 7), np.uint16)


def png(path, pixels, mode=None):
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)
    return path


@pytest.mark.parametrize("suffix", ["png", "PNG", "tif", "tiff"])
def test_grey_is_one_channel_of_rows_and_columns(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    if "tif" in suffix:
        tifffile.imwrite(path, GREY)
    else:
        png(path, GREY)
    volume = read_image(path)
    assert volume.data.dtype == np.float32
    assert volume.channels == ("channel_0",)
    np.testing.assert_array_equal(volume.data[0], GREY)
    np.testing.assert_array_equal(volume.grid.affine, np.eye(3))


def test_sixteen_bits_are_kept(tmp_path):
    png(tmp_path / "x.png", DEEP)
    tifffile.imwrite(tmp_path / "x.tif", DEEP)
    for name in ("x.png", "x.tif"):
        np.testing.assert_array_equal(read_image(tmp_path / name).data[0], DEEP)


def test_colour_is_three_channels(tmp_path):
    png(tmp_path / "x.png", COLOUR)
    tifffile.imwrite(tmp_path / "x.tif", COLOUR, photometric="rgb")
    planar = np.moveaxis(COLOUR, -1, 0)
    tifffile.imwrite(tmp_path / "y.tif", planar, photometric="rgb", planarconfig="separate")
    for name in ("x.png", "x.tif", "y.tif"):
        volume = read_image(tmp_path / name)
        assert volume.channels == ("red", "green", "blue")
        np.testing.assert_array_equal(volume.data, planar)
        assert volume.data.flags.c_contiguous


def test_jpeg(tmp_path):
    smooth = np.tile(np.linspace(0, 255, 40).astype(np.uint8), (20, 1))
    png(tmp_path / "x.jpg", smooth)
    png(tmp_path / "y.jpeg", np.stack([smooth] * 3, axis=-1))
    assert np.abs(read_image(tmp_path / "x.jpg").data[0] - smooth).max() < 8
    assert read_image(tmp_path / "y.jpeg").n_channels == 3


def test_black_and_white_and_indexed_colours(tmp_path):
    png(tmp_path / "bw.png", (GREY > 100).astype(np.uint8) * 255, "1")
    np.testing.assert_array_equal(read_image(tmp_path / "bw.png").data[0], (GREY > 100) * 255)
    image = Image.fromarray(GREY % 4, mode=None).convert("P")
    image.putpalette([0, 0, 0, 250, 0, 0, 0, 251, 0, 0, 0, 252])
    image.save(tmp_path / "p.png")
    indices = np.asarray(image)
    colours = np.array([[0, 0, 0], [250, 0, 0], [0, 251, 0], [0, 0, 252]])[indices]
    np.testing.assert_array_equal(read_image(tmp_path / "p.png").data, np.moveaxis(colours, -1, 0))
    labels = read_labels(tmp_path / "p.png")
    np.testing.assert_array_equal(labels.layers[0], indices)


def test_opaque_alpha_is_dropped_and_transparency_refused(tmp_path):
    alpha = np.full((5, 7, 1), 255, np.uint8)
    png(tmp_path / "x.png", np.concatenate([COLOUR, alpha], axis=-1))
    volume = read_image(tmp_path / "x.png")
    np.testing.assert_array_equal(volume.data, np.moveaxis(COLOUR, -1, 0))
    png(tmp_path / "g.png", GREY, "LA")
    np.testing.assert_array_equal(read_image(tmp_path / "g.png").data[0], GREY)
    alpha[2, 3] = 128
    png(tmp_path / "y.png", np.concatenate([COLOUR, alpha], axis=-1))
    with pytest.raises(ImageError, match="transparency"):
        read_image(tmp_path / "y.png")


def test_npy_shapes(tmp_path):
    for shape, expected in (
        ((5, 7), (1, 5, 7)),
        ((5, 7, 11), (1, 5, 7, 11)),
        ((2, 5, 7, 11), (2, 5, 7, 11)),
    ):
        array = RNG.normal(size=shape)
        np.save(tmp_path / "x.npy", array)
        volume = read_image(tmp_path / "x.npy")
        assert volume.data.shape == expected
        np.testing.assert_array_equal(volume.data.ravel(), array.astype(np.float32).ravel())


def test_spacing_is_the_caller_s(tmp_path):
    volume = read_image(png(tmp_path / "x.png", GREY), spacing=(0.5, 0.25))
    assert volume.grid.spacing == (0.5, 0.25)
    for bad in ((0.5,), (0.5, 0.0), (0.5, -1.0), (0.5, float("nan"))):
        with pytest.raises(ImageError, match="spacing is 2 positive numbers in mm"):
            read_image(tmp_path / "x.png", spacing=bad)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(5), "expected an array of 2 axes"),
        (np.zeros((1, 1, 1, 1, 1)), "expected an array of 2 axes"),
        (np.zeros((5, 7), complex), "real numbers, got complex128"),
        (np.zeros((5, 7), "U3"), "real numbers, got <U3"),
        (np.full((5, 7), np.nan), "35 of 35 voxels are NaN"),
        (np.zeros((0, 7)), "at least 1"),
    ],
)
def test_npy_refused(tmp_path, array, message):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ImageError, match=message):
        read_image(tmp_path / "x.npy")


def test_pickles_are_not_opened(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ImageError, match="cannot be read as a NumPy array"):
        read_image(tmp_path / "x.npy")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "npy"])
@pytest.mark.parametrize("content", [b"", b"i am text\n" * 20])
def test_text_is_refused(tmp_path, suffix, content):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=rf"x\.{suffix}: cannot be read"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "npy"])
def test_truncated_files_are_refused(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    pixels = RNG.integers(0, 256, (60, 70), np.uint8)
    if suffix == "npy":
        np.save(path, pixels)
    elif suffix == "tif":
        tifffile.imwrite(path, pixels)
    else:
        png(path, pixels)
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(ImageError, match=rf"x\.{suffix}: cannot be read"):
        read_image(path)


def test_a_stack_of_pictures_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", RNG.integers(0, 9, (4, 5, 7), np.uint8),
                     photometric="minisblack")  # fmt: skip
    with pytest.raises(ImageError, match=r"expected one picture.*\(4, 5, 7\).*NIfTI"):
        read_image(tmp_path / "x.tif")


def test_inverted_grey_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", GREY, photometric="miniswhite")
    with pytest.raises(ImageError, match="MINISWHITE"):
        read_image(tmp_path / "x.tif")


def test_deep_colour_png_is_refused_since_it_would_lose_bits(tmp_path):
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    rows = b"".join(b"\0" + bytes(range(12)) for _ in range(3))  # 2 × 3 pixels of 48 bits
    (tmp_path / "x.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 3, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    with pytest.raises(ImageError, match="16 bits a channel"):
        read_image(tmp_path / "x.png")


def test_cmyk_is_refused(tmp_path):
    png(tmp_path / "x.jpg", COLOUR, "CMYK")
    with pytest.raises(ImageError, match="colour mode CMYK"):
        read_image(tmp_path / "x.jpg")
