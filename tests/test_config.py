import dataclasses
import json

import numpy as np
import pytest

from crnn_jax.config import (
    Config,
    ConfigError,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    StnConfig,
    from_json,
    override,
    to_json,
)
from crnn_jax.section import differences
from crnn_jax.synth.style import PHOTO


def test_a_config_is_hashable_and_equal_by_value():
    assert hash(Config()) == hash(Config())
    assert Config() != Config(run=RunConfig(seed=1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().name = "other"


def test_override_reads_values_by_their_annotation():
    config = override(
        Config(),
        ["model.stn.kind=tps", "model.stn.features=8,16", "run.seed=7", "optimizer.learning_rate=1e-3", "name=36"],
    )
    assert config.model.stn == StnConfig(kind="tps", features=(8, 16))
    assert config.run.seed == 7
    assert config.optimizer.learning_rate == 1e-3
    assert config.name == "36"
    assert config.data == Config().data


def test_override_takes_a_string_as_it_is():
    assert override(Config(), ["model.charset=ab=, '"]).model.charset == "ab=, '"


def test_override_keeps_the_given_config_and_lets_the_last_assignment_win():
    config = Config()
    assert override(config, ["run.seed=1", "run.seed=2"]).run.seed == 2
    assert config == Config()
    assert override(config, []) == config


def test_fields_that_depend_on_each_other_come_in_any_order():
    assignments = ["run.steps_per_dispatch=7", "run.steps=70", "run.log_every=7", "run.eval_every=14"]
    run = override(Config(), [*assignments, "run.checkpoint_every=21"]).run
    assert (run.steps_per_dispatch, run.steps) == (7, 70)
    style = ["data.style.blur_share=0.9", "data.style=plain", "data.style=photo"]
    assert override(Config(), style).data.style == dataclasses.replace(PHOTO, blur_share=0.9)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("model.stn.knd=tps", "unknown configuration field model.stn.knd; the nearest is model.stn.kind"),
        ("stn.kind=tps", "unknown configuration field stn.kind; the nearest is model.stn.kind"),
        ("learning_rate=1", "unknown configuration field learning_rate; the nearest is optimizer.learning_rate"),
        ("model.cnn.kind=vgg", "unknown configuration field model.cnn.kind; the nearest is model.stn.kind"),
        ("model.stn=tps", "model.stn is a section: set one of its fields, such as model.stn.kind"),
        ("model.stn.kind", "'model.stn.kind': expected FIELD=VALUE, such as model.stn.kind=tps"),
        ("run.steps=many", "run.steps = many: expected an integer"),
        ("run.steps=1e4", "run.steps = 1e4: expected an integer"),
        ("run.seed=", "run.seed = : expected an integer"),
        ("optimizer.clip_norm=x", "optimizer.clip_norm = x: expected a number"),
        ("optimizer.clip_norm=nan", "optimizer.clip_norm = nan: expected a number"),
        ("model.stn.features=8,,16", "model.stn.features = 8,,16: expected integers, such as 16,32,64"),
        ("model.stn.kind=tsp", "model.stn.kind = 'tsp': expected none, affine or tps"),
    ],
)
def test_override_refuses_in_one_clear_line(assignment, message):
    with pytest.raises(ConfigError) as error:
        override(Config(), [assignment])
    assert str(error.value) == message


def test_override_reads_booleans():
    @dataclasses.dataclass(frozen=True)
    class Switched(Config):
        fast: bool = False

    assert override(Switched(), ["fast=true"]).fast is True
    assert override(Switched(fast=True), ["fast=False"]).fast is False
    with pytest.raises(ConfigError, match="fast = 1: expected true or false"):
        override(Switched(), ["fast=1"])


@pytest.mark.parametrize(
    ("section", "values"),
    [
        (StnConfig, {"kind": "homography"}),
        (StnConfig, {"placement": "block0"}),
        (StnConfig, {"placement": "block"}),
        (StnConfig, {"fiducials": 7}),
        (StnConfig, {"fiducials": 2}),
        (StnConfig, {"start": "zero"}),
        (StnConfig, {"disturbance": -0.1}),
        (StnConfig, {"bound": -1.0}),
        (StnConfig, {"feature_gain": 0.0}),
        (StnConfig, {"oversample": 0.5}),
        (StnConfig, {"features": ()}),
        (StnConfig, {"features": (8, 0)}),
        (StnConfig, {"features": (8,) * 6}),
        (StnConfig, {"features": "8,16"}),
        (DataConfig, {"real": "one,two"}),
        (ModelConfig, {"charset": "aa"}),
        (ModelConfig, {"charset": ""}),
        (ModelConfig, {"height": 0}),
        (ModelConfig, {"width": -100}),
        (ModelConfig, {"width": 100.0}),
        (ModelConfig, {"fit": "crop"}),
        (ModelConfig, {"cnn": "vit"}),
        (ModelConfig, {"lstm_layers": True}),
        (ModelConfig, {"lstm_features": 0}),
        (ModelConfig, {"dropout": 1.0}),
        (ModelConfig, {"dtype": "float16"}),
        (ModelConfig, {"stn": "tps"}),
        (DataConfig, {"fonts": -1}),
        (DataConfig, {"max_length": 0}),
        (DataConfig, {"share_digits": -0.1}),
        (DataConfig, {"share_punctuation": 1.1}),
        (DataConfig, {"held_out_words": 0}),
        (OptimizerConfig, {"name": "lion"}),
        (OptimizerConfig, {"learning_rate": 0.0}),
        (OptimizerConfig, {"learning_rate": float("inf")}),
        (OptimizerConfig, {"warmup_steps": -1}),
        (OptimizerConfig, {"final_factor": 2.0}),
        (OptimizerConfig, {"weight_decay": -1e-4}),
        (OptimizerConfig, {"momentum": 1.0}),
        (OptimizerConfig, {"clip_norm": -1.0}),
        (OptimizerConfig, {"localisation_factor": -1.0}),
        (OptimizerConfig, {"ema_decay": 1.0}),
        (RunConfig, {"steps": 0}),
        (RunConfig, {"steps": 1005}),
        (RunConfig, {"log_every": 5}),
        (RunConfig, {"eval_every": 501}),
        (RunConfig, {"checkpoint_every": 0}),
        (RunConfig, {"batch_size": 0}),
        (RunConfig, {"steps_per_dispatch": 0}),
        (RunConfig, {"keep": 0}),
        (RunConfig, {"seed": -1}),
        (Config, {"name": ""}),
        (Config, {"name": None}),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_section(section, values):
    with pytest.raises(ConfigError) as error:
        section(**values)
    (name,) = values
    assert f"{section.path}.{name}".lstrip(".") in str(error.value)
    assert "\n" not in str(error.value)


def test_lists_and_numpys_numbers_are_taken_as_what_they_are():
    assert DataConfig(weights=[3, np.float32(1)], sources=["b", "c"]).weights == (3, 1.0)
    config, same = StnConfig(features=[8, np.int64(16)], bound=np.float32(0.5)), StnConfig(features=(8, 16), bound=0.5)
    assert config == same and hash(config) == hash(same)
    assert type(config.features[1]) is int and type(RunConfig(steps=np.int64(1000)).steps) is int


def test_rules_over_two_fields():
    with pytest.raises(ConfigError, match="data.share_random = 0.6: expected at most 1 together with share_digits"):
        DataConfig(share_digits=0.6, share_random=0.6)
    with pytest.raises(ConfigError, match="model.max_width = 50: expected at least model.width"):
        ModelConfig(fit="pad", max_width=50)
    with pytest.raises(ConfigError, match=r"model.stn.bound = 0.2: .* more than twice model.stn.disturbance = 0.1"):
        StnConfig(start="disturbed", disturbance=0.1, bound=0.2)
    assert ModelConfig(fit="resize", max_width=50).max_width == 50  # without fit=pad the field has no effect


def test_a_style_is_a_preset_whose_fields_may_be_changed():
    config = override(Config(), ["data.style=photo", "data.style.blur=0.5,3", "data.style.curve_share=0"])
    assert config.data.style == dataclasses.replace(PHOTO, blur=(0.5, 3.0), curve_share=0.0)
    assert from_json(to_json(config)) == config
    for wrong, message in (
        ("data.style=comic", "data.style = comic: expected one of mjsynth, photo, plain; or"),
        ("data.style.blur=1", "data.style.blur = 1: expected two numbers, such as 0.5,2"),
        ("data.style.blur_share=1.5", "data.style.blur_share = 1.5: expected a share, 0 to 1"),
        ("data.style.rotation_std=-1", "data.style.rotation_std = -1.0: expected at least 0"),
        ("data.style.coarse=0,1", r"data.style.coarse = \(0.0, 1.0\): expected two shares of the height, 0.1 to 1"),
        ("data.style.small_caps=0,0.5", r"data.style.small_caps = \(0.0, 0.5\): expected two shares of the size"),
    ):
        with pytest.raises(ConfigError, match=message):
            override(Config(), [wrong])


def test_json_round_trip():
    config = Config(
        name="ein Wort",
        model=ModelConfig(charset="äöü\\\"'", stn=StnConfig(kind="tps", features=(8, 16))),
        optimizer=OptimizerConfig(learning_rate=0.1 + 0.2, clip_norm=5),
        run=RunConfig(steps=70, seed=3),
    )
    again = from_json(to_json(config))
    assert again == config
    assert hash(again) == hash(config)


def test_fields_that_json_lacks_take_their_defaults():
    assert from_json('{"run": {"seed": 5}}') == Config(run=RunConfig(seed=5))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modell": {}}, "unknown configuration field modell; the nearest is model"),
        (
            {"model": {"stn": {"kinds": "tps"}}},
            "unknown configuration field model.stn.kinds; the nearest is model.stn.kind",
        ),
        ({"run": 3}, "run: expected an object of fields, not 3"),
        ({"run": {"steps": "1000"}}, "run.steps = '1000': expected an integer"),
        ({"model": {"stn": {"features": [1, "2"]}}}, "model.stn.features = (1, '2'): expected integers"),
        ([], "the configuration: expected an object of fields, not []"),
    ],
)
def test_from_json_refuses_in_one_clear_line(values, message):
    with pytest.raises(ConfigError) as error:
        from_json(json.dumps(values))
    assert str(error.value).startswith(message)


def test_from_json_refuses_text_that_is_not_json():
    with pytest.raises(ConfigError, match="the configuration is not JSON: Expecting value: line 1 column 1"):
        from_json("name: quickstart")


def test_differences_are_told_by_their_dotted_names():
    changed = override(Config(), ["run.seed=3", "model.stn.kind=tps", "data.style.blur=0.5,1"])
    assert differences(Config(), changed) == {
        "model.stn.kind": ("none", "tps"),
        "data.style.blur": (Config().data.style.blur, (0.5, 1.0)),
        "run.seed": (0, 3),
    }
    assert differences(changed, changed) == {}
