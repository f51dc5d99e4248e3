import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ean_core import ConnectionScheme, EANResNetCIFAR, ImageClassifier
from ean_core.search import SupernetEvaluator
from ean_core.search.evaluator import weights_hash

CLASSES = 5
STAGES = (3, 3, 3)


def supernet(attention="SE", seed=0, *, in_channels=1, channels_last=True, depth=20):
    """A small network with random weights and statistics, whose sub-networks disagree on many images."""
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
    """Every call of the model's head from now on: its input and its logits."""
    calls, head = [], model.head

    def recording(features):
        logits = head(features)
        calls.append((features.clone(), logits.clone()))
        return logits

    model.head = recording
    return calls


def alone(model, scheme, data, precision):
    """Logits and right answers, image by image, of one scheme by the plain forward pass."""
    model.backbone.set_scheme(scheme)
    model.eval()
    with torch.inference_mode():
        for batch in data:
            batch = model.data_preprocessor(batch)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                model(batch["inputs"])


def prefixes(schemes):
    return {scheme.bits[:length] for scheme in schemes for length in range(len(scheme.bits))}


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
    assert len(shared) == len(distinct) * len(data)  # one that is given twice is computed once
    assert evaluator.bodies == len(prefixes(schemes)) * len(data)

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
    model, data = supernet("DIA", seed=3), batches((64,), seed=3)
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


def test_the_supernet_is_left_whole_unchanged_and_in_evaluation_mode():
    model = supernet("DIA").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    SupernetEvaluator(model, batches(), "data").evaluate([ConnectionScheme.parse("100-000-001")])
    assert not model.training
    assert model.backbone.scheme == ConnectionScheme.full(STAGES)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_batches_are_read_once():
    evaluator = SupernetEvaluator(supernet(), iter(batches()), "data")
    scheme = ConnectionScheme.full(STAGES)
    assert evaluator.images == 12
    assert evaluator.evaluate([scheme]) == evaluator.evaluate([scheme])


def test_stages_are_those_of_the_network():
    assert SupernetEvaluator(supernet(depth=56), batches(), "data").stages == (9, 9, 9)


# ---------------------------------------------------------------- the key


def test_the_key_changes_with_weights_data_and_precision_and_with_nothing_else():
    def key(seed=0, fingerprint="data", precision="fp32", sizes=(7, 5), **options):
        return SupernetEvaluator(supernet(seed=seed, **options), batches(sizes), fingerprint, precision).key

    assert key() == key() == key(channels_last=False)
    assert {name for name, value in key(seed=1).items() if value != key()[name]} == {"weights"}
    assert {name for name, value in key(fingerprint="other").items() if value != key()[name]} == {"data"}
    assert {name for name, value in key(precision="bf16").items() if value != key()[name]} == {"precision"}
    assert {name for name, value in key(sizes=(7,)).items() if value != key()[name]} == {"images"}


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


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("empty", [[], batches((0,))])
def test_an_empty_validation_set_is_refused(empty):
    with pytest.raises(ValueError, match="no validation images"):
        SupernetEvaluator(supernet(), empty, "data")


def test_an_unknown_precision_is_answered_with_the_valid_ones():
    with pytest.raises(ValueError, match=r"unknown precision 'bf32'; did you mean .*'bf16', 'fp32'"):
        SupernetEvaluator(supernet(), batches(), "data", "bf32")


def test_a_scheme_that_does_not_fit_is_refused_and_the_evaluator_goes_on():
    evaluator = SupernetEvaluator(supernet(), batches(), "data")
    fits = ConnectionScheme.parse("100-000-001")
    expected = evaluator.evaluate([fits])
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(3, 3, 3\)"):
        evaluator.evaluate([fits, ConnectionScheme.parse("100-0001")])
    assert evaluator.evaluate([fits]) == expected


def test_a_network_that_cannot_be_connected_everywhere_is_no_supernet():
    model = ImageClassifier(EANResNetCIFAR(20, scheme="100-010-000", base_channels=4), CLASSES)
    with pytest.raises(ValueError, match="build it with scheme='full'"):
        SupernetEvaluator(model, batches(in_channels=3), "data").evaluate([ConnectionScheme.parse("100-000-000")])
