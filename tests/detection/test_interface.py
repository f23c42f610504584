import numpy as np
import pytest

from metrics_pipeline.detection.interface import NO_EVENT, Calendar, Panel


def panel_of(values, **others):
    values = np.asarray(values, dtype=float)
    return Panel(values, np.arange(values.shape[1]) % 7, np.zeros(len(values), dtype=np.int64), **others)


def test_a_ratio_without_a_denominator_has_no_value():
    panel = panel_of([[1.0, 2.0, np.nan]], denominator=np.array([[4.0, 0.0, 5.0]]))
    assert np.array_equal(panel.value, [[0.25, np.nan, np.nan]], equal_nan=True)
    assert panel.history_length.tolist() == [1]


def test_arrays_of_another_shape_are_refused_by_name():
    with pytest.raises(ValueError, match="denominator has shape"):
        panel_of([[1.0, 2.0]], denominator=np.ones((1, 3)))


def test_an_empty_calendar_has_no_event_on_any_day():
    calendar = Calendar.empty(3, 5)
    assert (calendar.event == NO_EVENT).all()
    assert calendar.category.tolist() == [0, 0, 0]
