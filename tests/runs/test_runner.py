import time

from ean_core.common.config import load_config
from ean_core.runs.training import build_runner


def test_a_start_in_the_second_of_another_has_a_folder_of_its_own(tmp_path):
    taken = [time.strftime("%Y%m%d_%H%M%S", time.localtime(time.time() + second)) for second in range(3)]
    for name in taken:
        (tmp_path / name / "vis_data").mkdir(parents=True)
        (tmp_path / name / "vis_data/config.py").touch()
    runner = build_runner(load_config("resnet20_se_digits"), tmp_path)
    assert runner.timestamp > max(taken)
