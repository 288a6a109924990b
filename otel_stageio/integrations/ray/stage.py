"""What a pipeline on Ray is made of: its stages, in an order that is worked out once."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ...layout import canonical
from ...pipeline.pipeline import command_words

#: Options of a Ray task that are ours to set: a retry is a new attempt, which the driver begins.
_OURS = frozenset({"max_calls", "name", "num_returns", "retry_exceptions", "max_retries"})


class RayStage:
    """One stage of a pipeline, as a Ray task.

    Args:
        name: of the stage.
        what: a function, which gets the open :class:`~otel_stageio.StageIO` and the job's parameters as keyword
            arguments, as far as it has them; or a program and its arguments. In a program's words ``{job}`` is the job
            directory, and ``{name}`` the job's parameter of that name.
        after: the stages that have to have succeeded before; by default the one that is listed before.
        max_retries: how often it is run again after its worker or its node has died.
        retry_exceptions: run it again, as often, when it has failed as well.
        timeout: of a program, in seconds.
        inputs, outputs, code: of a program, as for :meth:`Pipeline.command`; ``{job}`` counts here too.
        **options: of the Ray task, as ``ray.remote`` has them: ``num_cpus``, ``num_gpus``, ``resources``, ``memory``,
            ``runtime_env``, ``scheduling_strategy``, ….

    Raises:
        TypeError, ValueError: for something that is neither, and for what only a program or only the driver has.

    Example:
        >>> RayStage("asr", ["python", "asr.py", "--job-dir", "{job}"], num_gpus=1, max_retries=2).name
        'asr'
    """

    def __init__(
        self,
        name: str,
        what: Callable[..., Any] | Sequence[str | os.PathLike[str]],
        *,
        after: Sequence[str] | None = None,
        max_retries: int = 0,
        retry_exceptions: bool = False,
        timeout: float | None = None,
        inputs: Sequence[str | os.PathLike[str]] = (),
        outputs: Sequence[str | os.PathLike[str]] = (),
        code: Any = None,
        **options: Any,
    ) -> None:
        self.name: str = canonical(name)
        self.function: Callable[..., Any] | None = what if callable(what) else None
        self._takes = () if self.function is None else _parameters_of(self.function)
        self.words: list[str] = [] if callable(what) else command_words(what)
        if isinstance(after, str):
            raise TypeError(f"after is a list of stages, not {after!r}")
        self.after: tuple[str, ...] | None = None if after is None else tuple(canonical(stage) for stage in after)
        if max_retries < 0:
            raise ValueError(
                f"max_retries must not be negative, not {max_retries!r}; Ray's -1, for ever, is not offered"
            )
        if timeout is not None and timeout <= 0:
            raise ValueError(f"timeout must be positive, not {timeout!r}")
        if self.function is not None:
            _check_function(self.name, self.function)
            if timeout is not None or inputs or outputs or code is not None:
                raise ValueError(
                    f"{name}: timeout, inputs, outputs and code are a program's; a function tracks its own"
                )
        if wrong := sorted(_OURS & options.keys()):
            raise ValueError(f"{name}: {', '.join(wrong)} cannot be given; the driver begins each attempt itself")
        self.max_retries = max_retries
        self.retry_exceptions = retry_exceptions
        self.timeout = timeout
        self.inputs: list[str] = [os.fspath(path) for path in inputs]
        self.outputs: list[str] = [os.fspath(path) for path in outputs]
        self.code = code
        self.options = options

    def arguments(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Those of a job's parameters that the function takes."""
        if self._takes is None:
            return dict(params)
        return {name: params[name] for name in self._takes if name in params}


def _parameters_of(function: Callable[..., Any]) -> tuple[str, ...] | None:
    """Names of what a function takes beside the stage; None if it takes any."""
    takes = list(inspect.signature(function).parameters.values())[1:]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes):
        return None
    return tuple(parameter.name for parameter in takes)


def _check_function(name: str, function: Callable[..., Any]) -> None:
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise TypeError(f"{name}: a Ray task is a plain function, not a coroutine or generator; call those inside it")


def check_params(stages: Iterable[RayStage], job: str, params: Mapping[str, Any]) -> None:
    """
    Raises:
        ValueError: for a parameter that no stage takes, and one that a function needs and the job does not have.
    """
    taken: set[str] = set()
    for stage in stages:
        if stage.function is None:
            words = [*stage.words, *stage.inputs, *stage.outputs]
            taken.update(name for name in params if any(f"{{{name}}}" in word for word in words))
            continue
        arguments = stage.arguments(params)
        taken.update(arguments)
        try:
            inspect.signature(stage.function).bind(None, **arguments)
        except TypeError as error:
            raise ValueError(f"the function of stage {stage.name} cannot be called for {job}: {error}") from None
    if unknown := sorted(params.keys() - taken):
        raise ValueError(
            f"no stage takes {unknown[0]!r}, a parameter of {job}; a program's words need {{{unknown[0]}}}"
        )


def filled_in(word: str, job: str, params: Mapping[str, Any]) -> str:
    """``{job}/audio.wav`` -> ``out/film/audio.wav``. Other braces stay."""
    for key, value in {**params, "job": job}.items():
        word = word.replace(f"{{{key}}}", str(value))
    return word


def in_order(stages: Sequence[RayStage]) -> dict[str, tuple[str, ...]]:
    """Stage -> the stages that come before it, in an order in which they can run.

    Raises:
        ValueError: for a stage that is there twice, one that nobody has named, and a circle.
    """
    if not stages:
        raise ValueError("a pipeline has at least one stage")
    before: dict[str, tuple[str, ...]] = {}
    last: tuple[str, ...] = ()
    for stage in stages:
        if not isinstance(stage, RayStage):
            raise TypeError(f"a stage is a RayStage(name, function or program), not {stage!r}")
        if stage.name in before:
            raise ValueError(f"there are two stages {stage.name!r}")
        before[stage.name] = last if stage.after is None else stage.after
        last = (stage.name,)
    for name, needed in before.items():
        if unknown := [each for each in needed if each not in before]:
            raise ValueError(f"{name} comes after {unknown[0]!r}, which is no stage of this pipeline")
    ordered: dict[str, tuple[str, ...]] = {}
    while len(ordered) < len(before):
        free = [name for name, needed in before.items() if name not in ordered and ordered.keys() >= set(needed)]
        if not free:
            circle = ", ".join(name for name in before if name not in ordered)
            raise ValueError(f"these stages wait for each other: {circle}")
        ordered.update({name: before[name] for name in free})
    return ordered
