"""The benchmarks: ``python -m benchmarks --help``.

How a figure comes to be, from top to bottom:

* `options`, `settings`: the command line, and the sizes of a run.
* `contenders`, ``servers/``: the servers that are compared; each one is a file of its own.
* `packets`: the packets of the scenarios that compare formats.
* `scenarios`: the measurements; `load` (on `links`) and `probes` make them.
* `certificates`: the certificate of servers with TLS.
* `process`, `host`: a server in its own process, its time and memory; all servers of a round.
* `runner`: rounds, interleaved; `progress` shows how far it is.
* `results`: the figures, their medians and ratios, and the JSON of them.
* `report`, `plot`, `page`: tables for the terminal, an SVG, tables for the documentation.
* `targets`: what the library promises, judged at the end of each run; `machine`: where it ran.
"""
