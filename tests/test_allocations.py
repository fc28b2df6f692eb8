"""Every tensor that the library makes names its dtype and device, so that no process-wide default decides them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import tv_lens

ROOT = Path(tv_lens.__file__).parent
# Their dtype follows torch's default, or the numbers that they are given (an empty list becomes a float).
ANY_DTYPE = {"asarray", "as_tensor", "empty", "empty_strided", "eye", "full", "linspace", "logspace", "normal", "ones"}
ANY_DTYPE |= {"rand", "randn", "scalar_tensor", "tensor", "zeros", "kaiser_window", "hann_window", "hamming_window"}
# Whole numbers of 64 bits, unless they are asked for otherwise.
WHOLE = {"arange", "randint", "randperm", "range", "tril_indices", "triu_indices"}
LAYERS = {"Linear", "Embedding", "LayerNorm", "RMSNorm", "Conv1d", "Bilinear"}
TYPES = {"Tensor", "FloatTensor", "HalfTensor", "DoubleTensor", "BFloat16Tensor"}
SETTERS = {"set_default_dtype", "set_default_device", "set_default_tensor_type"}
# The one module that sets a default, to leave it as it was.
ALLOWED = {("torch_settings", "set_default_dtype")}


def nameless(tree: ast.AST) -> list[tuple[int, str]]:
    """Line and text of each call that leaves its dtype or its device to a default."""
    found = []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func).split(".")
        given, function = {keyword.arg for keyword in call.keywords}, name[-1]
        needed = set()
        if name[0] == "torch" and len(name) == 2:
            needed = {"dtype", "device"} if function in ANY_DTYPE else {"device"} if function in WHOLE else set()
            if function in WHOLE and any(
                isinstance(part, ast.Constant) and type(part.value) is float for part in call.args
            ):
                needed = {"dtype", "device"}
        elif "nn" in name[:-1] and function in LAYERS:
            needed = {"dtype", "device"}
        if needed - given or (name[0] == "torch" and function in TYPES | SETTERS):
            found.append((call.lineno, ast.unparse(call)))
    return found


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_allocation_names_its_dtype_and_device(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [one for one in nameless(tree) if (path.stem, one[1].split("(")[0].split(".")[-1]) not in ALLOWED]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "torch.zeros(3)",
        "torch.zeros(3, dtype=torch.long)",
        "torch.randn(2, generator=g, dtype=torch.float32)",
        "torch.tensor([1, 2], device='cpu')",
        "x + torch.arange(4)",
        "torch.arange(0.5, 2, device='cpu')",
        "torch.full((2,), 0.5, device=x.device)",
        "nn.Linear(2, 3)",
        "torch.nn.Linear(2, 3, device='cpu')",
        "torch.Tensor([1.0])",
        "torch.set_default_dtype(torch.float64)",
    ],
)
def test_the_rule_itself_can_say_no(code):
    assert len(nameless(ast.parse(code))) == 1


@pytest.mark.parametrize(
    "code",
    [
        "torch.zeros(3, dtype=x.dtype, device=x.device)",
        "torch.arange(3, device='cpu')",
        "torch.zeros_like(x)",
        "x.new_zeros(3)",
        "np.zeros(3)",
        "torch.from_numpy(array)",
    ],
)
def test_the_rule_itself_can_say_yes(code):
    assert nameless(ast.parse(code)) == []
