import pytest

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


def test_a_config_of_plain_settings_is_printed_with_its_base_configs_and_nothing_is_executed(tmp_path, capsys):
    (tmp_path / "data.yml").write_text("train_cfg: {max_epochs: 3}\nsizes: !!python/tuple [1, 2]\n")
    (tmp_path / "model.json").write_text('{"model": {"type": "A", "depth": 20}}')
    path = tmp_path / "mine.py"
    path.write_text(
        "_base_ = ['data.yml', 'model.json']\n"
        "custom_imports = dict(imports=['not_installed'], allow_failed_imports=False)\n"
        "model = dict(depth=56)\n"
    )
    show_configs(str(path))
    path.write_text(capsys.readouterr().out.replace("not_installed", "ean_core"))
    mine = load_config(str(path))
    assert mine.model == {"type": "A", "depth": 56}
    assert (mine.train_cfg.max_epochs, mine.sizes) == (3, (1, 2))


def test_a_packaged_config_may_be_the_base_of_a_printed_one(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(f"_base_ = '{find_config('resnet20_se_digits')}'\ntrain_cfg = dict(max_epochs=3)\n")
    show_configs(str(path))
    path.write_text(capsys.readouterr().out)
    expected = load_config("resnet20_se_digits", ["train_cfg.max_epochs=3"])
    assert load_config(str(path)).to_dict() == expected.to_dict()


@pytest.mark.parametrize(
    ("bases", "error", "message"),
    [
        ("'mmseg::_base_/default_runtime.py'", ValueError, "belongs to an installed package"),
        ("'mine.py'", ValueError, "is one of its own base configs"),
        ("'missing.py'", FileNotFoundError, "no base config at"),
    ],
)
def test_base_configs_that_cannot_be_printed(tmp_path, bases, error, message):
    (tmp_path / "mine.py").write_text(f"_base_ = {bases}\n")
    with pytest.raises(error, match=message):
        show_configs(str(tmp_path / "mine.py"))


def test_a_config_that_computes_its_settings_is_executed_on_request_only(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text("size = 32\ncrop = (size, size)\n")
    with pytest.raises(ValueError, match=r"mine\.py is more than plain settings .* --execute"):
        show_configs(str(path))
    show_configs(str(path), execute=True)
    path.write_text(capsys.readouterr().out)
    assert load_config(str(path)).crop == (32, 32)


def test_base_configs_of_many_are_read_once(tmp_path, capsys):
    """Each of 40 names the next one twice, which would take 2 ** 40 reads."""
    for number in range(40):
        (tmp_path / f"{number}.py").write_text(f"_base_ = ['{number + 1}.py', '{number + 1}.py']\na{number} = 1\n")
    (tmp_path / "40.py").write_text("z = 2\n")
    show_configs(str(tmp_path / "0.py"))
    printed = capsys.readouterr().out
    assert printed.count("= 1") == 40
    assert printed.count("z = 2") == 1
