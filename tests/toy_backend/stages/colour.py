"""Stage `colour`: the mean feature of each of 512 colours, over the pixels that have it."""

import numpy as np


def colour_of(rgb):
    """The number of each colour [n, 3]."""
    return (rgb.astype(int) >> 5) @ (64, 8, 1)


def learn_colours(run, scene):
    """Unit features [512, d]; zeros for colours that no photograph shows."""
    total = np.zeros((512, run.teacher.card.dim))
    for frame in run.teacher.features_of(scene, extract=run.options.extract, progress=run.progress):
        features = run.teacher.source.pixel_features(frame, frame.camera.pixel_centres())
        np.add.at(total, colour_of(frame.load_image().reshape(-1, 3)), features)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9)
