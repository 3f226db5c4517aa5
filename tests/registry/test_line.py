"""The line of champions: which links count, whatever was made at once, deleted or rolled back."""

import shutil

import pytest
from crowned import champions, crown
from hypothesis import given
from hypothesis import strategies as st
from promoting import promote_at_once, require_one_chain

from emseg.registry.champions import Link, read_line, standing_links, valid_links
from emseg.registry.register import register_record
from emseg.tracking.delivery import RECORD_TAG
from emseg.tracking.store import connect


def link(number, against, restores=0):
    """A link that copies version 10 times its number."""
    return Link(number, 10 * number, against, restores)


LINES = {
    "none": ([], [], []),
    "one": ([link(1, 0)], [1], [1]),
    "in order": ([link(1, 0), link(2, 1), link(3, 2)], [1, 2, 3], [1, 2, 3]),
    "two at once": ([link(1, 0), link(2, 1), link(3, 1), link(4, 2)], [1, 2, 4], [1, 2, 4]),
    "two first ones at once": ([link(1, 0), link(2, 0)], [1], [1]),
    "a void one is judged again": ([link(1, 0), link(2, 1), link(3, 1), link(4, 2), link(5, 3)], [1, 2, 4], [1, 2, 4]),
    "the first was deleted": ([link(2, 1), link(3, 2)], [2, 3], [2, 3]),
    "one between was deleted": ([link(1, 0), link(3, 2)], [1, 3], [1, 3]),
    "two between were deleted": ([link(1, 0), link(4, 3)], [1, 4], [1, 4]),
    "the last was deleted": ([link(1, 0), link(2, 1)], [1, 2], [1, 2]),
    "all but a void one were deleted": ([link(3, 1)], [3], [3]),
    "deleted beside a void one": ([link(1, 0), link(3, 1), link(4, 2)], [1, 4], [1, 4]),
    "the first was deleted beside a void one": ([link(2, 0), link(3, 1)], [3], [3]),
    "rolled back": ([link(1, 0), link(2, 1), link(3, 2, restores=1)], [1, 2, 3], [3]),
    "rolled back twice": (
        [link(1, 0), link(2, 1), link(3, 2), link(4, 3, restores=2), link(5, 4, restores=1)],
        [1, 2, 3, 4, 5],
        [5],
    ),
    "rolled back, then another": (
        [link(1, 0), link(2, 1), link(3, 2), link(4, 3, restores=2), link(5, 4)],
        [1, 2, 3, 4, 5],
        [1, 4, 5],
    ),
    "a rollback and a promotion at once": (
        [link(1, 0), link(2, 1), link(3, 2, restores=1), link(4, 2)],
        [1, 2, 3],
        [3],
    ),
    "a promotion and a rollback at once": (
        [link(1, 0), link(2, 1), link(3, 2), link(4, 2, restores=1)],
        [1, 2, 3],
        [1, 2, 3],
    ),
    "a rollback was deleted": ([link(1, 0), link(2, 1), link(4, 3)], [1, 2, 4], [1, 2, 4]),
    "what a rollback went back to was deleted": ([link(2, 1), link(3, 2, restores=1)], [2, 3], [3]),
}


@pytest.mark.parametrize("case", LINES)
def test_the_champion_is_the_last_link_that_counts(case):
    links, valid, standing = LINES[case]
    found = valid_links(reversed(links))
    assert [each.number for each in found] == valid
    assert [each.number for each in standing_links(found)] == standing


@st.composite
def lines(draw):
    """Links as they may be after anything: made at once, rolled back, deleted, or nonsense."""
    numbers = draw(st.lists(st.integers(1, 12), unique=True, max_size=12))
    return [link(n, draw(st.integers(0, n - 1)), draw(st.one_of(st.just(0), st.integers(0, n - 1)))) for n in numbers]


@given(lines())
def test_the_walk_agrees_with_the_definition(links):
    numbers = {each.number: each for each in links}

    def counts(number):
        against = numbers[number].judged_against
        counted = [n for n in numbers if n < number and counts(n)]
        gone = [other.judged_against for other in links if other.judged_against not in numbers]
        return against == max(n for n in (0, *counted, *gone) if n < number)

    valid = valid_links(links)
    assert [each.number for each in valid] == sorted(n for n in numbers if counts(n))
    # What stands has a place that nothing later went back to, or behind.
    stands = [one for one in valid if all(one.place < other.place for other in valid if other.number > one.number)]
    assert standing_links(valid) == stands
    assert (standing_links(valid)[-1:] or [None])[0] == (valid[-1:] or [None])[0]


def with_versions(store, evaluated, count):
    """A task of so many versions; all but the first have its files."""
    register_record(store, evaluated())
    first = store.get_model_version("cortex", "1")
    for number in range(2, count + 1):
        tags = first.tags | {RECORD_TAG: f"record-{number}"}
        store.create_model_version("cortex", first.source, run_id=first.run_id, tags=tags)


def test_promotions_at_once_with_some_killed_make_one_chain_and_block_nobody(
    store, evaluated, tiny_params, tmp_path, monkeypatch
):
    with_versions(store, evaluated, 4)
    crown(store, 1)
    # Of a database that this process has no connection to, which its children would share.
    shutil.copy(tmp_path / "mlflow.db", tmp_path / "line.db")
    uri = f"sqlite:///{tmp_path / 'line.db'}"
    counts = promote_at_once(uri, [2, 3, 4, 1], processes=4, each=3, killed=0.5, seed=1)
    assert None in counts
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client = connect()
    valid, _ = require_one_chain(client, "cortex")
    # Of those that were killed any number may be there.
    promoted = sum(count or 0 for count in counts)
    assert promoted <= valid - 1 <= promoted + 3 * counts.count(None)
    before = champions(client)
    crown(client, 2)
    assert champions(client) == [*before, 2]


def test_whoever_finds_that_another_was_first_is_told(store, evaluated, monkeypatch):
    from emseg.registry import champions as module
    from emseg.registry.champions import add_link
    from emseg.registry.versions import find_version

    with_versions(store, evaluated, 3)
    line = read_line(store, "cortex")
    first, second = (find_version(store, number) for number in "12")
    assert add_link(store, first, line, "promoted", "first")
    assert not add_link(store, second, line, "promoted", "first too")
    assert len(read_line(store, "cortex").found) == 1
    # Another one was added between the last look and the write.
    looks = iter([line])
    monkeypatch.setattr(module, "read_line", lambda *arguments: next(looks, None) or read_line(*arguments))
    assert not add_link(store, second, line, "promoted", "at once")
    assert champions(store) == [1]
    assert add_link(store, second, read_line(store, "cortex"), "promoted", "judged again")
    assert champions(store) == [1, 2]
    assert require_one_chain(store, "cortex") == (2, 1)
