"""Empty modules in place of those that a program imports and, for what is asked of it here, never uses."""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterable


class _Nothing(type):
    """A class all of whose attributes are such classes."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _nothing(name)


def _nothing(name):
    body = {
        "__init__": lambda self, *args, **kwargs: None,
        "__call__": lambda self, decorated: decorated,  # such as @torch.no_grad()
    }
    return _Nothing(name, (), body)


class _Anything(types.ModuleType):
    """A module that is stood in for, or one below it; every attribute is an empty class."""

    __path__: tuple = ()

    def __getattr__(self, name):
        if name == "__version__":
            return "0"
        if name.startswith("__"):
            raise AttributeError(name)
        return _nothing(name)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules that are stood in for."""

    def __init__(self, names: frozenset[str]):
        self._names = names

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self._names:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Anything(spec.name)

    def exec_module(self, module):
        pass


def missing(names: Iterable[str]) -> frozenset[str]:
    """Those of the modules that are not installed."""
    return frozenset(name for name in names if importlib.util.find_spec(name) is None)


def install(names: frozenset[str]) -> None:
    """Stands in for these modules from now on; again is the same."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder(names))
