"""The progress file: what a resume does again counts once, and a torn line counts never."""

from pathlib import Path

from mlaas.training.progress import Left, Progress, ProgressFile, ProgressReader, Resumed, read_curve


def progress(step: int, loss: float = 1.0) -> Progress:
    return Progress(step=step, steps=100, loss=loss, learning_rate=0.1, tokens_per_s=1000, elapsed_s=step / 2)


def test_curve_keeps_what_counts(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    file = ProgressFile(path)
    file.resume(step=0)
    for step in (10, 20, 30):
        file.report(progress(step, loss=3.0))
    file.resume(step=20)
    file.report(progress(30, loss=2.0))
    assert [(p.step, p.loss) for p in read_curve(path)] == [(10, 3.0), (20, 3.0), (30, 2.0)]


def test_reader_gives_each_line_once_and_waits_for_whole_ones(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    reader = ProgressReader(path)
    assert reader.read_new() == []
    file = ProgressFile(path)
    file.resume(step=0)
    file.report(progress(10))
    assert [entry.event for entry in reader.read_new()] == [Resumed(step=0), progress(10)]
    with path.open("a") as half:
        half.write('{"time_ms": 1, "st')
    assert reader.read_new() == []
    ProgressFile(path).resume(step=10)
    assert [entry.event for entry in reader.read_new()] == [Resumed(step=10)]


def test_leaving_is_told_and_takes_nothing_from_the_curve(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    file = ProgressFile(path)
    file.report(progress(10))
    file.report(progress(13))
    file.leave(step=13)
    assert [entry.event for entry in ProgressReader(path).read_new()][-1] == Left(step=13)
    file.resume(step=13)
    assert [p.step for p in read_curve(path)] == [10, 13]


def test_line_for_people() -> None:
    assert progress(50).describe() == "step  50/100  loss 1.000  1,000 tokens/s  ETA 0:25"
