"""What moto works out anew for every value of every answer, remembered: calls take half of the time.

The names under which an attribute may stand in an object depend on the class of the object and on the place
in the model of AWS alone; which folders moto has, and which methods its classes have, never change.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from moto import backends
from moto.core import responses
from moto.core.constants import MISSING
from moto.core.serialize import AttributePickerContext, XFormedAttributePicker
from moto.core.utils import get_value, method_names_from_class

Transform = Callable[[Any], Any]


def install() -> None:
    """Put what is remembered in the place of moto's own, in this process."""
    vars(responses)["XFormedAttributePicker"] = RememberingPicker
    vars(responses)["method_names_from_class"] = cache(method_names_from_class)
    folders = frozenset(backends.list_of_moto_modules())
    backends.list_of_moto_modules = lambda: folders


class RememberingPicker(XFormedAttributePicker):
    """Finds the value of an attribute as moto's does, by names that it works out once for each place."""

    _names: dict[tuple[type, object, str], tuple[str, ...]] = {}  # noqa: RUF012 - shared on purpose

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._transforms: dict[str, Transform | None] = {}

    def __call__(self, context: AttributePickerContext) -> Any:
        value = None
        for name in self._names_of(context):
            found = get_value(context.obj, name, MISSING)
            if found is not MISSING:
                value = found
                break
        transform = (
            self._transform_of(f"{context.key_path}.{context.key}") if self.response_transformers else None
        )
        return transform(value) if transform else value

    def _names_of(self, context: AttributePickerContext) -> tuple[str, ...]:
        place = (type(context.obj), context.shape, context.key)
        names = self._names.get(place)
        if names is None:
            names = self._names[place] = tuple(dict.fromkeys(self.get_possible_keys(context)))
        return names

    def _transform_of(self, path: str) -> Transform | None:
        if path not in self._transforms:
            ends = (one for end, one in self.response_transformers.items() if path.endswith(end))
            self._transforms[path] = next(ends, None)
        return self._transforms[path]
