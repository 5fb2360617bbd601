"""The index of a scene: its points, and the feature of each colour."""

import numpy as np
from toy_backend.stages.colour import colour_of

from ov3d.common.asking.index import INDEX_NAME, LanguageIndex, write_index
from ov3d.common.scenes.views import FILE_NAME, ViewSet, write_views


def bake(scene, colours, card, folder):
    """Write index and views into the scene's folder."""
    owner = colour_of(scene.cloud.rgb).astype(np.int32)
    owner[~colours.any(axis=1)[owner]] = -1
    codes = {"code": colours.astype(np.float16), "basis": np.eye(card.dim, dtype=np.float32), "owner": owner}
    place = {"scene": scene.name, "scene_path": str(scene.path.resolve()), "world": scene.world}
    made = {"backend": "toy/colour", "encoder": card, "rgb": scene.cloud.rgb}
    write_views(folder / FILE_NAME, ViewSet.from_scene(scene))
    return write_index(folder / INDEX_NAME, LanguageIndex(scene.cloud.xyz, **codes, **place, **made))
