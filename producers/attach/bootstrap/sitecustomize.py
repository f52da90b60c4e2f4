"""Runs at the start of every Python that `pilothouse run` has started, before the script: waits for PyTorch.

Nothing is imported until the script imports `torch`; then `producers.attach.session` is called, once, and whatever goes
wrong there is the script's business no more than its absence would be. The folder takes itself off the path again, and
the `sitecustomize` that this one hides is run as if it had been found.
"""

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

KEY = "PILOTHOUSE_ATTACH"


class Door:
    """A finder that finds nothing, but sees `torch` go by."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:  # noqa: ARG002  # as importlib calls it
        if name != "torch":
            return None
        from importlib.util import find_spec

        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Doorkeeper(spec.loader)  # type: ignore[assignment]  # it is whatever the loader is
        return spec


class _Doorkeeper:
    """The loader itself, but for one call after it."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)  # type: ignore[no-any-return]  # the loader is whatever the path found

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None  # it was made from one
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        _attach()


def _attach() -> None:
    try:
        from pilothouse.producers.attach.session import attach

        attach(os.environ[KEY])
    except Exception as error:  # noqa: BLE001  # the script must not notice
        sys.stderr.write(
            f"pilothouse: this Python ({sys.executable}) runs unwatched: {type(error).__name__}: {error}\n"
        )


def _say_if_torch_never_came(door: Door) -> None:
    import json

    if door in sys.meta_path and json.loads(os.environ.get(KEY, "{}")).get("root") == os.getpid():
        sys.stderr.write("pilothouse: nothing was watched: the script never imported torch\n")


def _run_the_hidden_one() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]
    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec is not None and spec.loader is not None:
        from importlib.util import module_from_spec

        sys.modules["sitecustomize"] = module = module_from_spec(spec)
        spec.loader.exec_module(module)


if __name__ == "sitecustomize":  # not where somebody imports it as a part of the package
    if KEY in os.environ:
        import atexit

        _door = Door()
        sys.meta_path.insert(0, _door)
        atexit.register(_say_if_torch_never_came, _door)
    _run_the_hidden_one()
