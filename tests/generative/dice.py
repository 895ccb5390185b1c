"""Uniform dice under Hypothesis: it draws a seed, and what is made of the seed is spread evenly over what there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from random import Random
from typing import Any, TypeVar

from hypothesis import strategies

T = TypeVar("T")


class Roll:
    """Something that can be drawn: a function of a `Draw`."""

    def __init__(self, make: Callable[[Draw], Any]) -> None:
        self.make = make


class Draw:
    """The dice of one case."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def __call__(self, roll: Roll) -> Any:
        return roll.make(self)


def from_seed(make: Callable[[Draw], T]) -> Callable[[], strategies.SearchStrategy[T]]:
    """A function of a `Draw` as a Hypothesis strategy."""

    @wraps(make)
    def strategy() -> strategies.SearchStrategy[T]:
        return strategies.integers(0, 2**48).map(lambda seed: make(Draw(seed)))

    return strategy


def sampled_from(values: Sequence[Any]) -> Roll:
    """One of the values."""
    return Roll(lambda draw: draw.random.choice(values))


def integers(low: int, high: int) -> Roll:
    """A whole number, both ends included."""
    return Roll(lambda draw: draw.random.randint(low, high))


def booleans() -> Roll:
    """True or false."""
    return sampled_from([True, False])


def just(value: Any) -> Roll:
    """This value."""
    return sampled_from([value])


def none() -> Roll:
    """None."""
    return just(None)


def one_of(*rolls: Roll) -> Roll:
    """One of the rolls, drawn."""
    return Roll(lambda draw: draw(draw.random.choice(rolls)))
