from types import SimpleNamespace

import pytest
import torch

from ean_core.runs import hooks


def test_checkpoints_hold_plain_values_only(digits_supernet):
    # weights_only=True on any torch: nothing in the file may need an allow-list
    checkpoint = torch.load(digits_supernet, weights_only=True)
    assert checkpoint["meta"]["epoch"] == 1
    assert checkpoint["message_hub"]["log_scalars"] == {}
    assert len(checkpoint["message_hub"]["runtime_info"]["epoch_seconds"]) == 1


@pytest.mark.parametrize(
    ("best", "epoch"), [("best_top1_epoch_3.pth", 3), ("best_top1_epoch_x.pth", None), ("best_²", None), ([1], None)]
)
def test_a_selected_checkpoint_whose_name_has_no_epoch_is_not_recorded(best, epoch):
    """A resumed checkpoint of somebody else may name anything."""
    runner = SimpleNamespace(message_hub=SimpleNamespace(runtime_info={"best_ckpt": best}), train_loop=None)
    assert hooks.RunRecordHook()._selection(runner).get("best", {}).get("epoch") == epoch


@pytest.mark.parametrize(
    ("validations", "last", "change"),
    [
        ([{"epoch": 0, "count/MAE": 9.0}, {"epoch": 1, "count/MAE": 12.0}], None, (9.0, 12.0)),
        ([{"epoch": 0, "count/MAE": 9.0}, {"epoch": 1, "count/MAE": 8.0}], None, None),
        ([{"iteration": 0, "mIoU": 50.0}, {"iteration": 9, "mIoU": 40.0}], None, (50.0, 40.0)),
        ([{"epoch": 0, "mIoU": 50.0}, {"epoch": 1, "mIoU": 60.0}, {"epoch": 2, "mIoU": 40.0}], 1, None),
        ([{"epoch": 1, "mIoU": 50.0}, {"epoch": 2, "mIoU": 40.0}], None, None),  # the start was not validated
        ([{"epoch": 0, "mIoU": 50.0}], None, None),
    ],
)
def test_a_training_is_compared_with_its_start(validations, last, change):
    found = hooks.worsening(validations, None if last is None else validations[last])
    assert (found and (found.before, found.after)) == change
