from collections import Counter

import pytest
import torch

from ean_core.data import EpochSampler, SampleKey, as_batch, sampler


def keys(size, epoch=0, **options):
    made = EpochSampler(range(size), **{"seed": 0, **options})
    made.set_epoch(epoch)
    return list(made)


def rank_keys(monkeypatch, size, world_size, **options):
    found = []
    for rank in range(world_size):
        monkeypatch.setattr(sampler, "get_dist_info", lambda rank=rank: (rank, world_size))
        found.append(keys(size, **options))
    return found


def test_an_epoch_holds_each_image_once():
    assert sorted(key.item for key in keys(100)) == list(range(100))
    assert len(EpochSampler(range(100), seed=0)) == 100


def test_keys_say_seed_epoch_and_image():
    assert keys(3, epoch=2, seed=5, shuffle=False) == [SampleKey(5, 2, item) for item in range(3)]


def test_the_order_is_a_function_of_seed_and_epoch_alone():
    torch.manual_seed(1)
    first = keys(50, epoch=3)
    torch.manual_seed(2)
    keys(50, epoch=2)
    assert keys(50, epoch=3) == first


@pytest.mark.parametrize(("other", "options"), [("epoch", {"epoch": 1}), ("seed", {"seed": 1})])
def test_another_epoch_or_seed_has_another_order(other, options):
    assert [key.item for key in keys(50, **options)] != [key.item for key in keys(50)]


def test_drawing_an_order_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    keys(50)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("size", "world_size"), [(10, 2), (11, 2), (10, 3), (1, 4), (7, 7)])
def test_ranks_share_the_images_and_agree_in_length(monkeypatch, size, world_size, shuffle):
    shares = rank_keys(monkeypatch, size, world_size, shuffle=shuffle, epoch=4)
    assert {len(share) for share in shares} == {-(-size // world_size)}
    interleaved = [key for step in zip(*shares, strict=True) for key in step]
    # mmengine collects results in this order and cuts them off at the size of the data set.
    assert sorted(key.item for key in interleaved[:size]) == list(range(size))
    monkeypatch.undo()
    assert interleaved[:size] == keys(size, shuffle=shuffle, epoch=4)
    assert max(Counter(key.item for key in interleaved).values()) <= -(-world_size // size) + 1


def test_augmentation_draws_differ_by_seed_epoch_and_image_only():
    def draw(*key):
        return torch.rand(4, generator=SampleKey(*key).generator()).tolist()

    assert draw(0, 1, 2) == draw(0, 1, 2)
    assert len({tuple(draw(*key)) for key in [(0, 1, 2), (1, 1, 2), (0, 2, 2), (0, 1, 3), (0, 2, 1), (2, 1, 0)]}) == 6


def test_an_empty_data_set_is_refused():
    with pytest.raises(ValueError, match="list has no images"):
        EpochSampler([], seed=0)


def test_without_a_seed_one_is_agreed_on():
    assert isinstance(EpochSampler(range(3)).seed, int)


def test_as_batch_hands_a_batch_on():
    batch = {"inputs": torch.zeros(2)}
    assert as_batch(batch) is batch
