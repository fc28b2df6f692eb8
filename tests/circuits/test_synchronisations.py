"""The host reads the device equally often however many layers a circuit spans (`tests/synchronisations.py`)."""

from __future__ import annotations

import pytest
import torch

from synchronisations import Machine


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("_local_scalar_dense", lambda x: x.sum().item()),
        ("_local_scalar_dense", lambda x: bool((x > 0).any())),
        ("cpu", lambda x: x.cpu()),
        ("to", lambda x: x.to("cpu")),
        ("tolist", lambda x: x.tolist()),
        ("nonzero", lambda x: x.nonzero()),
        ("index by a mask", lambda x: x[x > 0]),
        ("copy_", lambda x: torch.zeros(3).copy_(x)),
        ("_unique2", lambda x: x.unique()),
    ],
)
def test_a_read_of_the_device_is_counted_once_and_of_the_host_never(name, read):
    machine, host = Machine(), torch.arange(3.0)
    with machine:
        on_device = host.to(torch.device("cpu", 0))
        waits, _ = machine.during(lambda: read(on_device * 2))
        none, _ = machine.during(lambda: read(host * 2))
    assert [operation for operation, _ in waits.elements()] == [name] and not none


def test_what_follows_from_the_device_is_on_it_and_what_was_brought_back_is_not():
    machine, host = Machine(), torch.arange(3.0)
    with machine:
        on_device = host.to(torch.device("cpu", 0))
        made = torch.zeros(3, device=on_device.device)
        view, back = (made + on_device)[1:], on_device.cpu()
        assert [machine.has(x) for x in (host, on_device, made, view, back, back + host)] == [
            *(False, True, True, True),
            *(False, False),
        ]
        assert not machine.mixed
        _ = on_device + host
    assert sum(machine.mixed.values()) == 1
