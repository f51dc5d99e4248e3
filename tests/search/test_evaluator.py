import copy
import math
import multiprocessing

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ean_core import ConnectionScheme, EANResNetCIFAR, ImageClassifier
from ean_core.common.record import read_record
from ean_core.search import SupernetEvaluator
from ean_core.search.bench import save_block_times
from ean_core.search.evaluator import RecalibratedEvaluator, dismiss, serve, weights_hash
from ean_core.search.prefixes import count_bodies

CLASSES = 5
STAGES = (3, 3, 3)


def supernet(attention="SE", seed=0, *, in_channels=1, channels_last=True, depth=20):
    """A small network with random weights and statistics; its sub-networks disagree on many images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = EANResNetCIFAR(depth, attention, scheme="full", in_channels=in_channels, base_channels=4)
        preprocessor = {"type": "ImagePreprocessor", "mean": [120.0] * in_channels, "std": [60.0] * in_channels}
        model = ImageClassifier(backbone, CLASSES, preprocessor, channels_last=channels_last)
        for name, tensor in model.state_dict().items():
            if tensor.dim() == 1 and "attention" not in name:
                tensor.uniform_(*((0.5, 1.5) if name.endswith(("weight", "var")) else (-0.5, 0.5)))
            elif "attention" in name:
                tensor.mul_(3).add_(0.3 * torch.randn_like(tensor))
    return model


def batches(sizes=(7, 5), seed=0, in_channels=1, pixels=8):
    draw = torch.Generator().manual_seed(seed)
    return [
        {
            "inputs": torch.randint(256, (n, in_channels, pixels, pixels), generator=draw, dtype=torch.uint8),
            "labels": torch.randint(CLASSES, (n,), generator=draw),
        }
        for n in sizes
    ]


def record_heads(model):
    """Record every later call of the model's head: its input and its logits."""
    calls, head = [], model.head

    def recording(features):
        logits = head(features)
        calls.append((features.clone(), logits.clone()))
        return logits

    model.head = recording
    return calls


def alone(model, scheme, data, precision):
    """Return logits and correctness per image of one scheme, from the plain forward pass."""
    model.backbone.set_scheme(scheme)
    model.eval()
    with torch.inference_mode():
        for batch in data:
            batch = model.data_preprocessor(batch)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                model(batch["inputs"])


bits = st.lists(st.integers(0, 1), min_size=9, max_size=9)


@pytest.mark.parametrize("attention", ["SE", "SGE", "DIA"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@settings(max_examples=6, deadline=None)
@given(
    st.lists(bits, min_size=1, max_size=9),
    st.integers(0, 1000),
    st.sampled_from([1, 3]),
    st.sampled_from([4, 8, 9]),
    st.booleans(),
)
def test_prefixes_give_bit_for_bit_what_each_scheme_gives_alone(
    precision, attention, chosen, seed, in_channels, pixels, channels_last
):
    schemes = [ConnectionScheme(STAGES, tuple(each)) for each in chosen]
    schemes.append(schemes[0])
    model = supernet(attention, seed, in_channels=in_channels, channels_last=channels_last)
    data = batches(seed=seed, in_channels=in_channels, pixels=pixels)
    calls = record_heads(model)
    evaluator = SupernetEvaluator(model, data, "data", precision)
    accuracies = evaluator.evaluate(schemes)
    shared = list(calls)
    distinct = sorted(set(schemes))
    assert len(shared) == len(distinct) * len(data)  # duplicates are computed once
    assert evaluator.bodies == count_bodies(schemes) * len(data)

    expected = {}
    for position, scheme in enumerate(distinct):
        calls.clear()
        alone(model, scheme, data, precision)
        right = 0
        for k, (batch, (features, _)) in enumerate(zip(data, calls, strict=True)):
            found, logits = shared[k * len(distinct) + position]
            assert torch.equal(found, features.float())
            with torch.inference_mode():
                expected_logits = model.fc(features.float().mean((2, 3)))
            assert torch.equal(logits, expected_logits)
            right += int((expected_logits.argmax(1) == batch["labels"]).sum())
        expected[scheme] = 100 * right / 12
    assert accuracies == [expected[scheme] for scheme in schemes]


def test_all_512_schemes_cost_511_bodies_a_batch_and_differ():
    model, data = supernet("DIA", seed=9), batches((64,), seed=9)
    schemes = [ConnectionScheme(STAGES, tuple(int(bit) for bit in f"{number:09b}")) for number in range(512)]
    evaluator = SupernetEvaluator(model, data, "data")
    accuracies = evaluator.evaluate(schemes)
    assert evaluator.bodies == 511
    assert len(set(accuracies)) > 10
    model.backbone.set_scheme("101-001-110")
    batch = model.data_preprocessor(data[0])
    with torch.no_grad():
        right = (model(batch["inputs"]).argmax(1) == batch["labels"]).sum()
    assert accuracies[int("101001110", 2)] == 100 * int(right) / 64


def test_the_order_of_the_schemes_does_not_matter():
    schemes = [ConnectionScheme.random(STAGES, generator=torch.Generator().manual_seed(seed)) for seed in range(8)]
    evaluator = SupernetEvaluator(supernet(), batches((40,)), "data")
    assert evaluator.evaluate(schemes[::-1]) == evaluator.evaluate(schemes)[::-1]
    assert evaluator.evaluate([]) == []


def test_the_supernet_is_left_whole_unchanged_and_in_evaluation_mode():
    model = supernet("DIA").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    SupernetEvaluator(model, batches(), "data").evaluate([ConnectionScheme.parse("100-000-001")])
    assert not model.training
    assert model.backbone.scheme == ConnectionScheme.full(STAGES)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Loader:
    """A minimal data loader that reports when it is read, and reuses its memory."""

    def __init__(self, made):
        self.made = made
        self.read = []

    def __len__(self):
        return len(self.made)

    def __iter__(self):
        memory = {}
        for batch in self.made:
            self.read.append(len(batch["labels"]))
            memory = {name: memory.get(name, value.clone()) for name, value in batch.items()}
            for name, value in batch.items():
                memory[name].resize_(value.shape).copy_(value)
            yield memory


def test_batches_are_read_once_and_not_before_they_are_needed():
    loader = Loader(batches())
    evaluator = SupernetEvaluator(supernet(), loader, "data")
    assert evaluator.key["data"] == "data"
    assert evaluator.stages == STAGES
    assert loader.read == []
    scheme = ConnectionScheme.full(STAGES)
    assert evaluator.evaluate([scheme]) == evaluator.evaluate([scheme])
    assert evaluator.images == 12
    assert loader.read == [7, 5]


def test_batches_are_kept_though_their_memory_is_used_again():
    schemes = [ConnectionScheme.full(STAGES), ConnectionScheme.none(STAGES)]
    expected = SupernetEvaluator(supernet(), batches((4, 4, 4)), "data").evaluate(schemes)
    assert SupernetEvaluator(supernet(), Loader(batches((4, 4, 4))), "data").evaluate(schemes) == expected


def test_where_the_number_of_images_is_known_errors_need_no_images():
    loader = Loader(batches())
    evaluator = SupernetEvaluator(supernet(), loader, "data", images=12)
    assert evaluator.standard_error(50.0) == pytest.approx(100 * math.sqrt(0.25 / 12))
    assert loader.read == []


@pytest.mark.parametrize(("accuracy", "expected"), [(50.0, 100 * math.sqrt(0.25 / 12)), (100.0, 0.0), (0.0, 0.0)])
def test_the_standard_error_is_binomial(accuracy, expected):
    assert SupernetEvaluator(supernet(), batches(), "data").standard_error(accuracy) == pytest.approx(expected)


def test_stages_are_those_of_the_network():
    assert SupernetEvaluator(supernet(depth=56), batches(), "data").stages == (9, 9, 9)


# ---------------------------------------------------------------- the key


def test_the_key_changes_with_weights_data_and_precision_and_with_nothing_else():
    def key(seed=0, fingerprint="data", precision="fp32", **options):
        return SupernetEvaluator(supernet(seed=seed, **options), batches(), fingerprint, precision).key

    assert key() == key() == key(channels_last=False)
    assert {name for name, value in key(seed=1).items() if value != key()[name]} == {"weights"}
    assert {name for name, value in key(fingerprint="other").items() if value != key()[name]} == {"data"}
    assert {name for name, value in key(precision="bf16").items() if value != key()[name]} == {"precision"}


def test_the_key_does_not_depend_on_what_is_known_of_the_images():
    """Tensors of modules with ``optional_tensors`` are measured after training, and do not change any score."""
    model = supernet()
    before = SupernetEvaluator(model, batches(), "data").key
    model.familiar = torch.nn.Module()
    model.familiar.optional_tensors = True
    model.familiar.register_buffer("errors", torch.ones(3))
    assert SupernetEvaluator(model, batches(), "data").key == before
    model.familiar.optional_tensors = False
    assert SupernetEvaluator(model, batches(), "data").key != before


def test_the_key_has_the_options_of_attention_that_no_tensor_shows():
    def key(**options):
        torch.manual_seed(0)
        model = supernet({"type": "SE", "reduction": 4, **options})
        torch.manual_seed(1)
        for value in model.parameters():  # initialized differently
            torch.nn.init.normal_(value)
        return SupernetEvaluator(model, batches(), "data").key

    plain = key()
    assert set(plain) == {"weights", "data", "precision"}  # as in earlier ledgers and files of scores
    assert key(identity_start=False, window=None) == plain
    assert key(identity_start=True) == {**plain, "attention": {"identity_start": True}}
    assert key(window=(4, 6)) == key(window=[4, 6]) == {**plain, "attention": {"window": [4, 6]}}


def test_the_hash_of_weights_does_not_depend_on_memory_order():
    state = {"a": torch.randn(2, 3, 4, 5), "b": torch.tensor(3), "c": torch.randn(3).bfloat16()}
    base = weights_hash(state)
    assert weights_hash(dict(reversed(state.items()))) == base
    assert weights_hash({**state, "a": state["a"].to(memory_format=torch.channels_last)}) == base
    assert weights_hash({**state, "a": torch.stack([state["a"]] * 2, -1)[..., 0]}) == base


@pytest.mark.parametrize(
    "change",
    [
        {"a": torch.zeros(5, 4)},
        {"a": torch.zeros(4, 5).double()},
        {"a": torch.full((4, 5), -0.0)},
        {"a": torch.zeros(4, 5).index_fill(0, torch.tensor([3]), 1e-30)},
        {"b": torch.zeros(4, 5)},
    ],
)
def test_the_hash_of_weights_tells_names_types_shapes_and_values(change):
    (name,) = change
    state = {"a": torch.zeros(4, 5)}
    assert weights_hash({**state, **change} if name == "a" else change) != weights_hash(state)


# ---------------------------------------------------------------- re-estimated batch norms


def recalibrated(model, data=None, calibration=None, precision="fp32", fingerprint="calibration", images=None):
    plain = SupernetEvaluator(model, data or batches(), "data", precision, images)
    return plain, RecalibratedEvaluator(plain, calibration or batches((9, 6), seed=99), fingerprint)


def estimated_anew(model, scheme, data, calibration):
    """Return accuracy and logits of a copy of the network under one scheme, with norms estimated by PyTorch."""
    model = copy.deepcopy(model)
    model.backbone.set_scheme(scheme)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        for batch in calibration:
            model(model.data_preprocessor({"inputs": batch["inputs"]})["inputs"])
        model.eval()
        logits = [model(model.data_preprocessor(batch)["inputs"]) for batch in data]
    right = [each.argmax(1) == batch["labels"] for each, batch in zip(logits, data, strict=True)]
    return 100 * int(torch.cat(right).sum()) / sum(map(len, right)), logits


def values(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("attention", ["SE", "SGE", "DIA"])
@pytest.mark.parametrize("seed", range(2))
def test_norms_estimated_anew_score_like_a_copy_of_the_network_with_norms_of_its_own(attention, seed):
    data, calibration = batches((40,), seed), batches((40, 24), seed + 50)
    model = supernet(attention, seed)
    draw = torch.Generator().manual_seed(seed)
    schemes = [ConnectionScheme.random(STAGES, generator=draw) for _ in range(3)]
    schemes += [ConnectionScheme.none(STAGES), ConnectionScheme.full(STAGES)]
    expected = {scheme: estimated_anew(model, scheme, data, calibration) for scheme in schemes}
    plain, anew = recalibrated(model, data, calibration)
    calls = record_heads(model)
    plain.evaluate(schemes)
    before = [logits for _, logits in calls]
    calls.clear()
    assert anew.evaluate(schemes) == [expected[scheme][0] for scheme in schemes]
    found = [logits for _, logits in calls]
    logits = [each for scheme in sorted(schemes) for each in expected[scheme][1]]
    assert all(map(torch.equal, found, logits))
    assert not any(map(torch.equal, found, before))


def test_what_is_estimated_anew_leaves_supernet_and_plain_scores_as_they_were():
    model = supernet("DIA")
    before = values(model)
    plain, anew = recalibrated(model)
    schemes = [ConnectionScheme.parse("100-010-001"), ConnectionScheme.none(STAGES)]
    scores, key = plain.evaluate(schemes), weights_hash(model.state_dict())
    first = anew.evaluate(schemes)
    assert weights_hash(model.state_dict()) == key == plain.key["weights"]
    assert same_values(model, before)
    assert plain.evaluate(schemes) == scores
    assert anew.evaluate(schemes[::-1]) == first[::-1]  # schemes do not affect each other
    assert not model.training
    assert not any(module.training for module in model.modules())
    assert {norm.momentum for norm in model.modules() if isinstance(norm, torch.nn.BatchNorm2d)} == {0.1}


def same_values(model, before):
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("interrupted_after", [0, 5, 40, 90])
def test_an_interruption_in_the_middle_leaves_the_supernet_whole(interrupted_after):
    model = supernet("SE")
    before = values(model)
    plain, anew = recalibrated(model)
    schemes = [ConnectionScheme.parse("100-010-001"), ConnectionScheme.parse("000-010-101")]
    scores, expected = plain.evaluate(schemes), recalibrated(model)[1].evaluate(schemes)
    calls = 0

    def count(*_):
        nonlocal calls
        calls += 1
        if calls > interrupted_after:
            raise KeyboardInterrupt

    hooks = [module.register_forward_hook(count) for module in model.modules() if not list(module.children())]
    with pytest.raises(KeyboardInterrupt):
        anew.evaluate(schemes)
    for hook in hooks:
        hook.remove()
    assert model.backbone.scheme == ConnectionScheme.full(STAGES)
    assert same_values(model, before)
    assert not any(module.training for module in model.modules())
    assert plain.evaluate(schemes) == scores
    assert anew.evaluate(schemes) == expected


def test_the_key_says_what_the_norms_were_estimated_on():
    plain, anew = recalibrated(supernet())
    assert anew.key == {**plain.key, "calibration": "calibration"}
    assert plain.key == SupernetEvaluator(supernet(), batches(), "data").key
    assert recalibrated(supernet(), fingerprint="other")[1].key["calibration"] == "other"


def test_finalists_are_scored_in_fp32_whatever_the_search_is():
    schemes = [ConnectionScheme.parse("100-010-001")]
    exact, anew = (recalibrated(supernet(), precision=precision)[1] for precision in ("fp32", "bf16"))
    assert anew.key == exact.key
    assert anew.evaluate(schemes) == exact.evaluate(schemes)


def test_calibration_images_are_read_once_and_not_before_they_are_needed():
    loader = Loader(batches((9, 6), seed=99))
    _, anew = recalibrated(supernet(), calibration=loader)
    assert anew.key["calibration"]
    assert loader.read == []
    anew.evaluate([ConnectionScheme.none(STAGES), ConnectionScheme.full(STAGES)])
    assert loader.read == [9, 6]


# ---------------------------------------------------------------- times of its parts


def test_parts_are_timed_on_so_many_images():
    model, loader = supernet("DIA"), Loader(batches((9, 5)))
    seen = []
    model.fc.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    times = SupernetEvaluator(model, loader, "data").block_times(6, rounds=2)
    assert times.stages == STAGES
    assert set(seen) == {6}
    assert loader.read == [9]
    assert times.head > 0
    assert min(times.bodies + times.joins) > 0
    assert len(times.connections) == sum(STAGES)  # differences, which noise can make negative


def test_times_are_recorded_with_the_number_of_images_in_the_batch(tmp_path):
    for sizes, images in (((1, 1, 1), 1), ((60, 5), 50)):
        loader = Loader(batches(sizes))
        save_block_times(SupernetEvaluator(supernet(), loader, "data"), tmp_path / "times.json")
        assert read_record(tmp_path / "times.json")["images"] == images
        assert loader.read == [sizes[0]]


# ---------------------------------------------------------------- several processes


def share(rank, meeting, answers):
    """A process with every other image: rank 0 evaluates, rank 1 serves."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    whole = batches((16, 7))
    data = [{name: value[rank::2] for name, value in batch.items()} for batch in whole]
    plain, anew = recalibrated(supernet("DIA"), data, images=23)
    if rank:
        serve(plain, anew)
        answers.put((rank, plain.images, plain.bodies))
        return
    schemes = [ConnectionScheme.parse(text) for text in ("100-010-001", "111-111-111", "100-010-011")]
    found = [plain.evaluate(schemes), anew.evaluate(schemes), plain.evaluate(schemes[:1]), plain.standard_error(40.0)]
    dismiss()
    answers.put((rank, found, plain.bodies))


def test_processes_share_the_images_and_score_as_one_does(tmp_path):
    context = multiprocessing.get_context("fork")  # the networks of this test are on the CPU
    answers = context.Queue()
    processes = [context.Process(target=share, args=(rank, tmp_path / "meeting", answers)) for rank in (0, 1)]
    for process in processes:
        process.start()
    (_, found, bodies), (_, images, others) = sorted(answers.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    plain, anew = recalibrated(supernet("DIA"), batches((16, 7)))
    schemes = [ConnectionScheme.parse(text) for text in ("100-010-001", "111-111-111", "100-010-011")]
    assert found[0] == plain.evaluate(schemes)
    assert found[1] == anew.evaluate(schemes)
    assert found[2] == found[0][:1]
    assert found[3] == plain.standard_error(40.0)
    assert images == plain.images == 23
    assert bodies == others


def fail_in_one(rank, meeting, answers, broken):
    """A process that scores alongside one with images that do not fit the network."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    plain = SupernetEvaluator(supernet(), batches(in_channels=2 if rank == broken else 1), "data", images=24)
    try:
        if rank:
            serve(plain)
        else:
            plain.evaluate([ConnectionScheme.full(STAGES)])
    except (RuntimeError, ValueError) as error:
        answers.put((rank, plain.failed, "failed in another process" in str(error)))


@pytest.mark.parametrize("broken", [0, 1])
def test_where_one_process_fails_the_other_ends_too(tmp_path, broken):
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    processes = [
        context.Process(target=fail_in_one, args=(rank, tmp_path / "meeting", answers, broken)) for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    try:
        found = sorted(answers.get(timeout=60) for _ in processes)
    finally:
        for process in processes:
            process.kill()
            process.join()
    assert found == [(0, True, broken == 1), (1, True, broken == 0)]


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("empty", [[], batches((0,))])
def test_an_empty_validation_set_is_refused(empty):
    evaluator = SupernetEvaluator(supernet(), empty, "data")
    with pytest.raises(ValueError, match="no validation images"):
        evaluator.evaluate([ConnectionScheme.full(STAGES)])
    with pytest.raises(ValueError, match="no validation images"):
        evaluator.standard_error(50.0)
    with pytest.raises(ValueError, match="no validation images"):
        SupernetEvaluator(supernet(), empty, "data", images=0)


def test_an_unknown_precision_is_answered_with_the_valid_ones():
    with pytest.raises(ValueError, match=r"unknown precision 'bf32'; did you mean .*'bf16', 'fp32'"):
        SupernetEvaluator(supernet(), batches(), "data", "bf32")


def test_a_scheme_that_does_not_fit_is_refused_and_the_evaluator_goes_on():
    model = supernet()
    evaluator = SupernetEvaluator(model, batches(), "data")
    fits, chosen = ConnectionScheme.parse("100-000-001"), ConnectionScheme.parse("010-010-010")
    model.backbone.set_scheme(chosen)
    expected = evaluator.evaluate([fits])
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(3, 3, 3\)"):
        evaluator.evaluate([fits, ConnectionScheme.parse("100-0001")])
    assert model.backbone.scheme == chosen
    assert evaluator.evaluate([fits]) == expected
    evaluator.block_times(2, rounds=2)
    assert model.backbone.scheme == chosen


def test_a_network_that_cannot_be_connected_everywhere_is_no_supernet():
    model = ImageClassifier(EANResNetCIFAR(20, scheme="100-010-000", base_channels=4), CLASSES)
    with pytest.raises(ValueError, match="build it with scheme='full'"):
        SupernetEvaluator(model, batches(in_channels=3), "data").evaluate([ConnectionScheme.parse("000-000-100")])
