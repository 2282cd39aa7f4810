"""The upgrade gate: what both frameworks compute, kept; and who moved since.

`snapshot` records what each side computes, `compare` judges two snapshots: *unchanged*, *moved
within rounding* or *moved: semantics*, and which of the two frameworks it was. Each side is taken
on its own, so that a snapshot can be made where only one of them works.
"""
