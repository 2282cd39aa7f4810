"""MXNet's `*-symbol.json` and `*.params` in PyTorch, with no MXNet installed.

    from mxnet_files import load_symbol
    module = load_symbol("resnet50-symbol.json", "resnet50-0000.params")
    module(x)               # an ordinary torch.fx.GraphModule, in eval mode
    print(module.code)

Needs torch and numpy only. Parameters keep MXNet's names in `state_dict` (`names` says what happens
to names torch does not allow); `module.double()`, training, `torch.export` and TorchScript work.
Operators follow MXNet where torch's namesake differs; the differences live in `mx_nn`, `mx_shape`,
`mx_math`, `mx_loss` and `layers`, and generated code names them.

`python -m mxnet_files` converts from the command line.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

from mxnet_files.errors import SymbolError

if TYPE_CHECKING:
    from mxnet_files.load import import_symbol, load_symbol
    from mxnet_files.optimisation import freeze, optimise

__all__ = ["SymbolError", "freeze", "import_symbol", "load_symbol", "optimise"]

NO_TORCH = "torch is not installed: pip install -e '.[torch]'"

# `mxnet_files.reading` needs numpy alone: torch is imported with the first of these names.
_NEED_TORCH = {
    "freeze": "optimisation",
    "import_symbol": "load",
    "load_symbol": "load",
    "optimise": "optimisation",
}


def __getattr__(name: str) -> Any:
    if name in _NEED_TORCH:
        try:
            return getattr(import_module(f"mxnet_files.{_NEED_TORCH[name]}"), name)
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise ModuleNotFoundError(NO_TORCH, name="torch") from None
    if name == "__version__":
        return metadata.version("gluon-cnn-parity")
    raise AttributeError(f"module 'mxnet_files' has no attribute {name!r}")
