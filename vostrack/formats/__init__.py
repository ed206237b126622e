"""Masks for other tools: the table of formats. Each is one file, whose writer is imported when it is used.

A writer is a class that is made from a `base.Shot` and takes predictions, as `video.writer.Writer` says.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vostrack.config import Config, changed, setting
from vostrack.errors import MethodError, OutputError, unknown_name


@dataclass(frozen=True)
class ExportOptions(Config):
    """What can be chosen of an export."""

    hard: bool = setting(False, "whether edges are those of the masks instead of soft ones")
    feather: float = setting(0.0, "how far edges are blurred", low=0, high=100, unit="pixels")
    grow: int = setting(0, "how far objects grow; below 0 they shrink", low=-100, high=100, unit="pixels")
    bits: int = setting(8, "of a pixel", choices=(8, 16))
    each: bool = setting(False, "whether each object gets a file of its own")
    polygons: bool = setting(False, "whether masks are polygons")
    folders: bool = setting(False, "whether images are named with a folder, that of their clip")


_EDGES = ("hard", "feather", "grow")


@dataclass(frozen=True)
class Format:
    """A format that masks are exported to.

    Attributes:
        name: on the command line.
        who: whom it is for.
        what: is written.
        opens: what to do with it; `{out}` stands for its path, `{names}` for those of objects.
        home: module of this package and class of the writer.
        ending: of the file; empty for a folder.
        endings: what a file may end with instead; an empty one stands for a folder.
        images: whether the frames themselves are needed.
        names_images: whether it names images that lie elsewhere.
        options: names of the `ExportOptions` that it takes.
        package, extra: that it needs, and the extra of vostrack that brings it.
    """

    name: str
    who: str
    what: str
    opens: str
    home: str
    ending: str = ""
    endings: tuple[str, ...] = ()
    images: bool = False
    names_images: bool = False
    options: tuple[str, ...] = ()
    package: str = ""
    extra: str = ""

    @property
    def soft(self) -> bool:
        """Whether it can have soft edges."""
        return "hard" in self.options

    def writer(self) -> Callable[[Any], Any]:
        """The class that writes it; raises `OutputError` where its package is not installed."""
        if self.package and importlib.util.find_spec(self.package) is None:
            raise OutputError(f"{self.name} needs {self.package}: pip install 'vostrack[{self.extra}]'")
        module, _, name = self.home.partition(":")
        made: Callable[[Any], Any] = getattr(importlib.import_module(f"{__name__}.{module}"), name)
        return made

    def choose(self, options: Mapping[str, Any]) -> ExportOptions:
        """Options with some changed.

        Raises:
            MethodError: there is no such option, this format does not take it, or its value is out of range.
        """
        chosen = changed(ExportOptions(), options, "the export")
        for name in options:
            if name not in self.options and getattr(chosen, name) != getattr(ExportOptions(), name):
                takes = ", ".join(each.name for each in FORMATS.values() if name in each.options)
                raise MethodError(f"{self.name} does not take `{name}`; these do: {takes}")
        return chosen


_LABELLERS, _TRAINERS, _EDITORS = "labelling tools", "training and servers", "editors"

FORMATS: Mapping[str, Format] = {
    each.name: each
    for each in (
        Format(
            "prores4444", _EDITORS, "ProRes 4444 with alpha and sound", "import {out}, whose alpha is straight",
            "movies:Prores4444", ".mov", images=True, options=(*_EDGES, "each"),
        ),
        Format(
            "ffv1", _EDITORS, "FFV1 with alpha and sound, lossless", "import {out}, whose alpha is straight",
            "movies:Ffv1", ".mkv", images=True, options=(*_EDGES, "each"),
        ),
        Format(
            "webm", _EDITORS, "VP9 with alpha, for browsers", "open {out} in a browser", "movies:Webm", ".webm",
            images=True, options=(*_EDGES, "each"),
        ),
        Format(
            "matte-movie", _EDITORS, "a grey movie, ProRes 422 HQ", "import {out} as a luma matte", "movies:MatteMovie",
            ".mov", images=True, options=(*_EDGES, "each"),
        ),
        Format(
            "matte", _EDITORS, "PNGs, white with soft edges on black, a folder for each object",
            "import the sequences in {out}", "pictures:Matte", images=True, options=(*_EDGES, "bits"),
        ),
        Format(
            "png-rgba", _EDITORS, "cut-outs as PNG with alpha", "import {out} as a sequence", "pictures:PngRgba",
            images=True, options=(*_EDGES, "each"),
        ),
        Format(
            "exr", _EDITORS, "OpenEXR: the frame in linear light, objects as layers",
            "read {out} as a sequence in linear light", "exr:Exr",
            images=True, options=_EDGES, package="OpenEXR", extra="exr",
        ),
        Format(
            "coco", _LABELLERS, "COCO instances: RLE or polygons, boxes, areas", "load {out}", "coco:Coco", ".json",
            names_images=True, options=("polygons", "folders"), package="pycocotools", extra="coco",
        ),
        Format(
            "cvat", _LABELLERS, "CVAT for images 1.1: XML with masks",
            "in a CVAT task with the labels {names}: Actions, Upload annotations, CVAT 1.1, {out}", "cvat:Cvat",
            ".xml", names_images=True, options=("folders",),
        ),
        Format(
            "label-studio", _LABELLERS, "Label Studio: a task a frame, with brush masks",
            "import {out} into a Label Studio project with an Image `image` and BrushLabels `tag`: {names}",
            "label_studio:LabelStudio", ".json", names_images=True,
        ),
        Format(
            "labelme", _LABELLERS, "LabelMe: a JPEG and a JSON file a frame", "labelme {out}", "labelme:Labelme",
            images=True,
        ),
        Format(
            "frames", _LABELLERS, "the frames as JPEG, for the others", "put {out} where your tool reads images",
            "frames:Frames", images=True,
        ),
        Format(
            "yolo-seg", _TRAINERS, "YOLO segmentation: images, polygons, data.yaml",
            "name other images as `val` in {out}/data.yaml, then train on it", "yolo_seg:YoloSeg", images=True,
        ),
        Format(
            "ytvis", _TRAINERS, "YouTube-VIS: masks over time, with classes", "load {out}", "ytvis:Ytvis", ".json",
            names_images=True, options=("folders",), package="pycocotools", extra="coco",
        ),
        Format(
            "sa-v", _TRAINERS, "SA-V: masklets, as of SAM 2", "load {out}", "sa_v:SaV", ".json",
            package="pycocotools", extra="coco",
        ),
        Format(
            "davis", _TRAINERS, "DAVIS: palette PNGs, for its server", "submit {out}", "layouts:Davis", ".zip", ("",),
        ),
        Format(
            "youtube-vos", _TRAINERS, "YouTube-VOS: palette PNGs, for its server", "submit {out}",
            "layouts:YoutubeVos", ".zip", ("",),
        ),
    )
}  # fmt: skip
"""All formats by name, in the order in which they are listed."""


def format_of(name: str) -> Format:
    """The format of a name; raises `MethodError` where there is none."""
    if name not in FORMATS:
        raise MethodError(unknown_name("format", str(name), FORMATS))
    return FORMATS[name]
