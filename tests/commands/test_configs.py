from ean_core.commands.configs import show_configs
from ean_core.common.config import find_config, load_config, packaged_configs


def test_configs_are_listed_by_folder(capsys):
    show_configs()
    listed = capsys.readouterr().out.splitlines()
    assert "classification/resnet20_se_digits" in listed
    assert len(listed) == len(packaged_configs())
    assert [find_config(name).stem for name in listed] == [name.split("/")[-1] for name in listed]


def test_a_printed_config_is_a_config(tmp_path, capsys):
    show_configs("supernet_resnet20_se_cifar100")
    path = tmp_path / "mine.py"
    path.write_text(capsys.readouterr().out)
    mine = load_config(str(path), ["train_cfg.max_epochs=3"])
    packaged = load_config("supernet_resnet20_se_cifar100", ["train_cfg.max_epochs=3"])
    assert mine.to_dict() == packaged.to_dict()
    assert mine.param_scheduler.total_steps == 3
