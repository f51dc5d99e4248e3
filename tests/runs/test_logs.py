import json

from ean_core.runs.logs import training_log


def write(run, start, *lines, name="scalars.json"):
    path = run / start / "vis_data" / name
    path.parent.mkdir(parents=True)
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def test_of_iterations_that_were_repeated_the_later_word_counts(tmp_path):
    first = [{"step": step, "epoch": 1, "lr": 0.1, "loss": float(step), "memory": 7} for step in (1, 2, 3)]
    write(tmp_path, "20260101_000000", *first, {"step": 1, "accuracy/top1": 50.0})
    write(tmp_path, "20260102_000000", {"step": 3, "epoch": 2, "lr": 0.1, "loss": 1 / 3})
    lines = [json.loads(line) for line in training_log(tmp_path).splitlines()]
    assert lines == [
        {"epoch": 1, "step": 1, "lr": 0.1, "loss": 1.0},
        {"epoch": 1, "step": 2, "lr": 0.1, "loss": 2.0},
        {"epoch": 2, "step": 3, "lr": 0.1, "loss": 0.333333},
    ]


def test_what_it_gave_is_read_again_as_the_oldest_start(tmp_path):
    write(tmp_path / "run", "20260101_000000", {"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0})
    text = training_log(tmp_path / "run")
    (tmp_path / "log.jsonl").write_text(text)
    assert training_log(tmp_path) == text
    write(tmp_path, "20260101_000000", {"step": 2, "loss": 3.0})
    assert json.loads(training_log(tmp_path).splitlines()[1]) == {"step": 2, "loss": 3.0}


def test_lines_that_a_kill_cut_off_are_left_out(tmp_path):
    write(tmp_path, "20260101_000000", {"step": 1, "loss": 1.0}, '{"step": 2, "lo')
    assert [json.loads(line) for line in training_log(tmp_path).splitlines()] == [{"step": 1, "loss": 1.0}]


def test_a_folder_without_a_log_gives_an_empty_one(tmp_path):
    assert training_log(tmp_path) == ""
