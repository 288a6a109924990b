"""``CUDA_VISIBLE_DEVICES``: which devices of a machine a program sees.

The rules are CUDA's, as far as they are written down, and otherwise those that PyTorch found by trying
(``torch.cuda._parse_visible_devices``): the kind of the first entry is the kind of all, what does not fit ends the
list, and a device that is named twice empties it.
https://docs.nvidia.com/cuda/cuda-c-programming-guide/index.html#cuda-environment-variables
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

NONE_VISIBLE = "CUDA_VISIBLE_DEVICES is empty"
NO_SUCH_DEVICE = "no such device"
NO_DEVICES = "no devices"

_NUMBER = re.compile(r"[+-]?[0-9]{1,9}")
_OLD_MIG = re.compile(r"MIG-(GPU-[^/]+)/([0-9]{1,9})/([0-9]{1,9})")

_Machine = Sequence[tuple[str, Sequence[str]]]


def visible(
    value: str | None, devices: _Machine, *, instances: Mapping[str, tuple[int, int]] | None = None
) -> list[str] | str:
    """UUIDs in the program's order, without repeats; a reason in words where it sees none.

    A GPU that is cut into MIG instances stands for its instances: a program computes on those, never on the whole.

    Args:
        value: the variable; None where it is not set.
        devices: every GPU of the machine in NVML's order: its UUID, and those of its MIG instances.
        instances: GPU instance and compute instance of a MIG UUID, for the old form ``MIG-GPU-<uuid>/1/0``.
    """
    if not devices:
        return NO_DEVICES
    if value is None:
        return _spread(devices)
    if not value.strip():
        return NONE_VISIBLE
    entries = [entry.strip() for entry in value.split(",")]
    find: Callable[[str], list[str]]
    if entries[0].startswith("GPU-"):
        find = _by_uuid(devices)
    elif entries[0].startswith("MIG-"):
        find = _by_instance(devices, instances or {})
    else:
        find = _by_number(devices)
    seen: list[str] = []
    for entry in entries:
        found = find(entry)
        if not found:
            break
        if any(uuid in seen for uuid in found):
            return NO_SUCH_DEVICE
        seen.extend(found)
    return seen or NO_SUCH_DEVICE


def sure_of_order(value: str | None, names: Sequence[str], order: str | None) -> bool:
    """Whether a number in the variable means the same device for CUDA as for NVML.

    NVML counts by PCI address, CUDA by speed unless ``CUDA_DEVICE_ORDER=PCI_BUS_ID``: the same where all are alike.

    Args:
        names: of every GPU of the machine.
        order: ``CUDA_DEVICE_ORDER``.
    """
    if value is None or order == "PCI_BUS_ID" or len(set(names)) < 2:
        return True
    return value.strip().startswith(("GPU-", "MIG-"))


def _spread(devices: _Machine) -> list[str]:
    every = [uuid for gpu, instances in devices for uuid in (instances or [gpu])]
    return list(dict.fromkeys(every))


def _by_number(devices: _Machine) -> Callable[[str], list[str]]:
    def find(entry: str) -> list[str]:
        # As strtoul: "1st" is 1, and "NoDevFiles" is no number at all.
        number = _NUMBER.match(entry)
        index = int(number[0]) if number else -1
        return _spread(devices[index : index + 1]) if index >= 0 else []

    return find


def _by_uuid(devices: _Machine) -> Callable[[str], list[str]]:
    def find(entry: str) -> list[str]:
        if not entry.startswith("GPU-"):
            return []
        fitting = [gpu for gpu in devices if _begins(gpu[0], entry)]
        return _spread(fitting) if len(fitting) == 1 else []

    return find


def _by_instance(devices: _Machine, places: Mapping[str, tuple[int, int]]) -> Callable[[str], list[str]]:
    def find(entry: str) -> list[str]:
        if not entry.startswith("MIG-"):
            return []
        pairs = [(gpu, uuid) for gpu, instances in devices for uuid in instances]
        exact = [uuid for _, uuid in pairs if uuid.lower() == entry.lower()]
        old = _OLD_MIG.fullmatch(entry)
        if exact:
            fitting = exact
        elif old:
            place = (int(old[2]), int(old[3]))
            fitting = [uuid for gpu, uuid in pairs if _begins(gpu, old[1]) and places.get(uuid) == place]
        else:
            fitting = [uuid for _, uuid in pairs if _begins(uuid, entry)]
        unique = list(dict.fromkeys(fitting))
        return unique if len(unique) == 1 else []

    return find


def _begins(uuid: str, entry: str) -> bool:
    return len(entry) > len("GPU-") and uuid.lower().startswith(entry.lower())
