"""The watch over a long run goes on where a line of metrics.jsonl is damaged, and shows rates that fall."""

import numpy as np
import pytest

from experiments import journal, soak


@pytest.mark.parametrize("damaged", [b'{"st}\n', b"\xff\xfe\n", b"{\xff}\n", b'{"loss": 2.0}\n', b'{"step": 20, "lo'])
def test_a_damaged_line_is_passed_over(damaged, tmp_path):
    (tmp_path / journal.NAME).write_bytes(b'{"step": 10, "loss": 2.5}\n' + damaged)
    assert soak._last_step(tmp_path) == 10


def test_a_rate_that_falls_shows_between_the_thirds():
    seconds = 36.0 * np.arange(101)
    rates = soak._rates(seconds, np.where(seconds < 1800, 10 * seconds, 18_000 + 5 * (seconds - 1800)))
    np.testing.assert_allclose(rates[:33], 10)
    np.testing.assert_allclose(rates[-33:], 5)
