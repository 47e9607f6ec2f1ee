"""What hypothesis needs here: the same few examples at every run, and an answer that is sane or one sentence."""

from hypothesis import HealthCheck, settings


def few(examples):
    """So many examples, the same every time."""
    health = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    return settings(max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=health)


def answer(call):
    """What a call returns; None where it ends in a sentence."""
    try:
        return call()
    except ValueError as error:
        text = str(error)
        assert type(error) is ValueError, repr(error)
        assert text and len(text) < 400 and text.isprintable(), text
        return None
