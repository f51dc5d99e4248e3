"""Register this package's classes with mmengine by name; a module is imported when one of its names is looked up.

Configs use these names after ``custom_imports=['ean_core']``. mmengine takes seconds to import, so nothing of it is
imported here: its registries get the names once something else imports them. Their own ``locations`` would not do:
mmsegmentation's registries, and those of other libraries, look into mmengine's without importing its locations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from types import ModuleType
from typing import Any

from .common.lazy import after_import
from .common.mmcv_ops import provide_stand_in
from .common.places import SCHEME

#: Names by registry of mmengine and module of this package. Modules that one command needs for its own configs, which
#: it writes itself, are not among them.
NAMES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "DATASETS": {"data.folder": ("ImageTree",), "data.resident": ("CIFAR100", "Digits")},
    "DATA_SAMPLERS": {"data.sampler": ("EpochSampler",)},
    "FUNCTIONS": {"data.sampler": ("as_batch",)},
    "HOOKS": {
        "runs.capture": ("CaptureHook",),
        "runs.hooks": (
            "DropoutSeedHook",
            "FiniteHook",
            "MetricTableHook",
            "PlainCheckpointHook",
            "ResumeValidationHook",
            "RunRecordHook",
            "StartValidationHook",
        ),
        "runs.progress_file": ("ProgressFileHook",),
        "runs.supernet": ("RandomSchemeHook",),
        "runs.terminal": ("ProgressHook",),
    },
    "METRICS": {"classifier": ("TopK",)},
    "MODELS": {"backbone": ("EANResNet", "EANResNetCIFAR"), "classifier": ("ImageClassifier", "ImagePreprocessor")},
    "OPTIM_WRAPPERS": {"runs.runner": ("Bf16OptimWrapper",)},
    "RUNNERS": {"runs.runner": ("EANRunner",)},
}


class Contents(MutableMapping[str, Any]):
    """Contents of a registry, with further names whose modules are imported, and register them, on the first look-up.

    Args:
        registered: what has been registered.
        modules: module of each further name.
    """

    def __init__(self, registered: MutableMapping[str, Any], modules: Mapping[str, str]) -> None:
        self.registered, self.modules = registered, modules

    def __contains__(self, name: object) -> bool:
        self._import(name)
        return name in self.registered

    def __getitem__(self, name: str) -> Any:
        self._import(name)
        return self.registered[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._import(name)  # a later import would register the name again, which is refused
        self.registered[name] = value

    def __delitem__(self, name: str) -> None:
        del self.registered[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self.modules, **self.registered})

    def __len__(self) -> int:
        return len({**self.modules, **self.registered})

    def _import(self, name: object) -> None:
        """Import the module of a name that is not registered yet.

        The module itself asks for its names as it registers them: importing it again does nothing in the thread that
        is importing it, and others wait.
        """
        if name not in self.registered and name in self.modules:
            import_module(self.modules[str(name)])


def _extend_registries(root: ModuleType) -> None:
    for kind, modules in NAMES.items():
        registry = getattr(root, kind)
        paths = {name: f"{__package__}.{module}" for module, names in modules.items() for name in names}
        registry._module_dict = Contents(registry.module_dict, paths)


def _register_addresses(checkpoint: ModuleType) -> None:
    load_from_ean = import_module(".weights.addresses", __package__).load_from_ean
    checkpoint.CheckpointLoader.register_scheme(prefixes=SCHEME, loader=load_from_ean, force=True)


provide_stand_in()
after_import("mmengine.registry.root", _extend_registries)
after_import("mmengine.runner.checkpoint", _register_addresses)
