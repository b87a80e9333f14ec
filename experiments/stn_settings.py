"""What stn_study.py varies: the settings that each of its studies ranks."""

from configs.stn_study import get_config

from crnn_jax.config import Config, ConfigError, override
from crnn_jax.section import differences

# Changes of the config, as `--set` spells them. Each study ranks the settings of one thing.
WITHOUT = "model.stn.kind=none"
STUDIES: dict[str, dict[str, tuple[str, ...]]] = {
    "place": {
        "on the image": (),
        "after the first block": ("model.stn.placement=block1",),
        "on the last features": ("model.stn.placement=block4",),
        "no transformer, as many parameters": (WITHOUT, "model.lstm_features=156"),
        "no transformer": (WITHOUT,),
    },
    "transformer": {"with it": (), "without": (WITHOUT,)},
    "parameters": {"with it": (), "without, as many": (WITHOUT, "model.lstm_features=156")},
    "kind": {
        "TPS, 20 points": (),
        "TPS, 8 points": ("model.stn.fiducials=8",),
        "affine": ("model.stn.kind=affine",),
    },
    "rate": {f"x {x}": (f"optimizer.localisation_factor={x}",) for x in ("0.01", "0.1", "0.3", "1", "3")},
    "rate and bound": {
        "x 0.1": (),
        "x 1": ("optimizer.localisation_factor=1",),
        "x 1, within 0.5": ("optimizer.localisation_factor=1", "model.stn.bound=0.5"),
    },
    "clip": {"each by its own norm": (), "by the norm of both": ("optimizer.clip_apart=false",)},
    "start": {
        "identity": ("model.stn.disturbance=0",),
        **{f"a slope of {x}": (f"model.stn.disturbance={x}",) for x in ("0.05", "0.1", "0.2", "0.5")},
    },
    "gain": {f"x {x}": (f"model.stn.feature_gain={x}",) for x in ("0.01", "0.1", "1")},
    "bypass": {f"{x} of the words": (f"model.stn.bypass={x}",) for x in ("0", "0.25", "0.5")},
    "bound": {"none": (), "0.5": ("model.stn.bound=0.5",), "1": ("model.stn.bound=1",)},
    "edges": {"the border": (), "zeros": ("model.stn.outside=zeros",)},
    "sampled": {"1.3 times as large": (), "as large": ("model.stn.oversample=1",)},
}


def keys(study: str) -> dict[str, str]:
    """The names of a study's settings in the results: the changes that have an effect; "" for the config itself."""
    base = get_config()
    return {
        name: " ".join(sorted(change for change in changes if override(base, [change]) != base))
        for name, changes in STUDIES[study].items()
    }


def check_base(study: str, base: Config) -> None:
    """Raises ConfigError if `base` already changes what the study varies: its labels would be wrong."""
    varied = {change.split("=")[0] for changes in STUDIES[study].values() for change in changes}
    changed = sorted(varied & differences(get_config(), base).keys())
    if changed:
        raise ConfigError(f"--studies {study} varies {', '.join(changed)}: keep the values of configs/stn_study.py")
