from dataclasses import replace

import pytest

from vtfast import ops
from vtfast.bench.measure import NotSupportedError
from vtfast.bench.request import EFFORTS
from vtfast.bench.selection import Selection
from vtfast.bench.shape_text import text_of
from vtfast.bench.subjects import find_subjects, op_names, subject_named
from vtfast.bench.subjects.models import DEFAULT, model_names
from vtfast.bench.sweeps import AXES, SWEEPS, sweep_requests
from vtfast.bench.worker import measure
from vtfast.models import list_models

# Front doors to others that are measured, and what is no operation.
NOT_MEASURED = {"divided_attention", "grid_attention", "pooled_grid", "TokenPool"}


def test_every_operation_and_model_can_be_measured():
    assert set(ops.__all__) - NOT_MEASURED <= set(op_names())
    assert set(model_names()) == set(list_models())
    for name in model_names():
        assert next(iter(subject_named(name).sizes.values())).model == name


@pytest.mark.requires_native
@pytest.mark.parametrize("name", op_names())
def test_every_way_of_an_operation_computes_the_reference(name, monkeypatch):
    """At a small size, in float32, without those that compile; and the record says what the work is."""
    for kind in EFFORTS:
        monkeypatch.setitem(EFFORTS, kind, replace(EFFORTS[kind], seconds=0.0, min_rounds=1, max_rounds=1))
    subject = subject_named(name)
    selection = Selection(shapes=[text_of(subject.small)], dtypes=["float32"], compile=False)
    for request in selection.requests(subject):
        try:
            record = measure(request)
        except NotSupportedError as error:
            pytest.skip(str(error))
        compared = [result for result in record.results if result.agrees is not None]
        assert [result.way for result in compared] == list(request.ways)
        assert all(result.agrees and result.timing for result in compared)
        assert record.flops is not None
        assert all(result.sdpa for result in compared if result.way.startswith("SDPA"))


class TestSelection:
    subject = subject_named("window_attention")

    def ways(self, **options):
        return [request.ways for request in Selection(**options).requests(self.subject)]

    def test_peers_that_compile_take_part_at_the_first_size(self):
        sizes = len(self.subject.sizes)
        assert ["compile" in ways for ways in self.ways()] == [True] * 4 + [False] * 4 * (sizes - 1)
        assert not any("compile" in ways for ways in self.ways(compile=False))
        assert not any("compile" in ways for ways in self.ways(quick=True))
        assert all(ways == ("compile", "vtfast") for ways in self.ways(peers=["compile"]))

    def test_own_sizes_dtypes_and_modes(self):
        selection = Selection(shapes=["grid=4x14x14", "num_heads=3"], dtypes=["float16"], modes=["forward"])
        requests = list(selection.requests(self.subject))
        assert [request.dtype for request in requests] == ["float16"] * 2
        assert [request.name for request in requests] == ["grid=4x14x14,num_heads=3", "stage 1"]

    def test_vtfast_alone(self):
        assert set(self.ways(peers=[])) == {("vtfast",)}

    def test_an_unknown_peer_is_refused(self):
        with pytest.raises(ValueError, match=r"--peers of window_attention must be among eager, SDPA.*got 'egaer'"):
            self.ways(peers=["egaer"])

    def test_patterns(self):
        found = find_subjects(["*_attention", "pool_*"], op_names(), "--op")
        assert {"time_attention", "pool_qkv"} <= {subject.name for subject in found}
        with pytest.raises(ValueError, match=r"--op must match one of .*window_attention.*got 'window'"):
            find_subjects(["window"], op_names(), "--op")


class TestSweeps:
    def test_every_axis_has_an_operation_or_a_model(self):
        assert {sweep.axis for sweep in SWEEPS} == set(AXES)
        for axis in AXES:
            points = list(sweep_requests(Selection(threads=2), [axis], [], []))
            assert len({(point.subject, point.at) for point in points}) == len(points) > 2
            assert all(point.sweep == axis and point.case().name for point in points)

    def test_threads_go_by_powers_of_two_to_all(self):
        points = list(sweep_requests(Selection(threads=2), ["threads"], ["window_attention"], []))
        assert [point.threads for point in points][:2] == [1, 2]

    def test_the_size_is_what_the_point_says(self):
        points = list(sweep_requests(Selection(), ["frames", "batch"], [], ["swin3d_s"]))
        assert [point.shape for point in points] == [
            "clip=1x3x8x224x224", "clip=1x3x16x224x224", "clip=1x3x32x224x224",
            "clip=1x3x32x224x224", "clip=2x3x32x224x224", "clip=4x3x32x224x224",
        ]  # fmt: skip

    def test_default_models_come_first(self):
        assert tuple(model_names()[: len(DEFAULT)]) == DEFAULT
