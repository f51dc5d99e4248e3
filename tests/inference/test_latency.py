import json

import pytest
import torch

from ean_core import ConnectionScheme, EANResNet, EANResNetCIFAR
from ean_core.common.record import write_record
from ean_core.inference import BlockProfile, BlockTimes, latency, profile_blocks, time_blocks

STAGES = (2, 1)
TIMES = BlockTimes(STAGES, 1.0, (2.0, 4.0, 8.0), (0.5, 0.25, 0.125), (16.0, 32.0, 64.0), 128.0)
INPUTS = torch.zeros(2, 3, 8, 8)


class Clock:
    """A clock that only advances when a test tells it to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def network(scheme="full", attention="DIA", shared=True):
    return EANResNetCIFAR(20, attention, scheme=scheme, shared=shared, base_channels=4).eval()


def after(clock, module, seconds):
    """Make a module take time."""

    def passes(*_):
        clock.now += seconds() if callable(seconds) else seconds

    module.register_forward_hook(passes)


def measure(backbone, clock, head=None, **options):
    return time_blocks(backbone, INPUTS, head, clock=clock, **{"rounds": 2, "warmup": 0, **options})


# ---------------------------------------------------------------- measuring


def test_each_part_gets_the_time_that_passes_in_it():
    clock, backbone = Clock(), network()
    after(clock, backbone.conv1, 1.0)
    for position, (_, _, block) in enumerate(backbone.blocks()):
        after(clock, block.conv2, 10.0 + position)  # of the body
    for stage in range(3):
        after(clock, backbone.attention_at(stage, 0), 100.0 * (stage + 1))  # shared by the stage's blocks

    def head(x):
        assert x.shape == (2, 16, 2, 2)
        clock.now += 1000.0

    times = measure(backbone, clock, head)
    assert times.stages == (3, 3, 3)
    assert times.stem == 1.0
    assert times.bodies == tuple(10.0 + position for position in range(9))
    assert times.connections == (100.0,) * 3 + (200.0,) * 3 + (300.0,) * 3
    assert times.joins == (0.0,) * 9
    assert times.head == 1000.0


def test_modules_of_their_own_are_told_apart():
    clock, backbone = Clock(), network(attention="SE", shared=False)
    for position, (stage, index, _) in enumerate(backbone.blocks()):
        after(clock, backbone.attention_at(stage, index), 1.0 + position)
    assert measure(backbone, clock).connections == tuple(1.0 + position for position in range(9))


def test_joins_are_what_adds_and_rectifies(monkeypatch):
    from ean_core.inference import latency

    clock, join = Clock(), latency.join

    def slow(residual, shortcut):
        clock.now += 5.0
        return join(residual, shortcut)

    monkeypatch.setattr(latency, "join", slow)
    times = measure(network(), clock)
    assert times.joins == (5.0,) * 9
    assert (times.stem, times.bodies, times.connections) == (0.0, (0.0,) * 9, (0.0,) * 9)


def test_without_a_head_none_is_timed():
    assert measure(network(), Clock()).head == 0.0


def test_medians_are_over_the_rounds_after_the_warm_up():
    clock, backbone = Clock(), network()
    seconds = iter([90.0, 80.0, 3.0, 1.0, 2.0])
    after(clock, backbone.conv1, lambda: next(seconds))
    assert measure(backbone, clock, rounds=3, warmup=2).stem == 2.0
    assert next(seconds, None) is None


def test_parts_run_as_they_do_in_the_network():
    backbone = network()
    last, states = [], []
    attention = backbone.attention_at(1, 0)
    attention.register_forward_hook(lambda module, inputs, output: states.append(inputs[1] is None))
    inputs = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        expected = backbone(inputs)[-1]
    states.clear()
    time_blocks(backbone, inputs, last.append, rounds=2, warmup=0)
    assert torch.equal(last[0], expected)
    assert states == [True, False, False] * 2  # DIA's state starts with the stage


@pytest.mark.parametrize("scheme", ["none", "111-111-110"])
def test_a_network_that_lacks_connections_is_refused(scheme):
    backbone = network(scheme)
    with pytest.raises(ValueError, match=rf"'{backbone.scheme}' does not connect all blocks; .* scheme='full'"):
        measure(backbone, Clock())


# ---------------------------------------------------------------- what the times say


@pytest.mark.parametrize(("text", "connected"), [("00-0", 0.0), ("11-1", 0.875), ("01-1", 0.375), ("10-0", 0.5)])
def test_a_scheme_takes_its_connections_on_top_of_what_all_take(text, connected):
    scheme = ConnectionScheme.parse(text)
    assert TIMES.connected(scheme) == connected
    assert TIMES.saved(scheme) == 1 - connected / 0.875
    assert TIMES.whole(scheme) == 1 + 14 + 112 + connected + 128


@pytest.mark.parametrize("say", [TIMES.connected, TIMES.saved, TIMES.whole])
def test_a_scheme_of_another_network_is_refused(say):
    with pytest.raises(ValueError, match=r"these times are for stages \(2, 1\); '1-11' has stages \(1, 2\)"):
        say(ConnectionScheme.parse("1-11"))


@pytest.mark.parametrize("short", ["bodies", "connections", "joins"])
def test_one_time_a_block_is_needed(short):
    fields = {"bodies": (1.0,) * 3, "connections": (1.0,) * 3, "joins": (1.0,) * 3, short: (1.0,) * 2}
    with pytest.raises(ValueError, match=r"stages \(2, 1\) need 3 times of each kind, got \[2, 3\]"):
        BlockTimes(stages=STAGES, stem=0.0, **fields)


# ---------------------------------------------------------------- on disk


def test_times_come_back_from_disk_to_the_last_bit(tmp_path):
    times = BlockTimes(STAGES, 1 / 3, (0.1, 0.2, 0.3), (1e-7, 2e-7, 1 / 7e6), (0.1 + 0.2, 1e-9, 0.0), 5e-324)
    path = tmp_path / "new" / "times.json"
    times.save(path, batch=50, device="cpu")
    assert BlockTimes.load(path) == times
    record = json.loads(path.read_text())
    assert (record["kind"], record["batch"], record["device"]) == ("block times", 50, "cpu")
    assert record["environment"]["packages"]["torch"]


def test_a_record_of_something_else_is_refused(tmp_path):
    path = write_record(tmp_path / "record.json", kind="timing", networks={})
    with pytest.raises(ValueError, match=r"record.json has no block times \(kind 'timing'\); `ean time --per-block`"):
        BlockTimes.load(path)


def test_what_is_not_there_or_no_record_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        BlockTimes.load(tmp_path / "missing.json")
    (tmp_path / "broken.json").write_text('{"kind": "block times"')
    with pytest.raises(ValueError, match=r"broken\.json is not a run record"):
        BlockTimes.load(tmp_path / "broken.json")


# ---------------------------------------------------------------- profiles


def bottlenecks(scheme, attention="SE"):
    options = {"base_channels": 8, "num_stages": 2, "out_indices": (1,)}
    return EANResNet(50, attention, scheme=scheme, **options).eval()


def test_a_deployed_connection_costs_what_it_adds_to_the_rest_of_its_block(monkeypatch):
    clock = Clock()
    backbone = bottlenecks("010-0110")
    rest = latency.DeployedBlock.finish

    def slow(block, z, shortcut, state):
        clock.now += 3.0 if block.attention is not None else 2.0
        return rest(block, z, shortcut, state)

    monkeypatch.setattr(latency.DeployedBlock, "finish", slow)
    profile = profile_blocks(backbone, torch.zeros(2, 3, 32, 32), deployed=True, rounds=12, warmup=1, clock=clock)
    assert (profile.form, str(profile.scheme)) == ("deployed", "010-0110")
    assert profile.times.connections == (0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0)
    assert profile.times.joins == (2.0,) * 7
    assert profile.increment == 3 / 14
    assert profile.increment_interval == (3 / 14, 3 / 14)
    record = profile.to_dict()
    assert record["without_attention_s"] == 14.0
    assert record["connection_intervals"][1] == (1.0, 1.0)
    assert record["passes"] == 12


def test_what_runs_first_pays_for_it_in_turns(monkeypatch):
    clock = Clock()
    calls = iter(range(10**6))
    finish = latency.DeployedBlock.finish

    def slow(block, z, shortcut, state):  # the first of two takes 5 more, as with cold caches
        clock.now += (3.0 if block.attention is not None else 2.0) + 5.0 * (next(calls) % 2 == 0)
        return finish(block, z, shortcut, state)

    monkeypatch.setattr(latency.DeployedBlock, "finish", slow)
    backbone = bottlenecks("111-1111")
    profile = profile_blocks(backbone, torch.zeros(2, 3, 32, 32), deployed=True, rounds=13, warmup=0, clock=clock)
    assert profile.times.connections == (1.0,) * 7
    assert profile.to_dict()["connection_intervals"] == [(1.0, 1.0)] * 7


def test_costs_below_zero_are_noise():
    times = BlockTimes(STAGES, 1.0, (1.0,) * 3, (2.0, -0.5, 2.0), (1.0,) * 3)
    assert times.connected(ConnectionScheme.parse("11-1")) == 4.0
    assert times.saved(ConnectionScheme.parse("01-0")) == 1.0
    free = BlockTimes(STAGES, 1.0, (1.0,) * 3, (-0.5, 0.0, 0.0), (1.0,) * 3)
    with pytest.raises(ValueError, match="no connection has a measurable cost in these times; measure longer"):
        free.saved(ConnectionScheme.parse("01-0"))


def test_stages_that_are_not_computed_are_refused():
    with pytest.raises(ValueError, match=r"out_indices=\(1,\) skips stages; build .* num_stages=2"):
        profile_blocks(EANResNetCIFAR(20, scheme="full", out_indices=(1,)).eval(), INPUTS)


def test_one_pass_has_one_order_only():
    with pytest.raises(ValueError, match="needs at least 2 passes, one for each order"):
        profile_blocks(bottlenecks("full"), torch.zeros(1, 3, 32, 32), rounds=1)


@pytest.mark.parametrize("attention", ["SE", "DIA", {"type": "SGE", "groups": 4}])
@pytest.mark.parametrize("deployed", [False, True])
def test_a_profile_runs_the_network_that_it_times(attention, deployed):
    backbone, last = bottlenecks("110-0111", attention), []
    inputs = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = backbone(inputs)[-1]
    profile_blocks(backbone, inputs, last.append, deployed=deployed, rounds=2, warmup=1)
    assert len(last) == 3
    for seen in last:
        torch.testing.assert_close(seen, expected)


def test_the_interval_is_of_sums_over_a_pass():
    # The costs of two connections drift in opposite directions; their sum does not.
    costs = [0.1 * (k // 2) for k in range(12)]
    profile = BlockProfile(
        ConnectionScheme.parse("11", (2,)),
        "eager",
        stem=(1.0,) * 12,
        bodies=((1.0,) * 12,) * 2,
        plain=((1.0,) * 12,) * 2,
        connected=(tuple(1.0 + c for c in costs), tuple(3.0 - c for c in costs)),
        head=(0.0,) * 12,
    )
    assert profile.increment == pytest.approx(2.0 / 5.0)
    assert profile.increment_interval == pytest.approx((0.4, 0.4))
