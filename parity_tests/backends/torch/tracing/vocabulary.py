"""Reads executed torch calls into the common vocabulary of operations."""

from __future__ import annotations

from parity_tests.backends.torch.tracing import array_readers as arrays
from parity_tests.backends.torch.tracing import draws, packed
from parity_tests.backends.torch.tracing import layer_readers as layers
from parity_tests.backends.torch.tracing.reading import Reader, fill, identity, plain, unknown
from parity_tests.pairing.graph import Operand
from parity_tests.pairing.vocabulary import Arguments, Emit, real


def read_torch(args: Arguments, emit: Emit) -> list[Operand]:
    """The outputs of one executed call, expressed in the common vocabulary."""
    kind = args.operation.kind
    name = kind.removesuffix("_") if not kind.startswith("_") else kind
    reader = _READERS.get(name)
    if reader is None or args.operation.opaque:
        return unknown(name, args, emit)
    outputs = reader(args, emit)
    return [outputs] if isinstance(outputs, Operand) else outputs


_READERS: dict[str, Reader] = {
    **fill(
        ("contiguous", "clone", "detach", "data", "identity", "alpha_identity", "requires_grad",
         "to_dense", "lift_fresh", "alias", "cpu", "cast_to_itself"),
        identity,
    ),
    **fill(
        ("to", "float", "double", "half", "long", "int", "bool", "type", "type_as", "_to_copy"),
        arrays.cast,
    ),
    **fill(("conv1d", "conv2d", "conv3d", "convolution"), layers.conv),
    **fill(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), layers.conv_transpose),
    "linear": layers.linear,
    "batch_norm": layers.batch_norm,
    "layer_norm": layers.norm("layer_norm"),
    "group_norm": layers.norm("group_norm", groups="num_groups"),
    "instance_norm": layers.norm("instance_norm"),
    **fill(("max_pool1d", "max_pool2d", "max_pool3d"), layers.pool("max_pool")),
    **fill(("avg_pool1d", "avg_pool2d", "avg_pool3d"), layers.pool("avg_pool")),
    **fill(("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"),
            layers.adaptive("avg_pool")),
    **fill(("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"),
            layers.adaptive("max_pool")),
    **fill(("add", "radd"), arrays.binary("add")),
    "sub": arrays.binary("sub"),
    "rsub": arrays.binary("rsub"),
    **fill(("mul", "rmul", "multiply"), arrays.binary("mul")),
    **fill(("div", "divide", "true_divide"), arrays.divide()),
    **fill(("floor_divide", "floordiv"), arrays.divide("floor")),
    "rfloordiv": arrays.divide("floor", "rdiv"),
    **fill(("remainder", "mod"), arrays.binary("mod")),
    "rdiv": arrays.binary("rdiv"),
    "pow": arrays.binary("pow"),
    "rpow": arrays.binary("rpow"),
    "maximum": arrays.binary("maximum"),
    "minimum": arrays.binary("minimum"),
    "neg": lambda a, e: e("mul", [("input", a.first)], a.shape, scalar=-1.0),
    "square": lambda a, e: e("mul", [("input", a.first), ("other", a.first)], a.shape),
    "sqrt": lambda a, e: e("pow", [("input", a.first)], a.shape, scalar=0.5),
    "rsqrt": lambda a, e: e("pow", [("input", a.first)], a.shape, scalar=-0.5),
    "reciprocal": lambda a, e: e("pow", [("input", a.first)], a.shape, scalar=-1.0),
    **{name: plain(name) for name in
       ("relu", "sigmoid", "tanh", "exp", "log", "abs", "erf", "sin", "cos", "softsign", "selu",
        "mish", "log1p", "expm1", "floor", "ceil", "round", "trunc", "sign")},
    "fix": plain("trunc"),
    "logsigmoid": plain("log_sigmoid"),
    "silu": plain("silu"),
    "hardswish": plain("hard_swish"),
    "hardsigmoid": lambda a, e: e(
        "hard_sigmoid", [("input", a.first)], a.shape, alpha=real(1 / 6), beta=0.5),
    "elu": plain("elu", alpha=1.0),
    "celu": plain("celu", alpha=1.0),
    "softplus": plain("softplus", beta=1.0),
    "leaky_relu": plain("leaky_relu", negative_slope=0.01),
    "gelu": layers.gelu,
    "prelu": layers.prelu,
    "relu6": lambda a, e: e("clip", [("input", a.first)], a.shape, min=0.0, max=6.0),
    "hardtanh": layers.clip("min_val", "max_val", (-1.0, 1.0)),
    "clamp": layers.clip("min", "max"),
    "clamp_min": layers.clip("min", "-"),
    "clamp_max": layers.clip("-", "max"),
    **fill(("view", "reshape", "flatten", "squeeze", "unsqueeze", "unflatten", "view_as",
             "reshape_as", "_unsafe_view"), plain("reshape")),
    **fill(("expand", "expand_as", "broadcast_to"), plain("expand")),
    "broadcast_tensors": arrays.broadcast_all,
    **fill(("repeat", "tile", "repeat_interleave"), arrays.copies),
    "permute": arrays.permute,
    **fill(("transpose", "swapaxes", "swapdims", "t", "T", "mT"), arrays.transpose),
    **fill(("cat", "concat", "concatenate"), arrays.concat),
    "stack": arrays.stack,
    **fill(("chunk", "split", "tensor_split", "split_with_sizes"), arrays.split()),
    "unbind": arrays.split(squeeze=True),
    **fill(("narrow", "select"), arrays.narrow),
    "getitem": arrays.getitem,
    "setitem": arrays.assign,
    **fill(("zeros_like", "zeros", "new_zeros"), arrays.constant(0.0)),
    **fill(("ones_like", "ones", "new_ones"), arrays.constant(1.0)),
    **fill(("full_like", "full", "new_full"), arrays.constant()),
    **fill(("where", "masked_fill"), arrays.where),
    **fill(("sort", "argsort", "topk"), arrays.sort),
    **fill(("index_select", "take"), arrays.take),
    **fill(("gather", "take_along_dim"), arrays.gather),
    "masked_select": arrays.masked_select,
    **fill(("flip", "fliplr", "flipud"), arrays.flip),
    "pad": arrays.pad,
    "mean": arrays.reduce("mean"),
    "sum": arrays.reduce("sum"),
    "prod": arrays.reduce("prod"),
    **fill(("norm", "vector_norm", "linalg_vector_norm"), arrays.norm),
    "amax": arrays.reduce("max"),
    "amin": arrays.reduce("min"),
    "max": arrays.extreme("max"),
    "min": arrays.extreme("min"),
    "argmax": arrays.reduce("argmax"),
    "argmin": arrays.reduce("argmin"),
    "softmax": layers.softmax("softmax"),
    "softmin": layers.softmax("softmin"),
    "log_softmax": layers.softmax("log_softmax"),
    "interpolate": layers.interpolate,
    "upsample": layers.interpolate,
    "dropout": layers.dropout(0),
    "feature_dropout": layers.dropout(2),
    **fill(("dropout1d", "dropout2d", "dropout3d"), layers.dropout(2)),
    "local_response_norm": layers.lrn,
    "embedding": layers.embedding,
    **fill(("matmul", "bmm", "mm"), arrays.matmul),
    **fill(("addmm", "baddbmm"), arrays.matmul_and_add),
    "_pack_padded_sequence": packed.pack,
    "_pad_packed_sequence": packed.pad,
    "normalize": layers.normalize,
    "pixel_shuffle": arrays.pixel_shuffle,
    "pixel_unshuffle": arrays.pixel_unshuffle,
    **fill(("channel_shuffle", "native_channel_shuffle"), arrays.channel_shuffle),
    "roll": arrays.roll,
    "cumsum": arrays.cumsum,
    **{name: layers.rnn(name.lower()) for name in
       ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell")},
    **draws.READERS,
}  # fmt: skip
