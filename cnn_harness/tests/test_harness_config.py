import json

import pytest

from cnn_harness.cli import Parser
from cnn_harness.config import TrainConfig, add_flags
from cnn_harness.errors import CommandError, UsageError


def test_survives_json() -> None:
    config = TrainConfig(model="vgg11", image_size=32, lr=0.5, optimizer="sgd", momentum=0.9)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict())), "here") == config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0), ("batch_size", -1), ("optimizer", "lamb"), ("lr", 0.0), ("momentum", 1.0),
        ("wd", -1.0), ("schedule", "exp"), ("initialiser", "zero"), ("normalise", "z"),
        ("augment", "mixup"), ("image_size", 0), ("fit", "stretch"), ("warmup_epochs", 99),
    ],
)  # fmt: skip
def test_refuses_by_name(field: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"{field} is {value}, expected"):
        TrainConfig().replace(**{"optimizer": "sgd", field: value})


def test_adam_takes_no_momentum() -> None:
    with pytest.raises(UsageError, match="momentum"):
        TrainConfig(optimizer="adam", momentum=0.9)


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(UsageError, match="nesterov"):
        TrainConfig(optimizer="sgd", nesterov=True)


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.pop("lr"),
        lambda d: d.update(surprise=1),
        lambda d: d.update(epochs="ten"),
        lambda d: d.update(epochs=True),
        lambda d: d.update(lr=None),
        lambda d: d.update(image_size=2.5),
        lambda d: d.update(model=["lenet"]),
    ],
)
def test_a_damaged_config_is_refused_with_its_origin(damage) -> None:
    values = TrainConfig().to_dict()
    damage(values)
    with pytest.raises(CommandError, match=r"run/config\.json"):
        TrainConfig.from_dict(values, "run/config.json")


@pytest.mark.parametrize("values", [None, [], "x", 3])
def test_a_config_that_is_no_object_is_refused(values: object) -> None:
    with pytest.raises(CommandError, match="not a JSON object"):
        TrainConfig.from_dict(values, "here")


def test_every_field_is_a_flag_and_unset_flags_stay_away() -> None:
    parser = Parser(prog="t")
    add_flags(parser, TrainConfig(model="vgg11", lr=0.125))
    assert vars(parser.parse_args([])) == {}
    given = vars(parser.parse_args(["--image-size", "32", "--nesterov", "--wd", "0.1"]))
    assert given == {"image_size": 32, "nesterov": True, "wd": 0.1}
    text = parser.format_help()
    assert "(default: 0.125)" in text
    assert all("--" + name.replace("_", "-") in text for name in TrainConfig().to_dict())
