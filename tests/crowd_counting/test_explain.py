"""Where counts come from."""

import numpy as np
import pytest

from tasks.crowd_counting.counter import Counter
from tasks.crowd_counting.drawing import draw_crowd
from tasks.crowd_counting.explain import CounterExplainer
from tasks.crowd_counting.task import MODEL
from tasks.explain import load_explainer


@pytest.fixture(scope="module")
def explainer():
    return load_explainer(MODEL)


def test_the_registry_finds_the_explainer_of_counters(explainer):
    assert type(explainer) is CounterExplainer
    assert (explainer.classes, explainer.text(12.34, "people")) == ([], "12.3 people")


@pytest.mark.parametrize("size", [(97, 131), (90, 125)])
def test_the_heat_of_a_counter_lies_where_its_cells_are(explainer, size):
    picture = np.array(draw_crowd(20, (96, 128), seed=1)[0].resize(size[::-1]))
    inputs, shown = explainer.prepare(picture)
    assert shown.shape[:2] == size
    stride = explainer.network.stride
    assert [side % stride for side in inputs.shape[2:]] == [0, 0]  # the last map has the whole of each cell
    unpadded = inputs[:, :, : size[0], : size[1]]
    assert explainer.target(inputs, 0).item() == pytest.approx(explainer.target(unpadded, 0).item(), rel=1e-6)


def test_the_score_is_the_count(explainer):
    picture = np.array(draw_crowd(20, (96, 128), seed=1)[0])
    inputs, _ = explainer.prepare(picture)
    assert explainer.scores(inputs) == pytest.approx([Counter.from_zoo(MODEL)(picture).count], rel=1e-3)
