"""Ways to learn from labelled and unlabelled patches, one a file; `METHODS` is the table of them.

A batch holds ``image_l`` (B, C, *S), ``label`` (B, *S) int64, ``image_u`` and ``guessed_u`` (B, C, *S), which are one
image as it is learned and as its label is guessed, and ``seed`` (B,); ``supervised`` has neither of the two. A method's
``modules`` are what a checkpoint keeps: ``cs`` is the network that predicts, ``ds`` the diffusion network where there
is one.
"""

from __future__ import annotations

METHODS: dict[str, str] = {
    "diff-cl": "morphogen.segmenters.diffcl.methods.diff_cl:DiffCL",
    "cps": "morphogen.segmenters.diffcl.methods.cps:CPS",
    "ua-mt": "morphogen.segmenters.diffcl.methods.ua_mt:UAMT",
    "bcp": "morphogen.segmenters.diffcl.methods.bcp:BCP",
    "supervised": "morphogen.segmenters.diffcl.methods.base:Supervised",
}
"""Name -> import path of its class."""
