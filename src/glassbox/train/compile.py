"""torch.compile, block by block."""

import logging

from glassbox.model.transformer import Transformer
from glassbox.train.recompute import all_blocks

log = logging.getLogger("glassbox")


def compile_blocks(model: Transformer) -> None:
    """Put each block through torch.compile, in place; without a compiler say so and stay eager."""
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        get_cpp_compiler()
    except (ImportError, InvalidCxxCompiler):
        log.warning("no C++ compiler was found: training without torch.compile")
        return
    for block in all_blocks(model):
        block.compile()
