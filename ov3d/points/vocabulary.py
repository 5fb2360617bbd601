"""Which classes a run learns (all listed for its training scenes), and which scene has which."""

from __future__ import annotations

from pathlib import Path

from ov3d.common.base.errors import UsageError
from ov3d.common.metrics.prompted import BACKGROUNDS
from ov3d.common.scenes.scene import Scene
from ov3d.points.scene_labels import scene_labels


class SceneLabels:
    """Collects the scene-level labels of a run, scene by scene.

    Args:
        labels_path: path of the labels; None looks beside the scenes, then at their truth.
        classes: names to learn; if empty, the scenes' own except backgrounds.

    Attributes:
        present: by training scene.
    """

    def __init__(self, labels_path: Path | None, classes: tuple[str, ...]) -> None:
        self._path, self._classes = labels_path, classes
        self._known: dict[str, None] = dict.fromkeys(classes)
        self.present: dict[str, tuple[str, ...]] = {}

    def add(self, scene: Scene, *, training: bool) -> None:
        """Add a scene; validation scenes need no labels.

        Raises:
            UsageError: no class names are known.
            DataError: the scene has no labels, or an unknown one.
        """
        if not training:
            return
        names = self._classes or tuple(name for name in scene.classes if name.casefold() not in BACKGROUNDS)
        if not names:
            raise UsageError(
                f"Scene {scene.name} has no class names to learn.", "Name them: --set classes=[wall,floor,chair]"
            )
        self._known |= dict.fromkeys(names)
        self.present[scene.name] = scene_labels(scene, self._path, names)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The classes that some training scene has, in the order in which they are known."""
        found = {name for names in self.present.values() for name in names}
        return tuple(name for name in self._known if name in found)
