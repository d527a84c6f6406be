import pytest

from mlaas.router.limits.headers import encode_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, b"0s"),
        (0.0004, b"0s"),
        (0.059, b"59ms"),
        (1.0, b"1s"),
        (1.5, b"1.5s"),
        (59.9996, b"1m0s"),
        (60.05, b"1m0.05s"),
        (360.0, b"6m0s"),
    ],
)
def test_a_duration_is_written_as_openai_does(seconds: float, text: bytes) -> None:
    assert encode_duration(seconds) == text
