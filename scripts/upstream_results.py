# SPDX-License-Identifier: GPL-2.0
"""What the kernel's own tests of BPF have said on one kernel, and how that differs from another.

upstream_results.py missing STORE LIST
	prints the tests of LIST that STORE has no results of
upstream_results.py add STORE LIST CONSOLE
	adds those that a guest has printed, and prints the tests of LIST that it did not get to
upstream_results.py add-log STORE REPORTS
	adds what scan-log has found in its kernel's log
upstream_results.py differ BASE STORE EXPECTED KIND LIST
	prints the tests that differ, other than expected: they are to be run again on both
upstream_results.py compare BASE STORE EXPECTED KIND LIST
	prints how STORE differs from BASE, as TAP; the last line is "N passed, N failed, N skipped"

A test is a line of LIST: test_verifier, test_maps, or "test_progs NAME". Each has results of its
own, and is run as a whole. A store keeps those of each time that it was run.
"""

import fnmatch
import json
import os
import re
import sys

PROGS = re.compile(r"#(\d+)(/\d+)?\s+(\S.*):(OK|FAIL|SKIP)( \(.*\))?$")
VERIFIER = re.compile(r"#(\d+/[pu]) (.*)$")
VERIFIER_STATUS = re.compile(r"\s*(?:\d+ cases )?(OK|FAIL|SKIP)(?: \(.*\))?$")
MAPS = re.compile(r"(\w+):? ?(PASS|SKIP)$")
MAPS_END = re.compile(r"test_maps: (OK, \d+ SKIPPED)$")
ABSENT = "absent"
RERUNS = 3


def read_list(path):
    with open(path, encoding="utf-8") as file:
        return [line.strip() for line in file if line.strip()]


class Store:
    """tests: of each test a list of runs, each with a status for each result.
    reports: what kernels have complained of."""

    def __init__(self, path):
        self.path = path
        self.tests, self.reports = {}, []
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                saved = json.load(file)
            self.tests, self.reports = saved["tests"], saved["reports"]

    def save(self):
        with open(self.path + ".new", "w", encoding="utf-8") as file:
            json.dump({"tests": self.tests, "reports": self.reports}, file, indent=1)
        os.rename(self.path + ".new", self.path)


def programs(console):
    """The programs that a guest has run: name, lines, and how each ended, or None"""
    name, lines = None, []
    for line in console:
        line = line.rstrip("\r\n")
        if line.startswith("# begin "):
            if name:
                yield name, lines, None
            name, lines = line[len("# begin "):], []
        elif name and line.startswith(f"# end {name} "):
            yield name, lines, int(line.split()[-1])
            name = None
        elif name:
            lines.append(line)
    if name:
        yield name, lines, None


def put(results, name, status):
    """Results of one name are one, in their order."""
    results[name] = f"{results[name]}, {status}" if name in results else status


def read_verifier(lines):
    results, name = {}, None
    for line in lines:
        match = VERIFIER.match(line)
        if match:
            name = f"{match[1]} {match[2]}"
            line = match[2]
        if name is None:
            continue
        status = VERIFIER_STATUS.search(line)
        # What a program prints comes between, each on a line of its own.
        if status and (match or status.start() == 0):
            if match:
                name = f"{match[1]} {line[:status.start()]}"
            put(results, name, status[1])
            name = None
    if name is not None:
        put(results, name, "no result")
    return results


def read_maps(lines):
    results = {}
    for line in lines:
        end = MAPS_END.match(line)
        match = MAPS.match(line)
        if end:
            put(results, "end", end[1])
        elif match:
            put(results, match[1], match[2])
    return results


def read_progs(lines):
    """By test, results; and of a test that did not end those that it had"""
    tests, open_results = {}, {}
    for line in lines:
        # What failed is repeated from here on.
        if line == "All error logs:":
            break
        match = PROGS.match(line)
        if not match:
            continue
        status = match[4] + (match[5] or "")
        if match[2]:
            put(open_results, match[3], status)
        else:
            put(open_results, match[3], status)
            tests[match[3]] = open_results
            open_results = {}
    return tests, open_results


def ended(status):
    return "the guest died" if status is None else f"ended with status {status}"


def add(store, wanted, console):
    """Has what was not reached"""
    left = list(wanted)

    def record(test, results):
        store.tests.setdefault(test, []).append(results)
        if test in left:
            left.remove(test)

    for program, lines, status in programs(console):
        if program in ("test_verifier", "test_maps"):
            results = read_verifier(lines) if program == "test_verifier" else read_maps(lines)
            # One that has failed says so by its status, too.
            put(results, "program", ended(status))
            record(program, results)
        elif program == "test_progs":
            tests, partial = read_progs(lines)
            for name, results in tests.items():
                record(f"test_progs {name}", results)
            missing = [test for test in wanted
                       if test.startswith("test_progs ") and test.split()[1] not in tests]
            if missing:
                put(partial, missing[0].split()[1], ended(status))
                record(missing[0], partial)
            elif tests and status not in (0, 1):
                # All are there, and it has died at its end.
                put(results, "program", ended(status))
    return left


def title(line):
    """A report without what is another one each time"""
    line = re.sub(r"^\d+:", "", line)
    line = re.sub(r"^\[[ \d.]+\](\[ *[TC]\d+\])? *", "", line)
    line = re.sub(r"\+0x[0-9a-f]+(/0x[0-9a-f]+)?", "", line)
    line = re.sub(r"\b(0x)?[0-9a-f]{8,}\b", "N", line)
    return re.sub(r"\d+", "N", line).strip()


def add_log(store, reports):
    for line in reports:
        if re.match(r"\d+:", line) and title(line) not in store.reports:
            store.reports.append(title(line))


class Expected:
    """What is known to differ: lines of KINDS | TEST: RESULT | STATUS | REASON. KINDS are words;
    the result a pattern; the status what it is in these kinds, or "sometimes": not each time.
    "log" in place of a test is for reports of the kernel, which need not be there."""

    def __init__(self, path, kind):
        self.entries = []
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                line = line.strip()
                if not line or line.startswith("#"):
                    continue
                fields = [field.strip() for field in line.split("|")]
                if len(fields) != 4 or not fields[3]:
                    sys.exit(f"{path}:{number}: not KINDS | TEST: RESULT | STATUS | REASON")
                kinds, name, status, reason = fields
                if kind in kinds.split():
                    self.entries.append({"name": name, "status": status, "reason": reason,
                                         "met": False})

    def find(self, name, status):
        for entry in self.entries:
            if fnmatch.fnmatchcase(name, entry["name"]) and \
                    entry["status"] in ("sometimes", status):
                entry["met"] = True
                return entry
        return None

    def unmet(self, tests):
        """Those that have to differ, and did not, of the tests that were run"""
        for entry in self.entries:
            test = entry["name"].split(":")[0]
            if entry["status"] != "sometimes" and not entry["met"] and test in tests:
                yield entry


def judge(base_runs, runs):
    """Of one test, for each result: how it differs, None if not. "once" is whether it was so
    the first time only, and not when it was run again."""
    names = {}
    for run in base_runs + runs:
        names.update(dict.fromkeys(run))
    for name in names:
        wanted = [run.get(name, ABSENT) for run in base_runs]
        had = [run.get(name, ABSENT) for run in runs]
        # One that has failed once on the unpatched kernel is not excused from ever passing here.
        fine = wanted if "OK" not in wanted or "OK" in had else ["OK"]
        other = [status for status in had if status not in fine]
        once = bool(other) and len(had) > RERUNS and other == had[:1]
        yield name, wanted, had, other[0] if other else None, once


def differ(base, store, expected, tests):
    for test in tests:
        for name, _, _, other, _ in judge(base.tests.get(test, []), store.tests.get(test, [])):
            if other is None:
                continue
            entry = expected.find(f"{test}: {name}", other)
            if not entry or entry["status"] == "sometimes":
                yield test
                break


def word(status):
    return re.match(r"[A-Z]*", status)[0] or "other"


def compare(base, store, expected, kind, tests):
    passed = failed = skipped = 0
    counts = {}
    for test in tests:
        if not base.tests.get(test) or not store.tests.get(test):
            print(f"not ok - {kind}: {test}: never ran" +
                  ("" if base.tests.get(test) else " on the unpatched kernel"))
            failed += 1
            continue
        for name, wanted, had, other, once in judge(base.tests[test], store.tests[test]):
            where = f"{test}: {name}"
            counts.setdefault(word(wanted[0]), [0, 0])[0] += 1
            counts.setdefault(word(had[0]), [0, 0])[1] += 1
            if other is None:
                if wanted == ["SKIP"]:
                    skipped += 1
                else:
                    passed += 1
                if len(set(wanted)) > 1:
                    print(f"# {where}: not the same each time on the unpatched kernel either: "
                          + ", ".join(wanted))
                continue
            entry = expected.find(where, other)
            if entry and entry["status"] == "sometimes" and not set(had) & set(wanted):
                print(f"not ok - {kind}: {where}: expected sometimes, but is so each time: "
                      f"{', '.join(had)}; unpatched {', '.join(wanted)}")
                failed += 1
            elif entry:
                print(f"# {where}: {other}, unpatched {wanted[0]}; expected: {entry['reason']}")
                passed += 1
            elif once:
                print(f"# {where}: {other} once, and as unpatched {len(had) - 1} times after that")
                passed += 1
            else:
                print(f"not ok - {kind}: {where}: {', '.join(had)}; unpatched {', '.join(wanted)}")
                failed += 1
    for entry in expected.unmet(tests):
        print(f"not ok - {kind}: {entry['name']} is expected to be {entry['status']}, and is not")
        failed += 1
    for report in store.reports:
        # A stall is of the moment, and one here has no excuse in one there.
        if report in base.reports and "stall" not in report:
            continue
        entry = expected.find(f"log: {report}", "")
        if entry:
            print(f"# log: {report}; expected: {entry['reason']}")
        else:
            print(f"not ok - {kind}: the kernel reports, and not the unpatched one: {report}")
            failed += 1
    for status, (unpatched, here) in counts.items():
        print(f"# {status}: {here}, unpatched {unpatched}")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return failed == 0 and passed > 0


def main():
    what, *arguments = sys.argv[1:]
    if what == "missing":
        store = Store(arguments[0])
        print("\n".join(test for test in read_list(arguments[1]) if test not in store.tests))
    elif what == "add":
        store = Store(arguments[0])
        with open(arguments[2], encoding="utf-8", errors="replace") as file:
            left = add(store, read_list(arguments[1]), file)
        store.save()
        print("\n".join(left))
    elif what == "add-log":
        store = Store(arguments[0])
        with open(arguments[1], encoding="utf-8", errors="replace") as file:
            add_log(store, file)
        store.save()
    elif what in ("differ", "compare"):
        base, store = Store(arguments[0]), Store(arguments[1])
        expected, tests = Expected(arguments[2], arguments[3]), read_list(arguments[4])
        if what == "differ":
            print("\n".join(differ(base, store, expected, tests)))
        elif not compare(base, store, expected, arguments[3], tests):
            sys.exit(1)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
