"""``@stage``: a function as a stage."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from .stage_io import StageIO

P = ParamSpec("P")
R = TypeVar("R")


class Decorator(Protocol):
    """Takes away the first argument: who calls the function does not give it the stage."""

    def __call__(self, function: Callable[Concatenate[StageIO, P], R], /) -> Callable[P, R]: ...


def stage(
    name: str,
    output_base: str | os.PathLike[str] | None = None,
    enable_manifest: bool = True,
    *,
    attributes: Mapping[str, Any] | None = None,
    capture_logging: bool | None = None,
) -> Decorator:
    """Make each call of a function one stage. The function gets the :class:`StageIO` as its first argument.

    Works for plain and ``async`` functions. The other arguments are those of :class:`StageIO`.

    Raises:
        TypeError: for a generator function: its body runs after the call has returned, so there is nothing to time.

    Example:
        >>> @stage("alignment", output_base=job)
        ... def align(io, language):
        ...     return io.save_json({"language": language}, "alignment.json")
        >>> align("en").name
        'alignment.json'
    """

    def open_stage() -> StageIO:
        return StageIO(name, output_base, enable_manifest, attributes=attributes, capture_logging=capture_logging)

    def decorate(function: Callable[Concatenate[StageIO, P], R], /) -> Callable[P, R]:
        if not callable(function):
            raise TypeError("@stage needs the stage's name: @stage('asr')")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"@stage cannot wrap the generator {function.__qualname__}(): its body runs after the call has"
                " returned; use `with StageIO(...)` inside it"
            )
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def call_async(*args: Any, **kwargs: Any) -> Any:
                with open_stage() as io:
                    return await function(io, *args, **kwargs)

            return call_async  # type: ignore[return-value]

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with open_stage() as io:
                return function(io, *args, **kwargs)

        return call

    if callable(name):
        raise TypeError("@stage needs the stage's name: @stage('asr')")
    return decorate
