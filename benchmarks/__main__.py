"""``python -m benchmarks``: measure, show, write."""

from __future__ import annotations

import signal
import sys

from . import page, plot, report
from .contenders import CONTENDERS
from .options import Options, parse
from .process import ServerError
from .progress import Progress
from .results import Results
from .runner import run
from .scenarios import SCENARIOS


def main() -> int:
    """Return the exit status: 0 unless a server failed, whatever the figures are."""
    if sys.platform != "linux":
        print("The benchmarks need Linux: they read counters in /proc.", file=sys.stderr)
        return 2
    options = parse()
    if options.list:
        for title, items in (("scenarios", SCENARIOS), ("contenders", CONTENDERS)):
            print(f"{title}:", *(f"  {item.name}" for item in items), sep="\n")
        return 0
    # The servers end with the run: an exception unwinds, the default action of SIGTERM does not.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        results = Results.read(options.source) if options.source else _measure(options)
    except (OSError, ValueError, ServerError) as exc:
        print(f"benchmarks: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    print(report.render(results, options.references))
    if options.json:
        results.write(options.json)
    if options.plot:
        options.plot.write_text(plot.draw(results))
    if options.rst:
        options.rst.write_text(page.render(results))
    return 0


def _measure(options: Options) -> Results:
    if options.settings.server_core == options.settings.load_core:
        print("Servers and load share one core: rates and latencies mean little.", file=sys.stderr)
    return run(options.scenarios, options.contenders, options.settings, Progress())


if __name__ == "__main__":
    sys.exit(main())
