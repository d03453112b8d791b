"""A pretended second device: its tensors compute on the CPU and refuse to meet the CPU's own in one operation.

Inside `second_device()` the device "meta" is that device: `tensor.to(DEVICE)` and `device=DEVICE` make tensors that hold
real values. As on a real one, host tensors of no dimension may take part, and so may host tensors as indices into a
device tensor only where torch itself copies them; here they may not, since each of them is a hidden copy.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

DEVICE = torch.device("meta")


class DeviceTensor(Tensor):
    """A tensor on the pretended device; `inner` holds its values."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "DeviceTensor":
        strided = inner.layout == torch.strided
        where = {"strides": inner.stride(), "storage_offset": inner.storage_offset()} if strided else {}
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.shape, dtype=inner.dtype, layout=inner.layout, device=DEVICE, **where
        )
        made.inner = inner
        return made

    # Asked below the reach of dispatch, where a wrapper has no CSR layout.
    @property
    def layout(self) -> torch.layout:  # type: ignore[override]
        return self.inner.layout

    def to_dense(self) -> Tensor:  # type: ignore[override]
        return DeviceTensor(self.inner.to_dense())

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError("can't convert a device tensor to numpy: use force=True.")
        return self.detach().cpu().numpy()

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def __repr__(self, **_: Any) -> str:
        return f"DeviceTensor({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    leaves, spec = tree_flatten((args, kwargs))
    on_device = [leaf for leaf in leaves if isinstance(leaf, DeviceTensor)]
    host = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, DeviceTensor)]
    assert not any(tensor.is_meta for tensor in host), "A tensor without values: it was made past the modes."
    asked = kwargs.get("device")
    crossing = func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_)
    if on_device and any(tensor.ndim for tensor in host) and not crossing:
        raise RuntimeError(f"{func} mixes devices: {[tuple(t.shape) for t in host]} on the host.")
    goes = bool(on_device) if asked is None else asked == DEVICE
    if func.overloadpacket is torch.ops.aten.copy_:
        goes = isinstance(args[0], DeviceTensor)
    if asked is not None:
        leaves = [torch.device("cpu") if leaf == DEVICE and isinstance(leaf, torch.device) else leaf for leaf in leaves]
    known = {id(leaf.inner): leaf for leaf in on_device}
    inner_args, inner_kwargs = tree_unflatten([x.inner if isinstance(x, DeviceTensor) else x for x in leaves], spec)
    found = func(*inner_args, **inner_kwargs)

    def wrapped(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if not goes:
            return value
        return known[id(value)] if id(value) in known else DeviceTensor(value)

    return tree_map(wrapped, found)


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class _Constructors(TorchFunctionMode):
    """`torch.tensor` and `new_tensor` make their result below the reach of a dispatch mode: here it is moved."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.tensor and torch.device(kwargs.get("device") or "cpu") == DEVICE:
            return func(*args, **kwargs | {"device": "cpu"}).to(DEVICE)
        if func is Tensor.new_tensor and args[0].device == DEVICE and "device" not in kwargs:
            return torch.tensor(args[1], dtype=args[0].dtype, **kwargs).to(DEVICE)
        return func(*args, **kwargs)


@contextmanager
def second_device() -> Iterator[None]:
    with _Mode(), _Constructors():
        yield
