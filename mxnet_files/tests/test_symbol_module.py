"""The import is an ordinary module: its state, its training, its export, its code."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet.gluon import nn

from mxnet_files import SymbolError, import_symbol, load_symbol
from mxnet_files.checking.oracle import Oracle

S = mx.sym


def gluon_net() -> Any:
    net = nn.HybridSequential(prefix="net_")
    with net.name_scope():
        net.add(
            nn.Conv2D(6, 3, padding=1, use_bias=False),
            nn.BatchNorm(momentum=0.8),
            nn.Activation("relu"),
            nn.MaxPool2D(3, 2, ceil_mode=True),
            nn.Conv2D(6, 3, groups=2),
            nn.BatchNorm(scale=False),
            nn.ELU(0.5),
            nn.GlobalAvgPool2D(),
            nn.Dense(7, activation="tanh"),
            nn.Dense(4),
        )
    return net


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, np.ndarray]:
    """A folder with the exported files, the net, an input."""
    folder = tmp_path_factory.mktemp("exported")
    mx.random.seed(3)
    net = gluon_net()
    net.initialize(mx.init.Normal(0.3))
    net.hybridize()
    x = np.random.default_rng(0).normal(size=(4, 3, 9, 8)).astype(np.float32)
    net(mx.nd.array(x))
    for _ in range(3):  # BatchNorm's statistics move
        with mx.autograd.record():
            y = net(mx.nd.array(x))
        y.backward()
    net.export(str(folder / "net"))
    return folder, net, x


def load(folder: Path) -> torch.fx.GraphModule:
    return load_symbol(folder / "net-symbol.json", folder / "net-0000.params")


def test_same_outputs_and_names(exported: tuple[Path, Any, np.ndarray]) -> None:
    folder, net, x = exported
    module = load(folder)
    found = module(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(found, net(mx.nd.array(x)).asnumpy(), rtol=1e-5, atol=1e-6)
    parameters = net.collect_params()
    assert set(module.state_dict()) == set(parameters)
    for name, value in module.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), parameters[name].data().asnumpy())
    buffers = {name for name, _ in module.named_buffers()}
    assert buffers == {name for name in parameters if "running" in name}
    assert module.meta["mxnet_names"] == {name: name for name in parameters}


def test_only_what_is_trained_asks_for_gradients(exported: tuple[Path, Any, np.ndarray]) -> None:
    """scale=False is fix_gamma: that gamma has no influence, and no gradient."""
    module = load(exported[0])
    frozen = {name for name, value in module.named_parameters() if not value.requires_grad}
    assert frozen == {"net_batchnorm1_gamma"}


@pytest.fixture
def both(exported: tuple[Path, Any, np.ndarray]) -> tuple[torch.fx.GraphModule, str, dict, Any]:
    folder, _, x = exported
    module = load(folder).double()
    arrays = {name: value.detach().numpy().copy() for name, value in module.state_dict().items()}
    return module, (folder / "net-symbol.json").read_text(), arrays, x.astype(np.float64)


def test_gradients_and_running_statistics_agree(
    both: tuple[torch.fx.GraphModule, str, dict, Any],
) -> None:
    module, text, arrays, x = both
    oracle = Oracle(text, arrays, {"data": x}, backward=True)
    head = np.random.default_rng(1).normal(size=(4, 4))
    wanted = oracle.gradients([head])
    module.train()
    data = torch.tensor(x, requires_grad=True)
    module(data).backward(torch.tensor(head))
    assert data.grad is not None
    np.testing.assert_allclose(data.grad.numpy(), wanted["data"], rtol=1e-9, atol=1e-12)
    compared = 0
    for name, value in module.named_parameters():
        if value.requires_grad:
            assert value.grad is not None
            np.testing.assert_allclose(value.grad.numpy(), wanted[name], rtol=1e-9, atol=1e-12)
            compared += 1
        else:
            assert not wanted[name].any()
    assert compared == len(arrays) - 4 - 1
    for name, array in oracle.auxiliary().items():
        np.testing.assert_allclose(module.get_buffer(name).numpy(), array, rtol=1e-14)
        assert not np.array_equal(array, arrays[name])


def test_training_follows_mxnet(exported: tuple[Path, Any, np.ndarray]) -> None:
    """Ten steps of plain SGD on cross-entropy, float32."""
    folder, _, x = exported
    labels = np.array([0, 1, 2, 3])
    net = mx.gluon.SymbolBlock.imports(
        str(folder / "net-symbol.json"), ["data"], str(folder / "net-0000.params")
    )
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.2})
    loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    module = load(folder).train()
    trained = [value for value in module.parameters() if value.requires_grad]
    optimiser = torch.optim.SGD(trained, lr=0.2)
    curves: tuple[list[float], list[float]] = ([], [])
    for _ in range(10):
        with mx.autograd.record():
            value = loss(net(mx.nd.array(x)), mx.nd.array(labels))
        value.backward()
        trainer.step(4)
        curves[0].append(float(value.mean().asscalar()))
        optimiser.zero_grad()
        mean = torch.nn.functional.cross_entropy(
            module(torch.from_numpy(x)), torch.from_numpy(labels)
        )
        mean.backward()
        optimiser.step()
        curves[1].append(mean.item())
    np.testing.assert_allclose(curves[1], curves[0], rtol=2e-4)
    assert curves[0][-1] < 0.7 * curves[0][0]


def test_module_habits(exported: tuple[Path, Any, np.ndarray], tmp_path: Path) -> None:
    folder, _, x = exported
    module, data = load(folder), torch.from_numpy(x)
    assert not module.training
    expected = module(data)
    assert torch.equal(copy.deepcopy(module)(data), expected)
    torch.save(module.state_dict(), tmp_path / "x.pt")
    other = load(folder)
    with torch.no_grad():
        for value in other.parameters():
            value.zero_()
    other.load_state_dict(torch.load(tmp_path / "x.pt", weights_only=True))
    assert torch.equal(other(data), expected)
    doubled = copy.deepcopy(module).double()(data.double())
    assert doubled.dtype == torch.float64
    torch.testing.assert_close(doubled.float(), expected)
    code = module.code
    module.graph.lint()
    module.recompile()
    assert module.code == code


def test_code_reads_well(exported: tuple[Path, Any, np.ndarray]) -> None:
    """One line a node, MXNet's names, parameters where they are used."""
    module = load(exported[0])
    body = module.code.strip().splitlines()[1:]
    assert [line.split("=")[0].strip() for line in body[:-1]] == [
        "net_conv0_fwd", "net_batchnorm0_fwd", "net_relu0_fwd", "net_pool0_fwd", "net_conv1_fwd",
        "net_batchnorm1_fwd", "net_elu0_leakyrelu0", "net_pool1_fwd",
        "net_dense0_fwd_flat", "net_dense0_fwd", "net_dense0_tanh_fwd", "net_dense1_fwd",
    ]  # fmt: skip
    assert body[0].startswith("    net_conv0_fwd = torch.conv2d(data, self.net_conv0_weight, None,")
    assert body[-1] == "    return net_dense1_fwd"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_torchscript(exported: tuple[Path, Any, np.ndarray]) -> None:
    folder, _, x = exported
    module, data = load(folder), torch.from_numpy(x)
    expected = module(data)
    scripted = torch.jit.script(module)
    assert torch.equal(scripted(data), expected)
    assert torch.equal(scripted(data[:1]), module(data[:1]))
    assert torch.equal(torch.jit.trace(module, (data,))(data), expected)
    frozen = torch.jit.freeze(scripted)
    torch.testing.assert_close(frozen(data), expected)
    module.train()
    scripted = torch.jit.script(copy.deepcopy(module))
    torch.testing.assert_close(scripted(data), module(data))
    torch.testing.assert_close(
        scripted.state_dict()["net_batchnorm0_running_var"],
        module.state_dict()["net_batchnorm0_running_var"],
    )


def test_export(exported: tuple[Path, Any, np.ndarray]) -> None:
    folder, _, x = exported
    module, data = load(folder), torch.from_numpy(x)
    program = torch.export.export(
        module, (data,), dynamic_shapes={"data": {0: torch.export.Dim("n", min=1, max=64)}}
    )
    for size in (1, 2, 4):
        assert torch.equal(program.module()(data[:size]), module(data[:size]))
    module.train()
    program = torch.export.export(copy.deepcopy(module), (data,))
    trained = program.module()
    torch.testing.assert_close(trained(data), module(data))
    before = load(folder).state_dict()
    for name, value in module.named_buffers():
        assert torch.equal(dict(trained.named_buffers())[name], value)
        assert not torch.equal(before[name], value)


def scalar_graph() -> tuple[Any, dict[str, np.ndarray]]:
    x, y = S.var("left"), S.var("right")
    w = S.var("scale")
    return S.Group([S.broadcast_mul(x, w) - y, S.split(y, num_outputs=2)[1]]), {
        "scale": np.array([[2.0]], dtype=np.float32)
    }


def test_several_inputs_and_outputs() -> None:
    symbol, arrays = scalar_graph()
    module = import_symbol(json.loads(symbol.tojson()), arrays)
    left, right = torch.ones(1, 4), torch.arange(4.0).reshape(1, 4)
    first, second = module(left, right)
    assert first.tolist() == [[2, 1, 0, -1]]
    assert second.tolist() == [[2, 3]]
    turned = import_symbol(json.loads(symbol.tojson()), arrays, inputs=["right", "left"])
    assert torch.equal(turned(right, left)[0], first)
    assert module.meta["mxnet_inputs"] == {"left": "left", "right": "right"}


def test_inputs_named_by_the_caller() -> None:
    symbol, arrays = scalar_graph()
    document = json.loads(symbol.tojson())
    with pytest.raises(SymbolError, match=r"missing parameters \(1\): right"):
        import_symbol(document, arrays, inputs=["left"])
    with pytest.raises(SymbolError, match=r"inputs \['image'\] are no variables"):
        import_symbol(document, arrays, inputs=["image"])
    module = import_symbol(document, {}, inputs=["left", "right", "scale"])
    assert module(torch.ones(1, 4), torch.ones(1, 4), torch.ones(1, 1))[0].tolist() == [[0.0] * 4]


def test_missing_parameters_are_listed(exported: tuple[Path, Any, np.ndarray]) -> None:
    document = json.loads((exported[0] / "net-symbol.json").read_text())
    arrays = {
        f"arg:{name}": value.numpy() for name, value in load(exported[0]).state_dict().items()
    }
    del arrays["arg:net_conv1_bias"], arrays["arg:net_dense0_weight"]
    with pytest.raises(
        SymbolError, match=r"missing parameters \(2\): net_conv1_bias, net_dense0_w"
    ):
        import_symbol(document, arrays)
    with pytest.raises(SymbolError, match="hold other names, such as 'conv0_weight'"):
        import_symbol(document, {"conv0_weight": np.ones(3, dtype=np.float32)})
    with pytest.raises(SymbolError, match=r"saved by save_parameters \(they are called '0.weight'"):
        import_symbol(document, {"0.weight": np.ones(3, dtype=np.float32)})
    arrays["net_conv0_weight"] = arrays["arg:net_conv0_weight"]
    with pytest.raises(SymbolError, match="net_conv0_weight is in the parameters twice"):
        import_symbol(document, arrays)


def test_unused_arrays_are_named() -> None:
    symbol, arrays = scalar_graph()
    arrays["aux:left_over"] = np.ones(2, dtype=np.float32)
    with pytest.warns(UserWarning, match=r"arrays that the graph does not use \(1\): left_over"):
        import_symbol(json.loads(symbol.tojson()), arrays)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del arrays["aux:left_over"]
        import_symbol(json.loads(symbol.tojson()), arrays)


def test_shared_parameters_stay_shared() -> None:
    w = S.var("w_weight")
    x = S.FullyConnected(S.var("data"), w, num_hidden=3, no_bias=True, name="a")
    x = S.FullyConnected(x, w, num_hidden=3, no_bias=True, name="b")
    module = import_symbol(json.loads(x.tojson()), {"w_weight": np.eye(3, dtype=np.float32) * 2})
    y = module(torch.ones(1, 3))
    assert y.tolist() == [[4, 4, 4]]
    y.sum().backward()
    assert len(list(module.parameters())) == 1
    gradient = module.get_parameter("w_weight").grad
    assert gradient is not None
    assert float(gradient.sum()) == 2 * 3 * 3 * 2


def test_dtypes_of_parameters() -> None:
    symbol = S.broadcast_add(S.Cast(S.var("data"), dtype="float16"), S.var("shift"))
    for dtype in (np.float16, np.int32):
        array = np.ones((1, 2), dtype=dtype)
        module = import_symbol(json.loads(symbol.tojson()), {"shift": array})
        value = module.state_dict()["shift"]
        assert value.numpy().dtype == dtype
        assert bool(list(module.parameters())) == (dtype == np.float16)
    with pytest.raises(SymbolError, match="dtype <U1"):
        import_symbol(json.loads(symbol.tojson()), {"shift": np.array([["a", "b"]])})


def test_the_import_does_not_share_memory_with_the_arrays() -> None:
    symbol, arrays = scalar_graph()
    module = import_symbol(json.loads(symbol.tojson()), arrays)
    arrays["scale"][:] = 0
    assert float(module.state_dict()["scale"].sum()) == 2


def test_mxnet_reads_the_old_layout_the_same_way(tmp_path: Path) -> None:
    """An 0.8 file, written by hand, in MXNet and through the import."""
    nodes: list[dict[str, Any]] = []

    def add(op: str, name: str, *inputs: int, **param: str) -> int:
        nodes.append({
            "op": op, "param": param, "name": name, "inputs": [[i, 0] for i in inputs],
            "backward_source_id": -1, "attr": {"ctx_group": "dev", "lr_mult": "0.1"},
        })  # fmt: skip
        return len(nodes) - 1

    data = add("null", "data")
    conv = add("Convolution", "c", data, add("null", "c_weight"), add("null", "c_bias"),
               kernel="(3,3)", num_filter="4", pad="(1L,1L)", workspace="512")  # fmt: skip
    norm = add("BatchNorm", "bn", conv, add("null", "bn_gamma"), add("null", "bn_beta"),
               fix_gamma="False", eps="0.002")  # fmt: skip
    act = add("LeakyReLU", "leaky", norm, act_type="leaky", slope="0.25")
    pool = add("Pooling", "p", act, kernel="(2,2)", stride="(2,2)", pool_type="max")
    flat = add("Flatten", "flat", add("_Plus", "plus", pool, pool))
    scaled = add("_MulScalar", "scaled", flat, scalar="0.5")
    full = add("FullyConnected", "fc", scaled, add("null", "fc_weight"), add("null", "fc_bias"),
               num_hidden="5", no_bias="False")  # fmt: skip
    head = add("SoftmaxOutput", "softmax", full, add("null", "softmax_label"), grad_scale="1")
    order = [i for i, node in enumerate(nodes) if node["op"] == "null"]
    text = json.dumps({"nodes": nodes, "arg_nodes": order, "heads": [[head, 0]]})
    symbol = mx.sym.load_json(text)
    shapes, _, states = symbol.infer_shape(data=(2, 3, 6, 6))
    rng = np.random.default_rng(0)
    given = dict(zip(symbol.list_arguments(), shapes, strict=True)) | dict(
        zip(symbol.list_auxiliary_states(), states, strict=True)
    )
    arrays: dict[str, Any] = {
        name: np.asarray(rng.uniform(0.1, 0.3, size), np.float32) for name, size in given.items()
    }
    data_in = {name: arrays.pop(name) for name in ("data", "softmax_label")}
    (wanted,) = Oracle(text, arrays, data_in, "float32").forward()
    (tmp_path / "old-symbol.json").write_text(text)
    mx.nd.save(str(tmp_path / "old.params"), {
        ("aux:" if "moving" in name else "arg:") + name: mx.nd.array(value)
        for name, value in arrays.items()
    })  # fmt: skip
    module = load_symbol(tmp_path / "old-symbol.json", tmp_path / "old.params")
    found = module(torch.from_numpy(data_in["data"])).detach().numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-9)
    assert wanted.min() > 1e-5
