"""Slices of an allocation, worked by hand: what a run needs, where it lies, what waits for it."""

import itertools
from random import Random

import pytest

from bnnlib.errors import ExperimentError
from bnnlib.launch.slices import Forecast, Need, Room, Slice, forecast, in_order, need_of


def of(ranks: int, slots: int = 4, nodes: int = 0) -> Need:
    return need_of(ranks, nodes, slots, shared=True)


@pytest.mark.parametrize(
    ("ranks", "nodes", "shared", "need"),
    [
        (1, 0, True, Need(1, 1, 1, True)),
        (3, 0, True, Need(3, 1, 3, True)),
        (4, 0, True, Need(4, 1, 4, False)),  # a whole node
        (5, 0, True, Need(5, 2, 3, False)),  # evenly, as a job of its own has it
        (8, 2, True, Need(8, 2, 4, False)),
        (1, 0, False, Need(1, 1, 1, False)),  # aprun shares no node
    ],
)
def test_a_run_needs_places_of_a_node_or_whole_nodes(ranks, nodes, shared, need):
    assert need_of(ranks, nodes, 4, shared) == need


def test_slices_lie_side_by_side_and_never_overlap():
    room = Room(nodes=2, slots=4)
    assert room.take(of(3)) == Slice((0,), (0, 1, 2))
    assert room.take(of(2)) == Slice((1,), (0, 1))
    # The fullest node that has room.
    assert room.take(of(1)) == Slice((0,), (3,))
    assert room.take(of(4)) is None
    room.give(Slice((0,), (0, 1, 2)))
    assert room.take(of(4)) is None  # one place of the node is another's
    room.give(Slice((0,), (3,)))
    assert room.take(of(4)) == Slice((0,), ())
    assert room.take(of(2)) == Slice((1,), (2, 3))
    assert room.take(of(1)) is None


def test_whole_nodes_need_not_be_neighbours():
    room = Room(nodes=3, slots=4)
    first, second = room.take(of(4)), room.take(of(4))
    assert (first, second) == (Slice((0,), ()), Slice((1,), ()))
    room.give(first)
    assert room.take(of(8)) == Slice((0, 2), ())


def test_a_run_that_the_whole_job_cannot_hold_is_refused():
    room = Room(nodes=2, slots=4)
    for need in (of(1), of(8), of(8, nodes=2)):
        room.refuse("runs/g/a", need)
    with pytest.raises(ExperimentError) as refused:
        room.refuse("runs/g/a", of(9))
    assert str(refused.value) == (
        "runs/g/a: its 9 ranks need 3 node(s) with 3 ranks each, and the job has 2 node(s) with 4 "
        "each; give the job more, or the run a job of its own"
    )


def test_the_largest_runs_are_tried_first_and_equal_ones_in_the_files_order():
    needs = [of(1), of(8), of(3), of(1), of(4), of(8)]
    assert in_order(needs) == [1, 5, 4, 2, 0, 3]


def test_a_study_of_180_runs_on_ten_nodes():
    made = forecast([of(1)] * 180, [1800] * 180, Room(10, 4))
    # 40 at once: 4 waves of 40 and one of 20.
    assert made == Forecast(at_once=40, waves=5, seconds=9000)


def test_the_original_studys_node_counts_fill_128_nodes():
    needs = [of(nodes, slots=1, nodes=nodes) for nodes in (1, 2, 4, 8, 16, 32, 64, 128)]
    # 128 first; the others are 127 together.
    assert forecast(needs, [60] * 8, Room(128, 1)) == Forecast(at_once=7, waves=2, seconds=120)


def test_runs_of_several_lengths():
    room = Room(1, 2)
    # Two places: 5 beside 1, 1, then 4 beside what is left of 5.
    assert forecast([of(1, 2)] * 4, [5, 1, 1, 4], room) == Forecast(2, 3, 6)
    assert forecast([], [], room) == Forecast(0, 0, 0)
    assert room.take(of(2, 2)) is not None  # empty again


def test_a_large_run_does_not_wait_for_ever_behind_small_ones():
    """In whatever order the file has them, the two of eight ranks come first."""
    for sizes in set(itertools.permutations([8, 8, 4, 3, 2, 1, 1])):
        made = forecast([of(size) for size in sizes], [10 * size for size in sizes], Room(2, 4))
        # Then 4 beside 3 and 1; the other 1 follows the first, and 2 follows 3.
        assert made.seconds == 80 + 80 + 30 + 20, sizes


def test_no_place_is_given_twice():
    random = Random(0)
    room, held = Room(3, 4), list[Slice]()
    for _ in range(2000):
        if held and random.random() < 0.5:
            room.give(held.pop(random.randrange(len(held))))
        elif (place := room.take(of(random.choice([1, 1, 2, 3, 4, 8])))) is not None:
            held.append(place)
        places = [
            (node, slot) for one in held for node in one.nodes for slot in one.slots or range(4)
        ]
        assert len(places) == len(set(places))
