"""The toy backend: what a colour looks like in the photographs, on all points of that colour."""

import numpy as np
from toy_backend.bake import bake
from toy_backend.config import ToyConfig
from toy_backend.evaluate import evaluate_points
from toy_backend.stages.colour import colour_of, learn_colours

from ov3d.common.asking.ask import index_path
from ov3d.common.asking.index import read_index
from ov3d.common.exporters.ply import write_ply
from ov3d.common.learning.backend import Backend, RunOptions
from ov3d.common.learning.estimate import estimate_features
from ov3d.common.learning.run import Learnt, begin_run, config_of, finish_run, teacher_of
from ov3d.common.metrics.prompted import Question
from ov3d.common.readers import load_scene
from ov3d.common.scenes.cloud_from_depth import with_cloud


class ToyBackend(Backend):
    """A vector for every colour."""

    name = "toy"
    stages, config_type, protocols = ToyConfig.STAGES, ToyConfig, ("points",)

    def train(self, source, config, *, run, device, progress=None, options=RunOptions()):
        begun = begin_run(self.name, source, config, run=run, device=device, progress=progress, options=options)
        learnt = Learnt()
        with learnt.timed("colour"):
            for idx, folder in enumerate(begun.folders):
                scene = with_cloud(source[idx], progress=begun.progress)
                learnt.indexes[scene.name] = bake(scene, learn_colours(begun, scene), begun.teacher.card, folder)
                learnt.facts[scene.name] = {"points": len(scene.cloud)}
        return finish_run(begun, learnt)

    def estimate(self, source, config, *, device):
        return [estimate_features(source[idx], teacher_of(config, device)) for idx in range(len(source))]

    def scores(self, run, scene, text):
        index = read_index(index_path(run, scene))
        return np.where(index.seen[:, None], (index.code.astype(np.float32) @ text.T)[index.owner], np.float32(0))

    def evaluate(self, run, scene, *, device, classes=(), threshold=None, progress=None, protocol=None):
        classes, index = classes or scene.classes, read_index(index_path(run, scene.name))
        text = teacher_of(config_of(run, ToyConfig), device).text(classes)
        truth = with_cloud(scene, progress=progress).cloud.labels
        return evaluate_points(index, truth, Question.of(scene.classes, classes, text, threshold))

    def predict(self, run, scan, output, options, *, device, progress=None):
        cloud, prompts = load_scene(scan, layout=options.layout, scale=options.scale).cloud, options.prompts
        colours = read_index(next(iter(run.indexes.values()))).code.astype(np.float32)
        scores = colours @ teacher_of(config_of(run, ToyConfig), device).text(prompts).T
        labels = scores.argmax(axis=1)[colour_of(cloud.rgb)]
        write_ply(output, cloud.xyz, rgb=cloud.rgb, fields={"label": labels.astype(np.int32)})
        counts = {name: int((labels == number).sum()) for number, name in enumerate(prompts)}
        found = {"points": len(cloud), "classes": counts, "unlabelled": 0, "output": str(output)}
        return {**found, "seconds": 0.0, "peak_bytes": None}
