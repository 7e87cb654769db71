"""The plain and the compiled form of what fills frozen objects are the same."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, replace
from importlib import import_module
from importlib.util import find_spec

import pytest

from endwell.rooms import Position, Publication, Receipt, records

FORMS = [records]
if find_spec("endwell.rooms._records"):
    FORMS.append(import_module("endwell.rooms._records"))


@pytest.fixture(params=FORMS, ids=lambda form: form.__name__)
def form(request):
    return request.param


@dataclass(frozen=True, slots=True)
class Pair:
    one: object
    two: object


def test_the_fields_of_an_object_are_set(form):
    pair, members = object.__new__(Pair), form.members_of(Pair)
    form.fill(pair, members, ([1], "two"))
    form.fill(pair, members, ([1], 2))
    assert pair == Pair([1], 2)
    with pytest.raises(FrozenInstanceError):
        pair.one = 1


def test_what_does_not_fit_raises(form):
    members = form.members_of(Pair)
    with pytest.raises(ValueError, match=r"argument|fields"):
        form.fill(Pair(1, 2), members, (1,))
    with pytest.raises(TypeError, match="doesn't apply"):
        form.fill(Position("epoch", 1), members, (1, 2))
    with pytest.raises((TypeError, AttributeError)):
        form.fill(Pair(1, 2), ("one", "two"), (1, 2))


@pytest.mark.parametrize(
    "record",
    [Position("epoch", 1), Publication(1, "x"), Receipt(Position("epoch", 1), 2, 3, (4,), 5, (6,))],
    ids=lambda record: type(record).__name__,
)
def test_what_each_publication_makes_is_a_frozen_dataclass(record):
    other = replace(record)
    assert (other, hash(other), repr(other)) == (record, hash(record), repr(record))
    name = type(record).__slots__[0]
    assert replace(record, **{name: "another"}) != record
    with pytest.raises(FrozenInstanceError):
        setattr(record, name, "another")
