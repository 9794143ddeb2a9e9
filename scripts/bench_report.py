#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What run-bench.sh makes of the lines that bench/ has printed.

bench_report.py collect RESULTS JSON    figures of one run, as JSON
bench_report.py tables JSON             the tables, in reStructuredText
bench_report.py plot JSON SVG           the plot
bench_report.py check JSON COMMITTED    budgets, and no worse than what is committed; TAP
"""

import json
import re
import sys
from pathlib import Path

MAP_TRACE = ["untraced", "bystander", "detached", "tracers_1", "tracers_2", "tracers_4", "tracers_8",
             "sync_1"]
HOOKS = ["fentry", "fexit", "kprobe"]
TITLES = {
    "unpatched": "unpatched kernel",
    "untraced": "not traced",
    "bystander": "another map is traced",
    "detached": "after the last detach",
    "tracers_1": "1 tracer",
    "tracers_2": "2",
    "tracers_4": "4",
    "tracers_8": "8",
    "sync_1": "1 sync tracer",
}
# The operation that the budgets, and most comparisons, are about
REFERENCE = "hash update from program"

# In guest instructions. See ../Documentation/cost.rst.
UNTRACED_BUDGET = 4
# The stub has no endbr64 there.
WITHOUT_IBT_BUDGET = 3
TRACED_BUDGET = 102
FURTHER_TRACER_BUDGET = 35
SYNC_BUDGET = 220
# Where nobody could count before the operation, its key is looked up again.
SYNC_LATE_ROWS = ["hash lookup_and_delete from syscall",
                  "hash lookup_and_delete_batch from syscall"]
SYNC_LATE_BUDGET = 530
# Lookups over the unpatched kernel's: where nothing is written through the pointer, where something
# is, of a traced map whose element is marked, and where it is marked now
LOOKUP_BUDGETS = {
    ("read", "untraced"): 0,
    ("read", "traced"): 0,
    ("written", "untraced"): 4,
    ("written", "marked"): 12,
    ("written", "marks"): 40,
}
# Known to be over that, by so much. For an array the epoch is divided, and the index masked.
LOOKUPS_KNOWN_OVER = {("hash lookup, written", "marked"): 3,
                      ("lru_hash lookup, written", "marked"): 3,
                      ("array lookup, written", "marked"): 23}
# Of an element, in a map of 1,000,000
REPLAY_BUDGET = 750
FLUSH_BUDGET = 800
PASSED_BUDGET = 24
MARKED_BUDGET = 950
# What is in the names of the rows that have a kernel of their own
WITHOUT_IBT = ", without IBT"
# The load of a program, of what it takes on the unpatched kernel
LOAD_BUDGET = 1.02
# Their tracers run once for each CPU, which is not the way of all others.
EACH_CPU_ROWS = [f"{kind} update from syscall"
                 for kind in ("percpu_hash", "lru_percpu_hash", "percpu_array")]
EACH_CPU_BUDGET = 195
# Known to be over the budgets, without tracers and with the first one: by so much
KNOWN_OVER = {"hash lookup_and_delete_batch from syscall": (2, 11),
              "hash lookup_and_delete from syscall": (2, 0)}
# Most figures are the same in each run. See ../Documentation/cost.rst for those that are not.
TOLERANCE = 1
VARYING = {"rhash": 30}
# What was measured before there was any of this, with another program, on this kernel and
# with this compiler: what an update costs, and what a hook adds to it.
ANCHORS = {
    "kernel": "7.3.4",
    "clang": "19",
    "tolerance": 0.02,
    "figures": {
        ("array update from program", "unpatched", None): 103,
        ("hash update from program", "fentry", "untraced"): 294,
        ("hash update from program", "fexit", "untraced"): 346,
        ("hash update from program", "kprobe", "untraced"): 565,
    },
}


def read_lines(path):
    """The figures of one guest, as {name: value}."""
    figures = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, tab, value = line.partition("\t")
        if tab:
            figures[name] = float(value)
    return figures


def insert(tree, name, value):
    """Puts "a/b/c" where tree["a"]["b"]["c"] is."""
    *parents, last = name.split("/")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[last] = round(value, 1)


def collect(results):
    """All figures of a run, of both kernels."""
    figures = {"versions": versions(results / "versions")}
    for kernel in "patched", "unpatched":
        lines = {}
        # Of the interpreter's kernel there are rows of the table, and nothing else.
        for path in results / kernel, results / f"{kernel}-interpreter":
            if path.name == kernel or path.exists():
                of_guest = read_lines(path)
                if not of_guest:
                    sys.exit(f"{path}: no figures")
                lines |= of_guest
        for name, value in lines.items():
            if name.startswith("operations/"):
                insert(figures, name, value)
            else:
                insert(figures, f"{kernel}/{name}", value)
    for kernel in "patched", "unpatched":
        path = results / f"time-{kernel}"
        if path.exists():
            for name, value in read_lines(path).items():
                insert(figures, f"time/{kernel}/{name}", value)
    figures["locked"] = locked_instructions(results / "disassembly")
    return figures


def versions(path):
    kernel, clang, rustc = path.read_text(encoding="utf-8").splitlines()[:3]
    return {"kernel": kernel, "clang": clang, "rustc": rustc}


def locked_instructions(path):
    """The instructions that lock the bus, by function of the traced path in the module."""
    found = {}
    function = None
    for line in path.read_text(encoding="utf-8").splitlines():
        header = re.fullmatch(r"[0-9a-f]+ <(.*)>:", line)
        if header:
            name = header.group(1)
            function = name if re.search(r"^_R.*Registration.*11(update|delete)_elem", name) else None
            if function:
                found[function] = []
        elif function and re.search(r"\block\b|\bxchg[a-z]*\b.*\(", line):
            found[function].append(line.strip())
    return found


def number(value):
    """As it is printed: instructions are whole ones, but for an average of several ways."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value == int(value) else f"{value:.1f}"


def csv_table(title, header, rows):
    lines = [f".. csv-table:: {title}", "   :header-rows: 1", ""]
    for row in [header, *rows]:
        lines.append("   " + ", ".join(f'"{cell}"' for cell in row))
    return "\n".join(lines) + "\n"


def tables(figures):
    """Everything that was measured, as reStructuredText."""
    operations = figures["operations"]
    columns = ["unpatched", *MAP_TRACE]
    hooked = [column for hook in HOOKS for column in (f"{hook}_bystander", hook)]
    parts = [
        f"Linux {figures['versions']['kernel']}, {figures['versions']['clang']}, "
        f"{figures['versions']['rustc']}.\n",
        csv_table(
            "Guest instructions of one operation",
            ["operation"] + [TITLES[column] for column in columns],
            [[name] + [number(row.get(column)) for column in columns]
             for name, row in operations.items()],
        ),
        csv_table(
            "The same with hooks on the function that does it; bystander: they run for another map",
            ["operation"] + [title for hook in HOOKS for title in (f"{hook}, bystander", hook)],
            [[name] + [number(row.get(column)) for column in hooked]
             for name, row in operations.items()
             if any(row.get(column) is not None for column in hooked)],
        ),
    ]

    latency = figures["patched"]["latency"]
    parts.append(csv_table(
        "Attach and detach: time that passes, in guest microseconds, and time that the caller "
        "itself computes, in guest instructions",
        ["links on the system", "attach takes", "of it computes", "detach takes", "of it computes"],
        [[links] + [number(latency[what][links][unit])
                    for what in ("attach", "detach") for unit in ("microseconds", "work")]
         for links in latency["attach"]],
    ))
    parts.append(csv_table(
        "BPF_LINK_UPDATE, which repeats the loop check",
        ["links that the tracer leads to", "instructions"],
        [[links, number(value)] for links, value in figures["patched"]["loop_check"].items()],
    ))

    memory = figures["patched"]["memory"]
    parts.append(csv_table(
        "Memory, in bytes",
        ["for", "bytes"],
        [["a map with tracers", number(memory["traced_map"])],
         ["each link, with its file", number(memory["link"])]],
    ))

    parts.append(states_tables(figures))

    before, after = figures["unpatched"], figures["patched"]
    sizes = [["struct bpf_map, bytes", before["size"]["struct bpf_map"],
              after["size"]["struct bpf_map"]]]
    for program in "program with one update", "program without":
        for form in "xlated", "jited":
            sizes.append([f"{program}, {form}, bytes", before["size"][program][form],
                          after["size"][program][form]])
    for calls in after["load"]:
        sizes.append([f"load of a program with {calls}, instructions",
                      before["load"][calls], after["load"][calls]])
    parts.append(csv_table(
        "What is not traced",
        ["", "unpatched kernel", "patched", "more"],
        [[name, number(old), number(new), f"{(new - old) / old * 100:.1f} %"]
         for name, old, new in sizes],
    ))

    if "time" in figures:
        parts.append(time_table(figures["time"]))
    return "\n".join(parts)


def states_tables(figures):
    """What sync tracers cost beside the operations."""
    before, after = figures["unpatched"]["lookups"], figures["patched"]["lookups"]
    states = figures["patched"]["states"]
    worker = states["worker"]
    return "\n".join([
        csv_table(
            "Lookups by programs, in guest instructions; written: through the pointer that they get",
            ["", "unpatched kernel", "not traced", "traced", "traced, and marked now"],
            [[name] + [number(value) for value in (
                before[name]["untraced"], row["untraced"], row.get("marked", row.get("traced")), row.get("marks"))]
             for name, row in after.items()],
        ),
        csv_table(
            "A hash map of 1,000,000 elements with a sync tracer that does nothing",
            ["", "instructions"],
            [["replay, for each element", number(states["replay"])],
             ["flush, for each element", number(states["flush"])],
             ["a round of the worker, for each element that it passes", number(worker["passed"])],
             ["the same, for each that is marked, more", number(worker["marked"])],
             ["rounds while nothing is marked, in 5 seconds", number(worker["idle"])],
             ["one element written through a pointer each millisecond: the worker's share of a CPU",
              f"{worker['hot']['percent']:.1f} %"],
             ["the same: how often a second its tracer is told", number(worker["hot"]["told"])]],
        ),
        csv_table(
            "Memory for a map's first sync tracer, its link included, in bytes",
            ["map", "bytes"],
            [[name, number(value)] for name, value in states["memory"].items()],
        ),
    ])


def time_table(time):
    """Nanoseconds, where a guest runs on a real processor."""
    rows = []
    for name, row in time["patched"]["quartiles"].items():
        old = time["unpatched"]["quartiles"][name]["unpatched"]
        cells = [name]
        for quartiles in [old] + [row.get(column) for column in MAP_TRACE + HOOKS]:
            # Not every hook has a function to attach to.
            cells.append(f"{quartiles['2']:.0f} ({quartiles['1']:.0f}-{quartiles['3']:.0f})"
                         if quartiles else "-")
        rows.append(cells)
    return csv_table(
        "Nanoseconds of one operation: median and quartiles",
        ["operation", TITLES["unpatched"]] + [TITLES[column] for column in MAP_TRACE] + HOOKS,
        rows,
    )


def plot(figures, path):
    """What tracing adds to an operation, by how it is done and by how many tracers."""
    import matplotlib

    matplotlib.use("svg")
    # The same figures make the same file.
    matplotlib.rcParams["svg.hashsalt"] = "map_trace"
    import matplotlib.pyplot as plt

    row = figures["operations"][REFERENCE]
    base = row["unpatched"]
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), width_ratios=(3, 2))

    ways = [("map_trace", "bystander", "tracers_1")]
    ways += [(hook, f"{hook}_bystander", hook) for hook in HOOKS]
    for offset, which, label, color in (
        (-0.2, 1, "another map is traced", "#9db4c0"),
        (0.2, 2, "this map is traced", "#2f5d7c"),
    ):
        bars = left.bar([i + offset for i in range(len(ways))],
                        [row[way[which]] - base for way in ways], 0.38, label=label, color=color)
        left.bar_label(bars, fmt="+%g", padding=2, fontsize=9)
    left.set_xticks(range(len(ways)), [way[0] for way in ways])
    left.set_ylabel("guest instructions more")
    left.set_title(f"One update of a hash map ({base:g} instructions)", fontsize=10)
    left.legend(frameon=False)

    counts = [1, 2, 4, 8]
    added = [row[f"tracers_{count}"] - base for count in counts]
    right.plot(counts, added, "o-", color="#2f5d7c")
    for count, value in zip(counts, added):
        right.annotate(f"+{value:g}", (count, value), textcoords="offset points", xytext=(0, 7),
                       ha="center", fontsize=9)
    right.axhline(row["fexit"] - base, color="#b0413e", linestyle="--", linewidth=1)
    right.annotate("one fexit", (0.2, row["fexit"] - base), textcoords="offset points",
                   xytext=(0, 4), fontsize=9, color="#b0413e")
    right.set_xlim(0, 9)
    right.set_ylim(0, max(added + [row["fexit"] - base]) * 1.15)
    right.set_xlabel("tracers of the map")
    right.set_title("map_trace, by the number of tracers", fontsize=10)
    for axes in left, right:
        axes.spines[["top", "right"]].set_visible(False)
    left.set_ylim(0, max(row[way[2]] - base for way in ways) * 1.15)
    fig.tight_layout()
    fig.savefig(path, metadata={"Date": None})


class Checks:
    """Counts what holds and what does not, and says so in TAP."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def check(self, holds, what):
        if holds:
            self.passed += 1
        else:
            self.failed += 1
        print(f"{'ok' if holds else 'not ok'} - {what}")

    def at_most(self, value, limit, what):
        self.check(value <= limit, f"{what}: {number(value)}, at most {number(limit)}")

    def skip(self, what, why):
        self.skipped += 1
        print(f"ok - {what} # SKIP {why}")

    def finish(self):
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped")
        return 1 if self.failed else 0


def allowance(name):
    """By how much a row of operations can vary from measurement to measurement."""
    return VARYING.get(name.split()[0], 0)


def check_budgets(checks, figures):
    for name, row in figures["operations"].items():
        varies = allowance(name)
        untraced_over, traced_over = KNOWN_OVER.get(name, (0, 0))
        untraced = WITHOUT_IBT_BUDGET if WITHOUT_IBT in name else UNTRACED_BUDGET
        for column in "untraced", "bystander", "detached":
            checks.at_most(round(row[column] - row["unpatched"], 1),
                           untraced + untraced_over + varies,
                           f"budget: {name}, {TITLES[column]}, over the unpatched kernel")
        # Of some rows only what is not traced is measured.
        if "tracers_1" not in row:
            continue
        budget = EACH_CPU_BUDGET if name in EACH_CPU_ROWS else TRACED_BUDGET
        checks.at_most(round(row["tracers_1"] - row["untraced"], 1),
                       budget + traced_over + varies,
                       f"budget: {name}, 1 tracer, over none")
        if "sync_1" in row:
            budget = SYNC_LATE_BUDGET if name in SYNC_LATE_ROWS else SYNC_BUDGET
            checks.at_most(round(row["sync_1"] - row["untraced"], 1), budget + varies,
                           f"budget: {name}, 1 sync tracer, over none")
        for fewer, more in ((1, 2), (2, 4), (4, 8)):
            each = (row[f"tracers_{more}"] - row[f"tracers_{fewer}"] - varies) / (more - fewer)
            checks.at_most(round(each, 1), FURTHER_TRACER_BUDGET,
                           f"budget: {name}, each further of {more} tracers")

    before, after = figures["unpatched"]["lookups"], figures["patched"]["lookups"]
    for name, row in after.items():
        for (what, column), budget in LOOKUP_BUDGETS.items():
            if name.endswith(what):
                # Whole ones: a tick of the timer falls into each round.
                checks.at_most(round(row[column] - before[name]["untraced"]),
                               budget + LOOKUPS_KNOWN_OVER.get((name, column), 0),
                               f"budget: {name}, {column}, over the unpatched kernel")
    states = figures["patched"]["states"]
    checks.at_most(states["replay"], REPLAY_BUDGET, "budget: replay of 1,000,000 elements, each")
    checks.at_most(states["flush"], FLUSH_BUDGET, "budget: flush of 1,000,000 elements, each")
    checks.at_most(states["worker"]["passed"], PASSED_BUDGET,
                   "budget: a round of the worker, each element that it passes")
    checks.at_most(states["worker"]["marked"], MARKED_BUDGET,
                   "budget: a round of the worker, each element that is marked, more")
    checks.at_most(states["worker"]["idle"], 0, "budget: rounds of the worker with nothing marked")

    before, after = figures["unpatched"]["size"], figures["patched"]["size"]
    for program in "program with one update", "program without":
        for form in "xlated", "jited":
            checks.check(before[program][form] == after[program][form],
                         f"budget: a {program}, {form}, has the size that it has unpatched")
    before, after = figures["unpatched"]["load"], figures["patched"]["load"]
    for calls in after:
        checks.at_most(after[calls], round(before[calls] * LOAD_BUDGET, 1),
                       f"budget: load of a program with {calls}, 2 % over the unpatched kernel")

    loop_check = figures["patched"]["loop_check"]
    one = (loop_check["100"] - loop_check["0"]) / 100
    checks.at_most(round((loop_check["1000"] - loop_check["0"]) / 1000, 1), round(2 * one, 1),
                   "budget: instructions of the loop check for each of 1000 links, of 100 twice")
    latency = figures["patched"]["latency"]
    for what in "attach", "detach":
        for unit in "microseconds", "work":
            few, many = latency[what]["1"][unit], latency[what]["1000"][unit]
            checks.at_most(many, round(few * 1.5, 1),
                           f"budget: {what} among 1000 links, {unit}, half more than alone")

    checks.check(len(figures["locked"]) == 6, "disassembly: the trampolines are found")
    for function, instructions in figures["locked"].items():
        checks.check(not instructions, f"budget: no locked instruction in {function} {instructions}")


def check_anchors(checks, figures):
    versions = figures["versions"]
    if not (versions["kernel"].startswith(ANCHORS["kernel"] + "-")
            and f"version {ANCHORS['clang']}." in versions["clang"]):
        checks.skip("anchors", f"they are of {ANCHORS['kernel']} and clang {ANCHORS['clang']}, "
                    f"this is {versions['kernel']} and {versions['clang']}")
        return
    for (name, column, over), anchor in ANCHORS["figures"].items():
        row = figures["operations"][name]
        value = row[column] - (row[over] if over else 0)
        checks.check(abs(value / anchor - 1) <= ANCHORS["tolerance"],
                     f"anchor: {name}, {column}{f', over {over}' if over else ''}: "
                     f"{number(value)}, was {anchor}")


def check_committed(checks, figures, committed):
    if figures["versions"] != committed["versions"]:
        checks.skip("committed figures", f"they are of {committed['versions']}, "
                    f"this is {figures['versions']}")
        return
    for name, row in committed["operations"].items():
        if WITHOUT_IBT in name and name not in figures["operations"]:
            checks.skip(f"committed: {name}", "measured with INTERPRETER=1 only")
            continue
        for column, value in row.items():
            now = figures["operations"].get(name, {}).get(column)
            if now is None:
                checks.check(False, f"committed: {name}, {column}: not measured")
            elif now > value + TOLERANCE + allowance(name):
                checks.check(False, f"committed: {name}, {column}: {now}, was {value}")
    checks.check(True, "committed: the others are not exceeded")


def main(arguments):
    match arguments:
        case ["collect", results, output]:
            figures = collect(Path(results))
            Path(output).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        case ["tables", source]:
            print(tables(json.loads(Path(source).read_text(encoding="utf-8"))), end="")
        case ["plot", source, output]:
            plot(json.loads(Path(source).read_text(encoding="utf-8")), output)
        case ["check", source, committed]:
            checks = Checks()
            figures = json.loads(Path(source).read_text(encoding="utf-8"))
            check_anchors(checks, figures)
            check_budgets(checks, figures)
            check_committed(checks, figures,
                            json.loads(Path(committed).read_text(encoding="utf-8")))
            return checks.finish()
        case _:
            sys.exit(__doc__)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
