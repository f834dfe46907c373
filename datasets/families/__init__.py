"""Random variants of common network families as weight-less ONNX models, to be measured on a device of one's own.

As in NNLQP (Liu et al., ICPP 2022), a variant changes the widths and kernel sizes of a family layer by layer; here also
its depth. Inputs are 32 to 128 pixels wide, so that one inference takes milliseconds on one CPU core.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
from onnx import ModelProto

from datasets.errors import require_choice
from datasets.families.alexnet import alexnet
from datasets.families.draws import Draw
from datasets.families.efficientnet import efficientnet
from datasets.families.googlenet import googlenet
from datasets.families.mobilenetv2 import mobilenetv2
from datasets.families.mobilenetv3 import mobilenetv3
from datasets.families.nasbench201 import nasbench201
from datasets.families.resnet import resnet
from datasets.families.squeezenet import squeezenet
from datasets.families.vgg import vgg

FAMILIES: dict[str, Callable[[Draw], ModelProto]] = {
    family.__name__: family
    for family in (
        alexnet,
        efficientnet,
        googlenet,
        mobilenetv2,
        mobilenetv3,
        nasbench201,
        resnet,
        squeezenet,
        vgg,
    )
}
"""Draws one variant, by name of the family."""


def build_variant(family: str, index: int, seed: int = 0) -> ModelProto:
    """Variant ``index`` of a family, a pure function of the three arguments.

    Its initializers have dimensions and a type, but no values (``weights.with_random_weights``).

    Raises:
        UserError: for an unknown family.
    """
    require_choice("family", family, FAMILIES)
    return FAMILIES[family](Draw(np.random.default_rng([seed, zlib.crc32(family.encode()), index])))
