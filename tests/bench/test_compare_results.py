import pytest
from planted_results import record, result, results

from vtfast.bench.compare import compare


def change(new, old, peers=((1.0, 1.0),), **more):
    """Of vtfast from `old` to `new` seconds, beside peers given as (new, old)."""
    records = [
        record(*(result(f"peer {i}", pair[side]) for i, pair in enumerate(peers)), result("vtfast", seconds, **more))
        for side, seconds in enumerate((new, old))
    ]
    (found,), unknown = compare(*(results(entry) for entry in records))
    assert unknown == []
    return found


def test_twice_the_time_is_slower():
    assert change(2.0, 1.0).is_slower
    assert change(2.0, 1.0).is_worse
    assert change(1.0, 2.0).is_faster
    assert not change(1.0, 2.0).is_worse


def test_what_lies_within_the_noise_is_not():
    assert not change(1.02, 1.0).is_slower
    assert not change(1.2, 1.0, spread=0.3).is_slower
    assert change(1.4, 1.0, spread=0.3).is_slower


def test_a_machine_that_is_slower_itself_is_taken_out():
    slow = change(2.0, 1.0, peers=((2.0, 1.0), (2.02, 1.0), (1.98, 1.0)))
    assert slow.drift == pytest.approx(2.0)
    assert not slow.is_slower
    assert change(2.0, 1.0, peers=((1.0, 1.0), (1.01, 1.0), (0.99, 1.0))).is_slower


def test_memory_and_a_wrong_result_count_too():
    lean, fat = (results(record(result("vtfast", 1.0, peak_bytes=size))) for size in (10**8, 2 * 10**8))
    ((found,), _) = compare(fat, lean)
    assert (found.needs_more, found.is_slower, found.is_worse) == (True, False, True)
    ((found,), _) = compare(lean, fat)
    assert not found.is_worse
    ((found,), _) = compare(results(record(result("vtfast", 1.0, False))), lean)
    assert found.wrong
    assert found.is_worse


def test_only_the_same_work_under_the_same_allocator_is_compared():
    old = results(record(result("vtfast", 1.0)))
    for new in (
        results(record(result("vtfast", 9.0), mode="forward + backward")),
        results(record(result("vtfast", 9.0), threads=1)),
        results(record(result("vtfast", 9.0)), allocator="kept (libc)"),
    ):
        found, unknown = compare(new, old)
        assert found == []
        assert len(unknown) == 1
