"""What rendered words look like: one frozen dataclass of distributions, and its presets.

Lengths are in font pixels, about 60 to the em (`size_mean`), unless another unit is given. `MJSYNTH`
follows the public generator of Synth90k (Jaderberg et al. 2014, "Synthetic Data and Artificial Neural Networks for
Natural Scene Text Recognition", section 3, and its code); `PHOTO` widens it towards photographs.
"""

from dataclasses import dataclass, fields, replace

from crnn_jax.section import Section

Range = tuple[float, float]


@dataclass(frozen=True)
class Style(Section):
    """The distributions that a rendered word is drawn from. A `share` is a probability; N is a normal distribution."""

    path = "data.style"

    # Letters
    size_mean: float = 60.0  # of the em; clipped to 34..92
    size_std: float = 10.0
    bold_share: float = 0.5
    bold_width: Range = (0.028, 0.053)  # em, added to every stroke
    oblique_share: float = 0.2
    oblique_slope: float = 0.2126  # 12 degrees
    underline_share: float = 0.05
    small_caps_share: float = 0.0  # their capitals after the first letter are smaller
    small_caps: Range = (0.65, 0.85)  # of the size
    # Setting
    gap: float = 20.0  # between the ink of two letters: gap * Beta(2, 5)
    advance_share: float = 0.0  # spaced by the font's own advance widths instead
    apart_share: float = 0.0  # with more space between the letters
    apart: Range = (0.1, 0.8)  # em
    kerning_share: float = 0.2
    kerning_std: float = 0.1  # relative, per letter
    curve_share: float = 0.2
    curve_std: float = 0.1  # letter k from the middle is a * k^2 lower than its neighbour, a ~ N(0, curve_std)
    # Outline or shadow
    border_width: tuple[float, float] = (4.0, 4.0)  # mean and standard deviation
    # View
    rotation_std: float = 5.0  # degrees
    turn: float = 0.0  # degrees: an additional uniform rotation of up to so many either way
    wide_share: float = 0.0  # with the view's standard deviations multiplied by wide_factor
    wide_factor: float = 3.0
    scale_std: float = 0.01
    shear_std: float = 0.005
    tilt_std: float = 0.0005  # perspective, per font pixel
    margin_mean: float = 15.0  # the crop is the ink's box plus this margin, half on either side; can be negative
    margin_std: float = 10.0
    margin_min: float = -12.0
    # Surroundings
    neighbour_share: float = 0.0  # of every fourth word: another word beside, above or below it
    line_height: Range = (0.75, 1.3)  # em, from one line to the next
    edge_share: float = 0.0  # of each of two: the edge of a panel, or a line of a frame, across the ground
    # Colour
    blend_std: float = 0.25  # how much of a texture shows in a layer: |N(0, blend_std)|, at most 1
    plain_share: float = 0.0  # without blend modes or textures: ink on ground
    min_contrast: float = 0.075  # of full scale, between ink and ground
    # Camera
    soft_edges: float = 1.0  # factor on the standard deviation of the generator's own blur
    blur_share: float = 0.0
    blur: Range = (0.5, 2.0)  # image pixels, standard deviation, drawn for each axis
    light_std: float = 0.0  # slope of the light over the image, relative
    coarse_share: float = 0.0  # taken at a lower resolution, with noise and JPEG at that size, then enlarged
    coarse: Range = (0.35, 1.0)  # camera pixels per image pixel, in height
    sharp_share: float = 0.0  # sharpened by the camera
    sharp: Range = (0.2, 1.5)  # how much of the difference from a blurred copy is added
    exposed_share: float = 0.0  # contrast stretched, clipping at black and white
    exposed: Range = (1.0, 2.0)  # factor on the contrast
    noise: Range = (0.3, 0.6)  # grey levels: noise[0] + noise[1] * |N|
    noisy_share: float = 0.0  # with the noise multiplied by up to noisy_factor
    noisy_factor: float = 12.0
    jpeg_quality: tuple[float, float] = (80.0, 10.0)  # mean and standard deviation, clipped to 20..80

    def _check(self):
        for name in (f.name for f in fields(self)):
            if name.endswith("_share"):
                self._require(0 <= getattr(self, name) <= 1, name, "a share, 0 to 1")
            elif name.endswith("_std"):
                self._at_least(0, name)
        self._require(0.1 <= self.coarse[0] <= self.coarse[1] <= 1, "coarse", "two shares of the height, 0.1 to 1")
        self._require(
            0 < self.small_caps[0] <= self.small_caps[1] <= 1, "small_caps", "two shares of the size, up to 1"
        )


MJSYNTH = Style()

PHOTO = replace(
    MJSYNTH,
    small_caps_share=0.15,
    advance_share=0.5,
    apart_share=0.1,
    curve_share=0.25,
    wide_share=0.4,
    margin_mean=15.0,
    margin_std=12.0,
    neighbour_share=0.8,
    edge_share=0.2,
    plain_share=0.3,
    blur_share=0.3,
    blur=(0.4, 1.6),
    light_std=0.15,
    coarse_share=0.4,
    sharp_share=0.3,
    exposed_share=0.2,
    noisy_share=0.2,
    jpeg_quality=(65.0, 20.0),
)

# Clean print, for a first run that ends in minutes: upright, no camera blur, dark on bright or bright on dark.
PLAIN = replace(
    MJSYNTH,
    underline_share=0.0,
    kerning_share=0.0,
    curve_share=0.0,
    oblique_share=0.0,
    rotation_std=1.0,
    border_width=(1.0, 0.5),
    margin_std=3.0,
    blend_std=0.05,
    plain_share=1.0,
    min_contrast=0.3,
)

Style.presets = STYLES = {"mjsynth": MJSYNTH, "photo": PHOTO, "plain": PLAIN}
