"""What more devices cost: the paper's formula by hand, and a measurement's parts in their order."""

import pytest

from experiments.benchmark import scaling
from experiments.benchmark.scaling import Interconnect, efficiency

LINKS = Interconnect(peak=100.0, fast=7.0, slow=3.0, latency=0.0)


def test_one_machine_uses_its_fast_links_alone():
    """compute 50 / (100 / 2) = 1 s; average 2 * 7/8 * 4 bytes / 7 = 1 s."""
    assert efficiency(LINKS, 8, 4.0, 50.0, 0.5, overlaps=False) == pytest.approx(1 / 2)
    assert efficiency(LINKS, 8, 4.0, 50.0, 0.5, overlaps=True) == pytest.approx(1 / (1 + 1 / 3))


def test_among_machines_each_device_sends_an_eighth():
    """Besides the second inside: 2 * 1/2 * (24 / 8) bytes / 3 = 1 s between 2 machines, for 24 bytes 6 s inside."""
    assert efficiency(LINKS, 16, 24.0, 50.0, 0.5, overlaps=False) == pytest.approx(1 / (1 + 6 + 1))


def test_messages_have_a_latency():
    """14 hops inside and 14 between 8 machines, of 0.1 s."""
    links = LINKS._replace(latency=0.1)
    assert efficiency(links, 64, 0.0, 50.0, 0.5, overlaps=False) == pytest.approx(1 / (1 + 2.8))


def test_shares_are_of_the_whole_step():
    row = scaling.lines({4: {"whole": 0.004, "alone": 0.003, "empty": 0.001}})[-1]
    assert row == "| 4 | 4.00 ms | 3.00 ms | 1.00 ms | 25% | 25% |"


@pytest.mark.slow
def test_a_measurement_has_all_parts():
    found = scaling.measure("tiny", 1)
    assert set(found) == {"whole", "alone", "empty"}
    assert 0 < found["empty"] < found["whole"]


@pytest.mark.parametrize("num_devices", [0, 4, 12])
def test_part_of_a_machine_is_refused(num_devices):
    with pytest.raises(ValueError, match="num_devices must be a positive multiple of 8"):
        efficiency(LINKS, num_devices, 1.0, 1.0, 0.5, overlaps=False)


@pytest.mark.slow
def test_published_networks_are_estimated():
    """DiT-B/2's 130 million parameters give 0.52 GB of gradients; more devices never help one of them."""
    rows = [line.split("|") for line in scaling.on_paper(scaling.Options())[2:]]
    sizes = {row[1].strip(): float(row[2].split()[0]) for row in rows}
    for name, millions in (("W4-B", 130), ("W4-L", 458), ("W4-XL", 675)):
        assert sizes[name] == pytest.approx(4 * millions / 1e3, rel=0.01)
    efficiencies = [int(row[4].strip().rstrip("%")) for row in rows]
    assert all(few >= many for few, many in zip(efficiencies[::2], efficiencies[1::2], strict=True))


def test_wrong_numbers_of_devices_are_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        scaling.main(["--devices", "0"])
    assert stopped.value.code == 2
    assert "devices" in capsys.readouterr().err
