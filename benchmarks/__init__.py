"""The benchmarks: ``python -m benchmarks --help``.

How a figure comes to be, from top to bottom:

* `options`, `settings`: what is asked for, and the sizes of a run.
* `contenders`, ``servers/``: who is compared; each server is a file of its own.
* `packets`: what is sent where formats are compared.
* `scenarios`: what is measured; with `load` (on `links`) and `probes` doing it.
* `certificates`: what servers with TLS need.
* `process`, `host`: a server in its own process, its processor time and memory; all of a round.
* `runner`: rounds, interleaved; `progress` shows how far it is.
* `results`: the figures, their medians and ratios, and the JSON of them.
* `report`, `plot`, `page`: tables for the terminal, an SVG, tables for the documentation.
* `targets`: what the library promises, judged at the end of each run; `machine`: where it ran.
"""
