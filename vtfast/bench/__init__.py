"""The benchmark behind `vtfast bench`: operations and models against what PyTorch users have.

`measure` times ways of doing the same work in turns and compares their results; `subjects` holds what can be measured,
`peers` and `upstreams` the other ways of doing it; `results` is what is kept in files.
"""
