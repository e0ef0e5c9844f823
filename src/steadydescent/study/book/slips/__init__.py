"""The slips in the five sources, each with the right value computed: the errata as data."""

from steadydescent.study.book.slips.opennmt_tf import OPENNMT_TF, RAMP_AND_FLOOR
from steadydescent.study.book.slips.slip import LANGUAGES, Remark, Slip, Value
from steadydescent.study.book.slips.uit_slides import SIZES_AND_NOISE, UIT_SLIDES
from steadydescent.study.book.slips.uit_slides_normalization import UIT_SLIDES_NORMALIZATION
from steadydescent.study.book.slips.uit_slides_optimizers import (
    AXES_AND_NAMES,
    UIT_SLIDES_OPTIMIZERS,
)
from steadydescent.study.book.slips.viblo import LATE_START, VIBLO_EMA, VIBLO_LR
from steadydescent.study.book.slips.zh_ema import ZH_EMA

SLIPS: tuple[Slip, ...] = tuple(
    sorted(
        (
            *UIT_SLIDES,
            *UIT_SLIDES_NORMALIZATION,
            *UIT_SLIDES_OPTIMIZERS,
            *VIBLO_EMA,
            *VIBLO_LR,
            *ZH_EMA,
            *OPENNMT_TF,
        ),
        key=lambda slip: slip.number,
    )
)
"""Every slip, by number; a number, once given, stays."""
REMARKS: tuple[Remark, ...] = (
    *SIZES_AND_NOISE,
    *AXES_AND_NAMES,
    *RAMP_AND_FLOOR,
    *LATE_START,
)
"""What is right, or may be read so, and still easy to trip over."""

__all__ = ["LANGUAGES", "REMARKS", "SLIPS", "Remark", "Slip", "Value"]
