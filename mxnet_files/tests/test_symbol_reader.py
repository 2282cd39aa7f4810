"""Symbol files of every age, and damaged or hostile ones."""

from __future__ import annotations

import builtins
import copy
import dataclasses
import json
import keyword
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mxnet_files import SymbolError, import_symbol, load_symbol
from mxnet_files.reading.attributes import Attributes, boolean, double, integer, real, shape
from mxnet_files.reading.names import PathNames, identifier
from mxnet_files.reading.reader import read_graph, read_symbol
from mxnet_files.registry import OPERATORS, Wiring


def variable(name: str, **extra: Any) -> dict[str, Any]:
    return {"op": "null", "name": name, "inputs": [], **extra}


def dense(key: str = "attrs", **attributes: str) -> dict[str, Any]:
    """data·weightᵀ + bias, then relu; attributes under `key`."""
    return {
        "nodes": [
            variable("data"),
            variable("fc_weight"),
            variable("fc_bias"),
            {
                "op": "FullyConnected",
                "name": "fc",
                "inputs": [[0, 0, 0], [1, 0, 0], [2, 0, 0]],
                key: {"num_hidden": "2", **attributes},
            },
            {"op": "Activation", "name": "act", "inputs": [[3, 0, 0]], key: {"act_type": "relu"}},
        ],
        "arg_nodes": [0, 1, 2],
        "node_row_ptr": [0, 1, 2, 3, 4, 5],
        "heads": [[4, 0, 0]],
        "attrs": {"mxnet_version": ["int", 10901]},
    }


ARRAYS = {
    "arg:fc_weight": np.array([[1, 2, 3], [-1, 0, 1]], dtype=np.float32),
    "arg:fc_bias": np.array([0.5, -0.5], dtype=np.float32),
}
ONE = torch.ones(1, 3)


@pytest.mark.parametrize("key", ["param", "attr", "attrs"])
def test_attributes_of_every_age(key: str) -> None:
    document = dense(key)
    if key != "attrs":
        del document["attrs"]
        document["heads"] = [[4, 0]]
    assert import_symbol(document, ARRAYS)(ONE).tolist() == [[6.5, 0.0]]


def test_the_oldest_layout() -> None:
    """0.8: param beside the user's own attr, two-part entries, backward_source_id, no version."""
    document = dense("param")
    del document["attrs"], document["node_row_ptr"]
    for node in document["nodes"]:
        node["attr"] = {"ctx_group": "stage1", "weight_lr_mult": "1.2", "mood": "angry"}
        node["backward_source_id"] = -1
        node["inputs"] = [entry[:2] for entry in node["inputs"]]
    document["heads"] = [[4, 0]]
    assert import_symbol(document, ARRAYS)(ONE).tolist() == [[6.5, 0.0]]


def test_auxiliary_states_that_old_files_do_not_list() -> None:
    document = {
        "nodes": [
            variable("data"),
            variable("bn_gamma"),
            variable("bn_beta"),
            {"op": "BatchNorm", "name": "bn", "param": {}, "inputs": [[0, 0], [1, 0], [2, 0]]},
        ],
        "arg_nodes": [0, 1, 2],
        "heads": [[3, 0]],
    }
    arrays = {
        "arg:bn_gamma": np.full(3, 9, dtype=np.float32),  # ignored: fix_gamma is the default
        "arg:bn_beta": np.ones(3, dtype=np.float32),
        "aux:bn_moving_mean": np.full(3, 0.25, dtype=np.float32),
        "aux:bn_moving_var": np.full(3, 4, dtype=np.float32),
    }
    module = import_symbol(document, arrays)
    expected = (1 - 0.25) / np.sqrt(4 + 1e-3) + 1
    torch.testing.assert_close(module(ONE), torch.full((1, 3), expected, dtype=torch.float32))
    assert set(module.state_dict()) == {key[4:] for key in arrays}
    assert {name for name, _ in module.named_buffers()} == {"bn_moving_mean", "bn_moving_var"}
    newer = {**document, "attrs": {"mxnet_version": ["int", 901]}}
    with pytest.raises(SymbolError, match=r"'bn' \(BatchNorm\): 3 inputs, expected 5"):
        import_symbol(newer, arrays)


@pytest.mark.parametrize(("version", "shape"), [(904, (1,)), (905, (2,))])
def test_argmax_before_0_9_5(version: int, shape: tuple[int, ...]) -> None:
    """axis=-1 was the default and meant the whole array."""
    document = {
        "nodes": [
            variable("data"),
            {"op": "argmax", "name": "top", "attr": {"axis": "-1"}, "inputs": [[0, 0, 0]]},
        ],
        "arg_nodes": [0],
        "heads": [[1, 0, 0]],
        "attrs": {"mxnet_version": ["int", version]},
    }
    found = import_symbol(document, {})(torch.tensor([[1.0, 2.0], [4.0, 3.0]]))
    assert tuple(found.shape) == shape
    assert found.dtype == torch.float32


def test_attribute_words() -> None:
    assert [shape(t) for t in ("(2, 3)", "[2,3]", "(3L,)", "()", "[]", "7", "None")] == [
        (2, 3), (2, 3), (3,), (), (), (7,), (),
    ]  # fmt: skip
    assert shape("(None, -1)") == (None, -1)
    assert [boolean(t) for t in ("True", "1", "false", "0")] == [True, True, False, False]
    assert integer("-12L") == -12
    assert real("0.1") == float(np.float32(0.1)) != 0.1
    assert double("0.1") == 0.1
    for kind, text in (
        (shape, "(2, 3"), (shape, "(2;3)"), (shape, "(1.5,)"), (shape, "()" * 9), (integer, "1e3"),
        (integer, "9" * 20), (boolean, "yes"), (double, "1_0"), (double, "eps"),
        (shape, "__import__('os')"), (double, "9" * 100), (shape, "(" + "1," * 5000 + ")"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"\w"):
            kind(text)


def edit(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    document = copy.deepcopy(dense())
    change(document)
    return document


DAMAGED: dict[str, tuple[Any, str]] = {
    "not_an_object": ([1, 2], "expected an object with 'nodes' and 'heads'"),
    "no_heads": (edit(lambda d: d.pop("heads")), "expected an object"),
    "empty_heads": (edit(lambda d: d.update(heads=[])), "no output"),
    "no_nodes": (edit(lambda d: d.update(nodes=[])), "no nodes"),
    "nodes_not_a_list": (edit(lambda d: d.update(nodes={})), "expected a list"),
    "node_not_an_object": (edit(lambda d: d["nodes"].insert(0, 3)), "node 0: 3"),
    "nameless": (edit(lambda d: d["nodes"][3].pop("name")), "name must be a string"),
    "long_name": (edit(lambda d: d["nodes"][3].update(name="x" * 2000)), "at most 1024"),
    "number_as_op": (edit(lambda d: d["nodes"][3].update(op=7)), "op must be a string"),
    "cycle": (edit(lambda d: d["nodes"][3].update(inputs=[[4, 0, 0]] * 3)), "does not come before"),
    "itself": (edit(lambda d: d["nodes"][3].update(inputs=[[3, 0, 0]] * 3)), "not come before"),
    "out_of_range": (edit(lambda d: d.update(heads=[[99, 0, 0]])), "node 99"),
    "negative": (edit(lambda d: d.update(heads=[[-1, 0, 0]])), r"\[-1, 0, 0\]"),
    "boolean_index": (edit(lambda d: d.update(heads=[[True, 0, 0]])), "True"),
    "float_index": (edit(lambda d: d.update(heads=[[4.0, 0, 0]])), "4.0"),
    "no_such_output": (edit(lambda d: d.update(heads=[[4, 1, 0]])), "output 1"),
    "variable_output": (edit(lambda d: d.update(heads=[[0, 1, 0]])), "output 1"),
    "short_entry": (edit(lambda d: d.update(heads=[[4]])), r"\[4\]"),
    "variable_with_inputs": (edit(lambda d: d["nodes"][1].update(inputs=[[0, 0]])), "variable"),
    "arg_nodes": (edit(lambda d: d.update(arg_nodes=[3])), "arg_nodes"),
    "attributes_not_strings": (edit(lambda d: d["nodes"][3].update(attrs={"a": 1})), "strings"),
    "attributes_not_a_map": (edit(lambda d: d["nodes"][3].update(attrs=[])), "strings"),
    "version": (edit(lambda d: d.update(attrs={"mxnet_version": "new"})), "mxnet_version"),
    "missing_attribute": (edit(lambda d: d["nodes"][3].pop("attrs")), "num_hidden is missing"),
    "bad_attribute": (
        edit(lambda d: d["nodes"][3]["attrs"].update(num_hidden="two")),
        r"'fc' \(FullyConnected\): attribute num_hidden='two', expected an integer",
    ),
    "unknown_attribute": (
        edit(lambda d: d["nodes"][3]["attrs"].update(turbo="1")),
        "unknown attribute turbo",
    ),
    "huge_attribute": (
        edit(lambda d: d["nodes"][3]["attrs"].update(num_hidden="1" * 70_000)),
        "at most 65536 characters",
    ),
    "too_few_inputs": (
        edit(lambda d: d["nodes"][3].update(inputs=[[0, 0, 0]])),
        "1 inputs, expected 3",
    ),
    "wrong_shape": (
        edit(lambda d: d["nodes"][3]["attrs"].update(num_hidden="5")),
        r"weight has shape \(2, 3\), the attributes say \(5, any\)",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damage_is_told_in_one_line(case: str) -> None:
    document, message = DAMAGED[case]
    with pytest.raises(SymbolError, match=message) as caught:
        import_symbol(document, ARRAYS)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_files_that_are_no_json(tmp_path: Path) -> None:
    path = tmp_path / "x-symbol.json"
    whole = json.dumps(dense())
    for text in ("", "{", whole[:200], "[" * 100_000, "\x00", '{"nodes": NaN'):
        path.write_text(text)
        with pytest.raises(SymbolError, match=r"x-symbol\.json"):
            read_symbol(path)
    path.write_bytes(b"\xff\xfe" + whole.encode("utf-16-le"))
    with pytest.raises(SymbolError, match="not the JSON"):
        read_symbol(path)
    with pytest.raises(SymbolError, match="regular file"):
        read_symbol(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_symbol(tmp_path / "none.json")


def test_huge_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x-symbol.json"
    path.write_text(json.dumps(dense()))
    monkeypatch.setattr("mxnet_files.reading.reader.LARGEST_FILE", 100)
    with pytest.raises(SymbolError, match="no symbol file is so large"):
        read_symbol(path)
    monkeypatch.setattr("mxnet_files.reading.reader.MOST_NODES", 4)
    with pytest.raises(SymbolError, match="at most 4"):
        read_graph(dense())


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    text = json.dumps(dense())
    path = tmp_path / "x-symbol.json"
    for end in range(0, len(text) - 1, 7):
        path.write_text(text[:end])
        with pytest.raises(SymbolError):
            read_symbol(path)


ATTACKS = [
    '"); open("owned", "w") #',
    "data\n    open('owned', 'w')",
    "__import__('os').system('touch owned')",
    "lambda",
    "self",
    "__class__",
    "forward",
    "_modules",
    "training",
    "é\u200bdata",
    "torch",
    "operator",
    "typing_Union",
    "torch_ref_symbol_mx_nn_pool",
    "len",
    "a b; import os",
    "0start",
    "..",
    "",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_names_never_become_code(
    attack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a name may stand anywhere: the module computes the same, and nothing else happens."""
    monkeypatch.chdir(tmp_path)
    for place in range(5):
        document = dense()
        document["nodes"][place]["name"] = attack
        arrays = dict(ARRAYS)
        if place in (1, 2):
            arrays[f"arg:{attack}"] = arrays.pop(("arg:fc_weight", "arg:fc_bias")[place - 1])
        module = import_symbol(document, arrays)
        assert module(ONE).tolist() == [[6.5, 0.0]]
        assert module.eval().training is False
        assert not (tmp_path / "owned").exists()
        if set(attack) & set("\"'();#. \n"):
            assert attack not in module.code
        names = set(module.meta["mxnet_names"].values())
        assert names == {key[4:] for key in arrays}
        fresh = import_symbol(document, arrays)
        fresh.load_state_dict(module.state_dict())


def test_nothing_is_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    """No string of the file reaches eval; torch.fx compiles only the code that it generated."""
    compiled: list[str] = []
    genuine = builtins.compile

    def spy(source: Any, *args: Any, **kwargs: Any) -> Any:
        compiled.append(str(source))
        return genuine(source, *args, **kwargs)

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("eval was called")

    monkeypatch.setattr(builtins, "compile", spy)
    monkeypatch.setattr(builtins, "eval", refuse)
    document = dense()
    document["nodes"][3]["attrs"]["__note__"] = "__import__('os').abort()"
    import_symbol(document, ARRAYS)
    assert not any("abort" in source for source in compiled)


def test_names_that_torch_allows_are_kept() -> None:
    document = dense()
    document["nodes"][1]["name"] = "features.0.weight"
    document["nodes"][2]["name"] = "features.0.bias"
    arrays = {
        "arg:features.0.weight": ARRAYS["arg:fc_weight"],
        "arg:features.0.bias": ARRAYS["arg:fc_bias"],
    }
    module = import_symbol(document, arrays)
    assert set(module.state_dict()) == {"features.0.weight", "features.0.bias"}
    assert module(ONE).tolist() == [[6.5, 0.0]]
    assert 'getattr(self.features, "0").weight' in module.code
    scripted = torch.jit.script(module)
    assert scripted(ONE).tolist() == [[6.5, 0.0]]


def test_names_that_torch_cannot_hold_are_changed_and_listed() -> None:
    document = dense()
    names = ["conv/weight", "conv-weight"]
    document["nodes"][1]["name"], document["nodes"][2]["name"] = names
    arrays = dict(zip(names, ARRAYS.values(), strict=True))
    module = import_symbol(document, arrays)
    assert module.meta["mxnet_names"] == {
        "conv_weight": "conv/weight",
        "conv_weight_1": "conv-weight",
    }
    assert module(ONE).tolist() == [[6.5, 0.0]]


def test_a_name_that_is_also_a_folder() -> None:
    document = dense()
    document["nodes"][1]["name"], document["nodes"][2]["name"] = "a.b", "a"
    module = import_symbol(document, dict(zip(["a.b", "a"], ARRAYS.values(), strict=True)))
    assert set(module.state_dict()) == {"a.b", "a_1"}
    assert module(ONE).tolist() == [[6.5, 0.0]]


def test_deep_names_are_flattened() -> None:
    document = dense()
    deep = ".".join(["a"] * 500)
    document["nodes"][1]["name"] = deep
    module = import_symbol(document, {deep: ARRAYS["arg:fc_weight"], "fc_bias": np.ones(2, "f4")})
    assert module(ONE).tolist() == [[7.0, 1.0]]
    assert set(module.state_dict()) == {"_".join(["a"] * 500), "fc_bias"}


def test_many_equal_names_take_no_quadratic_time() -> None:
    names = PathNames()
    start = time.perf_counter()
    paths = {names.layer("d") for _ in range(50_000)}
    paths |= {names.parameter("w-" if place % 2 else "w+") for place in range(50_000)}
    assert len(paths) == 100_000
    assert time.perf_counter() - start < 20


def test_constants_are_bounded() -> None:
    row: dict[str, Any] = {"op": "_zeros", "inputs": [], "attrs": {"shape": "(4096, 4096)"}}
    nodes: list[dict[str, Any]] = [{**row, "name": f"z{place}"} for place in range(5)]
    nodes.append({"op": "add_n", "name": "sum", "inputs": [[i, 0, 0] for i in range(5)]})
    with pytest.raises(SymbolError, match="elements of constants"):
        import_symbol({"nodes": nodes, "heads": [[5, 0, 0]]}, {})
    row["attrs"]["shape"] = "(100000, 100000)"
    with pytest.raises(SymbolError, match="at most 2"):
        import_symbol({"nodes": [{**row, "name": "z"}], "heads": [[0, 0, 0]]}, {})


def test_identifiers() -> None:
    assert [identifier(name) for name in ("conv0_fwd", "3d-x.w", "class", "", "é")] == [
        "conv0_fwd", "_3d_x_w", "class_", "_", "_",
    ]  # fmt: skip


def _every_name() -> list[str]:
    """Names that generated code, Python or torch give a meaning."""
    module = torch.fx.GraphModule(torch.nn.Module(), torch.fx.Graph())
    words = {*keyword.kwlist, *dir(builtins), *dir(torch.Tensor), *dir(module)}
    used = (
        "self torch operator _operator math inf nan device NoneType fx_pytree pytree mx_nn mx_math"
    )
    strange = (
        "",
        "0",
        "0a",
        "a.b",
        "self.x",
        "a b",
        "_",
        "__",
        "é",
        "x;y",
        'a"b',
        "a\nb",
        "torch_relu",
    )
    nodes = [
        {"op": "null", "name": "data", "inputs": []},
        {"op": "null", "name": "features.0.weight", "inputs": []},
        {"op": "broadcast_mod", "name": "mod0", "inputs": [[0, 0, 0], [1, 0, 0]]},
        {"op": "slice", "name": "cut0", "inputs": [[2, 0, 0]],
         "attrs": {"begin": "(None,1)", "end": "(None,None)"}},
        {"op": "log_softmax", "name": "out0", "inputs": [[3, 0, 0]]},
    ]  # fmt: skip
    document = {"nodes": nodes, "arg_nodes": [0, 1], "heads": [[4, 0, 0]]}
    code = import_symbol(document, {"features.0.weight": np.ones((1, 2))}).code
    generated = {*re.findall(r"[A-Za-z_]\w*", code), *dir(torch.fx), *module.forward.__globals__}
    words |= {*used.split(), *strange, "mxnet_files", "typing", "forward", *generated}
    return sorted(words)


def test_no_name_of_a_file_meets_a_name_of_the_code() -> None:
    """relu(1 + 100) + 100, with every name in the place of each node."""
    for name in _every_name():
        for data, weight, result in (("x1", "x2", name), ("x1", name, "x3"), (name, "x2", "x3")):
            nodes = [
                {"op": "null", "name": data, "inputs": []},
                {"op": "null", "name": weight, "inputs": []},
                {"op": "broadcast_add", "name": "x4", "inputs": [[0, 0, 0], [1, 0, 0]]},
                {"op": "relu", "name": result, "inputs": [[2, 0, 0]]},
                {"op": "broadcast_add", "name": f"{result}_out", "inputs": [[3, 0, 0], [1, 0, 0]]},
            ]
            document = {
                "nodes": nodes, "arg_nodes": [0, 1], "heads": [[4, 0, 0]],
                "attrs": {"mxnet_version": ["int", 10901]},
            }  # fmt: skip
            module = import_symbol(document, {f"arg:{weight}": np.full((1, 2), 100, "float32")})
            computed = module(torch.ones(1, 2)).detach().numpy()
            assert (computed == 201).all(), (data, weight, result)


@pytest.mark.parametrize("names", [("__1_", "é", "#"), ("__2_", "é", "#"), ("é", "#", "__1_")])
def test_inputs_whose_names_become_one(names: tuple[str, ...]) -> None:
    """`é` and `#` are both `_`; what stands in for the second may be the name of an input too."""
    nodes: list[dict[str, Any]] = [{"op": "null", "name": name, "inputs": []} for name in names]
    joined = {"op": "Concat", "name": "all", "attrs": {"num_args": "3", "dim": "0"}}
    nodes.append({**joined, "inputs": [[place, 0, 0] for place in range(3)]})
    module = import_symbol({"nodes": nodes, "heads": [[3, 0, 0]]}, {})
    assert [*module.meta["mxnet_inputs"].values()] == list(names)
    assert module(*torch.arange(3.0).reshape(3, 1)).tolist() == [0.0, 1.0, 2.0]


def test_an_input_that_is_called_as_the_check_of_another() -> None:
    """`a_checked` would be what holds `a` once its dtype is looked at."""
    nodes: list[dict[str, Any]] = [
        {"op": "null", "name": "a", "inputs": [], "attrs": {"__dtype__": "4"}},
        {"op": "null", "name": "a_checked", "inputs": []},
    ]
    module = import_symbol({"nodes": nodes, "heads": [[0, 0, 0], [1, 0, 0]]}, {})
    first, second = module(torch.tensor([1], dtype=torch.int32), torch.tensor([2.0]))
    assert (first.item(), second.item()) == (1, 2.0)


def einsum(subscripts: str, name: str) -> Any:
    """A product with a parameter of that name."""
    nodes: list[dict[str, Any]] = [{"op": "null", "name": key, "inputs": []} for key in ("x", name)]
    attrs = {"num_args": "2", "subscripts": subscripts}
    nodes.append({"op": "_npi_einsum", "name": "out", "attrs": attrs,
                  "inputs": [[0, 0, 0], [1, 0, 0]]})  # fmt: skip
    arrays = {name: np.array([[1, 2], [3, 4]], "float32")}
    return import_symbol({"nodes": nodes, "heads": [[2, 0, 0]]}, arrays)


def test_what_stands_in_a_string_of_the_code_is_no_name() -> None:
    assert einsum("ij,jk->ik", "jk")(torch.ones(1, 2)).tolist() == [[4.0, 6.0]]


def test_what_ends_a_line_of_the_code_does_not_within_a_string() -> None:
    with pytest.raises(RuntimeError, match="einsum"):
        einsum("ij;  x = None", "w")(torch.ones(1, 2))


def test_an_attribute_that_a_reader_leaves_out_is_refused(monkeypatch) -> None:
    """Were BilinearResize2D's align_corners read and not used, values would be wrong unseen."""
    resize = OPERATORS["_contrib_BilinearResize2D"]

    def forgetful(w: Wiring, a: Attributes, x: torch.fx.Node) -> torch.fx.Node:
        _ = a.mode, a.scale_height, a.scale_width
        return w.call(torch.nn.functional.interpolate, x, (a.height, a.width))

    monkeypatch.setitem(
        OPERATORS, "_contrib_BilinearResize2D", dataclasses.replace(resize, build=forgetful)
    )
    attributes = {"height": "3", "width": "3", "align_corners": "False"}
    nodes = [
        {"op": "null", "name": "data", "inputs": []},
        {
            "op": "_contrib_BilinearResize2D",
            "name": "r",
            "attrs": attributes,
            "inputs": [[0, 0, 0]],
        },
    ]
    document = {
        "nodes": nodes, "arg_nodes": [0], "heads": [[1, 0, 0]],
        "attrs": {"mxnet_version": ["int", 10901]},
    }  # fmt: skip
    with pytest.raises(SymbolError, match="align_corners=False is not supported"):
        import_symbol(document, {})
    attributes["align_corners"] = "True"  # the default: nothing is left out
    import_symbol(document, {})
