"""MXNet's `*-symbol.json` and `*.params` in PyTorch, with no MXNet installed.

    from torch_ref.symbol import load_symbol
    module = load_symbol("resnet50-symbol.json", "resnet50-0000.params")
    module(x)               # an ordinary torch.fx.GraphModule, in eval mode
    print(module.code)

Needs torch and numpy only. Parameters keep MXNet's names in `state_dict` (`names` says what happens
to names torch does not allow); `module.double()`, training, `torch.export` and TorchScript work.
Operators follow MXNet where torch's namesake differs; the differences live in `mx_nn`, `mx_shape`,
`mx_math`, `mx_loss` and `layers`, and generated code names them.

`python -m torch_ref.symbol` converts from the command line.
"""

from torch_ref.symbol.errors import SymbolError
from torch_ref.symbol.load import import_symbol, load_symbol
from torch_ref.symbol.optimise import freeze, optimise

__all__ = ["SymbolError", "freeze", "import_symbol", "load_symbol", "optimise"]
