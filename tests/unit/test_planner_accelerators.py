"""The catalogue of accelerators has consistent names, labels and MIG slices, and plausible numbers."""

import re

import pytest

from rft_planner.accelerators import ACCELERATORS, AMD, DEFAULT, NVIDIA, Device, resource_of
from rft_planner.sizes import GIB

WHOLE = [name for name in ACCELERATORS if "-mig-" not in name]
SLICES = [name for name in ACCELERATORS if "-mig-" in name]


def nominal(name: str) -> float:
    """Return the memory size in bytes that the name of a device states. A gigabyte counts as 10**9 bytes."""
    found = re.search(r"(\d+)gb$", name)
    assert found is not None, name
    return float(found[1]) * 1e9


@pytest.mark.parametrize("name", ACCELERATORS)
def test_the_visible_memory_is_near_the_size_in_the_name(name: str) -> None:
    # A gigabyte in a name has 2**30 or 10**9 bytes. Error correction and firmware use up to a tenth of the
    # memory.
    memory = ACCELERATORS[name].memory
    assert 0.9 * nominal(name) < memory < nominal(name) * GIB / 1e9


@pytest.mark.parametrize("name", ACCELERATORS)
def test_a_device_computes_many_operations_per_byte_that_it_reads(name: str) -> None:
    """The number of bfloat16 operations for each byte that a device reads from memory is plausible.

    In the catalogue it is 37 (H20, which is slowed down for export) to 419 (L40S).
    """
    device = ACCELERATORS[name]
    assert 30 < device.bf16_flops / device.bandwidth < 600


@pytest.mark.parametrize("name", ACCELERATORS)
def test_a_device_receives_less_from_other_devices_than_it_reads_from_its_memory(name: str) -> None:
    """The ratio of the two rates, memory to link, is plausible.

    In the catalogue it is 7 (H100) to 75 (H200 NVL).
    """
    device = ACCELERATORS[name]
    assert 5 < device.bandwidth / device.link < 100


@pytest.mark.parametrize("name", SLICES)
def test_a_slice_has_less_of_everything_than_its_device(name: str) -> None:
    slice_, profile = ACCELERATORS[name], name.split("-mig-")[1]
    whole = ACCELERATORS[name.split("-mig-")[0]]
    assert slice_.resource == f"nvidia.com/mig-{profile}"
    assert slice_.memory < whole.memory
    assert slice_.bandwidth < whole.bandwidth
    # Up to a seventh of the processors is not used when a device is divided into slices.
    sevenths = int(profile[0]) / 7
    assert 0.8 * sevenths < slice_.bf16_flops / whole.bf16_flops < 1.1 * sevenths


def test_each_label_value_belongs_to_a_single_device() -> None:
    labels = [label for device in ACCELERATORS.values() for label in device.products]
    assert len(labels) == len(set(labels))
    # The format of label values in Kubernetes.
    assert all(re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", label) for label in labels)


@pytest.mark.parametrize("name", WHOLE)
def test_labels_and_resources_are_of_the_same_manufacturer(name: str) -> None:
    device = ACCELERATORS[name]
    assert device.resource == (AMD if name.startswith("amd-") else NVIDIA)
    maker = "AMD" if device.resource == AMD else ("NVIDIA", "Tesla")
    assert all(label.startswith(maker) for label in device.products)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Tesla-T4", "nvidia-t4-16gb"),
        ("NVIDIA-A10G", "nvidia-a10g-24gb"),
        ("NVIDIA-A100-SXM4-80GB", "nvidia-a100-80gb"),
        ("NVIDIA-A100-80GB-PCIe", "nvidia-a100-80gb"),
        ("NVIDIA-H100-80GB-HBM3", "nvidia-h100-80gb"),
        ("NVIDIA-H100-PCIe", "nvidia-h100-pcie-80gb"),
        ("AMD_Instinct_MI300X_OAM", "amd-mi300x-192gb"),
    ],
)
def test_the_labels_of_common_nodes_are_known(label: str, name: str) -> None:
    assert [found for found, device in ACCELERATORS.items() if label in device.products] == [name]


def test_the_default_is_a_device_with_labels() -> None:
    assert isinstance(ACCELERATORS[DEFAULT], Device)
    assert ACCELERATORS[DEFAULT].products
    assert resource_of(None) == ACCELERATORS[DEFAULT].resource


def test_a_newer_generation_is_faster() -> None:
    order = ["nvidia-t4-16gb", "nvidia-a10-24gb", "nvidia-a100-80gb", "nvidia-h100-80gb", "nvidia-b200-180gb"]
    devices = [ACCELERATORS[name] for name in order]
    assert [device.bf16_flops for device in devices] == sorted(device.bf16_flops for device in devices)
    assert [device.bandwidth for device in devices] == sorted(device.bandwidth for device in devices)
