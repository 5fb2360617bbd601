"""How well the points of a scene are labelled."""

from types import SimpleNamespace

from ov3d.common.metrics.prompted import PromptedTable, prompt_numbers, prompted_confusion


def evaluate_points(index, truth, all_classes, classes, text, threshold):
    """A report with one table."""
    confusion = prompted_confusion(len(classes))
    labels = index.predict(classes, text).labels(threshold, below=len(classes))
    confusion.update(labels, prompt_numbers(all_classes, classes)[truth])
    table = PromptedTable("points", classes, confusion.compute()).to_json()
    report = {"scene": index.scene, "encoder": index.encoder.spec, "threshold": threshold, "tables": [table]}
    return SimpleNamespace(to_json=lambda: report)
