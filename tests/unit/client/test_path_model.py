from __future__ import annotations

from asyncbackup.client.path_model import PathModel


def model_with(*rates: tuple[float, float]) -> PathModel:
    model = PathModel()
    for at_s, rate in rates:
        model.note_rate(at_s, rate, 1.0, is_full=True)
    return model


def test_nothing_is_known_at_first() -> None:
    model = PathModel()

    assert (model.rate, model.latency_s, model.product(2)) == (0, None, 0)


def test_the_rate_is_the_best_of_the_window() -> None:
    assert model_with((0, 5), (0.5, 9), (1, 7)).rate == 9


def test_a_rate_that_is_too_old_gives_way_to_the_best_after_it() -> None:
    assert model_with((0, 9), (0.5, 7), (0.9, 5), (1.2, 6)).rate == 7


def test_a_round_that_is_not_full_does_not_lower_the_rate() -> None:
    model = model_with((0, 9))

    model.note_rate(5, 3, 1.0, is_full=False)

    assert model.rate == 9


def test_a_round_that_is_not_full_may_raise_the_rate() -> None:
    model = model_with((0, 9))

    model.note_rate(0.5, 10, 1.0, is_full=False)

    assert model.rate == 10


def test_the_latency_is_the_least() -> None:
    model = PathModel()
    for at_s, latency_s in enumerate([3.0, 2.0, 4.0, 2.0]):
        model.note_latency(at_s, latency_s, 100 * latency_s)

    assert (model.latency_s, model.latency_at_s, model.latency_load) == (2, 3, 200)


def test_a_path_holds_rate_times_latency() -> None:
    model = model_with((0, 100))
    model.note_latency(0, 0.5, 1)

    assert model.product(2) == 100


def test_the_usual_rate_follows_rounds_that_are_full() -> None:
    model = model_with((0, 8), (0.1, 16))

    model.note_rate(0.2, 100, 1.0, is_full=False)

    assert model.usual_rate == 9
