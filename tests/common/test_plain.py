import collections
import os
import pickle

import mmengine
import numpy as np
import pytest
import yaml

from ean_core.common.config import load_config
from ean_core.common.plain import MAX_DEPTH, MAX_VALUES, check_yaml, plain_files


class Touch:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_yaml_and_pickles_of_plain_values_are_read_as_before(tmp_path):
    content = {"a": (1, 2.5), "b": [None, True, {"c": "x"}], "d": {"e": (3,)}}
    mmengine.dump(content, tmp_path / "a.yml")
    assert "!!python/tuple" in (tmp_path / "a.yml").read_text()
    arrays = {
        "boxes": np.arange(6.0).reshape(2, 3),
        "score": np.float32(0.5),
        "name": np.array(["a", "b"]),
        "sets": {1, 2},
        "ordered": collections.OrderedDict(a=1),
        "bytes": b"abc",
    }
    for protocol in range(2, 6):
        (tmp_path / f"{protocol}.pkl").write_bytes(pickle.dumps(arrays, protocol))
    with plain_files():
        assert mmengine.load(tmp_path / "a.yml") == content
        for protocol in range(2, 6):
            found = mmengine.load(tmp_path / f"{protocol}.pkl")
            assert found.keys() == arrays.keys()
            assert (found["boxes"] == arrays["boxes"]).all()
            assert (found["name"] == arrays["name"]).all()
            assert [found[name] for name in ("score", "sets", "ordered", "bytes")] == [
                arrays[name] for name in ("score", "sets", "ordered", "bytes")
            ]


def test_pickles_that_would_execute_code_are_refused_by_name(tmp_path):
    for suffix in ("pkl", "pickle"):
        path = tmp_path / f"infos.{suffix}"
        path.write_bytes(pickle.dumps({"data_list": [Touch(tmp_path / "ran")]}))
        with plain_files(), pytest.raises(ValueError, match=rf"infos\.{suffix} would execute code from posix\.system"):
            mmengine.load(path)
    assert not (tmp_path / "ran").exists()


def test_yaml_that_would_execute_code_is_refused_by_its_tag_and_line(tmp_path):
    path = tmp_path / "a.yml"
    path.write_text(f"a: 1\nb: !!python/object/apply:os.system ['touch {tmp_path / 'ran'}']\n")
    with plain_files(), pytest.raises(yaml.YAMLError, match=r"(?s)tag !!python/object/apply:os\.system.*line 2"):
        mmengine.load(path)
    assert not (tmp_path / "ran").exists()


def test_mmengine_reads_as_it_did_after_the_block(tmp_path, mmengines_readers):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(collections.Counter("aab")))
    with plain_files(), pytest.raises(ValueError, match=r"collections\.Counter"):
        mmengine.load(tmp_path / "a.pkl")
    assert mmengine.load(tmp_path / "a.pkl") == {"a": 2, "b": 1}


@pytest.mark.parametrize("value", ["x", "[]", "{}", "{a: b}"])
def test_aliases_that_expand_to_any_size_are_refused(tmp_path, value):
    lines = [f"a0: &a0 [{', '.join([value] * 9)}]"]
    lines += [f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]" for n in range(8)]
    (tmp_path / "a.yml").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=f"a.yml cannot be read as a config: .*more than {MAX_VALUES:,} values"):
        load_config(str(tmp_path / "a.yml"))


def test_aliases_of_usual_configs_are_read(tmp_path):
    (tmp_path / "a.yml").write_text("a: &a {x: [1, 2]}\nb: {<<: *a, y: 3}\nc: [*a, *a]\n")
    config = load_config(str(tmp_path / "a.yml"))
    assert (config.b, config.c) == ({"x": [1, 2], "y": 3}, [{"x": [1, 2]}] * 2)


def test_yaml_that_would_overflow_the_stack_of_its_parser_is_refused(tmp_path):
    """PyYAML's parser in C would end the process."""
    (tmp_path / "a.yml").write_text("a: " + "[" * 100_000 + "]" * 100_000)
    with pytest.raises(ValueError, match=f"nested more than {MAX_DEPTH} levels deep"):
        load_config(str(tmp_path / "a.yml"))
    check_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH)
