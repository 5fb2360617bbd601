"""Lifted features of the scenes of a run, one file per scene, coded in a shared basis.

Two passes. The first lifts an even sample of each scene's points; the shared basis is chosen from all samples
(`ov3d.common.lifting.basis`). The second lifts every scene directly into codes, so that full-rank features are never held
whole in memory or on disk. Points and LiDAR train from these files alone: once a scene has one, the features of its
photographs may be deleted, and another run may reuse the file and the basis (`take_over`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ov3d.common.base.errors import CorruptFileError, DataError, UsageError
from ov3d.common.base.progress import Progress
from ov3d.common.base.runs import Run
from ov3d.common.base.shapes import Array, Float32
from ov3d.common.lifting.basis import BasisConfig, Coder, SharedBasis, choose_basis, read_basis, write_basis
from ov3d.common.lifting.features import BASIS_KEY, SOURCE_KEY, lifted_facts
from ov3d.common.lifting.lift import LiftConfig, LiftedFeatures, read_lifted, write_lifted
from ov3d.common.scenes.scene import Frame, PointCloud, Scene
from ov3d.common.teachers.teacher import Teacher

LIFTED_NAME = "lifted.safetensors"
SAMPLE_NAME = "sample.safetensors"
BASIS_NAME = "lifted-basis.safetensors"


@dataclass(frozen=True, slots=True)
class TakenOver:
    """What a run reuses from another one.

    Attributes:
        files: its lifted features by scene, used if cloud, features and settings are the same.
        basis: its shared basis, so that new scenes share codes with the scenes it was made from; None chooses a new one.
    """

    files: Mapping[str, Path] = field(default_factory=dict)
    basis: SharedBasis | None = None


def take_over(run: Run, config: BasisConfig) -> TakenOver:
    """What can be reused from another run.

    Args:
        run: a finished run.
        config: configuration of the new run; features kept at full rank need no basis.

    Raises:
        UsageError: a basis is needed and that run has none.
    """
    files = {scene: path.with_name(LIFTED_NAME) for scene, path in run.indexes.items()}
    if config.energy >= 1:
        return TakenOver(files)
    if not (run.path / BASIS_NAME).is_file():
        raise UsageError(f"Run {run.path} has no {BASIS_NAME}.", "Name a finished run with the same teacher.")
    return TakenOver(files, read_basis(run.path / BASIS_NAME))


@dataclass(slots=True, kw_only=True)
class SceneLifting:
    """Lifts the scenes of one run: `choose` once, then `lifted` scene by scene.

    Attributes:
        teacher: source of features.
        config: visibility and memory.
        basis_config: how features are compressed.
        run: the run's folder, which holds the shared basis.
        progress: receives progress.
        extract: extract missing features of photographs.
        resume: reuse existing files.
        taken: what is reused from another run.
    """

    teacher: Teacher
    config: LiftConfig
    basis_config: BasisConfig
    run: Path
    progress: Progress
    extract: bool = True
    resume: bool = True
    taken: TakenOver = field(default_factory=TakenOver)
    _basis: SharedBasis | None = field(default=None, init=False, repr=False)
    _sampled: set[Path] = field(default_factory=set, init=False, repr=False)

    def choose(self, folders: Sequence[Path], scene_of: Callable[[int], Scene], texts: Float32[Array, "k d"]) -> None:
        """The first pass: sample every scene and choose the shared basis, unless it is reused from another run.

        Args:
            folders: the scenes' folders in the run.
            scene_of: returns a scene with its cloud, by number; called for one scene after another.
            texts: unit text vectors whose scores matter most.
        """
        if self.taken.basis is not None:
            self._basis = self.taken.basis
            write_basis(self.run / BASIS_NAME, self._basis)
            return
        stored = self._stored_basis(texts)
        keys: list[str] = []
        for idx, folder in enumerate(folders):
            scene = scene_of(idx)
            frames = self.frames_of(scene, folder)
            keys.append(self._key(scene, frames))
            if stored is None or stored.made_from[: len(keys)] != tuple(keys):
                self._sample(scene, frames, folder)
        if stored is not None and stored.made_from == tuple(keys):
            self._basis = stored
            return

        def sample(idx: int) -> Float32[Array, "n d"]:
            path = folders[idx] / SAMPLE_NAME
            if not path.is_file():  # a changed scene invalidated the basis that this file was coded in
                scene = scene_of(idx)
                self._sample(
                    scene, self.teacher.features_of(scene, extract=self.extract, progress=self.progress), folders[idx]
                )
            return read_lifted(path).features()

        self._basis = choose_basis(((key, sample(idx)) for idx, key in enumerate(keys)), texts, self.basis_config)
        write_basis(self.run / BASIS_NAME, self._basis)

    def frames_of(self, scene: Scene, folder: Path) -> tuple[Frame, ...]:
        """The frames to lift from; they have features, unless the scene has already been lifted."""
        self.teacher.bind(scene, progress=self.progress)
        try:
            key = self._key(scene, scene.frames)
        except DataError:  # a photograph is missing: it is skipped and reported
            key = ""
        if key and self._found(scene, folder, key) is not None:
            return scene.frames
        return self.teacher.features_of(scene, extract=self.extract, progress=self.progress)

    def lifted(self, scene: Scene, frames: tuple[Frame, ...], folder: Path) -> LiftedFeatures:
        """The second pass for one scene: its lifted features, from a file if it holds what would be computed."""
        path, key = folder / LIFTED_NAME, self._key(scene, frames)
        found = self._found(scene, folder, key)
        if found is not None:
            try:
                lifted = read_lifted(found)
            except CorruptFileError as error:
                self.progress.say(f"{error.message} Recomputing it.")
                frames = self.teacher.features_of(scene, extract=self.extract, progress=self.progress)
                found = None
        if found is None:
            lifted = self._lift(scene, frames, folder)
        if found != path:
            write_lifted(path, lifted)
        (folder / SAMPLE_NAME).unlink(missing_ok=True)
        return lifted

    def _lift(self, scene: Scene, frames: tuple[Frame, ...], folder: Path) -> LiftedFeatures:
        coder: Coder | None = None
        if self._basis is not None and len(self._basis.rows):
            self._sample(scene, frames, folder)
            coder = self._basis.coder(read_lifted(folder / SAMPLE_NAME).features())
            if coder is None:
                self.progress.say(
                    f"{scene.name}: compression needs more than half the numbers, so features are kept at full rank"
                )
        return self.teacher.lift(scene, _cloud(scene), frames, self.config, progress=self.progress, coder=coder)

    def _sample(self, scene: Scene, frames: tuple[Frame, ...], folder: Path) -> None:
        """Lift an even sample of the scene into its file, unless the file exists."""
        path, rows = folder / SAMPLE_NAME, self.basis_config.sample_rows
        facts = lifted_facts(path) if self.resume or folder in self._sampled else None
        if facts is not None and facts.get(SOURCE_KEY) == self._key(scene, frames):
            return
        self._sampled.add(folder)
        sample = self.teacher.lift(scene, _cloud(scene), frames, self.config, progress=self.progress, sample_rows=rows)
        write_lifted(path, sample)

    def _found(self, scene: Scene, folder: Path, key: str) -> Path | None:
        """A file with the scene's lifted features: its own in this run, else a reusable one of another run."""
        own = folder / LIFTED_NAME
        facts = lifted_facts(own) if self.resume else None
        if self.resume and facts is None and own.is_file():
            self.progress.say(f"The lifted features {own} are damaged or of another version. Recomputing them.")
            own.unlink()
        if facts is not None and facts.get(SOURCE_KEY) == key:
            fits = self._basis is None or facts.get(BASIS_KEY) in (None, self._basis.key)
            if fits or scene.name in self.taken.files:
                return own
        other = self.taken.files.get(scene.name)
        facts = lifted_facts(other) if other is not None else None
        return other if facts is not None and facts.get(SOURCE_KEY) == key else None

    def _stored_basis(self, texts: Float32[Array, "k d"]) -> SharedBasis | None:
        path = self.run / BASIS_NAME
        if not (self.resume and path.is_file()):
            return None
        try:
            basis = read_basis(path)
        except CorruptFileError as error:
            self.progress.say(f"{error.message} Recomputing it.")
            return None
        same = (
            basis.config == self.basis_config
            and basis.texts.shape == texts.shape
            and bool((basis.texts == texts).all())
        )
        return basis if same else None

    def _key(self, scene: Scene, frames: Sequence[Frame]) -> str:
        return self.teacher.lifted_key(scene, _cloud(scene), frames, self.config)


def _cloud(scene: Scene) -> PointCloud:
    if scene.cloud is None or not len(scene.cloud):
        raise DataError(f"Scene {scene.name} has no points.", "Provide a cloud, or depth images to make one from.")
    return scene.cloud
