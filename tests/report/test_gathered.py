"""Records gathered for a report."""

from ean_core.report.gathered import Records
from ean_core.scheme import ConnectionScheme

from .drawn import save_run


def test_a_methods_schemes_are_averaged_over_one_recipe_only(tmp_path):
    one, other = "010-100-000", "000-100-000"
    save_run(tmp_path / "a", scheme=one, accuracy=65.0)
    save_run(tmp_path / "longer", scheme=one, accuracy=70.0, epochs=200)
    save_run(tmp_path / "rate", scheme=other, accuracy=60.0, lr=0.3)
    schemes = [ConnectionScheme.parse(text) for text in (one, other, one)]

    def trained():
        found = Records.read([tmp_path]).trained_alike("resnet20_se_cifar100", schemes)
        return [each.values("accuracy/top1") for each in found]

    assert trained() == []
    save_run(tmp_path / "b", scheme=other, accuracy=64.0)
    assert trained() == [[65.0], [64.0], [65.0]]
