"""What the sections say, without drawing anything."""

from dataclasses import replace
from math import nan

import pytest
from planted_results import record, result, results

from vtfast.bench.results import Record, Results
from vtfast.report import all_ways, correctness, limits, machines, memory, predictions, roofline, scaling, speedups
from vtfast.report.curves import exponent
from vtfast.report.document import Picture, Section, Table, Text
from vtfast.report.sources import Machine

EVERY = (machines, speedups, roofline, limits, scaling, memory, correctness, all_ways)


def tables(section: Section) -> list[Table]:
    own = [part for part in section.parts if isinstance(part, Table)]
    return own + [table for inner in section.sections for table in tables(inner)]


def machine_of(*records: Record, **facts: object) -> Machine:
    return Machine("Planted", results(*records, **facts))


def test_what_is_missing_is_said_in_one_line() -> None:
    empty = Machine("Planted", Results())
    sections = [module.section(empty, "m") for module in EVERY]
    parts = [section.parts for section in sections]
    assert all(len(own) == 1 and isinstance(own[0], Text) for own in parts[2:])
    assert not any(isinstance(part, Picture) for own in parts for part in own)


class TestSpeedups:
    def test_what_differs_is_listed_and_gets_no_bar(self, machine):
        section = speedups.section(machine, "m")
        (refused,) = [table for table in tables(section) if table.caption.startswith("Refused")]
        assert [row[0].split(",")[0] for row in refused.rows[1:]] == ["rotary_embedding", "joint_attention"]
        assert "the result of vtfast differs from the reference by 5.0e-01" in refused.rows[1][1]
        assert "no peer has a result that is known to be right" in refused.rows[2][1]
        (picture, *_) = [part for part in section.parts if isinstance(part, Picture)]
        assert "0.50 to 2.00 times the best peer's speed" in picture.title

    def test_why(self):
        ours, theirs = result("vtfast", 1.0), result("eager", 2.0)
        assert speedups.refusals(record(ours, theirs)) == []
        assert speedups.refusals(record(ours)) == []
        assert speedups.refusals(record(replace(ours, agrees=None), theirs)) == [
            "the result of vtfast was not compared"
        ]
        spoilt = replace(theirs, agrees=False, errors=(0.1, nan))
        assert "NaN, infinities or another shape" in speedups.refusals(record(ours, spoilt))[0]

    def test_a_peer_that_is_wrong_is_named_beside_one_that_is_right(self):
        wrong = record(result("eager", 2.0, agrees=False), result("SDPA", 3.0), result("vtfast", 1.0))
        (reason,) = speedups.refusals(wrong)
        assert reason.startswith("the result of eager differs")

    def test_sizes_have_a_plot_of_their_own(self, machine):
        assert [inner.title for inner in speedups.section(machine, "m").sections] == ["window_attention, by size"]


class TestCurves:
    def test_exponent(self):
        assert exponent([(4, 3 * 4**1.5), (8, 3 * 8**1.5), (32, 3 * 32**1.5)]) == pytest.approx(1.5)

    def test_exponents_and_efficiency(self, machine):
        frames, threads = tables(scaling.section(machine, "m"))
        assert [(row[1], row[-1]) for row in frames.rows[1:]] == [("eager", "2.00"), ("vtfast", "1.00")]
        assert threads.rows[1][-3:] == ["-0.50", "2.00", "50%"]

    def test_a_wrong_result_is_no_point(self):
        points = [
            record(result("eager", 1.0), result("vtfast", 1.0, agrees=False), sweep="batch", at=at) for at in (1, 2)
        ]
        (table,) = tables(scaling.section(machine_of(*points), "m"))
        assert [row[1] for row in table.rows[1:]] == ["eager"]

    def test_models_with_other_options_are_other_curves(self):
        def points(options: str) -> list[Record]:
            clips = ((at, f"clip={at}x3x8x64x64{options}") for at in (1, 2))
            return [record(result("vtfast", float(at)), shape=shape, sweep="batch", at=at) for at, shape in clips]

        (table,) = tables(scaling.section(machine_of(*points(""), *points(",attention_type=joint")), "m"))
        titles = [row[0] for row in table.rows[1:]]
        assert titles == [
            "window_attention, float32, forward",
            "window_attention, float32, forward, attention_type=joint",
        ]


def test_errors(machine: Machine) -> None:
    (table,) = tables(correctness.section(machine, "m"))
    rows = {row[0]: row for row in table.rows[1:]}
    assert rows["rotary_embedding"][4:] == ["5.0e-01", "1.0e-06", "1.0e-06", "1 of 1 DIFFER"]
    assert rows["swin3d_t"][-1] == "all"


def test_machine_names_what_sdpa_chose(machine: Machine) -> None:
    (facts, ceilings) = tables(machines.section(machine, "m"))
    assert ["SDPA's backends", "flash_attention"] in facts.rows
    assert ["commit", "abc"] in facts.rows
    assert ceilings.rows[1][1:] == ["100", "10", "10"]


def test_predictions_say_what_they_are() -> None:
    from vtfast.plan.study import Row

    row = Row("swin3d_t", 8, 224, 8, "bfloat16", "h200", 2e-3, 6e-3, "memory", "products", 2.0**30, 2.0**31, True)
    section = predictions.section([row])
    assert "no GPU has run it" in section.parts[0].text
    (table,) = tables(section)
    assert "no GPU has run it" in table.caption
    assert table.rows[1] == ["8 frames", "h200", "2.00", "memory", "1.0", "6.00", "products", "2.0", "yes"]
