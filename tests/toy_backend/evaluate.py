"""How well the points of a scene are labelled."""

from ov3d.common.metrics.prompted import PromptedTable
from ov3d.common.metrics.run_report import RunReport


def evaluate_points(index, truth, question):
    """A report with one table."""
    confusion = question.confusion()
    confusion.update(question.answers(index.scores(question.text), index.seen), question.numbers[truth])
    tables = (PromptedTable("points", question.classes, confusion.compute()),)
    asked = {"protocol": "points", "encoder": index.encoder.spec, "threshold": question.threshold}
    found = {"scene": index.scene, "backend": index.backend, "share_seen": float(index.seen.mean())}
    return RunReport(tables=tables, **asked, **found)
