"""Opening the image file of a mask: which files are accepted, how large they may be, and whether they fit the clip.

Files are untrusted: the size is checked before anything is decoded. Knows nothing of objects.
"""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from vostrack.errors import MaskError
from vostrack.files import shown
from vostrack.video.stream import MAX_PIXELS, first_line, size_text

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
_LOSSY = ("JPEG", "MPO", "WEBP")
_MAX_BYTES = 256 * 2**20

# Beyond this share, resizing would stretch the objects.
_MOST_STRETCH = 0.02


def open_image(
    path: Path, size: tuple[int, int], stored: tuple[int, int] | None, resize: bool
) -> tuple[Image.Image, bool]:
    """Decode a mask image of an acceptable size; only the first of several frames or pages.

    Args:
        path: the file.
        size: (H, W) of the clip as displayed.
        stored: (H, W) of the clip's frames as stored, where that is known.
        resize: whether another size of the same shape is fine.

    Returns:
        The image, upright, of mode 1, L, LA, P, RGB, RGBA, F, or one of 16 or 32 bits, and whether its format is lossy.

    Raises:
        MaskError: missing, damaged, no image, or of a size that does not fit.
    """
    where = f"mask {shown(path)}"
    try:
        if not path.is_file():  # a pipe or a device could block or never end
            raise MaskError(f"{where} is missing; expected an image file, or a folder with one file per object")
        if path.stat().st_size > _MAX_BYTES:
            raise MaskError(f"{where} is larger than {_MAX_BYTES >> 20} MB; save it as a PNG with flat colours")
        # Pillow warns of damage and of large images; what matters of that is an error here. It gets an open file since
        # it maps named ones into memory, and Pillow 13 then scrambles a TIFF that is to be turned.
        with (
            warnings.catch_warnings(action="ignore"),
            path.open("rb") as file,
            Image.open(file, formats=_FORMATS) as image,
        ):
            # It turns a TIFF by itself, and tells the size as turned.
            turned = image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            found = (image.width, image.height) if turned else (image.height, image.width)
            check_size(found, size, stored, resize, where)
            indexed, lossy = image.format != "GIF", image.format in _LOSSY
            upright = upright_image(image, indexed)
        if (upright.height, upright.width) != found:
            raise ValueError(
                f"its header says {size_text(found)}, it holds {size_text((upright.height, upright.width))}"
            )
        return upright, lossy
    except MaskError:
        raise
    except UnidentifiedImageError as error:
        raise MaskError(
            f"{where} is not an image; expected one of {', '.join(_FORMATS)}: save it again as a PNG"
        ) from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise MaskError(
            f"{where} cannot be read as an image: {shown(first_line(error))}; save it again as a PNG"
        ) from error


def check_size(
    found: tuple[int, int], size: tuple[int, int], stored: tuple[int, int] | None, resize: bool, where: str
) -> None:
    """Check that a mask fits the clip; all sizes are (H, W).

    Raises:
        MaskError: it does not, or it is too large to decode.
    """
    if found == size:
        return
    said = f"{where} is {size_text(found)}, the clip is {size_text(size)}"
    turned = (found[0] < found[1]) != (size[0] < size[1])
    if found == stored and turned:
        raise MaskError(
            f"the video is shown rotated as {size_text(size)}, {where} matches the stored frame {size_text(found)}: "
            "rotate the mask by 90 degrees as the video is"
        )
    if found == size[::-1]:
        raise MaskError(f"{said}, which is the same turned by 90 degrees: rotate the mask")
    anamorphic = found == stored
    shape = found[1] * size[0] / max(found[0] * size[1], 1)
    if not anamorphic and abs(shape - 1) > _MOST_STRETCH:
        raise MaskError(f"{said}, which has another shape: draw the mask on a frame of this clip")
    if not resize:
        reason = " as stored, before its pixels are made square" if anamorphic else ""
        raise MaskError(f"{said}{reason}: draw it on a frame of the clip, or use --resize-mask")
    if found[0] * found[1] > MAX_PIXELS:
        raise MaskError(f"{said}, and at most {MAX_PIXELS} pixels are accepted: scale the mask down")


def upright_image(image: Image.Image, indexed: bool = True) -> Image.Image:
    """An image as its EXIF tag says, in one of the modes that mean something for a mask.

    Args:
        image: opened.
        indexed: whether a palette index means an id; GIF writers sort the palette, so theirs means nothing.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode in ("1", "L", "LA", "RGB", "RGBA", "F") or image.mode.startswith("I"):
        return image
    if image.mode == "P" and indexed:
        return image
    return image.convert("RGBA" if image.has_transparency_data else "RGB")
