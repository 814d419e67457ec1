"""Measure speed and memory: `python -m benchmarks [--quick] [NAME...]`, by default all of them.

Prints Markdown tables and writes the figures to benchmarks/results/. Wants a machine that does nothing else.
"""

from __future__ import annotations

import argparse

from benchmarks import aggregates, frames, ingest, jobs, memory, predict, runs, servers, store, swap, training
from benchmarks.effort import QUICK, Effort
from benchmarks.report import Machine, Table, save

BENCHMARKS = {
    "servers": servers.measure,
    "predict": predict.measure,
    "aggregates": aggregates.measure,
    "swap": swap.measure,
    "ingest": ingest.measure,
    "frames": frames.measure,
    "memory": memory.measure,
    "store": store.measure,
    "runs": runs.measure,
    "training": training.measure,
    "jobs": jobs.measure,
}


def main() -> None:
    """Run the benchmarks that were asked for, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="only see that everything works")
    asked = parser.parse_args()
    if unknown := set(asked.names) - BENCHMARKS.keys():
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; expected any of {', '.join(BENCHMARKS)}")
    machine = Machine.here()
    print(f"{machine}\n", flush=True)
    tables: list[Table] = []
    for name in asked.names or BENCHMARKS:
        for table in BENCHMARKS[name](QUICK if asked.quick else Effort()):
            print(table.markdown(), flush=True)
            tables.append(table)
    print(f"Also in {save(machine, tables)}")


if __name__ == "__main__":
    main()
