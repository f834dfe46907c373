"""Untrusted pickles: nothing in them runs, and every refusal names the file."""

import builtins
import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from datasets.errors import UserError
from datasets.unpickle import PLAIN, TENSORS, Skipped, load, load_torch, loads

CONTENT = {"a": [1, 2.5, "x", None, True], ("k", 3): OrderedDict([("b", {1, 2})]), "n": np.float64(0.25)}


class Calls:
    """Pickles to a call of ``function`` with ``arguments``."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def hostile(marker):
    """Objects that would create ``marker`` if anything in their pickles ran, and the global that does it."""
    touch = f"touch {marker}"
    code = f"open({str(marker)!r}, 'w')"
    nested = [OrderedDict(a=[{"b": (1, Calls(os.system, touch))}])]
    return {
        "posix.system": Calls(os.system, touch),
        "builtins.eval": Calls(builtins.eval, code),
        "builtins.exec": Calls(builtins.exec, code),
        "builtins.getattr": Calls(builtins.getattr, Calls(__import__, "os"), "system"),
        "nested posix.system": nested,
    }


@pytest.mark.parametrize("kind", sorted(hostile("")))
@pytest.mark.parametrize("form", ["pickle", "zip", "legacy"])
def test_code_never_runs(kind, form, tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "bad.pth"
    attack = hostile(marker)[kind]
    if form == "pickle":
        path.write_bytes(pickle.dumps(attack))
    else:
        torch.save(attack, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(UserError, match=rf"bad\.pth: refused \w+\.{kind.split('.')[-1]}, .*download"):
        load_torch(path, {**PLAIN, **TENSORS}) if form != "pickle" else loads(path.read_bytes(), PLAIN, str(path))
    assert not marker.exists()
    pickle.loads(pickle.dumps(Calls(os.system, f"touch {marker}")))
    assert marker.exists(), "the attack itself does not work, so this test proves nothing"


def test_protocol_4_attribute_path_is_refused():
    data = b"\x80\x04\x8c\x08datasets\x8c\x0funpickle.re.sub\x93."
    with pytest.raises(UserError, match=r"datasets\.unpickle\.re\.sub"):
        loads(data, PLAIN, "f.pkl")


@pytest.mark.parametrize("name", [*PLAIN, *TENSORS])
@pytest.mark.parametrize("slots", [False, True])
@pytest.mark.parametrize("attribute", ["new", "__defaults__", "__call__", "__class__"])
def test_instance_state_cannot_change_what_a_later_file_means(name, slots, attribute):
    """BUILD may set attributes of an admitted global; the admitted ones must not be changed by it."""
    admitted = {**PLAIN, **TENSORS}
    known, before = admitted[name], getattr(admitted[name], attribute, None)
    module, _, function = name.rpartition(".")
    state = b"}X" + struct.pack("<I", len(attribute)) + attribute.encode() + b"K\x01\x85s"
    build = b"N" + state + b"\x86b." if slots else state + b"b."
    with pytest.raises(UserError, match="damaged"):
        loads(b"\x80\x02c" + f"{module}\n{function}\n".encode() + build, admitted, "f.pkl")
    assert getattr(known, attribute, None) == before
    assert not hasattr(known, "new")


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
def test_plain_content_comes_back(protocol):
    assert loads(pickle.dumps(CONTENT, protocol), PLAIN, "f.pkl") == CONTENT


@pytest.mark.parametrize("code", ["b1", "i1", "i8", "u2", "f2", "f4", "f8"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_numpy_numbers_become_python_numbers(code, protocol):
    value = np.array([1.0], code)[0]
    back = loads(pickle.dumps(value, protocol), PLAIN, "f.pkl")
    assert back == value.item()
    assert type(back) is type(value.item())


def test_numpy_numbers_of_the_other_byte_order():
    data = pickle.dumps(np.float64(1.5), 4)
    swapped = data.replace(b"\x8c\x01<", b"\x8c\x01>").replace(struct.pack("<d", 1.5), struct.pack(">d", 1.5))
    assert swapped != data
    assert loads(swapped, PLAIN, "f.pkl") == 1.5


@pytest.mark.parametrize("value", [np.datetime64("2020-01-01"), np.array(["a"])[0].astype("S1"), np.void(b"ab")])
def test_other_numpy_scalars_are_refused(value):
    with pytest.raises(UserError, match=r"f\.pkl: damaged"):
        loads(pickle.dumps(value), PLAIN, "f.pkl")


def test_arrays_are_skipped():
    assert isinstance(loads(pickle.dumps(np.arange(3), 4), PLAIN, "f"), Skipped)


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files(tmp_path, legacy):
    weights = OrderedDict(conv=torch.ones(3, 4), half=torch.ones(2).half(), steps=torch.tensor(7))
    path = tmp_path / "x.pth"
    torch.save({**CONTENT, "net": weights}, path, _use_new_zipfile_serialization=not legacy)
    read = load_torch(path, {**PLAIN, **TENSORS})
    assert {name: value for name, value in read.items() if name != "net"} == CONTENT
    assert list(read["net"]) == ["conv", "half", "steps"]
    assert all(isinstance(tensor, Skipped) for tensor in read["net"].values())
    without_tensors = {**CONTENT, "n": 0.25}
    torch.save(without_tensors, path, _use_new_zipfile_serialization=not legacy)
    assert load_torch(path, PLAIN) == torch.load(path, weights_only=True)


def test_tensors_need_to_be_admitted(tmp_path):
    path = tmp_path / "x.pth"
    torch.save(torch.ones(2), path)
    with pytest.raises(UserError, match=r"x\.pth: refused torch\._utils\._rebuild_tensor_v2"):
        load_torch(path, PLAIN)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.3, 0.6])
def test_truncated_torch_files(tmp_path, legacy, kept):
    path = tmp_path / "x.pth"
    torch.save({i: f"text {i}" for i in range(1000)}, path, _use_new_zipfile_serialization=not legacy)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(UserError, match=r"x\.pth: .*download it again"):
        load_torch(path, PLAIN)


def test_damaged_zip_content(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({i: f"text {i}" for i in range(1000)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(b"text 500")] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"x\.pth: damaged.*CRC"):
        load_torch(path, PLAIN)


@pytest.mark.parametrize("name", ["x/other.pkl", "x/data.pkl"])
def test_zip_that_is_no_torch_file(tmp_path, name):
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, b"0" * 100)
    with pytest.raises(UserError, match="not a torch file"):
        load_torch(path, PLAIN)


def test_other_pickle_is_no_torch_file(tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(pickle.dumps(5))
    with pytest.raises(UserError, match="magic number"):
        load_torch(path, PLAIN)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04",
        pickle.dumps(CONTENT)[:-9],
        b"\x80\x7f.",
        b"hello, world",
        b"\x80\x04B" + struct.pack("<I", 1 << 31) + b"x.",
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"x.",
        b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"x.",
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 62) + b"x.",
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 50) + b"N.",
        b"\x80\x02}]K\x01s.",
        b"\x80\x02K\x01)R.",
        b"\x80\x02h\x07.",
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00xX\x03\x00\x00\x00bz2\x86R.",
    ],
)
def test_damage_and_length_bombs(data):
    with pytest.raises(UserError, match=r"f\.pkl: damaged, or not a pickle"):
        loads(data, PLAIN, "f.pkl")


def test_load_stops_at_the_end_of_one_pickle():
    file = io.BytesIO(pickle.dumps("first") + pickle.dumps("second"))
    assert [load(file, {}, "f"), load(file, {}, "f")] == ["first", "second"]


def test_deep_nesting_is_no_crash():
    depth = 100_000
    nested = loads(b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b".", PLAIN, "f")
    assert isinstance(nested, list)
