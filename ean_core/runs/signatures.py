"""Check a config against the signatures of the classes it names, before anything is built.

Only what is certain to fail is refused. A class is found as mmengine will find it, by registry and scope. Its arguments
are those of its constructor, and where that only passes its ``**kwargs`` on, those of the next class in its resolution
order; a class that uses them in another way is not checked. Settings inside of other libraries' classes are checked
where these build them as they are: in the entries :data:`_BUILT`.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from mmengine import registry
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, LogProcessor, Runner, TestLoop, ValLoop
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.utils.data import DataLoader

from ean_core.attention import ATTENTION
from ean_core.networks import KeepsSettings

#: Entries of other libraries' classes that are built by a registry, as they are.
_BUILT = frozenset(
    {
        *(
            "backbone",
            "neck",
            "head",
            "decode_head",
            "auxiliary_head",
            "bbox_head",
            "rpn_head",
            "roi_head",
            "mask_head",
        ),
        *("data_preprocessor", "loss_decode", "dataset", "datasets", "pipeline", "metrics", "vis_backends"),
    }
)
#: Registries of entries inside of others, by the name of the entry.
_INNER: dict[str, tuple[Registry, ...]] = {
    "attention": (ATTENTION,),
    "dataset": (registry.DATASETS,),
    "datasets": (registry.DATASETS,),
    "init_cfg": (registry.WEIGHT_INITIALIZERS,),
    "metrics": (registry.METRICS,),
    "pipeline": (registry.TRANSFORMS,),
    "vis_backends": (registry.VISBACKENDS,),
}
#: Registries of a config's entries, and what mmengine takes out of these before it builds them.
_ENTRIES: dict[str, tuple[tuple[Registry, ...], frozenset[str]]] = {
    "model": ((registry.MODELS,), frozenset()),
    "visualizer": ((registry.VISUALIZERS,), frozenset()),
    "param_scheduler": ((registry.PARAM_SCHEDULERS,), frozenset({"convert_to_iter_based"})),
    "val_evaluator": ((registry.EVALUATOR, registry.METRICS), frozenset()),
    "test_evaluator": ((registry.EVALUATOR, registry.METRICS), frozenset()),
    "custom_hooks": ((registry.HOOKS,), frozenset({"priority"})),
}
#: What every initialization takes beside the arguments of its class; ``partial`` is of this package.
_INITIALIZED = frozenset({"override", "name", "partial"})
_LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
#: Packages whose classes are built by helpers that take arguments out first, as ``requires_grad`` of a norm.
_HELPED = ("torch.nn", "mmcv.cnn", "mmcv.ops")
#: Packages whose classes build every entry that has a ``type`` by a registry.
_KNOWN = ("ean_core", "tasks", "zoo", "mmengine")


def check_signatures(config: Config) -> None:
    """Refuse a config whose classes, loops or loaders have no such arguments, or with values that are not numbers.

    Raises:
        ValueError: for the first such entry; the message names the nearest argument.
    """
    if config.get("runner_type", "Runner") not in ("Runner", "EANRunner"):
        return
    scope = config.get("default_scope") or "mmengine"
    settings = config._cfg_dict.to_dict()
    for name, (where, taken) in _ENTRIES.items():
        _check(settings.get(name), name, where, scope, taken)
    for name in _LOADERS:
        _check_loader(settings.get(name), name, scope)
    _check_loops(settings, scope)
    _check_optimizer(settings.get("optim_wrapper"), scope)
    for name, hook in (settings.get("default_hooks") or {}).items():
        if isinstance(hook, Mapping) and "type" not in hook:
            others = [other for other in settings["default_hooks"] if other != name]
            raise _unknown("default_hooks", name, others)
        _check(hook, f"default_hooks.{name}", (registry.HOOKS,), scope, frozenset({"priority"}))
    _check_call(settings.get("randomness"), "randomness", Runner.set_randomness)
    processor = settings.get("log_processor")
    if isinstance(processor, Mapping) and processor.get("type", "LogProcessor") == "LogProcessor":
        _check_call(processor, "log_processor", LogProcessor)


def arguments_of(kind: Callable[..., Any]) -> frozenset[str] | None:
    """Return the names that a class or function takes as keywords; None if it may take any.

    Examples:
        >>> class Base:
        ...     def __init__(self, width): ...
        >>> class Derived(Base):
        ...     def __init__(self, depth, **options):
        ...         super().__init__(**options)
        >>> sorted(arguments_of(Base)), arguments_of(dict)
        (['width'], None)
    """
    if not inspect.isclass(kind):
        return _names(kind, open_end=False)
    known: frozenset[str] = frozenset()
    if any("__new__" in vars(base) for base in kind.__mro__[:-1] if base is not KeepsSettings):  # which changes nothing
        return None
    for base in kind.__mro__:
        if "__init__" not in vars(base):
            continue
        if base is object:
            return known
        constructor = vars(base)["__init__"]
        if hasattr(constructor, "__wrapped__"):  # by what may take earlier names
            return None
        own = _names(constructor, open_end=True)
        if own is None:
            return None
        known |= own - {"self"}
        if not _takes_any(constructor):
            return known
    return known


def _names(function: Callable[..., Any], *, open_end: bool) -> frozenset[str] | None:
    """Return the names of a function's parameters; None if they are unknown, or it uses ``**kwargs`` itself.

    Args:
        function: function, or constructor.
        open_end: whether ``**kwargs`` that are only passed on to the next constructor are allowed.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # compiled code
        return None
    if _takes_any(function) and not (open_end and _passes_on(function)):
        return None
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return frozenset(parameter.name for parameter in parameters if parameter.kind in kinds)


def _takes_any(function: Callable[..., Any]) -> bool:
    return any(each.kind is inspect.Parameter.VAR_KEYWORD for each in inspect.signature(function).parameters.values())


def _passes_on(function: Callable[..., Any]) -> bool:
    """Whether a constructor does nothing with its ``**kwargs`` but pass them to ``super().__init__``."""
    try:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return False
    if not isinstance(definition, ast.FunctionDef) or definition.name != "__init__" or definition.args.kwarg is None:
        return False
    name = definition.args.kwarg.arg
    # super(Base, self) would skip some classes
    nexts = ("super().__init__", f"super({function.__qualname__.split('.')[-2]}, self).__init__")
    uses = [node for node in ast.walk(definition) if isinstance(node, ast.Name) and node.id == name]
    passed = [
        keyword.value
        for call in ast.walk(definition)
        if isinstance(call, ast.Call) and ast.unparse(call.func) in nexts
        for keyword in call.keywords
        if keyword.arg is None
    ]
    return bool(uses) and all(use in passed for use in uses)


def class_of(kind: Any, where: Iterable[Registry], scope: str) -> Any:
    """Return what a type stands for, as mmengine will find it; None if it is unknown."""
    if not isinstance(kind, str):
        return kind if callable(kind) else None
    prefix, _, name = kind.rpartition(".")
    for root in where:
        place = root
        if root is not ATTENTION and (prefix or scope) != root.scope:
            try:  # as mmengine does when it builds the first class of a scope
                import_module(f"{prefix or scope}.registry")
            except Exception:  # a path to a class, or a library that cannot be imported
                return None
            if (prefix or scope) not in root.children:
                continue
            place = root.children[prefix or scope]
        try:
            place.import_from_location()
        except Exception:
            return None
        if name in place.module_dict or not prefix:
            found = place.module_dict.get(name) or root.module_dict.get(name)
            if found is not None:
                return found
    return None


def _check(value: Any, entry: str, where: Iterable[Registry], scope: str, taken: frozenset[str] = frozenset()) -> None:
    """Check a class's settings, or a list of them, and those of the classes inside."""
    for path, settings in _each(value, entry):
        if not isinstance(settings, Mapping) or "type" not in settings:
            continue
        inner = settings.get("_scope_", scope)
        kind = class_of(settings["type"], where, inner)
        package = getattr(kind, "__module__", "")
        if kind is None or package.startswith(_HELPED):
            continue
        _check_call(settings, path, kind, taken)
        known = package.partition(".")[0] in _KNOWN
        for name, part in settings.items():
            if name.endswith("_cfg") and name != "init_cfg":
                continue  # norms, activations, and what libraries read as they like
            if known or name in _BUILT:
                extra = _INITIALIZED if name == "init_cfg" else frozenset()
                _check(part, f"{path}.{name}", _INNER.get(name, tuple(where)), inner, extra)


def _check_call(settings: Any, entry: str, kind: Callable[..., Any], taken: frozenset[str] = frozenset()) -> None:
    """Refuse settings that a class or function does not take."""
    if not isinstance(settings, Mapping):
        return
    names = arguments_of(kind)
    if names is None:
        return
    for name in settings:
        if name not in names | taken | {"type", "_scope_"}:
            raise _unknown(entry, name, sorted(names | taken), kind if "type" in settings else None)


def _check_loader(loader: Any, entry: str, scope: str) -> None:
    if not isinstance(loader, Mapping):
        return
    names = (arguments_of(DataLoader) or frozenset()) | {"num_batch_per_epoch", "disable_subprocess_warning"}
    for name in loader:
        if name not in names:
            raise _unknown(entry, name, sorted(names))
    _check(loader.get("dataset"), f"{entry}.dataset", (registry.DATASETS,), scope)
    for name in ("sampler", "batch_sampler"):
        _check(loader.get(name), f"{entry}.{name}", (registry.DATA_SAMPLERS,), scope)
    for name in ("collate_fn", "worker_init_fn"):
        _check(loader.get(name), f"{entry}.{name}", (registry.FUNCTIONS,), scope)
    _check_numbers(loader, entry, ("batch_size", "num_workers"), int)


def _check_loops(settings: Mapping[str, Any], scope: str) -> None:
    for entry, usual in (("train_cfg", EpochBasedTrainLoop), ("val_cfg", ValLoop), ("test_cfg", TestLoop)):
        loop = settings.get(entry)
        if not isinstance(loop, Mapping):
            continue
        if "type" in loop:
            _check(loop, entry, (registry.LOOPS,), scope)
        elif entry == "train_cfg":
            kind = usual if loop.get("by_epoch", True) else IterBasedTrainLoop
            _check_call(loop, entry, kind, frozenset({"by_epoch"}))
        else:
            _check_call(loop, entry, usual)
        _check_numbers(loop, entry, ("max_epochs", "max_iters", "val_interval"), int)


def _check_optimizer(wrapper: Any, scope: str) -> None:
    if not isinstance(wrapper, Mapping) or "constructor" in wrapper:  # which may read the settings as it likes
        return
    settings = {"type": "OptimWrapper", **wrapper}
    optimizer, clip = settings.pop("optimizer", None), settings.pop("clip_grad", None)
    _check(settings, "optim_wrapper", (registry.OPTIM_WRAPPERS,), scope, frozenset({"paramwise_cfg"}))
    _check(optimizer, "optim_wrapper.optimizer", (registry.OPTIMIZERS,), scope)
    if isinstance(optimizer, Mapping):
        _check_numbers(optimizer, "optim_wrapper.optimizer", ("lr", "weight_decay", "momentum"), (int, float))
    if isinstance(clip, Mapping):
        function = clip_grad_value_ if clip.get("type") == "value" else clip_grad_norm_
        _check_call(clip, "optim_wrapper.clip_grad", function)


def _check_numbers(
    settings: Mapping[str, Any], entry: str, names: Iterable[str], kind: type | tuple[type, ...]
) -> None:
    """Refuse text in place of a number, and fractions in place of an integer."""
    for name in names:
        value = settings.get(name)
        if isinstance(value, str) or (kind is int and isinstance(value, float) and value != int(value)):
            what = "an integer" if kind is int else "a number"
            raise ValueError(f"{entry}.{name} must be {what}, got {value!r}")


def _each(value: Any, entry: str) -> Iterator[tuple[str, Any]]:
    """Yield a value, or those of a list, with the entry that --cfg-options knows each by."""
    if isinstance(value, (list, tuple)):
        for number, part in enumerate(value):
            yield from _each(part, f"{entry}.{number}")
    else:
        yield entry, value


def _unknown(entry: str, name: str, names: Iterable[str], kind: Any = None) -> ValueError:
    """The error for an argument that an entry, of this class if it names one, does not have."""
    near = get_close_matches(name, [*names], n=1, cutoff=0.5)
    owner = entry if kind is None else f"{entry} ({kind.__name__})"
    hint = f"; did you mean {entry}.{near[0]}?" if near else f"; choose from {', '.join(names)}"
    return ValueError(f"{owner} has no {name!r}{hint}")
