import torch


def test_checkpoints_hold_plain_values_only(digits_supernet):
    # weights_only=True on any torch: nothing in the file may need an allow-list
    checkpoint = torch.load(digits_supernet, weights_only=True)
    assert checkpoint["meta"]["epoch"] == 1
    assert checkpoint["message_hub"]["log_scalars"] == {}
    assert len(checkpoint["message_hub"]["runtime_info"]["epoch_seconds"]) == 1
