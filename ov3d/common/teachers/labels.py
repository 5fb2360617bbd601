"""Label maps of any segmenter as a teacher: `labels:DIR[@TEXT]`, `labels:scene[@TEXT]`.

A pixel's feature is the text vector of its class's name, so an uncorrupted map matches its own class names exactly, and other
words as far as TEXT finds them similar.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ov3d.common import encoders
from ov3d.common.asking.corruption_note import CORRUPTION_FACT, corruption_note
from ov3d.common.base.errors import DataError, did_you_mean
from ov3d.common.base.progress import Progress
from ov3d.common.base.shapes import Array, Float32
from ov3d.common.features.content_hash import ContentHasher
from ov3d.common.features.extract import ExtractPlan, ExtractReport
from ov3d.common.features.layout import MEMO_NAME, default_root
from ov3d.common.language.cards import NO_IMAGE, EncoderCard, Identity, TextEncoder
from ov3d.common.language.specs import DEFAULT_TEXT, SCENE, TEXT_FAMILIES, BroughtSpec
from ov3d.common.language.text_cache import TextCache, encode_prompts
from ov3d.common.scenes.cloud_from_depth import with_cloud
from ov3d.common.scenes.scene import Frame, Scene
from ov3d.common.teachers.corruption import Corruption, draw_corruption
from ov3d.common.teachers.label_maps import FolderMaps, LabelMaps, SceneMaps
from ov3d.common.teachers.label_names import LabelNames, read_names
from ov3d.common.teachers.label_source import ALGORITHM, BoundLabels, LabelSource
from ov3d.common.teachers.teacher import Teacher, frames_of
from ov3d.common.teachers.words import WORDS, word_threshold

if TYPE_CHECKING:
    import torch


class LabelTeacher(Teacher):
    """Class ids per pixel, and their names.

    Args:
        spec: folder of the maps, their text space, stated corruption.
        device: device of the text encoder.

    Raises:
        DataError: the folder is missing, or has no names.
        MissingModelError: the text encoder is not on this machine.
    """

    def __init__(self, spec: BroughtSpec, *, device: torch.device) -> None:
        self._spec = spec
        self._folder = None if spec.place == SCENE else existing_folder(spec)
        self._names = None if self._folder is None else read_names(self._folder)
        self._text = encoders.create_text_encoder(spec.text or DEFAULT_TEXT, device=device)
        self._card = self._make_card()
        self._source = LabelSource(self._card.text.key)
        self._hasher = ContentHasher(default_root() / MEMO_NAME)
        self._last: tuple[Scene, BoundLabels] | None = None
        self._drawn: dict[str, dict[str, Any]] = {}

    @property
    def card(self) -> EncoderCard:
        """The text side, and the source of the maps."""
        return self._card

    @property
    def source(self) -> LabelSource:
        """The vectors of the pixels' class names."""
        return self._source

    @property
    def place(self) -> str:
        """The folder of the maps."""
        return "the scenes' own label images" if self._folder is None else str(self._folder)

    def bind(self, scene: Scene, *, progress: Progress) -> None:
        """Find the scene's maps, and draw its corruption if one is stated."""
        self._bound(scene, progress)

    def plan(self, scene: Scene) -> ExtractPlan:
        """A plan with nothing to compute; the maps are checked for existence."""
        return ExtractPlan(len(self._maps(scene).frames))

    def extract(self, scene: Scene, *, progress: Progress) -> ExtractReport:
        """Read every map once, so that problems are reported now."""
        start = time.perf_counter()
        bound = self._bound(scene, progress)
        self._say(scene, progress)
        with progress.task("Checking label maps", len(bound.maps.frames)) as task:
            for frame in bound.maps.frames:
                bound.maps.load(frame)
                task.advance()
        return ExtractReport(len(bound.maps.frames), 0, (), 0, 0, time.perf_counter() - start)

    def features_of(self, scene: Scene, *, extract: bool, progress: Progress) -> tuple[Frame, ...]:
        """The frames that have a map: all of them if the maps are in a folder."""
        bound = self._bound(scene, progress)
        self._say(scene, progress)
        return bound.maps.frames

    def make_text_encoder(self) -> TextEncoder:
        """The space of the names."""
        return self._text

    def facts(self, scene: Scene) -> dict[str, Any]:
        """The stated corruption, if any."""
        return {CORRUPTION_FACT: self._drawn[scene.name]} if scene.name in self._drawn else {}

    def describe(self) -> dict[str, Any]:
        """The maps' folder and names, the text space, and the corruption of every scene so far."""
        names = self._names
        return {
            "kind": "labels",
            "maps": SCENE if self._folder is None else str(self._folder),
            "names": None if names is None else dict(zip(map(str, names.ids), names.names, strict=True)),
            "text_encoder": self._text.card.spec,
            "corruption": None
            if self._spec.corrupt is None
            else {"level": self._spec.corrupt, "seed": self._spec.seed, "scenes": dict(self._drawn)},
        }

    def _make_card(self) -> EncoderCard:
        text = self._text.card
        place = None if self._folder is None else str(self._folder)
        threshold = text.presence_threshold
        if text.image != NO_IMAGE:  # calibrated on images; names are more similar to each other
            threshold = word_threshold(encode_prompts(text, WORDS, TextCache(), self.make_text_encoder))
        corruption = "" if self._spec.corrupt is None else f", {self._spec.corrupt} % corrupted, seed {self._spec.seed}"
        image = Identity(
            model=f"label maps as names, {ALGORITHM}",
            weights=SCENE if self._names is None else self._names.key,
            preprocessing=f"a pixel's class{corruption}",
            dtype="float32",
        )
        spec = self._spec.format(place=place, text=text.spec)
        return replace(text, spec=spec, image=image, presence_threshold=threshold)

    def _maps(self, scene: Scene) -> LabelMaps:
        frames_of(scene)
        if self._folder is None:
            return SceneMaps(scene, self._hasher)
        assert self._names is not None
        return FolderMaps(self._folder, self._names, scene, self._hasher)

    def _bound(self, scene: Scene, progress: Progress) -> BoundLabels:
        if self._last is not None and self._last[0] is scene:
            return self._last[1]
        maps = self._maps(scene)
        left_out = len(scene.frames) - len(maps.frames)
        if left_out:
            progress.say(
                f"{left_out} of {len(scene.frames)} frames of {scene.name} have no label image and are skipped."
            )
        bound = BoundLabels(maps, self._vectors(maps.names), self._corruption(scene, maps, progress))
        self._source.bind(bound)
        if bound.corruption is not None:
            self._drawn[scene.name] = bound.corruption.to_json()
        self._last = scene, bound
        return bound

    def _vectors(self, names: LabelNames) -> Float32[Array, "c d"]:
        vectors = self.text(names.names)
        return np.concatenate([vectors, np.zeros_like(vectors[:1])])

    def _corruption(self, scene: Scene, maps: LabelMaps, progress: Progress) -> Corruption | None:
        if self._spec.corrupt is None:
            return None
        cloud = with_cloud(scene, progress=progress).cloud
        assert cloud is not None
        return draw_corruption(
            cloud,
            maps.frames,
            maps.load,
            len(maps.names),
            level=self._spec.corrupt,
            seed=self._spec.seed,
            progress=progress,
        )

    def _say(self, scene: Scene, progress: Progress) -> None:
        note = corruption_note(self.facts(scene))
        if note:
            progress.say(f"{scene.name}: {note}.")


def existing_folder(spec: BroughtSpec) -> Path:
    """The folder of a spec, absolute.

    Raises:
        DataError: it is missing or empty.
    """
    folder = Path(spec.place).expanduser()
    if not folder.is_dir():
        _, separator, text = spec.place.rpartition("@")
        hint = "Check the path."
        if separator:
            hint = f"{text} is not a text encoder: {did_you_mean(text.partition(':')[0], TEXT_FAMILIES)}"
        raise DataError(f"No folder {folder}.", hint)
    if not any(folder.iterdir()):
        raise DataError(f"The folder {folder} is empty.", f"Put the files for {spec.family}: into it.")
    return folder.resolve()
